"""Images of a point source: all solutions theta of the lens equation.

The image plane is tiled with triangles. A triangle that contains the source after mapping to the source plane
contains an image. Near a fold of the mapping, a triangle may contain two images without containing the
source; its distance from the source is then at most its deviation from the curved mapping. Cells of both
kinds are tiled again with smaller triangles. The small cells selected in the same way provide the starting
points for Newton's method.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from lensjax.physics.checks import check_length, check_number
from lensjax.physics.jacobian import hessian
from lensjax.physics.rays import Deflection, ray_shooting
from lensjax.physics.types import Scalar

NEWTON_STEPS = 30
# Circles that determine the size of the search window: radii, arcsec, and angles of the points, radians.
RADII = 1e-6 * 1.25 ** np.arange(104)
ANGLES = 2 * np.pi * (np.arange(32) + 0.5) / 32
DEFAULT_WINDOW = 6.0  # arcsec, for a lens that has images at any distance


class PointImages(NamedTuple):
    """Images of a point source, brightest first; entries that are not images are 0.

    Attributes:
      x, y: positions, arcsec.
      magnification: signed magnifications, dimensionless.
      parity: 1 at minima and maxima of the arrival time, -1 at saddle points, where images are mirrored.
      mask: True for entries that are images.
      complete: False if images may be missing: outside the window, or because there are more than
        `max_images`, or more cells to refine than `candidates`.
    """

    x: Float[Array, " images"]
    y: Float[Array, " images"]
    magnification: Float[Array, " images"]
    parity: Float[Array, " images"]
    mask: Bool[Array, " images"]
    complete: Bool[Array, ""]


def image_positions(
    deflection: Deflection,
    beta_x: Scalar,
    beta_y: Scalar,
    *,
    search_window: float | None = None,
    cells: int = 60,
    center_x: Scalar = 0.0,
    center_y: Scalar = 0.0,
    max_images: int = 8,
    min_magnification: float = 1e-6,
    refinement: int = 10,
    candidates: int = 64,
) -> PointImages:
    """Finds all images of a point source and their magnifications.

    Use it inside `jax.jit`, with `jax.vmap` over sources, lenses or both. Positions and magnifications have
    derivatives of any order with respect to the source and the parameters of the deflection, by the implicit
    function theorem. The derivatives are infinite where two images merge, on a critical curve. Two images
    closer than search_window / (cells * refinement) may be missed, as may those of a mass with an Einstein
    radius below a cell. For a source just outside a caustic, within rounding error, an image may be found
    that does not exist. For an image that is a ring, some of its points are found.

    Args:
      deflection: function of x and y that returns the two deflection components; all in arcsec.
      beta_x, beta_y: position of the source, arcsec.
      search_window: side of the square search window, arcsec. By default it contains all images: no ray
        outside it reaches the source. It is 6 for a lens without such a limit, such as a sheet of convergence
        1; `complete` is then False.
      cells: number of cells along each side of the window.
      center_x, center_y: center of the window, arcsec.
      max_images: number of entries in the result; the brightest images are kept.
      min_magnification: fainter images are omitted. The central image of a singular profile with a core of
        1e-8 arcsec has a magnification of (1e-8 / theta_E)^2.
      refinement: number of small cells along each side of a cell near an image.
      candidates: maximum number of cells that are refined; lenses with many small masses need more.

    Returns:
      Positions, magnifications, parities and a mask, each of length `max_images`, and whether they are
      complete.

    Raises:
      ValueError: if `cells` or `refinement` is below 2, `max_images` or `candidates` is below 1, or the
        window is not positive.

    References: Keeton 2001, "Computational methods for gravitational lensing", for the tiling;
    Blondel et al. 2022, "Efficient and Modular Implicit Differentiation", for the derivatives.
    """
    point = jnp.zeros((), jnp.result_type(beta_x, beta_y, 0.0))
    dtype = jnp.result_type(point, *jax.eval_shape(deflection, point, point))
    source, center = (
        lax.stop_gradient((jnp.asarray(x, dtype), jnp.asarray(y, dtype)))
        for x, y in ((beta_x, beta_y), (center_x, center_y))
    )
    cells, refinement = check_number("cells", cells, 2), check_number("refinement", refinement, 2)
    max_images, candidates = check_number("max_images", max_images), check_number("candidates", candidates)
    limit = _limit_of_images(deflection, source, center)
    if search_window is not None:
        check_length("search_window", search_window)
    automatic = jnp.where(jnp.isfinite(limit), 2.1 * limit, DEFAULT_WINDOW)
    window = automatic if search_window is None else jnp.asarray(search_window, dtype)
    axis = (jnp.arange(cells + 1, dtype=dtype) / cells - 0.5) * window
    y, x = jnp.meshgrid(axis + center[1], axis + center[0], indexing="ij")
    side = window / cells
    numbers = min(candidates, cells**2), 4 * max_images
    start, is_candidate, all_searched = _starting_points(
        deflection, (x, y), source, side, refinement, numbers
    )
    fixed = _stop_parameter_gradients(deflection, start[0])
    x, y, distance = _newton(fixed, start, source, largest_step=side)
    determinant = _determinant(hessian(fixed, x, y))
    precision = max(16 * float(jnp.finfo(dtype).eps), 1e-11) * window
    is_bright = abs(determinant) * min_magnification <= 1
    is_inside = jnp.maximum(abs(x - center[0]), abs(y - center[1])) <= window / 2
    is_image = is_candidate & (distance <= precision) & is_bright & is_inside
    magnification = jnp.where(is_image, 1 / jnp.where(is_image, determinant, 1), 0)
    is_image &= ~_duplicates(x, y, magnification, is_image, precision, side / refinement)
    missing = max(max_images - is_image.size, 0)
    x, y, magnification, is_image = (jnp.pad(part, (0, missing)) for part in (x, y, magnification, is_image))
    complete = all_searched & (is_image.sum() <= max_images) & (limit <= window / 2)
    _, brightest = lax.top_k(jnp.where(is_image, abs(magnification), -1), max_images)
    mask = is_image[brightest]
    # Entries without an image are set to a position with finite derivatives: a corner of the window.
    x, y = (
        jnp.where(mask, coordinate[brightest], middle + window / 2)
        for coordinate, middle in zip((x, y), center, strict=True)
    )
    return _with_derivatives(deflection, (x, y), mask, beta_x, beta_y)._replace(complete=complete)


def _limit_of_images(
    deflection: Deflection, source: tuple[Array, Array], center: tuple[Array, Array]
) -> Float[Array, ""]:
    """Radius, around the center of the window, that contains all images; infinite if there is none.

    At an image, the ray arrives at the source. A circle has no image if all of its rays arrive outward of the
    source, seen from the center, or all inward. Beyond the returned radius, all circles are of one kind.
    """
    radius, angle = jnp.asarray(RADII, source[0].dtype)[:, None], jnp.asarray(ANGLES, source[0].dtype)[None]
    out_x, out_y = jnp.cos(angle), jnp.sin(angle)
    x, y = center[0] + radius * out_x, center[1] + radius * out_y
    beta_x, beta_y = ray_shooting(_stop_parameter_gradients(deflection, x), x, y)
    outward = out_x * (beta_x - source[0]) + out_y * (beta_y - source[1])
    kind = (outward > 0).all(1).astype(int) - (outward < 0).all(1).astype(int)
    differs = (kind != kind[-1]).at[0].set(True)
    last = differs.shape[0] - 1 - jnp.argmax(differs[::-1])
    return jnp.where(kind[-1] == 0, jnp.inf, radius[last + 1, 0])


def _starting_points(
    deflection: Deflection,
    grid: tuple[Array, Array],
    source: tuple[Array, Array],
    side: Scalar,
    refinement: int,
    numbers: tuple[int, int],
) -> tuple[tuple[Array, Array], Array, Array]:
    """Centers of the small cells that may contain an image, most likely first.

    Args:
      deflection: function of x and y that returns the two deflection components; all in arcsec.
      grid: x and y of the cell corners, arcsec.
      source: position of the source, arcsec.
      side: side of a cell, arcsec.
      refinement: number of small cells along the side of a cell.
      numbers: number of cells to refine, and number of small cells to return.

    Returns:
      x and y, arcsec, a mask of the cells that may contain an image, and True if no cell with an image is
      left out.
    """
    x, y = (coordinate[None] for coordinate in grid)
    _, (left, bottom), all_cells = _select_cells(deflection, (x, y), source, numbers[0])
    side = side / refinement
    offsets = jnp.arange(refinement + 1, dtype=left.dtype) * side
    shape = (left.size, refinement + 1, refinement + 1)
    x = jnp.broadcast_to(left[:, None, None] + offsets[None, None, :], shape)
    y = jnp.broadcast_to(bottom[:, None, None] + offsets[None, :, None], shape)
    is_candidate, (left, bottom), all_small = _select_cells(deflection, (x, y), source, numbers[1])
    return (left + side / 2, bottom + side / 2), is_candidate, all_cells & all_small


def _select_cells(
    deflection: Deflection, grids: tuple[Array, Array], source: tuple[Array, Array], number: int
) -> tuple[Array, tuple[Array, Array], Array]:
    """For the most likely cells: mask of those that may contain an image, and first corner of each.

    The last value is True if all cells that contain an image are among them.
    """
    beta = ray_shooting(_stop_parameter_gradients(deflection, grids[0]), *grids)
    score = _cell_score(beta, source).ravel()
    _, best = lax.top_k(-score, min(number, score.size))
    x, y = (coordinate[:, :-1, :-1].ravel()[best] for coordinate in grids)
    return score[best] <= 1, (x, y), (score == 0).sum() <= number


def _stop_parameter_gradients(deflection: Deflection, x: Array) -> Deflection:
    """Deflection without derivatives in its parameters, for arrays of the shape of x.

    This avoids compiling derivatives of the search, which are not needed.
    """
    pure, parameters = jax.closure_convert(deflection, x, x)
    fixed = lax.stop_gradient(parameters)
    return lambda x, y: pure(x, y, *fixed)


def _with_derivatives(
    deflection: Deflection, theta: tuple[Array, Array], mask: Array, beta_x: ArrayLike, beta_y: ArrayLike
) -> PointImages:
    """Images at solutions of the lens equation, with implicit derivatives."""

    def residual(theta: tuple[Array, Array]) -> tuple[Array, Array]:
        found_x, found_y = ray_shooting(deflection, *theta)
        return found_x - beta_x, found_y - beta_y

    def solve_linear(linear: Any, residual: tuple[Array, Array]) -> tuple[Array, Array]:
        one, zero = jnp.ones_like(residual[0]), jnp.zeros_like(residual[0])
        (xx, yx), (xy, yy) = linear((one, zero)), linear((zero, one))
        determinant = jnp.where(mask, xx * yy - xy * yx, 1)
        theta_x = (yy * residual[0] - xy * residual[1]) / determinant
        theta_y = (xx * residual[1] - yx * residual[0]) / determinant
        return jnp.where(mask, theta_x, 0), jnp.where(mask, theta_y, 0)

    x, y = lax.custom_root(residual, theta, lambda _, solution: solution, solve_linear)
    determinant = jnp.where(mask, _determinant(hessian(deflection, x, y)), 1)
    return PointImages(
        x=jnp.where(mask, x, 0),
        y=jnp.where(mask, y, 0),
        magnification=jnp.where(mask, 1 / determinant, 0),
        parity=jnp.where(mask, jnp.sign(determinant), 0),
        mask=mask,
        complete=jnp.asarray(True),
    )


def _determinant(derivatives: tuple[Array, Array, Array, Array]) -> Array:
    f_xx, f_xy, f_yx, f_yy = derivatives
    return (1 - f_xx) * (1 - f_yy) - f_xy * f_yx


def _newton_step(
    deflection: Deflection, x: Array, y: Array, beta_x: ArrayLike, beta_y: ArrayLike, mask: Array
) -> tuple[Array, Array]:
    """Newton step toward an image of beta where `mask` is true; the determinant must not be 0 there."""
    found_x, found_y = ray_shooting(deflection, x, y)
    missing_x, missing_y = beta_x - found_x, beta_y - found_y
    derivatives = hessian(deflection, x, y)
    f_xx, f_xy, f_yx, f_yy = derivatives
    determinant = jnp.where(mask, _determinant(derivatives), 1)
    step_x = ((1 - f_yy) * missing_x + f_xy * missing_y) / determinant
    step_y = (f_yx * missing_x + (1 - f_xx) * missing_y) / determinant
    return jnp.where(mask, step_x, 0), jnp.where(mask, step_y, 0)


def _newton(
    deflection: Deflection, start: tuple[Array, Array], source: tuple[Array, Array], largest_step: Scalar
) -> tuple[Array, Array, Array]:
    """Damped Newton iteration; returns x, y and the source-plane distance of the ray from the source."""

    def source_distance(x: Array, y: Array) -> Array:
        found_x, found_y = ray_shooting(deflection, x, y)
        return jnp.hypot(source[0] - found_x, source[1] - found_y)

    def iterate(
        state: tuple[Array, Array, Array, Array], _: None
    ) -> tuple[tuple[Array, Array, Array, Array], None]:
        x, y, distance, damping = state
        is_regular = _determinant(hessian(deflection, x, y)) != 0
        step_x, step_y = _newton_step(deflection, x, y, *source, is_regular)
        length = jnp.maximum(abs(step_x), abs(step_y))
        scale = damping * largest_step / jnp.maximum(length, largest_step)
        new_x, new_y = x + scale * step_x, y + scale * step_y
        new_distance = source_distance(new_x, new_y)
        closer = new_distance < distance
        x, y = jnp.where(closer, new_x, x), jnp.where(closer, new_y, y)
        damping = jnp.where(closer, jnp.minimum(1, 2 * damping), damping / 4)
        return (x, y, jnp.where(closer, new_distance, distance), damping), None

    initial = (*start, source_distance(*start), jnp.ones_like(start[0]))
    (x, y, distance, _), _ = lax.scan(iterate, initial, length=NEWTON_STEPS)
    return x, y, distance


def _duplicates(
    x: Array, y: Array, magnification: Array, is_image: Array, precision: Scalar, side: Scalar
) -> Array:
    """Mask of the images that an earlier starting point also reached.

    Images of opposite parity are always distinct: near a fold the two images of a pair are close together.
    """
    distance = jnp.hypot(x[:, None] - x[None], y[:, None] - y[None])
    tolerance = jnp.minimum(4 * precision * (1 + abs(magnification)), side)
    sign = jnp.sign(magnification)
    same = (distance <= tolerance[:, None]) & (sign[:, None] == sign[None])
    index = jnp.arange(x.size)
    return (same & is_image[None] & (index[None] < index[:, None])).any(axis=1)


def _cell_score(
    beta: tuple[Array, Array], source: tuple[Array, Array]
) -> Float[Array, "tilings rows columns"]:
    """Score of each cell: 0 if it contains an image, up to 1 if it may contain one.

    The score is the distance, in the source plane, of the source from the nearer of the cell's two triangles,
    in units of the cell's deviation from the triangles, which is estimated from second differences.
    """
    u, v = beta[0] - source[0], beta[1] - source[1]
    corners = [(part[:, :-1, :-1], part[:, :-1, 1:], part[:, 1:, :-1], part[:, 1:, 1:]) for part in (u, v)]
    one, two, three, four = zip(*corners, strict=True)
    distance = jnp.minimum(
        _distance_from_origin((one, two, three)), _distance_from_origin((four, three, two))
    )
    mixed = jnp.hypot(*(part[0] - part[1] - part[2] + part[3] for part in corners))
    curvature = jnp.hypot(*(_second_difference(part, 1) for part in (u, v)))
    curvature += jnp.hypot(*(_second_difference(part, 2) for part in (u, v)))
    return distance / ((curvature + mixed) / 2 + jnp.finfo(u.dtype).tiny)


def _second_difference(values: Array, axis: int) -> Array:
    """Largest absolute second difference along an axis at the corners of each cell."""
    second = abs(jnp.diff(values, 2, axis=axis))
    widths = [(1, 1) if axis == along else (0, 0) for along in range(3)]
    second = jnp.pad(second, widths, mode="edge")
    second = jnp.maximum(second[:, 1:], second[:, :-1])
    return jnp.maximum(second[:, :, 1:], second[:, :, :-1])


def _distance_from_origin(triangle: tuple[tuple[Array, Array], ...]) -> Array:
    """Distance of a triangle, which may be degenerate, from the origin; 0 if it contains the origin."""
    distances, turns = [], []
    for (u, v), (next_u, next_v) in zip(triangle, (*triangle[1:], triangle[0]), strict=True):
        along_u, along_v = next_u - u, next_v - v
        length = along_u**2 + along_v**2
        fraction = jnp.clip(-(u * along_u + v * along_v) / jnp.where(length > 0, length, 1), 0, 1)
        distances.append(jnp.hypot(u + fraction * along_u, v + fraction * along_v))
        turns.append(u * along_v - v * along_u)
    counterclockwise = (turns[0] >= 0) & (turns[1] >= 0) & (turns[2] >= 0)
    clockwise = (turns[0] <= 0) & (turns[1] <= 0) & (turns[2] <= 0)
    area = turns[0] + turns[1] + turns[2]
    nearest = jnp.minimum(jnp.minimum(distances[0], distances[1]), distances[2])
    return jnp.where((counterclockwise | clockwise) & (area != 0), 0, nearest)
