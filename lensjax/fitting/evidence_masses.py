"""Evidence for point masses, to first order in the deflection by the masses.

Masses are placed on the nodes of a square grid. The template of a node is the change of the image due to a
mass on that node. Everything that the smooth lens can fit is projected out of the templates, so that the
evidence is relative to that of the smooth lens.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from lensjax.fitting.evidence_pixels import (
    Window,
    blur_and_bin,
    brightness_gradient,
    ray_positions,
    trace_rays,
)
from lensjax.physics.substructure import SubhaloPrior, SubstructurePrior, VortexPrior

SPACING = 0.15  # distance between neighboring nodes, arcsec
_RANK = 192  # dimension of the subspace onto which the templates are projected
_MARGIN = 0.4  # width of the margin of nodes beyond the farthest point mass, for lines, arcsec
_POINTS = 500  # quadrature points per axis for the prior on positions
_SOFTENING = 0.3  # core radius of the mass on a node, in units of the spacing
_TEMPLATE_BATCH_SIZE = 32


@functools.lru_cache(maxsize=4)
def mass_grid(prior: SubstructurePrior) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of the mass grid.

    Returns:
      X and y of the nodes `[nodes, 2]`, arcsec, and the prior fraction of the point masses on each
      node `[nodes]`.
    """
    max_distance = prior.subhalos.distance[1] + _MARGIN
    axis = _grid_axis(max_distance)
    x, y = (grid.ravel() for grid in np.meshgrid(axis, axis))
    inside = np.hypot(x, y) <= max_distance
    low, high = prior.subhalos.distance
    midpoints = (np.arange(_POINTS) + 0.5) / _POINTS
    radius, angle = np.meshgrid(low + (high - low) * midpoints, 2 * np.pi * midpoints)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(-1, 2)
    fraction = np.zeros(len(axis) ** 2)
    for index, weight in _bilinear_weights(axis, points):
        np.add.at(fraction, index, weight)
    return np.stack([x, y], axis=1)[inside], fraction[inside] / len(points)


def line_fractions(lines: np.ndarray, line: VortexPrior, prior: SubstructurePrior) -> np.ndarray:
    """Fraction of the mass of each line on each node.

    Args:
      lines: length, angle, x and y of each line `[lines, 4]`.
      line: prior on the line; defines the number of point masses.
      prior: prior that defines the nodes.

    Returns:
      Fractions `[lines, nodes]`.
    """
    max_distance = prior.subhalos.distance[1] + _MARGIN
    axis = _grid_axis(max_distance)
    x, y = (grid.ravel() for grid in np.meshgrid(axis, axis))
    length, angle, center_x, center_y = (column[:, None] for column in lines.T)
    along = length * np.linspace(-0.5, 0.5, line.number)
    points = np.stack([center_x + along * np.cos(angle), center_y + along * np.sin(angle)], -1)
    fractions = np.zeros((len(lines), len(axis) ** 2), np.float32)
    row = np.repeat(np.arange(len(lines)), line.number)
    inside = (np.abs(points) < axis[-1]).all(-1).ravel()
    for index, weight in _bilinear_weights(axis, points.reshape(-1, 2)[inside]):
        np.add.at(fractions, (row[inside], index), weight / line.number)
    return fractions[:, np.hypot(x, y) <= max_distance]


def _grid_axis(max_distance: float) -> np.ndarray:
    number = int(max_distance / SPACING) + 1
    return np.arange(-number, number + 1) * SPACING


def _bilinear_weights(axis: np.ndarray, points: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Indices and bilinear weights of the four nodes around each point of a full square grid."""
    position = (points - axis[0]) / SPACING
    lower = np.clip(np.floor(position).astype(int), 0, len(axis) - 2)
    offset = position - lower
    weights = []
    for up in (0, 1):
        for right in (0, 1):
            index = (lower[:, 1] + up) * len(axis) + lower[:, 0] + right
            along_x = offset[:, 0] if right else 1 - offset[:, 0]
            weights.append((index, along_x * (offset[:, 1] if up else 1 - offset[:, 1])))
    return weights


def mass_templates(
    window: Window,
    free: Float[Array, " nonlinear"],
    positions: Float[Array, "nodes 2"],
    weight: Float[Array, "rows columns"],
) -> Float[Array, "nodes pixels"]:
    """Derivative of the image with respect to the squared Einstein radius at each node, times `weight`."""
    x, y = ray_positions(window, 1, free.dtype)
    by_x, by_y = brightness_gradient(window.model, free, trace_rays(window, 1, free))

    def template(position: Array) -> Array:
        dx, dy = x - position[0], y - position[1]
        change = (dx * by_x + dy * by_y) / (dx**2 + dy**2 + (_SOFTENING * SPACING) ** 2)
        return -(weight * blur_and_bin(window, change)).ravel()

    return jax.lax.map(template, positions, batch_size=_TEMPLATE_BATCH_SIZE)


def project_out(
    columns: Float[Array, "values all"], vectors: Float[Array, "number values"]
) -> Float[Array, "number values"]:
    """Component of each vector orthogonal to all columns."""
    basis, _ = jnp.linalg.qr(columns / jnp.linalg.norm(columns, axis=0, keepdims=True))
    return vectors - (vectors @ basis) @ basis.T


def compress(
    residual: Float[Array, " values"],
    templates: Float[Array, "nodes values"],
    fraction: Float[Array, " nodes"],
) -> tuple[Float[Array, " rank"], Float[Array, "rank nodes"]]:
    """Projects residual and templates onto a random subspace of the templates.

    Nodes with a larger prior fraction of the masses have more weight in the choice of the subspace.
    Reference: Halko, Martinsson & Tropp 2011, "Finding structure with randomness".
    """
    rank = min(_RANK, *templates.shape)
    mix = np.random.default_rng(0).normal(size=(len(templates), rank))
    mixed = jnp.asarray(mix, templates.dtype) * jnp.sqrt(fraction + 1e-4)[:, None]
    basis, _ = jnp.linalg.qr(templates.T @ mixed)
    return basis.T @ residual, basis.T @ templates.T


def masses_log_evidence(
    residual: Float[Array, " rank"],
    templates: Float[Array, "rank nodes"],
    fraction: Float[Array, " nodes"],
    masses: SubhaloPrior,
) -> tuple[Float[Array, ""], Float[Array, " nodes"]]:
    """Log evidence for point masses relative to none, and the mass map.

    The summed effect of many masses is approximated by a normal distribution with the mean and covariance
    of the prior.

    Returns:
      The log evidence ratio, and the posterior mean of the squared Einstein radius at each node, arcsec^2.
    """
    mean, square = masses.moments()
    mean_template = templates @ fraction
    expected = masses.number * mean * mean_template
    scaled = templates * jnp.sqrt(masses.number * square * fraction)[None, :]
    covariance = scaled @ scaled.T - masses.number * mean**2 * jnp.outer(mean_template, mean_template)
    root = jnp.linalg.cholesky(covariance + jnp.eye(len(residual), dtype=residual.dtype))
    white = solve_triangular(root, residual - expected, lower=True)
    log_ratio = 0.5 * (residual @ residual - white @ white) - jnp.log(jnp.diagonal(root)).sum()
    pull = templates.T @ solve_triangular(root, white, lower=True, trans=1)
    excess = square * fraction * pull - mean**2 * fraction * (fraction @ pull)
    return log_ratio, masses.number * (mean * fraction + excess)
