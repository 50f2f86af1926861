"""Where the images of a source lie: the lens equation solved for theta, all images at once.

The image plane is tiled with triangles. A triangle that, carried to the source plane, holds the source
has an image in it. So have, perhaps, two images each those that come as close to the source as the lens
bends them, at the folds of the map. All these are tiled again more finely, and each small one left is a start
for Newton's iteration.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from lensjax.physics.magnification import hessian
from lensjax.physics.rays import Deflection, inverse_ray_shoot

NEWTON_STEPS = 30


class Images(NamedTuple):
    """Images of a point source, the brightest first; entries without an image are 0.

    Attributes:
      x, y: positions, arcsec.
      magnification: signed, dimensionless.
      parity: 1 at minima and maxima of the arrival time, -1 at saddle points, where images are mirrored.
      mask: which entries are images.
    """

    x: Float[Array, " images"]
    y: Float[Array, " images"]
    magnification: Float[Array, " images"]
    parity: Float[Array, " images"]
    mask: Bool[Array, " images"]


def image_positions(
    deflection: Deflection,
    beta_x: Float[ArrayLike, ""],
    beta_y: Float[ArrayLike, ""],
    *,
    search_window: float = 6.0,
    cells: int = 60,
    center_x: Float[ArrayLike, ""] = 0.0,
    center_y: Float[ArrayLike, ""] = 0.0,
    max_images: int = 8,
    min_magnification: float = 1e-6,
    refinement: int = 10,
    candidates: int = 64,
) -> Images:
    """All images of a point source, with magnifications.

    Use `jax.vmap` over sources, lenses or both, inside `jax.jit`. Positions and magnifications have their
    derivatives, of any order, with respect to the source and to what the deflection depends on, by
    the implicit function theorem; where two images merge, on a critical curve, these are infinite. Two
    images closer together than search_window / (cells * refinement) may be missed, or one be seen a hair
    beyond a caustic, within rounding. Of an image that is a ring, some points are found.

    Args:
      deflection: takes x and y, gives the two components of the deflection; all arcsec.
      beta_x, beta_y: position of the source, arcsec.
      search_window: side of the square searched, arcsec.
      cells: how many the square is divided into on each side.
      center_x, center_y: middle of the square, arcsec.
      max_images: entries of the result; the brightest are kept.
      min_magnification: images fainter than this are left out; the central image of a singular profile
        with its core at 1e-8 arcsec is (1e-8 / theta_E)^2 bright.
      refinement: how many parts the cells near an image are divided into on each side.
      candidates: cells that are divided at most; more are needed for lenses with many small masses.

    Returns:
      Positions, magnifications, parities and a mask, each of length `max_images`.

    References: Keeton 2001, "Computational methods for gravitational lensing", for the tiling;
    Blondel et al. 2022, "Efficient and Modular Implicit Differentiation", for the derivatives.
    """
    point = jnp.zeros((), jnp.result_type(beta_x, beta_y, 0.0))
    dtype = jnp.result_type(point, *jax.eval_shape(deflection, point, point))
    source, middle = (
        lax.stop_gradient((jnp.asarray(x, dtype), jnp.asarray(y, dtype)))
        for x, y in ((beta_x, beta_y), (center_x, center_y))
    )
    axis = (jnp.arange(cells + 1, dtype=dtype) / cells - 0.5) * search_window
    y, x = jnp.meshgrid(axis + middle[1], axis + middle[0], indexing="ij")
    side = search_window / cells
    numbers = min(candidates, cells**2), 4 * max_images
    start, likely = _starts(deflection, (x, y), source, side, refinement, numbers)
    frozen = _frozen(deflection, start[0])
    x, y, distance = _newton(frozen, start, source, largest_step=side)
    determinant = _determinant(hessian(frozen, x, y))
    precision = max(16 * float(jnp.finfo(dtype).eps), 1e-11) * search_window
    bright = abs(determinant) * min_magnification <= 1
    inside = jnp.maximum(abs(x - middle[0]), abs(y - middle[1])) <= search_window / 2
    found = likely & (distance <= precision) & bright & inside
    magnification = jnp.where(found, 1 / jnp.where(found, determinant, 1), 0)
    found &= ~_seen_before(x, y, magnification, found, precision, side / refinement)
    _, best = lax.top_k(jnp.where(found, abs(magnification), -1), max_images)
    mask = found[best]
    # Where there is no image, a place with finite derivatives: a corner of the window.
    x, y = (
        jnp.where(mask, part[best], part_middle + search_window / 2)
        for part, part_middle in zip((x, y), middle, strict=True)
    )
    return _differentiable(deflection, (x, y), mask, beta_x, beta_y)


def _starts(
    deflection: Deflection,
    grid: tuple[Array, Array],
    source: tuple[Array, Array],
    side: float,
    refinement: int,
    numbers: tuple[int, int],
) -> tuple[tuple[Array, Array], Array]:
    """Middles of the small cells that may have an image in them, the likeliest first.

    Args:
      deflection: takes x and y, gives the two components of the deflection; all arcsec.
      grid: x and y of the corners of the cells, arcsec.
      source: position of the source, arcsec.
      side: of a cell, arcsec.
      refinement: how many small cells go along a cell's side.
      numbers: how many cells are divided, and how many small cells are given.

    Returns:
      x and y, arcsec, and which of them are worth a try.
    """
    x, y = (part[None] for part in grid)
    _, (left, low) = _best_cells(deflection, (x, y), source, numbers[0])
    side = side / refinement
    fractions = jnp.arange(refinement + 1, dtype=left.dtype) * side
    shape = (left.size, refinement + 1, refinement + 1)
    x = jnp.broadcast_to(left[:, None, None] + fractions[None, None, :], shape)
    y = jnp.broadcast_to(low[:, None, None] + fractions[None, :, None], shape)
    likely, (left, low) = _best_cells(deflection, (x, y), source, numbers[1])
    return (left + side / 2, low + side / 2), likely


def _best_cells(
    deflection: Deflection, grids: tuple[Array, Array], source: tuple[Array, Array], number: int
) -> tuple[Array, tuple[Array, Array]]:
    """First corners of the cells likeliest to have an image in them, and whether they may at all."""
    score = _score(inverse_ray_shoot(_frozen(deflection, grids[0]), *grids), source).ravel()
    _, best = lax.top_k(-score, min(number, score.size))
    x, y = (part[:, :-1, :-1].ravel()[best] for part in grids)
    return score[best] <= 1, (x, y)


def _frozen(deflection: Deflection, x: Array) -> Deflection:
    """The deflection without derivatives in what it depends on, for arrays of the shape of x.

    Differentiating the search only to throw the derivatives away would make compiling it take long.
    """
    pure, parameters = jax.closure_convert(deflection, x, x)
    fixed = lax.stop_gradient(parameters)
    return lambda x, y: pure(x, y, *fixed)


def _differentiable(
    deflection: Deflection,
    at: tuple[Array, Array],
    mask: Array,
    beta_x: ArrayLike,
    beta_y: ArrayLike,
) -> Images:
    """Images at positions that solve the lens equation, with their derivatives."""

    def excess(theta: tuple[Array, Array]) -> tuple[Array, Array]:
        found_x, found_y = inverse_ray_shoot(deflection, *theta)
        return found_x - beta_x, found_y - beta_y

    def solve_linear(carry: Any, excess: tuple[Array, Array]) -> tuple[Array, Array]:
        one, zero = jnp.ones_like(excess[0]), jnp.zeros_like(excess[0])
        (xx, yx), (xy, yy) = carry((one, zero)), carry((zero, one))
        determinant = jnp.where(mask, xx * yy - xy * yx, 1)
        theta_x = (yy * excess[0] - xy * excess[1]) / determinant
        theta_y = (xx * excess[1] - yx * excess[0]) / determinant
        return jnp.where(mask, theta_x, 0), jnp.where(mask, theta_y, 0)

    x, y = lax.custom_root(excess, at, lambda _, solved: solved, solve_linear)
    determinant = jnp.where(mask, _determinant(hessian(deflection, x, y)), 1)
    return Images(
        x=jnp.where(mask, x, 0),
        y=jnp.where(mask, y, 0),
        magnification=jnp.where(mask, 1 / determinant, 0),
        parity=jnp.where(mask, jnp.sign(determinant), 0),
        mask=mask,
    )


def _determinant(derivatives: tuple[Array, Array, Array, Array]) -> Array:
    f_xx, f_xy, f_yx, f_yy = derivatives
    return (1 - f_xx) * (1 - f_yy) - f_xy * f_yx


def _step(
    deflection: Deflection, x: Array, y: Array, beta_x: ArrayLike, beta_y: ArrayLike, mask: Array
) -> tuple[Array, Array]:
    """Newton's step towards an image of beta, where `mask` says; the determinant there is not 0."""
    found_x, found_y = inverse_ray_shoot(deflection, x, y)
    missing_x, missing_y = beta_x - found_x, beta_y - found_y
    derivatives = hessian(deflection, x, y)
    f_xx, f_xy, f_yx, f_yy = derivatives
    determinant = jnp.where(mask, _determinant(derivatives), 1)
    step_x = ((1 - f_yy) * missing_x + f_xy * missing_y) / determinant
    step_y = (f_yx * missing_x + (1 - f_xx) * missing_y) / determinant
    return jnp.where(mask, step_x, 0), jnp.where(mask, step_y, 0)


