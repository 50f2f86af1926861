"""Evidence for a line of masses, to all orders, from a joint fit of the line and the smooth lens.

The fit starts from the best lines of a bank. The integral over the parameters uses the Laplace
approximation: a normal distribution with the curvature of chi-square at the best fit.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lensjax.fitting.evidence_masses import line_fractions
from lensjax.fitting.evidence_pixels import (
    Window,
    blur_and_bin,
    brightness_at,
    brightness_gradient,
    ray_positions,
    source_image,
    trace_rays,
)
from lensjax.fitting.model import SmoothModel
from lensjax.fitting.rendering import parameter_values
from lensjax.fitting.solve import diagonal_scales, normal_priors
from lensjax.fitting.starts import halton_points
from lensjax.physics.substructure import SubstructurePrior, VortexPrior

_BANK_SIZE = 512  # lines; the bank has each in the eight orientations of a square
_FIRST_STEPS, _FINAL_STEPS = 8, 8  # from every start, and from the best result of those fits
_DAMPING = 1e-2
_NEAR = 0.3, 0.5  # arcsec and radians; lines closer than this count as the same start
_CORE, _BLURRED_CORE = 1e-6, 0.02  # cores of the point masses, arcsec
_MAX_CENTER = 5.0  # limit of each coordinate of the center of a line, in standard deviations of the prior

SIZE = 5  # parameters of a line: mass_fraction, length, angle, x, y


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LineFit:
    """Joint fit of a smooth lens and a line of masses.

    Attributes:
      free: free parameters of the smooth model, then those of the line.
      linear: amplitude and sky.
      chi_square: chi-square of the pixels and the normal priors.
      matrix: J^T W J of all parameters (the linear ones last), plus the precisions of the normal priors.
    """

    free: Float[Array, " nonlinear"]
    linear: Float[Array, "2"]
    chi_square: Float[Array, ""]
    matrix: Float[Array, "all all"]


@functools.lru_cache(maxsize=4)
def line_bank(prior: SubstructurePrior) -> tuple[np.ndarray, np.ndarray]:
    """Bank of lines that cover the prior.

    Returns:
      Length, angle, x and y of each line `[lines, 4]`, and the fraction of its mass on each grid node
      `[lines, nodes]`.
    """
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
    residual: Float[Array, " rank"],
    templates: Float[Array, "rank nodes"],
    lines: Float[Array, "lines 4"],
    fractions: Float[Array, "lines nodes"],
    line: VortexPrior,
    theta_E: Float[Array, ""],
    number: int,
) -> Float[Array, "number 5"]:
    """Selects distinct lines of a bank that best explain a residual to first order."""
    images = templates @ fractions.T
    overlap, square = residual @ images, (images**2).sum(0)
    low, high = (fraction * theta_E**2 for fraction in line.mass_fraction)
    mass = jnp.clip(overlap / jnp.maximum(square, 1e-30), low, high)
    gain = mass * overlap - 0.5 * mass**2 * square

    def choose_best(gain: Array, _: None) -> tuple[Array, Array]:
        index = jnp.argmax(gain)
        _, angle, x, y = lines[index]
        rotation = jnp.abs((lines[:, 1] - angle + jnp.pi / 2) % jnp.pi - jnp.pi / 2)
        distance = jnp.hypot(lines[:, 2] - x, lines[:, 3] - y)
        near = (distance < _NEAR[0]) & (rotation < _NEAR[1])
        return jnp.where(near, -jnp.inf, gain), index

    _, chosen = jax.lax.scan(choose_best, gain, None, length=number)
    return jnp.concatenate([(mass[chosen] / theta_E**2)[:, None], lines[chosen]], axis=1)


def fit_line(
    window: Window,
    line: VortexPrior,
    image: Float[Array, "rows columns"],
    weight: Float[Array, "rows columns"],
    free: Float[Array, " nonlinear"],
    linear: Float[Array, "2"],
    lines: Float[Array, "starts 5"],
) -> LineFit:
    """Fits smooth lens and line jointly from several starts, and returns the best fit.

    Args:
      window: window of the image.
      line: prior on the line.
      image: binned image.
      weight: inverse variance of each binned pixel, 0 for masked pixels.
      free, linear: parameters of the fit without a line.
      lines: parameters of the starting lines.
    """
    descend = functools.partial(_descend, window, line, image, weight)

    def first_fit(start: Array) -> LineFit:
        return descend(jnp.concatenate([free, start]), linear, _FIRST_STEPS, blurred=True)

    fits = jax.lax.map(first_fit, lines)
    best = jax.tree.map(lambda leaf: leaf[jnp.argmin(fits.chi_square)], fits)
    return descend(best.free, best.linear, _FINAL_STEPS, blurred=False)


def line_log_evidence(
    fit: LineFit, smooth_chi_square: Float[Array, ""], smooth_matrix: Array, line: VortexPrior
) -> Float[Array, ""]:
    """Log evidence for a line relative to none.

    Args:
      fit: joint fit of smooth lens and line.
      smooth_chi_square: chi-square of the fit without a line.
      smooth_matrix: J^T W J of the fit without a line.
      line: prior on the line.
    """
    mass, length = (high - low for low, high in (line.mass_fraction, line.length))
    # Chi-square includes the normal prior on the center, but not its normalization.
    density = 1 / (mass * length * np.pi * 2 * np.pi * line.center_sigma**2)
    volume = SIZE * np.log(2 * np.pi) - _log_determinant(fit.matrix)
    return (
        0.5 * (smooth_chi_square - fit.chi_square)
        + float(np.log(density))
        + 0.5 * (volume + _log_determinant(smooth_matrix))
    )


def _log_determinant(matrix: Float[Array, "all all"]) -> Float[Array, ""]:
    scale = diagonal_scales(matrix)
    scaled = matrix * scale[:, None] * scale[None, :]
    return jnp.linalg.slogdet(scaled)[1] - 2 * jnp.log(scale).sum()


def line_deflection(
    line: Float[Array, "5"],
    theta_E: Float[Array, ""],
    number: int,
    core: float,
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
) -> tuple[Array, Float[Array, "5 *grid"]]:
    """Complex deflection by the points of a line, and its derivatives with respect to the line's parameters.

    `theta_E` is the Einstein radius of the main lens, to which the mass is relative.

    A point mass with an Einstein radius of 1 deflects a ray at the complex offset z from it by 1 / conj(z).
    The derivative with respect to the x coordinate of the mass is 1 / conj(z)^2.
    """
    fraction, length, angle, center_x, center_y = line

    def add(total: tuple[Array, Array, Array], position: Array) -> tuple[tuple[Array, Array, Array], None]:
        dx = x - center_x - position * length * jnp.cos(angle)
        dy = y - center_y - position * length * jnp.sin(angle)
        alpha = jax.lax.complex(dx, dy) / (dx**2 + dy**2 + core**2)
        return (total[0] + alpha, total[1] + alpha**2, total[2] + position * alpha**2), None

    zeros = jnp.zeros_like(x) * 1j
    positions = jnp.linspace(-0.5, 0.5, number, dtype=line.dtype)
    (alpha, by_shift, by_stretch), _ = jax.lax.scan(add, (zeros,) * 3, positions)
    point_mass = fraction * theta_E**2 / number
    rotation = jax.lax.complex(jnp.cos(angle), -jnp.sin(angle))
    derivatives = [
        alpha * theta_E**2 / number,
        point_mass * rotation * by_stretch,
        -1j * point_mass * length * rotation * by_stretch,
        point_mass * by_shift,
        -1j * point_mass * by_shift,
    ]
    return point_mass * alpha, jnp.stack(derivatives)


def einstein_radius(model: SmoothModel, free: Float[Array, " nonlinear"]) -> Float[Array, ""]:
    """Einstein radius of the main lens, arcsec."""
    return parameter_values(model, free)["theta_E"]


def _descend(
    window: Window,
    line: VortexPrior,
    image: Float[Array, "rows columns"],
    weight: Float[Array, "rows columns"],
    free: Float[Array, " nonlinear"],
    linear: Float[Array, "2"],
    steps: int,
    *,
    blurred: bool,
) -> LineFit:
    """Fits all parameters jointly with Levenberg-Marquardt steps.

    Chi-square is rugged near individual masses, because each mass deflects the few rays that pass close to
    it by a large angle. With `blurred` masses, chi-square is smooth and needs fewer rays. The derivatives
    always use blurred masses.
    """
    number, dtype = len(window.model.nonlinear), free.dtype
    max_center = _MAX_CENTER * line.center_sigma
    low, high = (
        jnp.full_like(free, bound).at[number : number + 2].set(jnp.asarray(pair, dtype))
        for bound, pair in zip(
            (-jnp.inf, jnp.inf), zip(line.mass_fraction, line.length, strict=True), strict=True
        )
    )
    low, high = low.at[-2:].set(-max_center), high.at[-2:].set(max_center)
    means, precisions = normal_priors(window.model, dtype)
    line_precisions = jnp.asarray([0, 0, 0, *[line.center_sigma**-2] * 2, 0, 0], dtype)
    precisions = jnp.concatenate([precisions, line_precisions])
    means = jnp.pad(means, (0, SIZE + 2))

    x, y = ray_positions(window, 1, dtype)
    # The correction for denser rays is computed without the line and applied to the lens with the line.
    subpixels, smooth = window.model.subpixels, free[:number]
    dense_correction = source_image(window, subpixels, smooth) - source_image(window, 1, smooth)
    dense_rays = ray_positions(window, subpixels, dtype)

    def exact_image(theta: Array) -> Array:
        radius = einstein_radius(window.model, theta[:number])
        alpha, _ = line_deflection(theta[number:-2], radius, line.number, _CORE, *dense_rays)
        beta_x, beta_y = trace_rays(window, subpixels, theta[:number])
        beta = beta_x - alpha.real, beta_y - alpha.imag
        return blur_and_bin(window, brightness_at(window.model, theta[:number], beta))

    def evaluate(theta: Array) -> tuple[Array, Array, Array]:
        """Chi-square, half its negative gradient, and half its curvature."""
        smooth, amp, sky = theta[:number], theta[-2], theta[-1]
        radius, by_radius = jax.value_and_grad(functools.partial(einstein_radius, window.model))(smooth)
        alpha, alpha_by_line = line_deflection(theta[number:-2], radius, line.number, _BLURRED_CORE, x, y)

        def brightness(smooth: Array) -> tuple[Array, tuple[Array, Array]]:
            beta_x, beta_y = trace_rays(window, 1, smooth)
            beta = beta_x - alpha.real, beta_y - alpha.imag
            return brightness_at(window.model, smooth, beta), beta

        by_smooth, beta = jax.jacfwd(brightness, has_aux=True)(smooth)
        by_x, by_y = brightness_gradient(window.model, smooth, beta)
        by_line = -(by_x[None] * alpha_by_line.real + by_y[None] * alpha_by_line.imag)
        # The mass of the line is proportional to the squared Einstein radius of the main lens.
        by_mass = by_line[0] * (2 * theta[number] / radius)
        by_smooth = jnp.moveaxis(by_smooth, -1, 0) + by_radius[:, None, None] * by_mass[None]
        light = [brightness_at(window.model, smooth, beta)[None], by_smooth, by_line]
        images = blur_and_bin(window, jnp.concatenate(light))
        source = images[0] + dense_correction if blurred else exact_image(theta)
        columns = jnp.stack([*(amp * images[1:]), source, jnp.ones_like(source)])
        columns = columns.reshape(len(theta), -1)
        residual = (image - amp * source - sky).ravel()
        pull = (means - theta) * precisions
        chi_square = (weight.ravel() * residual**2).sum() + (pull * (means - theta)).sum()
        weighted = weight.reshape(1, -1) * columns
        return chi_square, weighted @ residual + pull, weighted @ columns.T + jnp.diag(precisions)

    def step(_: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        theta, damping, trial, *best = state
        evaluated = evaluate(trial)
        better = evaluated[0] < best[0]
        theta, best[0], best[1], best[2] = (
            jnp.where(better, new, old) for new, old in zip((trial, *evaluated), (theta, *best), strict=True)
        )
        damping = jnp.where(better, damping / 6, damping * 8)
        _, gradient, matrix = best
        inner = theta[:-2]
        held = ((inner <= low) & (gradient[:-2] < 0)) | ((inner >= high) & (gradient[:-2] > 0))
        keep = jnp.pad(jnp.where(held, 0.0, 1.0).astype(dtype), (0, 2), constant_values=1)
        scale = diagonal_scales(matrix)
        scaled = matrix * jnp.outer(scale, scale) * jnp.outer(keep, keep)
        scaled = scaled + jnp.diag(1 - keep + damping)
        move = scale * jnp.linalg.solve(scaled, gradient * scale * keep)
        trial = theta + move
        trial = trial.at[:-2].set(jnp.clip(trial[:-2], low, high))
        return theta, damping, trial, *best

    theta = jnp.concatenate([free, linear])
    initial = jnp.asarray(jnp.inf, dtype), jnp.zeros_like(theta), jnp.eye(len(theta), dtype=dtype)
    first = theta, jnp.asarray(6 * _DAMPING, dtype), theta, *initial
    theta, _, _, chi_square, _, matrix = jax.lax.fori_loop(0, steps, step, first)
    return LineFit(theta[:-2], theta[-2:], chi_square, matrix)
