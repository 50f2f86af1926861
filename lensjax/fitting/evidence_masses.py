"""Evidence for point masses: the heaviest are fitted, and the sum of the others is approximated as normal.

A small mass deflects rays slightly, and the image changes in proportion. The deflection by masses on the
nodes of a square grid is expanded in principal modes. The change of the image by a mode is its template.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from lensjax.fitting.amplitudes import diagonal_scales
from lensjax.fitting.evidence_fit import (
    COARSE,
    FINE,
    Layout,
    MassFit,
    Target,
    descend,
    log_det,
    log_posterior_volume,
    normal_matrix,
    target_pull,
)
from lensjax.fitting.evidence_pixels import Window, blur_and_bin, ray_positions
from lensjax.fitting.types import Number
from lensjax.physics.substructure import SubhaloPrior, SubstructurePrior, VortexPrior

SPACING = 0.15  # distance between neighboring nodes, arcsec
_NUM_MODES = 192
_MARGIN = 0.4  # width of the margin of nodes beyond the farthest point mass, for lines, arcsec
_POINTS = 500  # quadrature points per axis for the prior on positions
_SOFTENING = 0.3  # core radius of the mass on a node, in units of the spacing
_LIT = 2.5  # arcsec; little light is at larger distances
MAX_MASSES = 8  # largest number of masses that are fitted
_MIN_SIGNIFICANCE = 4.0  # of a mass that is fitted, in standard deviations
_DISTANCE = 0.4  # between two masses that are added together, arcsec
_ROUNDS, _STEPS = 7, 3  # rounds, the last of which adds no masses, and Levenberg-Marquardt steps per round


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Modes:
    """Principal modes of the deflection by masses on the nodes.

    Attributes:
      nodes: x and y of each node, arcsec.
      fraction: prior fraction of the point masses on each node.
      deflection: deflection of the coarse rays by each mode.
      amplitudes: amplitude of each mode in the deflection by a mass on each node.
    """

    nodes: Float[Array, "nodes 2"]
    fraction: Float[Array, " nodes"]
    deflection: Float[Array, "modes 2 tall wide"]
    amplitudes: Float[Array, "modes nodes"]


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


@functools.lru_cache(maxsize=4)
def deflection_modes(window: Window, prior: SubstructurePrior) -> tuple[np.ndarray, ...]:
    """Fields of `Modes`, for the modes with most of the variance of the deflection where there is light."""
    nodes, fraction = mass_grid(prior)
    x, y = ray_positions(window, COARSE)
    dx, dy = x - nodes[:, :1, None], y - nodes[:, 1:, None]
    field = np.stack([dx, dy], axis=1) / (dx**2 + dy**2 + (_SOFTENING * SPACING) ** 2)[:, None]
    spread = np.sqrt(fraction + 0.1 * fraction.mean())
    lit = np.where(np.hypot(x, y) < _LIT, 1.0, 0.1)
    seen = (spread[:, None, None, None] * lit * field).reshape(len(nodes), -1).astype(np.float32)
    _, vectors = np.linalg.eigh((seen @ seen.T).astype(np.float64))
    vectors = vectors[:, ::-1][:, :_NUM_MODES]
    modes = np.tensordot((spread[:, None] * vectors).T, field, axes=1)
    return nodes, fraction, modes, (vectors / spread[:, None]).T


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Response:
    """First-order response of the image to the modes, projected to remove all that the smooth lens can fit.

    Attributes:
      templates: image of each mode, in standard deviations, without projection.
      raw_gram: their scalar products.
      gram: scalar products of the projected templates.
      score: scalar products of the projected templates and the residual of the smooth lens.
      chi_square: chi-square of the projected residual.
    """

    templates: Float[Array, "modes pixels"]
    raw_gram: Float[Array, "modes modes"]
    gram: Float[Array, "modes modes"]
    score: Float[Array, " modes"]
    chi_square: Number


def mode_response(window: Window, modes: Modes, target: Target, smooth: MassFit) -> Response:
    """Response of the image to the modes, from the fit of the smooth lens."""
    by_x, by_y = smooth.deflected
    light = modes.deflection[:, 0] * by_x[None] + modes.deflection[:, 1] * by_y[None]
    templates = (jnp.sqrt(target.weight)[None] * blur_and_bin(window, light)).reshape(len(light), -1)
    matrix = normal_matrix(target, smooth)
    scale = diagonal_scales(matrix)
    root = jnp.linalg.cholesky(
        matrix * jnp.outer(scale, scale) + 1e-6 * jnp.eye(len(scale), dtype=scale.dtype)
    )
    gradient = smooth.columns @ smooth.residual
    inner = smooth.theta[:-2]
    gradient = gradient.at[:-2].add(target.precisions * (target.means - inner))
    fitted = jnp.concatenate([smooth.columns @ templates.T, gradient[:, None]], axis=1)
    white = solve_triangular(root, scale[:, None] * fitted, lower=True)
    explained, last = white[:, :-1], white[:, -1]
    raw_gram = templates @ templates.T
    return Response(
        templates,
        raw_gram,
        raw_gram - explained.T @ explained,
        templates @ smooth.residual - explained.T @ last,
        smooth.chi_square - last @ last,
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NormalMasses:
    """Normal approximation of the prior on the amplitudes of the modes.

    Attributes:
      mean: mean amplitude of each mode.
      root: square root of their covariance.
    """

    mean: Float[Array, " modes"]
    root: Float[Array, "modes modes"]


def normal_masses(modes: Modes, number: ArrayLike, mean: Array, square: Array) -> NormalMasses:
    """Normal approximation of the sum of many masses.

    Args:
      modes: modes of the deflection.
      number: number of masses.
      mean, square: moments of the mass on each node, times the fraction of the masses there.
    """
    scaled = modes.amplitudes * jnp.sqrt(number * square)[None]
    average = modes.amplitudes @ mean
    covariance = scaled @ scaled.T - number * jnp.outer(average, average)
    scale = jax.lax.rsqrt(jnp.maximum(jnp.diagonal(covariance), 1e-20))
    tiny = 1e-5 * jnp.eye(len(covariance), dtype=covariance.dtype)
    root = jnp.linalg.cholesky(covariance * jnp.outer(scale, scale) + tiny) / scale[:, None]
    return NormalMasses(jnp.asarray(number * average), root)


def mass_map(modes: Modes, response: Response, prior: SubhaloPrior) -> Float[Array, " nodes"]:
    """Posterior mean of the squared Einstein radius at each node, with all masses treated to first order."""
    mean, square = prior.moments()
    normal = normal_masses(modes, prior.number, mean * modes.fraction, square * modes.fraction)
    data = response.score - response.gram @ normal.mean
    root = _posterior_root(response.gram, normal)
    white = solve_triangular(root, normal.root.T @ data, lower=True)
    shift = normal.root @ solve_triangular(root, white, lower=True, trans=1)
    pull = modes.amplitudes.T @ (data - response.gram @ shift)
    fraction = modes.fraction
    excess = square * fraction * pull - mean**2 * fraction * (fraction @ pull)
    return prior.number * (mean * fraction + excess)


def _posterior_root(gram: Array, normal: NormalMasses) -> Array:
    return jnp.linalg.cholesky(jnp.eye(len(gram), dtype=gram.dtype) + normal.root.T @ gram @ normal.root)


def masses_log_evidence(
    window: Window, modes: Modes, response: Response, target: Target, smooth: MassFit, prior: SubhaloPrior
) -> tuple[Number, Number, Float[Array, "masses 3"]]:
    """Log evidence for point masses relative to none.

    A mass is detectable if it would have a significance of at least `_MIN_SIGNIFICANCE` at its position. The
    detectable masses are fitted. The sum of the others is approximated by a normal distribution.

    Args:
      window: window of the image.
      modes: modes of the deflection.
      response: response of the image to the modes.
      target: image and priors of the smooth fit.
      smooth: fit of the smooth lens.
      prior: prior on the masses.

    Returns:
      The log evidence ratio, chi-square of the joint fit, and the squared Einstein radius (0 if there are
      fewer masses), x and y of each fitted mass, arcsec.
    """
    strength = jnp.sqrt(jnp.maximum(((response.gram @ modes.amplitudes) * modes.amplitudes).sum(0), 1e-12))
    joint = _joint_target(target, prior)
    fit, active = _fit_masses(window, modes, strength, joint, smooth, prior)
    number = active.sum()
    log_undetectable, others = _undetectable_masses(modes, strength, prior, prior.number - number)
    # The fit of the heaviest masses in the presence of the others.
    root = _posterior_root(response.raw_gram, others)
    vectors = jnp.concatenate([fit.columns, (fit.residual - others.mean @ response.templates)[None]])
    white = solve_triangular(root, others.root.T @ (response.templates @ vectors.T), lower=True)
    products = vectors @ vectors.T - white.T @ white
    widths = np.tile(_widths(prior), MAX_MASSES)
    log_volume, gain = log_posterior_volume(joint, fit, products[:-1, :-1], products[:-1, -1], widths)
    pull = target_pull(joint, fit)
    chi_square = products[-1, -1] + pull - gain
    choices = jnp.log(jnp.maximum(prior.number - jnp.arange(MAX_MASSES), 1))
    log_ratio = (
        0.5 * (response.chi_square - chi_square)
        + log_volume
        + 0.5 * log_det(normal_matrix(target, smooth))
        - jnp.log(jnp.diagonal(root)).sum()
        - MAX_MASSES * float(np.log(_widths(prior)).sum())  # an inactive mass has the volume of its prior
        + jnp.where(jnp.arange(MAX_MASSES) < number, choices, 0).sum()
        + (prior.number - number) * log_undetectable
    )
    points = _layout(prior, active).points(smooth.theta, fit.theta[len(target.means) : -2])
    return log_ratio, fit.chi_square, points


def _widths(prior: SubhaloPrior) -> list[float]:
    """Widths of the uniform priors on the parameters of a mass."""
    low, high = (end**prior.exponent for end in prior.theta_E_squared)
    return [abs(high - low), prior.distance[1] - prior.distance[0], 2 * np.pi]


def _layout(prior: SubhaloPrior, active: Float[Array, " masses"]) -> Layout:
    """Masses as a function of theta_E_squared^exponent, distance and angle, whose priors are uniform."""

    def points(free: Array, extra: Array) -> Array:
        power, distance, angle = extra.reshape(MAX_MASSES, 3).T
        mass = active * power ** (1 / prior.exponent)
        return jnp.stack([mass, distance * jnp.cos(angle), distance * jnp.sin(angle)], axis=1)

    return Layout(points, np.eye(MAX_MASSES))


def _joint_target(target: Target, prior: SubhaloPrior) -> Target:
    dtype = target.means.dtype
    ends = sorted(end**prior.exponent for end in prior.theta_E_squared)
    bounds = [
        jnp.tile(jnp.asarray([power, distance, angle], dtype), MAX_MASSES)
        for power, distance, angle in zip(ends, prior.distance, (-np.inf, np.inf), strict=True)
    ]
    flat = jnp.zeros_like(bounds[0])
    return dataclasses.replace(
        target,
        means=jnp.concatenate([target.means, flat]),
        precisions=jnp.concatenate([target.precisions, flat]),
        low=jnp.concatenate([target.low, bounds[0]]),
        high=jnp.concatenate([target.high, bounds[1]]),
    )


def _fit_masses(
    window: Window,
    modes: Modes,
    strength: Float[Array, " nodes"],
    target: Target,
    smooth: MassFit,
    prior: SubhaloPrior,
) -> tuple[MassFit, Float[Array, " masses"]]:
    """Fits detectable masses, adding up to two at a time where the residual suggests them.

    Returns:
      The joint fit, and 1 for each mass that is fitted.
    """
    number, dtype = len(window.model.nonlinear), smooth.theta.dtype

    def propose(fit: MassFit) -> tuple[Array, Array]:
        """Expected decrease in chi-square / 2 due to each of two additional masses, and their parameters."""
        back = jax.linear_transpose(functools.partial(blur_and_bin, window), fit.deflected[0])
        image = jnp.sqrt(target.weight) * fit.residual.reshape(target.weight.shape)
        light = fit.theta[-2] * fit.deflected * back(image)[0][None]
        score = (modes.deflection.reshape(len(modes.deflection), -1) @ light.ravel()) @ modes.amplitudes
        mass = jnp.clip(score / strength**2, *prior.theta_E_squared)
        gain = jnp.where(modes.fraction > 0, mass * score - 0.5 * (mass * strength) ** 2, -jnp.inf)
        first = jnp.argmax(gain)
        distant = jnp.hypot(*(modes.nodes - modes.nodes[first][None]).T) > _DISTANCE
        best = jnp.stack([first, jnp.argmax(jnp.where(distant, gain, -jnp.inf))])
        x, y = modes.nodes[best].T
        distance = jnp.clip(jnp.hypot(x, y), *prior.distance)
        return gain[best], jnp.stack([mass[best] ** prior.exponent, distance, jnp.arctan2(y, x)], axis=1)

    def significance(theta: Array) -> Array:
        mass, x, y = _layout(prior, jnp.ones(MAX_MASSES, dtype)).points(theta, theta[number:-2]).T
        node = jnp.argmin(
            jnp.hypot(x[:, None] - modes.nodes[None, :, 0], y[:, None] - modes.nodes[None, :, 1]), axis=1
        )
        return mass * strength[node]

    def improve(state: tuple[Array, MassFit, Array, Any, Array]) -> tuple[Array, MassFit, Array, Any, Array]:
        round_number, fit, active, (gains, new), _ = state
        active = active * (significance(fit.theta) > _MIN_SIGNIFICANCE)
        add = (gains > 0.5 * _MIN_SIGNIFICANCE**2) & (round_number < _ROUNDS - 1)
        extra = fit.theta[number:-2].reshape(MAX_MASSES, 3)
        for index in range(2):
            slot = jnp.argmin(active)
            filled = add[index] & (active[slot] == 0) & (active.sum() < prior.number)
            extra = extra.at[slot].set(jnp.where(filled, new[index], extra[slot]))
            active = active.at[slot].max(filled.astype(dtype))
        theta = jnp.concatenate([fit.theta[:number], extra.ravel(), fit.theta[-2:]])
        better = descend(window, _layout(prior, active), target, theta, _STEPS, FINE)
        done = ~add.any() & (fit.chi_square - better.chi_square < 1)
        return round_number + 1, better, active, propose(better), done

    blank = jnp.tile(jnp.asarray([1.0, *prior.distance[:1], 0.0], dtype), MAX_MASSES)
    blank = jnp.clip(blank, target.low[number:], target.high[number:])
    nothing = jnp.zeros((len(blank), smooth.columns.shape[1]), dtype)
    start = dataclasses.replace(
        smooth,
        theta=jnp.concatenate([smooth.theta[:number], blank, smooth.theta[number:]]),
        columns=jnp.concatenate([smooth.columns[:number], nothing, smooth.columns[number:]]),
    )
    first = propose(start)
    done = first[0][0] <= 0.5 * _MIN_SIGNIFICANCE**2
    state = jnp.asarray(0), start, jnp.zeros(MAX_MASSES, dtype), first, done
    _, fit, active, _, _ = jax.lax.while_loop(lambda s: (s[0] < _ROUNDS) & ~s[4], improve, state)
    return fit, active


def _undetectable_masses(
    modes: Modes, strength: Float[Array, " nodes"], prior: SubhaloPrior, number: Number
) -> tuple[Number, NormalMasses]:
    """Log probability that a mass is undetectable, and the distribution of the sum of undetectable masses."""
    low, high = (end**prior.exponent for end in prior.theta_E_squared)
    heaviest = jnp.clip(_MIN_SIGNIFICANCE / strength, *prior.theta_E_squared) ** prior.exponent

    def moment(order: int) -> Array:
        power = order / prior.exponent + 1
        return modes.fraction * (heaviest**power - low**power) / (power * (high - low))

    fraction = jnp.maximum(moment(0).sum(), 1e-6)
    return jnp.log(fraction), normal_masses(modes, number, moment(1) / fraction, moment(2) / fraction)
