"""A line of masses, to all orders: fitted together with the smooth lens, from the best of a bank of lines.

The integral over the parameters is Laplace's: that of the normal distribution with the fit's curvature.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lensjax.fitting.evidence_masses import spread
from lensjax.fitting.evidence_pixels import (
    Window,
    drawn,
    in_source_plane,
    light,
    rays,
    slope,
    source,
)
from lensjax.fitting.evidence_prior import MassLine, SubstructurePrior
from lensjax.fitting.solve import priors, scales
from lensjax.fitting.starts import halton

_BANK = 512  # lines, each in a square's eight orientations
_FIRST, _THEN = 8, 8  # steps from every start, and from the best of them
_DAMPING = 1e-2
_NEAR = 0.3, 0.5  # arcsec and radians within which starts are the same
_CORE, _BLURRED = 1e-6, 0.02  # of the point masses, arcsec
_FARTHEST = 5.0  # standard deviations of a line's centre

SIZE = 5  # parameters: theta_E_squared, length, angle, x, y


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Fit:
    """Smooth lens and line together.

    Attributes:
      free: values of the smooth model's free parameters, then those of the line.
      linear: amplitude and sky.
      chi_square: with the priors that are normal.
      matrix: J^T W J of all of them, linear ones last, with those priors.
    """

    free: Float[Array, " nonlinear"]
    linear: Float[Array, "2"]
    chi_square: Float[Array, ""]
    matrix: Float[Array, "all all"]


@functools.lru_cache(maxsize=4)
def bank(prior: SubstructurePrior) -> tuple[np.ndarray, np.ndarray]:
    """Lines all over the prior, and what share of each falls to each node.

    Returns:
      Length, angle, x and y of each line, a row each; shares `[lines, nodes]`.
    """
    points = halton(_BANK, 4)
    low, high = prior.line.length
    length = low + (high - low) * points[:, 0]
    angle = np.pi * points[:, 1]
    # A normal distribution of both coordinates, by Box & Muller.
    distance = prior.line.center_sigma * np.sqrt(-2 * np.log(points[:, 2]))
    x, y = distance * np.cos(2 * np.pi * points[:, 3]), distance * np.sin(2 * np.pi * points[:, 3])
    lines = []
    for _ in range(4):
        x, y, angle = -y, x, angle + np.pi / 2
        lines += [(length, angle, x, y), (length, -angle, x, -y)]
    table = np.concatenate([np.stack(line, axis=1) for line in lines])
    return table, spread(table, prior.line, prior)


def starts(
    residual: Float[Array, " rank"],
    found: Float[Array, "rank nodes"],
    lines: Float[Array, "lines 4"],
    shares: Float[Array, "lines nodes"],
    line: MassLine,
    number: int,
) -> Float[Array, "number 5"]:
    """The lines of a bank that explain most of a residual to first order, no two of them alike."""
    images = found @ shares.T
    overlap, square = residual @ images, (images**2).sum(0)
    low, high = line.theta_E_squared
    mass = jnp.clip(overlap / jnp.maximum(square, 1e-30), low, high)
    gain = mass * overlap - 0.5 * mass**2 * square

    def best(gain: Array, _: None) -> tuple[Array, Array]:
        index = jnp.argmax(gain)
        _, angle, x, y = lines[index]
        turned = jnp.abs((lines[:, 1] - angle + jnp.pi / 2) % jnp.pi - jnp.pi / 2)
        apart = jnp.hypot(lines[:, 2] - x, lines[:, 3] - y)
        near = (apart < _NEAR[0]) & (turned < _NEAR[1])
        return jnp.where(near, -jnp.inf, gain), index

    _, chosen = jax.lax.scan(best, gain, None, length=number)
    return jnp.concatenate([mass[chosen][:, None], lines[chosen]], axis=1)


def fit_line(
    window: Window,
    line: MassLine,
    image: Float[Array, "rows columns"],
    weight: Float[Array, "rows columns"],
    free: Float[Array, " nonlinear"],
    linear: Float[Array, "2"],
    lines: Float[Array, "starts 5"],
) -> Fit:
    """The best fit of smooth lens and line from several starts.

    Args:
      window: what is fitted.
      line: its prior.
      image: its larger pixels.
      weight: inverse variance of each, 0 where it does not count.
      free, linear: of the smooth fit.
      lines: where lines set out.
    """
    descend = functools.partial(_descend, window, line, image, weight)

    def first(start: Array) -> Fit:
        return descend(jnp.concatenate([free, start]), linear, _FIRST, blurred=True)

    fits = jax.lax.map(first, lines)
    best = jax.tree.map(lambda leaf: leaf[jnp.argmin(fits.chi_square)], fits)
    return descend(best.free, best.linear, _THEN, blurred=False)


def log_evidence(
    fit: Fit, smooth_chi_square: Float[Array, ""], smooth_matrix: Array, line: MassLine
) -> Float[Array, ""]:
    """Logarithm of the evidence for a line over that for none.

    Args:
      fit: smooth lens and line.
      smooth_chi_square, smooth_matrix: the same of the smooth lens alone.
      line: its prior.
    """
    mass, length = (high - low for low, high in (line.theta_E_squared, line.length))
    # The normal prior of the centre is in chi-square; the height of its peak is here.
    density = 1 / (mass * length * np.pi * 2 * np.pi * line.center_sigma**2)
    volume = SIZE * np.log(2 * np.pi) - _log_determinant(fit.matrix)
    return (
        0.5 * (smooth_chi_square - fit.chi_square)
        + float(np.log(density))
        + 0.5 * (volume + _log_determinant(smooth_matrix))
    )


def _log_determinant(matrix: Float[Array, "all all"]) -> Float[Array, ""]:
    scale = scales(matrix)
    scaled = matrix * scale[:, None] * scale[None, :]
    return jnp.linalg.slogdet(scaled)[1] - 2 * jnp.log(scale).sum()


def deflection(
    line: Float[Array, "5"],
    number: int,
    core: float,
    x: Float[Array, "*grid"],
    y: Float[Array, "*grid"],
) -> tuple[Array, Float[Array, "5 *grid"]]:
    """Deflection of the points of a line as complex numbers, and its derivatives in the line's parameters.

    A point mass bends by 1 / conj(z) at z from it, which changes by 1 / conj(z)^2 as the mass moves along x.
    """
    mass, length, angle, center_x, center_y = line

    def add(
        total: tuple[Array, Array, Array], part: Array
    ) -> tuple[tuple[Array, Array, Array], None]:
        dx = x - center_x - part * length * jnp.cos(angle)
        dy = y - center_y - part * length * jnp.sin(angle)
        bent = jax.lax.complex(dx, dy) / (dx**2 + dy**2 + core**2)
        return (total[0] + bent, total[1] + bent**2, total[2] + part * bent**2), None

    nothing = jnp.zeros_like(x) * 1j
    parts = jnp.linspace(-0.5, 0.5, number, dtype=line.dtype)
    (bent, moved, stretched), _ = jax.lax.scan(add, (nothing,) * 3, parts)
    each = mass / number
    back = jax.lax.complex(jnp.cos(angle), -jnp.sin(angle))
    slopes = [
        bent / number,
        each * back * stretched,
        -1j * each * length * back * stretched,
        each * moved,
        -1j * each * moved,
    ]
    return each * bent, jnp.stack(slopes)


def _descend(
    window: Window,
    line: MassLine,
    image: Float[Array, "rows columns"],
    weight: Float[Array, "rows columns"],
    free: Float[Array, " nonlinear"],
    linear: Float[Array, "2"],
    steps: int,
    *,
    blurred: bool,
) -> Fit:
    """Levenberg-Marquardt steps, all parameters together.

    Chi-square is rugged near single masses, which bend each ray that comes close in a way of its own. With
    `blurred` masses it is smooth, and takes fewer rays. The slopes are always those of blurred masses.
    """
    number, dtype = len(window.model.nonlinear), free.dtype
    far = _FARTHEST * line.center_sigma
    low, high = (
        jnp.full_like(free, bound).at[number : number + 2].set(jnp.asarray(pair, dtype))
        for bound, pair in zip(
            (-jnp.inf, jnp.inf), zip(line.theta_E_squared, line.length, strict=True), strict=True
        )
    )
    low, high = low.at[-2:].set(-far), high.at[-2:].set(far)
    means, precisions = priors(window.model, dtype)
    centre = jnp.asarray([0, 0, 0, *[line.center_sigma**-2] * 2, 0, 0], dtype)
    precisions = jnp.concatenate([precisions, centre])
    means = jnp.pad(means, (0, SIZE + 2))

    x, y = rays(window, 1, dtype)
    # What denser rays change in the smooth lens's image, they change in this one too.
    subpixels, smooth = window.model.subpixels, free[:number]
    denser = source(window, subpixels, smooth) - source(window, 1, smooth)
    dense_rays = rays(window, subpixels, dtype)

    def exact(every: Array) -> Array:
        bent, _ = deflection(every[number:-2], line.number, _CORE, *dense_rays)
        beta_x, beta_y = in_source_plane(window, subpixels, every[:number])
        beta = beta_x - bent.real, beta_y - bent.imag
        return drawn(window, light(window.model, every[:number], beta))

    def evaluate(every: Array) -> tuple[Array, Array, Array]:
        """Chi-square, its gradient downhill and its curvature, both halved."""
        smooth, amp, sky = every[:number], every[-2], every[-1]
        bent, moved = deflection(every[number:-2], line.number, _BLURRED, x, y)

        def glow(smooth: Array) -> tuple[Array, tuple[Array, Array]]:
            beta_x, beta_y = in_source_plane(window, 1, smooth)
            beta = beta_x - bent.real, beta_y - bent.imag
            return light(window.model, smooth, beta), beta

        by_smooth, beta = jax.jacfwd(glow, has_aux=True)(smooth)
        by_x, by_y = slope(window.model, smooth, beta)
        by_line = -(by_x[None] * moved.real + by_y[None] * moved.imag)
        shot = [light(window.model, smooth, beta)[None], jnp.moveaxis(by_smooth, -1, 0), by_line]
        images = drawn(window, jnp.concatenate(shot))
        source_image = images[0] + denser if blurred else exact(every)
        columns = jnp.stack([*(amp * images[1:]), source_image, jnp.ones_like(source_image)])
        columns = columns.reshape(len(every), -1)
        left = (image - amp * source_image - sky).ravel()
        pull = (means - every) * precisions
        chi_square = (weight.ravel() * left**2).sum() + (pull * (means - every)).sum()
        weighted = weight.reshape(1, -1) * columns
        return chi_square, weighted @ left + pull, weighted @ columns.T + jnp.diag(precisions)

    def step(_: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        every, damping, trial, *best = state
        there = evaluate(trial)
        better = there[0] < best[0]
        every, best[0], best[1], best[2] = (
            jnp.where(better, new, old)
            for new, old in zip((trial, *there), (every, *best), strict=True)
        )
        damping = jnp.where(better, damping / 6, damping * 8)
        _, gradient, matrix = best
        inner = every[:-2]
        held = ((inner <= low) & (gradient[:-2] < 0)) | ((inner >= high) & (gradient[:-2] > 0))
        keep = jnp.pad(jnp.where(held, 0.0, 1.0).astype(dtype), (0, 2), constant_values=1)
        scale = scales(matrix)
        scaled = matrix * jnp.outer(scale, scale) * jnp.outer(keep, keep)
        scaled = scaled + jnp.diag(1 - keep + damping)
        move = scale * jnp.linalg.solve(scaled, gradient * scale * keep)
        trial = every + move
        trial = trial.at[:-2].set(jnp.clip(trial[:-2], low, high))
        return every, damping, trial, *best

    every = jnp.concatenate([free, linear])
    nothing = jnp.asarray(jnp.inf, dtype), jnp.zeros_like(every), jnp.eye(len(every), dtype=dtype)
    first = every, jnp.asarray(6 * _DAMPING, dtype), every, *nothing
    every, _, _, chi_square, _, matrix = jax.lax.fori_loop(0, steps, step, first)
    return Fit(every[:-2], every[-2:], chi_square, matrix)
