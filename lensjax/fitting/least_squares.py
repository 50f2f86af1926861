"""Fits a smooth lens to each image of a batch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from lensjax.fitting.amplitudes import solve_linear, total_light
from lensjax.fitting.bad_pixels import find_bad_pixels
from lensjax.fitting.implicit import attach_image_derivative
from lensjax.fitting.inputs import convert_inputs
from lensjax.fitting.lensed_source import parameter_values
from lensjax.fitting.model import SmoothModel
from lensjax.fitting.noise import Noise, estimate_noise, noise_from_high_frequencies, variance
from lensjax.fitting.presets import COMMON_TEST
from lensjax.fitting.rendering import render, render_with_jacobian, source_positions
from lensjax.fitting.resolution import Resolution, bin_valid, unbin
from lensjax.fitting.result import LensFit
from lensjax.fitting.solve import (
    NormalEquations,
    invert_normal_matrix,
    minimize,
    normal_equations,
    parameter_bounds,
)
from lensjax.fitting.starts import chi_square_gains, lens_bank
from lensjax.fitting.types import Free, Image, Mask, Matrix, Number
from lensjax.physics.precision import full_precision

_COARSE_TOLERANCE, _FINE_TOLERANCE = 3.0, 0.3  # largest expected decrease in chi-square of the last step
_COARSE_PIXEL = 0.25  # arcsec
_NUM_STARTS = 2
_MAX_CHI_SQUARE = 8.0  # reduced chi-square; the worst fit of 1,000 vortices has 3.1
NO_PHOTON_NOISE = 1e-12  # gain, for an image of contrast 1
_MIN_DETECTION = 20.0  # smallest amplitude of a detected source, in standard deviations for a given profile
_MAX_SATURATED = 10  # an image with more pixels at its largest value is saturated

Bank = tuple[Array, Array]


def fit_lens(
    images: Float[Array, "batch height width 1"],
    model: SmoothModel = COMMON_TEST,
    *,
    noise: Noise | None = None,
    mask: Float[Array, "batch height width 1"] | Bool[Array, "batch height width 1"] | None = None,
) -> LensFit:
    """Fits a smooth lens to each image.

    A pure function that works under `jax.jit` and `jax.vmap`; it is compiled once per batch shape.

    Args:
      images: floating-point numbers in any unit, with any offset and of any byte order; float16 is converted
        to float32. Pixels that are not finite are masked, and so are isolated outliers and a constant border
        (`find_bad_pixels`) unless the model has a `noise_rms`.
      model: smooth model to fit.
      noise: known properties of the noise; if None, the noise is estimated from each image. A `noise_rms` of
        the model replaces both.
      mask: 1 or True for valid pixels; if None, all pixels are valid.

    Returns:
      The fits. If an image contains no lens that the model describes, `converged` is False and all
      other values are finite.

    Raises:
      UserError: if the images are not a batch of one-channel images of floating-point numbers with at least
        3 x 3 pixels, the noise or the mask has another shape, or a known value of the noise is not positive
        and finite.
    """
    images, noise, valid = convert_inputs(images, noise, mask)
    images, noise, valid = jax.tree.map(jnp.asarray, (images, noise, valid))
    if not len(images):
        one = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
        shapes = jax.eval_shape(lambda images: fit_lens(images, model), one)
        return jax.tree.map(lambda leaf: jnp.zeros((0, *leaf.shape[1:]), leaf.dtype), shapes)
    coarse = _coarse_resolution(model, images.shape[1:3])
    return _fit_batch(model, images, valid, noise, lens_bank(model, coarse, str(images.dtype)))


@functools.partial(jax.jit, static_argnames="model")
@full_precision
def _fit_batch(model: SmoothModel, images: Array, valid: Array, noise: Noise, bank: Bank) -> LensFit:
    fit_one = functools.partial(_fit_one, model, bank)
    return jax.vmap(fit_one)(images[..., 0], valid[..., 0], noise)


def _fit_one(model: SmoothModel, bank: Bank, image: Image, valid: Mask, noise: Noise) -> LensFit:
    """Fits an image scaled to a contrast of 1, and converts the result to the unit of the image."""
    valid = valid & jnp.isfinite(image)
    if model.noise_rms is None:
        valid = valid & ~find_bad_pixels(image, valid)
    minimum = jnp.where(valid, image, jnp.inf).min()
    maximum = jnp.where(valid, image, -jnp.inf).max()
    contrast = maximum - minimum
    varied = jnp.isfinite(contrast) & (contrast > 0)
    minimum, contrast = jnp.where(varied, minimum, 0), jnp.where(varied, contrast, 1)
    usable = varied & ((valid & (image == maximum)).sum() <= _MAX_SATURATED)
    usable &= valid.sum() > len(model.names)
    for known in (noise.gain, noise.background_rms):
        usable &= jnp.isnan(known) | ((known > 0) & jnp.isfinite(known))
    minimum, contrast, noise = jax.lax.stop_gradient((minimum, contrast, noise))
    scaled = jnp.where(valid, image - minimum, 0) / contrast
    # The sky of the scaled image is relative to the minimum, which is also an integer number of counts.
    # Noise below the rounding of the image would have a variance of 0.
    rms, gain = (
        jnp.where((known > 0) & jnp.isfinite(known), known, jnp.nan)
        for known in (noise.background_rms, noise.gain)
    )
    rms = jnp.maximum(rms / contrast, jnp.finfo(image.dtype).eps)
    gain = gain / contrast
    if model.noise_rms is not None:
        rms, gain = jnp.full_like(rms, model.noise_rms), jnp.full_like(gain, NO_PHOTON_NOISE)
    scaled_noise = dataclasses.replace(noise, gain=gain, background_rms=rms)
    flags = valid.astype(image.dtype)
    optimum = _optimize(model, bank, jax.lax.stop_gradient(scaled), flags, scaled_noise)
    solution = _solution(model, scaled, valid, optimum)
    converged = usable & _has_converged(model, optimum, solution)
    return _lens_fit(model, optimum, solution, converged, minimum, contrast)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Optimum:
    """Result of the minimization, for an image of contrast 1."""

    free: Free
    equations: NormalEquations
    gain: Number
    background: Number
    done: Bool[Array, ""]


def _optimize(model: SmoothModel, bank: Bank, image: Image, valid: Image, noise: Noise) -> _Optimum:
    """Fits coarse pixels from several starts, then finer pixels, then the image with model weights."""
    shape = (image.shape[0], image.shape[1])
    coarse, middle = _coarse_resolution(model, shape), Resolution(shape, 2, 2)
    native = Resolution.native(model, shape)

    binned, number = bin_valid(image, valid, coarse)
    flux = jnp.maximum(binned - jnp.percentile(binned, 10), 0)
    gain, background = noise_from_high_frequencies(image, unbin(flux, coarse), valid, noise.gain)
    if model.noise_rms is not None:
        background = noise.background_rms**2
    weight = number / variance(flux, gain, background)
    free = _fit_from_bank(model, coarse, binned, weight, bank)

    binned, number = bin_valid(image, valid, middle)
    columns = render(model, middle, free)
    flux = total_light(columns, solve_linear(columns, binned, number))
    free, equations, done = _fit_from(
        model, middle, binned, number / variance(flux, gain, background), free, tolerance=1.0
    )

    def fit_with_model_weights(round_number: Array, last: _Optimum) -> _Optimum:
        columns = render(model, native, last.free)
        flux = total_light(columns, last.equations.linear)
        weight = valid / variance(flux, last.gain, last.background)
        linear = solve_linear(columns, image, weight)
        flux, sky = total_light(columns, linear), linear[-1]
        gain, background = estimate_noise(noise, image - flux - sky, flux, sky, valid)
        weight = valid / variance(flux, gain, background)
        tolerance = jnp.where(round_number == 0, _COARSE_TOLERANCE, _FINE_TOLERANCE)
        free, equations, done = _fit_from(model, native, image, weight, last.free, tolerance=tolerance)
        return _Optimum(free, equations, gain, background, done)

    return jax.lax.fori_loop(0, 2, fit_with_model_weights, _Optimum(free, equations, gain, background, done))


@dataclasses.dataclass(frozen=True)
class _Solution:
    """The optimum as a differentiable function of the image, for an image of contrast 1."""

    free: Free
    linear: Float[Array, " linear"]
    columns: Float[Array, "amplitudes height width"]
    residual: Image
    reduced_chi_square: Number
    covariance: Matrix


def _solution(model: SmoothModel, scaled: Image, valid: Mask, optimum: _Optimum) -> _Solution:
    """Parameters, residual and chi-square of the scaled image, for which no square overflows float32."""
    equations, gain, background = optimum.equations, optimum.gain, optimum.background
    dtype, flags = scaled.dtype, valid.astype(scaled.dtype)
    native = Resolution.native(model, scaled.shape)
    columns = jax.lax.stop_gradient(render(model, native, optimum.free))
    flux = total_light(columns, equations.linear)
    linear = solve_linear(columns, scaled, flags / variance(flux, gain, background))
    theta = jax.lax.stop_gradient(jnp.concatenate([optimum.free, linear]))
    theta = attach_image_derivative(model, native, theta, scaled, flags, gain, background)
    free, linear = jnp.split(theta, [len(model.nonlinear)])
    columns = render(model, native, free)
    flux = total_light(columns, linear)
    residual = jnp.where(valid, scaled - flux - linear[-1], 0) / jnp.sqrt(variance(flux, gain, background))
    degrees_of_freedom = jnp.maximum(valid.sum() - len(model.names), 1).astype(dtype)
    reduced_chi_square = (residual**2).sum() / degrees_of_freedom
    covariance = invert_normal_matrix(equations.matrix)
    return _Solution(free, linear, columns, residual, reduced_chi_square, covariance)


def _has_converged(model: SmoothModel, optimum: _Optimum, solution: _Solution) -> Bool[Array, ""]:
    """True if the minimization ended at an optimum that describes a lens.

    Parameters of the lens light may be at a bound, because the image does not determine them if the light is
    faint. The source is detected for given profiles: its amplitude is uncertain if radii and indices are
    fitted, even for a bright source.
    """
    low, high = parameter_bounds(model, solution.free.dtype)
    inside = (solution.free > low) & (solution.free < high)
    of_light = np.array([name.startswith("lens_light.") for name in model.nonlinear])
    of_profile = [name.endswith(("R_sersic", "n_sersic")) for name in model.nonlinear]
    given = np.array([*of_profile, *[False] * len(model.linear)])
    matrix = jnp.where(np.logical_or.outer(given, given), np.diag(given), optimum.equations.matrix)
    amp_sigma = jnp.sqrt(invert_normal_matrix(matrix)[-2, -2])
    return (
        optimum.done
        & jnp.all(inside | of_light)
        & (solution.linear[-2] > _MIN_DETECTION * amp_sigma)
        & (solution.reduced_chi_square < _MAX_CHI_SQUARE)
    )


def _lens_fit(
    model: SmoothModel,
    optimum: _Optimum,
    solution: _Solution,
    converged: Bool[Array, ""],
    minimum: Number,
    contrast: Number,
) -> LensFit:
    """Converts the result to the unit of the image, which was scaled as (image - minimum) / contrast."""
    free = solution.free
    native = Resolution.native(model, solution.residual.shape)
    linear = (solution.linear * contrast).at[-1].add(minimum)
    unit = jnp.concatenate([jnp.ones_like(free), jnp.full_like(linear, contrast)])
    deviations = jnp.sqrt(jnp.maximum(jnp.diagonal(solution.covariance), 0))
    positive = jnp.where(deviations > 0, deviations, 1)
    return LensFit(
        parameters=parameter_values(model, free) | dict(zip(model.linear, linear, strict=True)),
        standard_errors=deviations * unit,
        correlation=solution.covariance / positive[:, None] / positive[None, :],
        reduced_chi_square=solution.reduced_chi_square,
        model_image=(total_light(solution.columns, linear) + linear[-1])[..., None],
        residual=solution.residual[..., None],
        source_plane=jnp.stack(source_positions(model, native, free), axis=-1),
        gain=optimum.gain * contrast,
        background_rms=jnp.sqrt(optimum.background) * contrast,
        converged=converged,
    )


def _coarse_resolution(model: SmoothModel, shape: tuple[int, ...]) -> Resolution:
    binning = max(1, round(_COARSE_PIXEL / model.pixel_scale))
    return Resolution((shape[0], shape[1]), binning, 2 if binning > 1 else model.subpixels)


def _fit_from_bank(
    model: SmoothModel, resolution: Resolution, image: Array, weight: Array, bank: Bank
) -> Free:
    """Fits from the most promising lenses of a bank and returns the best fit."""
    free, columns = bank
    _, best = jax.lax.top_k(chi_square_gains(columns, image.ravel(), weight.ravel()), _NUM_STARTS)
    fit = functools.partial(
        _fit_from, model, resolution, image, weight, max_evaluations=25, tolerance=0.1, damping=1e-2
    )
    fits, equations, _ = jax.vmap(fit)(jnp.asarray(free)[best])
    return fits[jnp.argmin(equations.chi_square)]


def _fit_from(
    model: SmoothModel,
    resolution: Resolution,
    image: Array,
    weight: Array,
    start: Array,
    *,
    max_evaluations: int | None = None,
    tolerance: ArrayLike = 0.01,
    damping: float = 1e-5,
) -> tuple[Free, NormalEquations, Bool[Array, ""]]:
    # Fits with many parameters converge slowly, in particular if the lens light is faint.
    number = max_evaluations or max(12, 5 * len(start) // 2)

    def evaluate(free: Array) -> NormalEquations:
        columns, jacobian = render_with_jacobian(model, resolution, free)
        return normal_equations(model, free, columns, jacobian, image, weight)

    return minimize(model, evaluate, start, max_evaluations=number, tolerance=tolerance, damping=damping)
