"""Evidence for a line of masses, to all orders, from a joint fit of the line and the smooth lens.

The fit starts from the best lines of a bank. The integral over the parameters uses the Laplace
approximation: a normal distribution with the curvature of chi-square at the best fit.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from lensjax.fitting.evidence_fit import (
    COARSE,
    FINE,
    Layout,
    MassFit,
    Target,
    descend,
    log_posterior_volume,
    no_fit,
)
from lensjax.fitting.evidence_masses import Response, line_fractions
from lensjax.fitting.evidence_pixels import Window
from lensjax.fitting.lensed_source import parameter_values
from lensjax.fitting.model import SmoothModel
from lensjax.fitting.starts import halton_points
from lensjax.fitting.types import Free, Number, Theta
from lensjax.physics.substructure import SubstructurePrior, VortexPrior

_BANK_SIZE = 512  # lines; the bank has each in the eight orientations of a square
ROUND_SIZE = 12  # starting lines that are compared with each other
NUM_STARTS = 4 * ROUND_SIZE
_FINAL_STEPS = 6
_STRETCH = 1.35  # of a line, to find other minima
_NEAR = 0.25, 0.3, 0.7  # arcsec, radians, arcsec of length; lines closer than this count as the same start
_MAX_CENTER = 5.0  # limit of each coordinate of the center of a line, in standard deviations of the prior

SIZE = 5  # parameters of a line: mass_fraction, length, angle, x, y


@functools.lru_cache(maxsize=4)
def line_bank(prior: SubstructurePrior) -> tuple[np.ndarray, np.ndarray]:
    """Bank of lines that cover the prior.

    Returns:
      Length, angle, x and y of each line `[lines, 4]`, and the fraction of its mass on each grid node
      `[lines, nodes]`.
    """
    assert isinstance(prior.vortex, VortexPrior)
    points = halton_points(_BANK_SIZE, 4)
    low, high = prior.vortex.length
    length = low + (high - low) * points[:, 0]
    angle = np.pi * points[:, 1]
    # The Box-Muller transform makes normally distributed coordinates.
    distance = prior.vortex.center_sigma * np.sqrt(-2 * np.log(points[:, 2]))
    x, y = distance * np.cos(2 * np.pi * points[:, 3]), distance * np.sin(2 * np.pi * points[:, 3])
    lines = []
    for _ in range(4):
        x, y, angle = -y, x, angle + np.pi / 2
        lines += [(length, angle, x, y), (length, -angle, x, -y)]
    table = np.concatenate([np.stack(line, axis=1) for line in lines])
    return table, line_fractions(table, prior.vortex, prior)


def starting_lines(
    response: Response,
    lines: Float[Array, "lines 4"],
    amplitudes: Float[Array, "modes lines"],
    line: VortexPrior,
    theta_E: Number,
    number: int,
) -> Float[Array, "number 5"]:
    """Selects distinct lines of a bank that best explain a residual to first order."""
    overlap = response.score @ amplitudes
    square = ((response.gram @ amplitudes) * amplitudes).sum(0)
    low, high = (fraction * theta_E**2 for fraction in line.mass_fraction)
    mass = jnp.clip(overlap / jnp.maximum(square, 1e-30), low, high)
    gain = mass * overlap - 0.5 * mass**2 * square

    def choose_best(gain: Array, _: None) -> tuple[Array, Array]:
        index = jnp.argmax(gain)
        length, angle, x, y = lines[index]
        rotation = jnp.abs((lines[:, 1] - angle + jnp.pi / 2) % jnp.pi - jnp.pi / 2)
        distance = jnp.hypot(lines[:, 2] - x, lines[:, 3] - y)
        near = (distance < _NEAR[0]) & (rotation < _NEAR[1]) & (jnp.abs(lines[:, 0] - length) < _NEAR[2])
        return jnp.where(near, -jnp.inf, gain), index

    _, chosen = jax.lax.scan(choose_best, gain, None, length=number)
    return jnp.concatenate([(mass[chosen] / theta_E**2)[:, None], lines[chosen]], axis=1)


def einstein_radius(model: SmoothModel, free: Free) -> Number:
    """Einstein radius of the main lens, arcsec."""
    return parameter_values(model, free)["mass.0.theta_E"]


def line_layout(model: SmoothModel, line: VortexPrior) -> Layout:
    """Point masses of a line, whose mass is relative to that of the main lens."""
    position = np.linspace(-0.5, 0.5, line.number)

    def points(free: Array, extra: Array) -> Array:
        fraction, length, angle, x, y = extra
        along = length * jnp.asarray(position, extra.dtype)
        mass = fraction * einstein_radius(model, free) ** 2 / line.number
        return jnp.stack(
            [jnp.full_like(along, 1) * mass, x + along * jnp.cos(angle), y + along * jnp.sin(angle)], axis=1
        )

    return Layout(points, np.stack([np.ones_like(position), position]))


def line_target(target: Target, line: VortexPrior) -> Target:
    """Target of the joint fit, with the priors on a line."""
    far, dtype = _MAX_CENTER * line.center_sigma, target.means.dtype
    low = [line.mass_fraction[0], line.length[0], -np.inf, -far, -far]
    high = [line.mass_fraction[1], line.length[1], np.inf, far, far]
    precisions = [0, 0, 0, *[line.center_sigma**-2] * 2]
    return dataclasses.replace(
        target,
        means=jnp.pad(target.means, (0, SIZE)),
        precisions=jnp.concatenate([target.precisions, jnp.asarray(precisions, dtype)]),
        low=jnp.concatenate([target.low, jnp.asarray(low, dtype)]),
        high=jnp.concatenate([target.high, jnp.asarray(high, dtype)]),
    )


def fit_line(
    window: Window,
    line: VortexPrior,
    target: Target,
    smooth: MassFit,
    lines: Float[Array, "starts 5"],
    is_unclear: Callable[[MassFit], Bool[Array, ""]],
) -> MassFit:
    """Fits smooth lens and line jointly from several starts, and returns the best fit.

    Args:
      window: window of the image.
      line: prior on the line.
      target: target of the smooth fit.
      smooth: fit of the smooth lens.
      lines: parameters of the starting lines, whose number is a multiple of `ROUND_SIZE`.
      is_unclear: returns True for a fit after which another round of starts is needed.
    """
    fit = functools.partial(descend, window, line_layout(window.model, line), line_target(target, line))

    def best_fits(thetas: Array, number: int, steps: int, per_bin: int) -> Array:
        def fit_one(theta: Array) -> tuple[Array, Array]:
            found = fit(theta, steps, per_bin)
            return found.chi_square, found.theta

        chi_squares, thetas = jax.lax.map(fit_one, thetas)
        _, best = jax.lax.top_k(-chi_squares, number)
        return thetas[best]

    def fit_from(thetas: Array) -> MassFit:
        thetas = best_fits(thetas, 4, 2, COARSE)
        thetas = best_fits(thetas, 2, 5, COARSE)
        thetas = jnp.concatenate([thetas, _neighbors(thetas[0], line)])
        thetas = best_fits(thetas, 2, 3, COARSE)
        thetas = best_fits(thetas, 1, 7, FINE)
        return fit(thetas[0], _FINAL_STEPS, window.dense, 0.1)

    def add_round(state: tuple[Array, MassFit]) -> tuple[Array, MassFit]:
        count, best = state
        new = fit_from(jnp.concatenate([best.theta[None], rounds[count]]))
        better = new.chi_square < best.chi_square
        return count + 1, jax.tree.map(lambda new, old: jnp.where(better, new, old), new, best)

    thetas = jax.vmap(lambda start: jnp.concatenate([smooth.theta[:-2], start, smooth.theta[-2:]]))(lines)
    rounds = thetas.reshape(-1, ROUND_SIZE, thetas.shape[1])
    return jax.lax.while_loop(
        lambda state: (state[0] == 0) | ((state[0] < len(rounds)) & is_unclear(state[1])),
        add_round,
        (jnp.asarray(0), no_fit(window, target, thetas[0])),
    )[1]


def _neighbors(theta: Theta, line: VortexPrior) -> Float[Array, "8 all"]:
    """Lines of the same density with one end moved to where chi-square may have another minimum."""
    fraction, length, angle = theta[-7], theta[-6], theta[-5]
    step = 1 / (line.number - 1)
    factors, sides = np.meshgrid([1 / _STRETCH, 1 - step, 1 + step, _STRETCH], [-0.5, 0.5])
    new_length = jnp.clip(length * factors.ravel().astype(theta.dtype), *line.length)
    shift = (new_length - length) * sides.ravel().astype(theta.dtype)
    neighbors = jnp.broadcast_to(theta, (len(shift), len(theta)))
    neighbors = neighbors.at[:, -7].set(jnp.clip(fraction * new_length / length, *line.mass_fraction))
    neighbors = neighbors.at[:, -6].set(new_length)
    neighbors = neighbors.at[:, -4].add(shift * jnp.cos(angle))
    return neighbors.at[:, -3].add(shift * jnp.sin(angle))


def line_log_evidence(
    fit: MassFit, target: Target, smooth_chi_square: Number, smooth_log_det: Array, line: VortexPrior
) -> Number:
    """Log evidence for a line relative to none.

    Args:
      fit: joint fit of smooth lens and line.
      target: target of the smooth fit.
      smooth_chi_square: chi-square of the fit without a line.
      smooth_log_det: log determinant of the normal matrix of the fit without a line.
      line: prior on the line.
    """
    joint = line_target(target, line)
    mass, length = (high - low for low, high in (line.mass_fraction, line.length))
    widths = np.array([mass, length, np.pi, np.inf, np.inf])
    # Chi-square includes the normal prior on the center, but not its normalization.
    density = 1 / (mass * length * np.pi * 2 * np.pi * line.center_sigma**2)
    products, score = fit.columns @ fit.columns.T, fit.columns @ fit.residual
    log_volume, _ = log_posterior_volume(joint, fit, products, score, widths)
    return (
        0.5 * (smooth_chi_square - fit.chi_square)
        + float(np.log(density))
        + log_volume
        + 0.5 * smooth_log_det
    )
