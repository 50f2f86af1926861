"""Point masses to first order: each moves rays a little, and the image changes by the source's slope there.

Masses sit on the nodes of a square grid. Each node's template is freed of what the smooth lens could
take up, so that evidences are ratios to the smooth lens's own, with flat priors of its parameters.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from lensjax.fitting.evidence_pixels import Window, drawn, in_source_plane, rays, slope
from lensjax.fitting.evidence_prior import MassLine, PointMasses, SubstructurePrior

SPACING = 0.15  # of the nodes, arcsec
_RANK = 192  # directions in the space of images that templates are looked at in
_MARGIN = 0.4  # of nodes beyond the farthest point mass, for lines, arcsec
_POINTS = 500  # on each axis of the sums over the priors of positions
_SOFT = 0.3  # core of a node's mass, in the spacing
_AT_ONCE = 32  # templates


@functools.lru_cache(maxsize=4)
def nodes(prior: SubstructurePrior) -> tuple[np.ndarray, np.ndarray]:
    """X and y of the nodes, a row each, and the share of the point masses that falls to each."""
    far = prior.masses.distance[1] + _MARGIN
    axis = _axis(far)
    x, y = (grid.ravel() for grid in np.meshgrid(axis, axis))
    near = np.hypot(x, y) <= far
    low, high = prior.masses.distance
    middles = (np.arange(_POINTS) + 0.5) / _POINTS
    radius, angle = np.meshgrid(low + (high - low) * middles, 2 * np.pi * middles)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(-1, 2)
    share = np.zeros(len(axis) ** 2)
    for index, weight in _corners(axis, points):
        np.add.at(share, index, weight)
    return np.stack([x, y], axis=1)[near], share[near] / len(points)


def spread(lines: np.ndarray, line: MassLine, prior: SubstructurePrior) -> np.ndarray:
    """What share of each line falls to each node, `[lines, nodes]`.

    Args:
      lines: length, angle, x and y of each.
      line: how many points each has.
      prior: what the nodes follow from.
    """
    far = prior.masses.distance[1] + _MARGIN
    axis = _axis(far)
    x, y = (grid.ravel() for grid in np.meshgrid(axis, axis))
    length, angle, center_x, center_y = (column[:, None] for column in lines.T)
    along = length * np.linspace(-0.5, 0.5, line.number)
    points = np.stack([center_x + along * np.cos(angle), center_y + along * np.sin(angle)], -1)
    shares = np.zeros((len(lines), len(axis) ** 2), np.float32)
    row = np.repeat(np.arange(len(lines)), line.number)
    inside = (np.abs(points) < axis[-1]).all(-1).ravel()
    for index, weight in _corners(axis, points.reshape(-1, 2)[inside]):
        np.add.at(shares, (row[inside], index), weight / line.number)
    return shares[:, np.hypot(x, y) <= far]


def _axis(far: float) -> np.ndarray:
    number = int(far / SPACING) + 1
    return np.arange(-number, number + 1) * SPACING


def _corners(axis: np.ndarray, points: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The four nodes about each point of a whole square of nodes, with bilinear weights."""
    place = (points - axis[0]) / SPACING
    lower = np.clip(np.floor(place).astype(int), 0, len(axis) - 2)
    part = place - lower
    found = []
    for down in (0, 1):
        for right in (0, 1):
            index = (lower[:, 1] + down) * len(axis) + lower[:, 0] + right
            along = part[:, 0] if right else 1 - part[:, 0]
            found.append((index, along * (part[:, 1] if down else 1 - part[:, 1])))
    return found


def templates(
    window: Window,
    free: Float[Array, " nonlinear"],
    positions: Float[Array, "nodes 2"],
    weight: Float[Array, "rows columns"],
) -> Float[Array, "nodes pixels"]:
    """How the image changes with the squared Einstein radius of a mass on each node, times `weight`."""
    x, y = rays(window, 1, free.dtype)
    by_x, by_y = slope(window.model, free, in_source_plane(window, 1, free))

    def template(position: Array) -> Array:
        dx, dy = x - position[0], y - position[1]
        moved = (dx * by_x + dy * by_y) / (dx**2 + dy**2 + (_SOFT * SPACING) ** 2)
        return -(weight * drawn(window, moved)).ravel()

    return jax.lax.map(template, positions, batch_size=_AT_ONCE)


def without(
    columns: Float[Array, "values all"], vectors: Float[Array, "number values"]
) -> Float[Array, "number values"]:
    """What is left of vectors that columns do not span."""
    basis, _ = jnp.linalg.qr(columns / jnp.linalg.norm(columns, axis=0, keepdims=True))
    return vectors - (vectors @ basis) @ basis.T


def compressed(
    residual: Float[Array, " values"],
    found: Float[Array, "nodes values"],
    share: Float[Array, " nodes"],
) -> tuple[Float[Array, " rank"], Float[Array, "rank nodes"]]:
    """Residual and templates in the space that the templates of the likeliest nodes span.

    Reference: Halko, Martinsson & Tropp 2011, "Finding structure with randomness".
    """
    rank = min(_RANK, *found.shape)
    mix = np.random.default_rng(0).normal(size=(len(found), rank))
    mixed = jnp.asarray(mix, found.dtype) * jnp.sqrt(share + 1e-4)[:, None]
    basis, _ = jnp.linalg.qr(found.T @ mixed)
    return basis.T @ residual, basis.T @ found.T


def log_evidence_and_map(
    residual: Float[Array, " rank"],
    found: Float[Array, "rank nodes"],
    share: Float[Array, " nodes"],
    masses: PointMasses,
) -> tuple[Float[Array, ""], Float[Array, " nodes"]]:
    """Logarithm of the evidence for point masses over that for none, and where masses are.

    The sum of many masses is taken for normal, with the prior's mean and covariance.

    Returns:
      The logarithm; the posterior mean of the squared Einstein radius that is on each node, arcsec^2.
    """
    mean, square = masses.moments()
    middle = found @ share
    expected = masses.number * mean * middle
    scaled = found * jnp.sqrt(masses.number * square * share)[None, :]
    covariance = scaled @ scaled.T - masses.number * mean**2 * jnp.outer(middle, middle)
    root = jnp.linalg.cholesky(covariance + jnp.eye(len(residual), dtype=residual.dtype))
    white = solve_triangular(root, residual - expected, lower=True)
    log_ratio = 0.5 * (residual @ residual - white @ white) - jnp.log(jnp.diagonal(root)).sum()
    pull = found.T @ solve_triangular(root, white, lower=True, trans=1)
    surplus = square * share * pull - mean**2 * share * (share @ pull)
    return log_ratio, masses.number * (mean * share + surplus)
