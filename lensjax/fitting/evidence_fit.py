"""Joint fits of the smooth lens and point masses, for the evidence."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from lensjax.fitting.amplitudes import diagonal_scales
from lensjax.fitting.evidence_pixels import Window, blur_and_bin, ray_positions
from lensjax.fitting.lensed_source import Positions, lensed_brightness, lensed_derivatives
from lensjax.fitting.types import Free, Image, Matrix, Number, Theta

COARSE, FINE = 1, 2  # rays per binned pixel along each axis; `Window.dense` is that of the model
# Core of the point masses with these rays, arcsec. A mass deflects the few rays that pass close to it by a
# large angle, so that chi-square is rugged without a core.
_CORES = {COARSE: 0.05, FINE: 0.02}
_DENSE_CORE = 1e-3
_DAMPING = 1e-2


@dataclasses.dataclass(frozen=True)
class Layout:
    """Point masses as a function of parameters.

    Attributes:
      points: maps the parameters of the smooth lens and of the masses to the squared Einstein radius
        (arcsec^2), x and y (arcsec) of each mass.
      weights: the derivatives of `points` with respect to a parameter are linear combinations of these rows.
    """

    points: Callable[[Free, Float[Array, " extra"]], Float[Array, "masses 3"]]
    weights: Float[np.ndarray, "rows masses"]


NO_MASSES = Layout(lambda free, extra: jnp.zeros((1, 3), free.dtype), np.ones((1, 1)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Target:
    """Image and priors of a joint fit.

    Attributes:
      image: binned image, in units of the amplitude of the smooth fit and without its sky.
      weight: inverse variance of each binned pixel, 0 for masked pixels.
      means, precisions: normal priors on all parameters except amplitude and sky; 0 for flat priors.
      low, high: bounds of these parameters.
      corrections: image of the smooth lens with dense rays minus its images with coarse and with fine rays.
    """

    image: Image
    weight: Image
    means: Float[Array, " free"]
    precisions: Float[Array, " free"]
    low: Float[Array, " free"]
    high: Float[Array, " free"]
    corrections: Float[Array, "2 rows columns"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MassFit:
    """Joint fit of the smooth lens and point masses.

    Attributes:
      theta: parameters of the smooth lens, those of the masses, amplitude and sky.
      chi_square: chi-square of the pixels and the normal priors.
      residual: residual of each pixel, in standard deviations.
      columns: derivatives of the image with respect to `theta`, in standard deviations.
      deflected: derivatives of the brightness of the coarse rays with respect to their deflection.
    """

    theta: Theta
    chi_square: Number
    residual: Float[Array, " pixels"]
    columns: Float[Array, "all pixels"]
    deflected: Float[Array, "2 tall wide"]


def points_deflection(points: Float[Array, "masses 3"], core: float, rays: Positions) -> Positions:
    """Deflection by point masses, arcsec.

    Args:
      points: squared Einstein radius (arcsec^2), x and y (arcsec) of each mass.
      core: core radius of the masses, arcsec.
      rays: x and y of the rays, arcsec.
    """

    def add(total: Positions, point: Array) -> tuple[Positions, None]:
        dx, dy = rays[0] - point[1], rays[1] - point[2]
        factor = point[0] / (dx**2 + dy**2 + core**2)
        return (total[0] + factor * dx, total[1] + factor * dy), None

    zeros = jnp.zeros_like(rays[0])
    return jax.lax.scan(add, (zeros, zeros), points, unroll=5)[0]


def evaluate(window: Window, layout: Layout, target: Target, theta: Theta, per_bin: int) -> MassFit:
    """Renders the lens with the masses and its derivatives, which always use coarse rays."""
    dtype, number = theta.dtype, len(window.model.nonlinear)
    free, (amp, sky) = theta[:number], theta[-2:]

    def points_of(inner: Array) -> Array:
        return layout.points(inner[:number], inner[number:])

    points, changes = points_of(theta[:-2]), jax.jacfwd(points_of)(theta[:-2])
    mass, x, y = points.T
    rays = _rays(window, COARSE, dtype)
    # A mass with a squared Einstein radius of 1 deflects a ray at the complex offset z from it by
    # 1 / conj(z) = a + ib. The derivative with respect to the x coordinate of the mass is (a + ib)^2.
    dx, dy = (ray.ravel()[None] - center[:, None] for ray, center in zip(rays, (x, y), strict=True))
    inverse = 1 / (dx**2 + dy**2 + _CORES[COARSE] ** 2)
    # Without the barrier, XLA would recompute the divisions for each of the sums below.
    a, b = jax.lax.optimization_barrier((dx * inverse, dy * inverse))
    alpha = (mass @ a).reshape(rays[0].shape), (mass @ b).reshape(rays[0].shape)
    _, by_name, by_beta = lensed_derivatives(window.model, free, rays, alpha)
    by_x, by_y = -by_beta[0], -by_beta[1]  # beta = theta - alpha
    weights = jnp.asarray(layout.weights, dtype)
    a, b, real, imaginary = (
        (weights @ field).reshape(-1, *by_x.shape) for field in (a, b, a**2 - b**2, 2 * a * b)
    )
    gradient_x, gradient_y = by_x[None], by_y[None]
    by_points = [
        gradient_x * a + gradient_y * b,
        gradient_x * real + gradient_y * imaginary,
        gradient_x * imaginary - gradient_y * real,
    ]
    by_free = jnp.stack([by_name[name] for name in window.model.nonlinear])
    images = blur_and_bin(window, jnp.concatenate([by_free, *by_points])).reshape(-1, target.image.size)
    scaled = changes * jnp.stack([jnp.ones_like(mass), mass, mass], axis=1)[..., None]
    factors = jnp.einsum("rm,mcp->pcr", np.linalg.pinv(layout.weights.T), scaled)
    light = factors.reshape(len(theta) - 2, -1) @ images[number:]
    light = light.at[:number].add(images[:number])
    if per_bin != COARSE:
        rays = _rays(window, per_bin, dtype)
        alpha = points_deflection(points, _CORES.get(per_bin, _DENSE_CORE), rays)
    source = blur_and_bin(window, lensed_brightness(window.model, free, rays, alpha))
    if per_bin in _CORES:
        source += target.corrections[per_bin - COARSE]
    root = jnp.sqrt(target.weight)
    linear = jnp.stack([source, jnp.ones_like(source)]).reshape(2, -1)
    columns = root.reshape(1, -1) * jnp.concatenate([amp * light, linear])
    residual = (root * (target.image - amp * source - sky)).ravel()
    pull = target.means - theta[:-2]
    chi_square = residual @ residual + (target.precisions * pull**2).sum()
    return MassFit(theta, chi_square, residual, columns, jnp.stack([by_x, by_y]))


def no_fit(window: Window, target: Target, theta: Theta) -> MassFit:
    """A fit that is worse than any other."""
    pixels, rays = target.image.size, ray_positions(window, COARSE)[0].shape
    return MassFit(
        theta,
        jnp.asarray(jnp.inf, theta.dtype),
        jnp.zeros(pixels, theta.dtype),
        jnp.zeros((len(theta), pixels), theta.dtype),
        jnp.zeros((2, *rays), theta.dtype),
    )


def normal_matrix(target: Target, fit: MassFit) -> Matrix:
    """J^T W J of all parameters, plus the precisions of the normal priors."""
    return fit.columns @ fit.columns.T + jnp.diag(jnp.pad(target.precisions, (0, 2)))


def descend(
    window: Window,
    layout: Layout,
    target: Target,
    theta: Theta,
    steps: int,
    per_bin: int,
    tolerance: float = 0.3,
) -> MassFit:
    """Fits all parameters jointly with Levenberg-Marquardt steps.

    Args:
      window: window of the image.
      layout: layout of the masses.
      target: image and priors.
      theta: initial parameters of the smooth lens and of the masses, amplitude and sky.
      steps: largest number of steps.
      per_bin: rays per binned pixel along each axis.
      tolerance: a step that decreases chi-square by no more than this is the last.
    """

    def step(state: tuple[Array, Array, MassFit, Array, Array]) -> tuple[Array, Array, MassFit, Array, Array]:
        count, damping, best, trial, _ = state
        new = evaluate(window, layout, target, trial, per_bin)
        better = new.chi_square < best.chi_square
        gain = jnp.where(better, best.chi_square - new.chi_square, jnp.inf)
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), new, best)
        damping = jnp.where(better, damping / 6, damping * 8)
        return count + 1, damping, best, _next(target, best, damping), gain

    infinity, damping = jnp.asarray(jnp.inf, theta.dtype), jnp.asarray(6 * _DAMPING, theta.dtype)
    state = jnp.asarray(0), damping, no_fit(window, target, theta), theta, infinity
    return jax.lax.while_loop(lambda s: (s[0] <= steps) & (s[4] > tolerance), step, state)[2]


def held_parameters(target: Target, fit: MassFit) -> Array:
    """True for parameters at a bound beyond which chi-square would decrease."""
    inner = fit.theta[:-2]
    gradient = (fit.columns @ fit.residual)[:-2] + target.precisions * (target.means - inner)
    return ((inner <= target.low) & (gradient <= 0)) | ((inner >= target.high) & (gradient >= 0))


def _next(target: Target, fit: MassFit, damping: Array) -> Array:
    inner = fit.theta[:-2]
    gradient = fit.columns @ fit.residual
    gradient = gradient.at[:-2].add(target.precisions * (target.means - inner))
    matrix = normal_matrix(target, fit)
    keep = jnp.pad(1 - held_parameters(target, fit).astype(inner.dtype), (0, 2), constant_values=1)
    scale = diagonal_scales(matrix)
    scaled = matrix * jnp.outer(scale * keep, scale * keep) + jnp.diag(1 - keep + damping)
    trial = fit.theta + scale * jnp.linalg.solve(scaled, gradient * scale * keep)
    return trial.at[:-2].set(jnp.clip(trial[:-2], target.low, target.high))


def _rays(window: Window, per_bin: int, dtype: jnp.dtype) -> Positions:
    x, y = ray_positions(window, per_bin)
    return jnp.asarray(x, dtype), jnp.asarray(y, dtype)


def target_pull(target: Target, fit: MassFit) -> Number:
    """Chi-square of the normal priors."""
    return (target.precisions * (target.means - fit.theta[:-2]) ** 2).sum()


def log_posterior_volume(
    target: Target, fit: MassFit, products: Matrix, score: Theta, widths: Float[np.ndarray, " extra"]
) -> tuple[Number, Number]:
    """Log of the integral of exp(-chi-square / 2) relative to its maximum, in the Laplace approximation.

    Factors sqrt(2 pi) are included only for the parameters of the masses. The volume of a parameter with a
    uniform prior is at most the width of the prior.

    Args:
      target: image and priors.
      fit: joint fit.
      products: scalar products of the columns of the fit.
      score: scalar products of the columns and the residual.
      widths: widths of the uniform priors on the parameters of the masses; infinite for normal priors.

    Returns:
      The log volume, and the expected decrease in chi-square from the fit to the maximum.
    """
    extra = slice(len(fit.theta) - 2 - len(widths), -2)
    held = jnp.pad(held_parameters(target, fit), (0, 2))
    free = 1 - held.astype(products.dtype)
    precisions = jnp.pad(target.precisions, (0, 2))
    gradient = score.at[:-2].add(target.precisions * (target.means - fit.theta[:-2]))
    curvature = jnp.diagonal(products) + precisions
    uniform = jnp.zeros_like(curvature).at[extra].set(jnp.asarray(2 * np.pi / widths**2, products.dtype))
    matrix = products * jnp.outer(free, free) + jnp.diag(1 - free + free * (precisions + uniform))
    scale = diagonal_scales(matrix)
    tiny = 1e-6 * jnp.eye(len(scale), dtype=scale.dtype)
    root = jnp.linalg.cholesky(matrix * jnp.outer(scale, scale) + tiny)
    move = solve_triangular(root, scale * free * gradient, lower=True)
    # The distribution of a parameter at a bound is exponential, half-normal or uniform.
    at_bound = -jnp.log(
        1 / jnp.asarray(widths) + jnp.abs(gradient)[extra] + jnp.sqrt(2 * curvature[extra] / np.pi)
    )
    volume = jnp.where(held[extra], at_bound, 0.5 * np.log(2 * np.pi)).sum()
    log_determinant = 2 * (jnp.log(jnp.diagonal(root)).sum() - jnp.log(scale).sum())
    return volume - 0.5 * log_determinant, move @ move


def log_det(matrix: Matrix) -> Number:
    """Log determinant of a positive definite matrix."""
    scale = diagonal_scales(matrix)
    tiny = 1e-6 * jnp.eye(len(matrix), dtype=matrix.dtype)
    root = jnp.linalg.cholesky(matrix * jnp.outer(scale, scale) + tiny)
    return 2 * (jnp.log(jnp.diagonal(root)).sum() - jnp.log(scale).sum())