def _newton(
    deflection: Deflection,
    start: tuple[Array, Array],
    source: tuple[Array, Array],
    largest_step: float,
) -> tuple[Array, Array, Array]:
    """Newton's iteration, with steps cut short until they lead closer."""

    def distance(x: Array, y: Array) -> Array:
        found_x, found_y = inverse_ray_shoot(deflection, x, y)
        return jnp.hypot(source[0] - found_x, source[1] - found_y)

    def move(
        now: tuple[Array, Array, Array, Array], _: None
    ) -> tuple[tuple[Array, Array, Array, Array], None]:
        x, y, left, part = now
        regular = _determinant(hessian(deflection, x, y)) != 0
        step_x, step_y = _step(deflection, x, y, *source, regular)
        length = jnp.maximum(abs(step_x), abs(step_y))
        scale = part * largest_step / jnp.maximum(length, largest_step)
        new_x, new_y = x + scale * step_x, y + scale * step_y
        new_left = distance(new_x, new_y)
        closer = new_left < left
        moved = jnp.where(closer, new_x, x), jnp.where(closer, new_y, y)
        part = jnp.where(closer, jnp.minimum(1, 2 * part), part / 4)
        return (*moved, jnp.where(closer, new_left, left), part), None

    begin = (*start, distance(*start), jnp.ones_like(start[0]))
    (x, y, left, _), _ = lax.scan(move, begin, length=NEWTON_STEPS)
    return x, y, left


