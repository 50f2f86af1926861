"""Critical curves, where images merge and are magnified without bound, and caustics, their sources.

`critical_points` finds them on the device, in arrays whose size depends on the grid alone; `critical_curves`
strings its points together on the host, for plots.

Reference: Schneider, Ehlers & Falco 1992, "Gravitational Lenses", chapters 5 and 6.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from lensjax.physics.magnification import inverse_magnification
from lensjax.physics.rays import Deflection, inverse_ray_shoot


class CriticalPoints(NamedTuple):
    """One place for each edge of a grid: those along rows first, then those along columns.

    Attributes:
      x, y: where the edge crosses a critical curve, arcsec; the middle of an edge that does not.
      beta_x, beta_y: the same in the source plane, on the caustic, arcsec.
      mask: which edges cross a critical curve.
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
    """Points of critical curves and caustics: where the edges of a grid meet them.

    An edge is taken to meet a critical curve once if its ends have magnifications of unlike sign; where
    on it is found by halving it, to the last digit. A curve that lies between the points of the grid is
    not seen: the softened centre of a singular profile has such a curve, radius
    (core^2 theta_E)^(1/3) for an isothermal sphere. Derivatives with respect to what the deflection depends
    on are those of the crossing along its edge.

    Args:
      deflection: takes x and y, gives the two components of the deflection; all arcsec.
      x, y: grid of image-plane coordinates such as `pixel_grid` gives, arcsec.
      iterations: how often each edge is halved; 40 are enough for float64.

    Returns:
      The points and a mask, in arrays of rows * (columns - 1) + (rows - 1) * columns.
    """
    (start_x, end_x), (start_y, end_y) = _edges(x), _edges(y)
    start_sign, end_sign = _edges(inverse_magnification(deflection, x, y) < 0)
    mask = start_sign != end_sign

    def place(fraction: Array) -> tuple[Array, Array]:
        return start_x + fraction * (end_x - start_x), start_y + fraction * (end_y - start_y)

    def determinant(fraction: Array) -> Array:
        return inverse_magnification(deflection, *place(fraction))

    def halve(between: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = between
        middle = (low + high) / 2
        before = (determinant(middle) < 0) == start_sign
        return (jnp.where(before, middle, low), jnp.where(before, high, middle)), None

    ends = jnp.zeros_like(start_x), jnp.ones_like(start_x)
    # Where the loop ends does not depend smoothly on the lens; a last step of Newton's does.
    (low, high), _ = lax.scan(halve, lax.stop_gradient(ends), length=iterations)
    fraction = lax.stop_gradient(jnp.where(mask, (low + high) / 2, 0.5))
    value, slope = jax.jvp(determinant, (fraction,), (jnp.ones_like(fraction),))
    step = value / lax.stop_gradient(jnp.where(mask & (slope != 0), slope, 1))
    fraction = fraction - jnp.where(mask, step - lax.stop_gradient(step), 0)
    at = place(fraction)
    return CriticalPoints(*at, *inverse_ray_shoot(deflection, *at), mask)


def critical_curves(
    deflection: Deflection, x: Float[Array, "rows columns"], y: Float[Array, "rows columns"]
) -> list[np.ndarray]:
    """Critical curves as lines, for plots; on the host, not under `jit`.

    Args:
      deflection: takes x and y, gives the two components of the deflection; all arcsec.
      x, y: grid of image-plane coordinates such as `pixel_grid` gives, arcsec.

    Returns:
      For each curve the x and y of its points in order, of shape (points, 2), arcsec, longest first. A
      closed curve ends where it begins; one that leaves the grid does not.
    """

    @jax.jit
    def everything(x: Array, y: Array) -> tuple[CriticalPoints, Array, Array]:
        middles = [(part[:-1, :-1] + part[1:, 1:]) / 2 for part in (x, y)]
        corners, centers = (inverse_magnification(deflection, *at) < 0 for at in ((x, y), middles))
        return critical_points(deflection, x, y), corners, centers

    points, corners, centers = everything(x, y)
    neighbours = _neighbours(np.asarray(points.mask), np.asarray(corners), np.asarray(centers))
    positions = np.stack([points.x, points.y], axis=-1)
    curves = [positions[chain] for chain in _chains(neighbours)]
    return sorted(curves, key=len, reverse=True)


def caustics(deflection: Deflection, curves: list[np.ndarray]) -> list[np.ndarray]:
    """Caustics: critical curves carried to the source plane; on the host, not under `jit`.

    Args:
      deflection: takes x and y, gives the two components of the deflection; all arcsec.
      curves: what `critical_curves` gives.

    Returns:
      For each curve its points in the source plane, of shape (points, 2), arcsec.
    """
    rays = (inverse_ray_shoot(deflection, *jnp.asarray(curve).T) for curve in curves)
    return [np.stack(beta, axis=-1) for beta in rays]


def _edges(array: Array) -> tuple[Array, Array]:
    """Values at both ends of each edge, those along rows first."""
    starts = jnp.concatenate([array[:, :-1].ravel(), array[:-1].ravel()])
    return starts, jnp.concatenate([array[:, 1:].ravel(), array[1:].ravel()])


def _neighbours(
    crossed: np.ndarray, corners: np.ndarray, centers: np.ndarray
) -> dict[int, list[int]]:
    """For each crossed edge those that the curve goes on to, in the one or two cells beside it.

    Args:
      crossed: of each edge.
      corners: whether the determinant is negative, at each point of the grid.
      centers: the same in the middle of each cell.
    """
    rows, columns = corners.shape
    along_rows = np.arange(rows * (columns - 1)).reshape(rows, columns - 1)
    along_columns = along_rows.size + np.arange((rows - 1) * columns).reshape(rows - 1, columns)
    top, bottom = along_rows[:-1], along_rows[1:]
    left, right = along_columns[:, :-1], along_columns[:, 1:]
    # In an order such that, in a cell with four crossings, the first two and the last two belong together
    # where the middle is unlike the corner between top and left.
    edges = np.stack([top, left, bottom, right], axis=-1).reshape(-1, 4)
    apart = (centers != corners[:-1, :-1]).ravel()
    found: dict[int, list[int]] = {}
    for cell in np.flatnonzero(crossed[edges].any(axis=1)):
        here = [int(edge) for edge in edges[cell] if crossed[edge]]
        if len(here) == 4 and not apart[cell]:
            here = [here[0], here[3], here[1], here[2]]
        for one, other in zip(here[::2], here[1::2], strict=True):
            found.setdefault(one, []).append(other)
            found.setdefault(other, []).append(one)
    return found


def _chains(neighbours: dict[int, list[int]]) -> list[list[int]]:
    """Edges in the order in which curves cross them; a closed curve's first edge is also its last."""
    left = dict.fromkeys(sorted(neighbours, key=lambda edge: len(neighbours[edge])))  # ends first
    chains = []
    while left:
        first = next(iter(left))
        chain = [first]
        del left[first]
        while following := [edge for edge in neighbours[chain[-1]] if edge in left]:
            chain.append(following[0])
            del left[following[0]]
        if len(chain) > 2 and first in neighbours[chain[-1]]:
            chain.append(first)
        chains.append(chain)
    return chains
