"""Critical curves, where images merge and the magnification diverges, and caustics, their source positions.

`critical_points` runs on the device and returns arrays whose size depends only on the grid. `critical_curves`
connects its points on the host, for plots.

Reference: Schneider, Ehlers & Falco 1992, "Gravitational Lenses", chapters 5 and 6.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from lensjax.physics.checks import as_float, check_image
from lensjax.physics.jacobian import inverse_magnification
from lensjax.physics.rays import Deflection, ray_shooting

UNRESOLVED = 0.05  # largest radius of a curve that is omitted, in steps of the grid


class CriticalPoints(NamedTuple):
    """Points on critical curves, one per grid edge: first the edges along rows, then those along columns.

    Attributes:
      x, y: crossing of the edge with a critical curve, arcsec; the midpoint of an edge without a crossing.
      beta_x, beta_y: the same point in the source plane, on the caustic, arcsec.
      mask: True for edges that cross a critical curve.
    """

    x: Float[Array, " edges"]
    y: Float[Array, " edges"]
    beta_x: Float[Array, " edges"]
    beta_y: Float[Array, " edges"]
    mask: Bool[Array, " edges"]


def critical_points(
    deflection: Deflection,
    x: Float[Array, "rows columns"],
    y: Float[Array, "rows columns"],
    *,
    iterations: int = 40,
) -> CriticalPoints:
    """Finds points on critical curves and caustics: the crossings of grid edges with critical curves.

    An edge has a crossing if the magnifications at its ends have opposite signs. The position of the crossing
    is found by bisection. A curve that encloses no grid point is missed. A curve that encloses only one,
    within a twentieth of a grid step, is omitted. The softened center of a singular profile has such a curve,
    of radius (core^2 theta_E)^(1/3) for an isothermal sphere. Derivatives with respect to the parameters of
    the deflection are those of the crossing along its edge.

    Args:
      deflection: function of x and y that returns the two deflection components; all in arcsec.
      x, y: grid of image-plane coordinates, for instance from `pixel_grid`, arcsec.
      iterations: number of bisection steps; 40 locate a crossing to 1e-12 of a grid step in float64.

    Returns:
      Points and mask, in arrays of length rows * (columns - 1) + (rows - 1) * columns.

    Raises:
      ValueError: if the grid is smaller than 2 x 2 points.
    """
    x, y = as_float(x), as_float(y)
    check_image("x", x, 2)
    (start_x, end_x), (start_y, end_y) = _edges(x), _edges(y)
    start_sign, end_sign = _edges(inverse_magnification(deflection, x, y) < 0)
    mask = start_sign != end_sign

    def position(fraction: Array) -> tuple[Array, Array]:
        return start_x + fraction * (end_x - start_x), start_y + fraction * (end_y - start_y)

    def determinant(fraction: Array) -> Array:
        return inverse_magnification(deflection, *position(fraction))

    def bisect(interval: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = interval
        middle = (low + high) / 2
        before = (determinant(middle) < 0) == start_sign
        return (jnp.where(before, middle, low), jnp.where(before, high, middle)), None

    ends = jnp.zeros_like(start_x), jnp.ones_like(start_x)
    # The bisection is not a differentiable function of the lens; a final Newton step provides the derivative.
    (low, high), _ = lax.scan(bisect, lax.stop_gradient(ends), length=iterations)
    mask &= ~_is_unresolved(mask, (low + high) / 2, x.shape)
    fraction = lax.stop_gradient(jnp.where(mask, (low + high) / 2, 0.5))
    value, slope = jax.jvp(determinant, (fraction,), (jnp.ones_like(fraction),))
    step = value / lax.stop_gradient(jnp.where(mask & (slope != 0), slope, 1))
    fraction = fraction - jnp.where(mask, step - lax.stop_gradient(step), 0)
    theta = position(fraction)
    return CriticalPoints(*theta, *ray_shooting(deflection, *theta), mask)


def critical_curves(
    deflection: Deflection, x: Float[Array, "rows columns"], y: Float[Array, "rows columns"]
) -> list[np.ndarray]:
    """Traces critical curves as lines, for plots.

    Runs on the host, not under `jit`.

    Args:
      deflection: function of x and y that returns the two deflection components; all in arcsec.
      x, y: grid of image-plane coordinates, for instance from `pixel_grid`, arcsec.

    Returns:
      The x and y of the points along each curve, of shape (points, 2), arcsec, longest curve first. The last
      point of a closed curve equals its first; a curve that leaves the grid is open.

    Raises:
      ValueError: if the grid is smaller than 2 x 2 points.
    """
    x, y = as_float(x), as_float(y)
    check_image("x", x, 2)

    @jax.jit
    def find_points(x: Array, y: Array) -> tuple[CriticalPoints, Array, Array]:
        centers = [(part[:-1, :-1] + part[1:, 1:]) / 2 for part in (x, y)]
        at_corners, at_centers = (
            inverse_magnification(deflection, *theta) < 0 for theta in ((x, y), centers)
        )
        return critical_points(deflection, x, y), at_corners, at_centers

    points, at_corners, at_centers = find_points(x, y)
    neighbors = _neighbors(np.asarray(points.mask), np.asarray(at_corners), np.asarray(at_centers))
    positions = np.stack([points.x, points.y], axis=-1)
    curves = [positions[chain] for chain in _connect(neighbors)]
    return sorted(curves, key=len, reverse=True)


def caustics(deflection: Deflection, curves: list[np.ndarray]) -> list[np.ndarray]:
    """Maps critical curves to caustics in the source plane.

    Runs on the host, not under `jit`.

    Args:
      deflection: function of x and y that returns the two deflection components; all in arcsec.
      curves: result of `critical_curves`.

    Returns:
      The source-plane points of each curve, of shape (points, 2), arcsec.
    """
    rays = (ray_shooting(deflection, *jnp.asarray(curve).T) for curve in curves)
    return [np.stack(beta, axis=-1) for beta in rays]


def _edges(array: Array) -> tuple[Array, Array]:
    """Values at both ends of each edge; first the edges along rows."""
    starts = jnp.concatenate([array[:, :-1].ravel(), array[:-1].ravel()])
    return starts, jnp.concatenate([array[:, 1:].ravel(), array[1:].ravel()])


def _is_unresolved(mask: Array, fraction: Array, shape: tuple[int, ...]) -> Bool[Array, " edges"]:
    """Mask of the edges that cross a curve around one grid point only, close to this point.

    Args:
      mask: True for edges with a crossing.
      fraction: position of each crossing along its edge, from 0 to 1.
      shape: rows and columns of the grid.
    """
    rows, columns = shape
    starts, ends = mask & (fraction < UNRESOLVED), mask & (fraction > 1 - UNRESOLVED)

    def split(edges: Array) -> tuple[Array, Array]:
        along_rows, along_columns = jnp.split(edges, [rows * (columns - 1)])
        return along_rows.reshape(rows, columns - 1), along_columns.reshape(rows - 1, columns)

    def count(start: tuple[Array, Array], end: tuple[Array, Array]) -> Array:
        """Number of marked edges at each grid point: those that start there, and those that end there."""
        (right, down), (left, up) = start, end
        pads = ((0, 0), (0, 1)), ((0, 1), (0, 0)), ((0, 0), (1, 0)), ((1, 0), (0, 0))
        parts = zip((right, down, left, up), pads, strict=True)
        return sum((jnp.pad(edges.astype(int), pad) for edges, pad in parts), jnp.zeros(shape, int))

    every = split(jnp.ones_like(mask))
    isolated = count(split(starts), split(ends)) == count(every, every)
    at_start, at_end = _edges(isolated)
    return (starts & at_start) | (ends & at_end)


def _neighbors(
    crossed: np.ndarray, negative_corners: np.ndarray, negative_centers: np.ndarray
) -> dict[int, list[int]]:
    """For each crossed edge, the edges at which the curve leaves the one or two adjacent cells.

    Args:
      crossed: mask of the edges.
      negative_corners: True for grid points with a negative determinant.
      negative_centers: True for cells with a negative determinant at their center.
    """
    rows, columns = negative_corners.shape
    along_rows = np.arange(rows * (columns - 1)).reshape(rows, columns - 1)
    along_columns = along_rows.size + np.arange((rows - 1) * columns).reshape(rows - 1, columns)
    top, bottom = along_rows[:-1], along_rows[1:]
    left, right = along_columns[:, :-1], along_columns[:, 1:]
    # In this order, a cell with four crossings connects the first two and the last two edges if the sign at
    # its center differs from the sign at the corner between top and left.
    edges = np.stack([top, left, bottom, right], axis=-1).reshape(-1, 4)
    isolates_corner = (negative_centers != negative_corners[:-1, :-1]).ravel()
    neighbors: dict[int, list[int]] = {}
    for cell in np.flatnonzero(crossed[edges].any(axis=1)):
        crossings = [int(edge) for edge in edges[cell] if crossed[edge]]
        if len(crossings) == 4 and not isolates_corner[cell]:
            crossings = [crossings[0], crossings[3], crossings[1], crossings[2]]
        for one, other in zip(crossings[::2], crossings[1::2], strict=True):
            neighbors.setdefault(one, []).append(other)
            neighbors.setdefault(other, []).append(one)
    return neighbors


def _connect(neighbors: dict[int, list[int]]) -> list[list[int]]:
    """Edges in the order in which each curve crosses them; a closed curve repeats its first edge."""
    ends_first = sorted(neighbors, key=lambda edge: len(neighbors[edge]))
    remaining = dict.fromkeys(ends_first)
    chains = []
    while remaining:
        first = next(iter(remaining))
        chain = [first]
        del remaining[first]
        while following := [edge for edge in neighbors[chain[-1]] if edge in remaining]:
            chain.append(following[0])
            del remaining[following[0]]
        if len(chain) > 2 and first in neighbors[chain[-1]]:
            chain.append(first)
        chains.append(chain)
    return chains