def _seen_before(
    x: Array, y: Array, magnification: Array, found: Array, precision: float, side: float
) -> Array:
    """Which images are others over again, reached from another start.

    Those of unlike parity never are: near a fold the two images of a pair come close together.
    """
    distance = jnp.hypot(x[:, None] - x[None], y[:, None] - y[None])
    uncertain = jnp.minimum(4 * precision * (1 + abs(magnification)), side)
    sign = jnp.sign(magnification)
    same = (distance <= uncertain[:, None]) & (sign[:, None] == sign[None])
    number = jnp.arange(x.size)
    return (same & found[None] & (number[None] < number[:, None])).any(axis=1)


def _score(
    beta: tuple[Array, Array], source: tuple[Array, Array]
) -> Float[Array, "tilings rows columns"]:
    """How far each cell is from having an image in it: 0 has one, up to 1 may have.

    It is the distance, in the source plane, of the source from the nearer of the cell's two triangles,
    in units of how far the cell departs from them, estimated from second differences.
    """
    u, v = beta[0] - source[0], beta[1] - source[1]
    corners = [
        (part[:, :-1, :-1], part[:, :-1, 1:], part[:, 1:, :-1], part[:, 1:, 1:]) for part in (u, v)
    ]
    one, two, three, four = zip(*corners, strict=True)
    distance = jnp.minimum(_distance((one, two, three)), _distance((four, three, two)))
    mixed = jnp.hypot(*(part[0] - part[1] - part[2] + part[3] for part in corners))
    bend = jnp.hypot(*(_bend(part, 1) for part in (u, v)))
    bend += jnp.hypot(*(_bend(part, 2) for part in (u, v)))
    return distance / ((bend + mixed) / 2 + jnp.finfo(u.dtype).tiny)


def _bend(values: Array, axis: int) -> Array:
    """Largest second difference along an axis at the corners of each cell."""
    second = abs(jnp.diff(values, 2, axis=axis))
    widths = [(1, 1) if axis == along else (0, 0) for along in range(3)]
    second = jnp.pad(second, widths, mode="edge")
    second = jnp.maximum(second[:, 1:], second[:, :-1])
    return jnp.maximum(second[:, :, 1:], second[:, :, :-1])


def _distance(triangle: tuple[tuple[Array, Array], ...]) -> Array:
    """Distance of the origin from a triangle, 0 inside; the triangle may be a line or a point."""
    distances, turns = [], []
    for (u, v), (next_u, next_v) in zip(triangle, (*triangle[1:], triangle[0]), strict=True):
        along_u, along_v = next_u - u, next_v - v
        length = along_u**2 + along_v**2
        fraction = jnp.clip(-(u * along_u + v * along_v) / jnp.where(length > 0, length, 1), 0, 1)
        distances.append(jnp.hypot(u + fraction * along_u, v + fraction * along_v))
        turns.append(u * along_v - v * along_u)
    left = (turns[0] >= 0) & (turns[1] >= 0) & (turns[2] >= 0)
    right = (turns[0] <= 0) & (turns[1] <= 0) & (turns[2] <= 0)
    area = turns[0] + turns[1] + turns[2]
    nearest = jnp.minimum(jnp.minimum(distances[0], distances[1]), distances[2])
    return jnp.where((left | right) & (area != 0), 0, nearest)
