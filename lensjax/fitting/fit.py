"""The fit of a smooth lens to each image of a batch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from lensjax.errors import UserError
from lensjax.fitting import starts
from lensjax.fitting.implicit import as_function_of_image
from lensjax.fitting.level import Level, bin_valid, unbin
from lensjax.fitting.model import COMMON_TEST, LENS, SOURCE, SmoothModel
from lensjax.fitting.noise import Noise, from_high_frequencies, refined, unknown_noise, variance
from lensjax.fitting.render import brightness, brightness_and_slopes, source_plane
from lensjax.fitting.result import LensFit
from lensjax.fitting.solve import (
    Normal,
    best_linear,
    bounds,
    inverse,
    minimise,
    normal_equations,
)

_ROUGHLY, _FINALLY = 3.0, 0.3  # chi-square that the last step may still gain
_COARSE_PIXEL = 0.25  # arcsec
_STARTS = 2
_MOST_CHI_SQUARE = 8.0  # of the hardest vortex in 1,000: 4
_LEAST_DETECTION = 20.0  # standard deviations of the amplitude
_MOST_EQUAL = 10  # pixels of the largest value; with more of them the image is saturated

Bank = tuple[Array, Array]


def fit_lens(
    images: Float[Array, "batch height width 1"],
    model: SmoothModel = COMMON_TEST,
    *,
    noise: Noise | None = None,
    mask: Float[Array, "batch height width 1"] | Bool[Array, "batch height width 1"] | None = None,
) -> LensFit:
    """Fits a smooth lens to each image.

    Pure, under `jax.jit` and `jax.vmap` too, with one compiled shape for a batch of a given size.

    Args:
      images: in any unit and with any offset, float32 or float64. Pixels that are not finite are masked.
      model: what is fitted.
      noise: what is known of the noise; if not given, it is read off each image.
      mask: which pixels count, as 1 or True; all if not given.

    Returns:
      The fits. Where no lens of the model's kind can be fitted, `converged` is False and the rest finite.

    Raises:
      UserError: the images are not a batch of one-channel images.
    """
    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 1:
        raise UserError(
            f"images of shape {images.shape} to fit; expected (batch, height, width, 1)"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(
            f"images of {images.dtype} to fit; expected float32, such as astype('float32')"
        )
    dtype = images.dtype
    if noise is None:
        noise = unknown_noise(images.shape[:1], dtype)
    noise = Noise(
        jnp.broadcast_to(noise.gain, images.shape[:1]).astype(dtype),
        jnp.broadcast_to(noise.background_variance, images.shape[:1]).astype(dtype),
        jnp.broadcast_to(noise.counted, images.shape[:1]),
    )
    valid = (
        jnp.ones(images.shape, bool) if mask is None else jnp.broadcast_to(mask > 0, images.shape)
    )
    coarse = _coarse_level(model, images.shape[1:3])
    return _fit_batch(model, images, valid, noise, starts.bank(model, coarse, str(dtype)))


@functools.partial(jax.jit, static_argnames="model")
def _fit_batch(
    model: SmoothModel, images: Array, valid: Array, noise: Noise, bank: Bank
) -> LensFit:
    one = functools.partial(_fit_one, model, bank)
    return jax.vmap(one)(images[..., 0], valid[..., 0], noise)


def _fit_one(
    model: SmoothModel,
    bank: Bank,
    image: Float[Array, "height width"],
    valid: Bool[Array, "height width"],
    noise: Noise,
) -> LensFit:
    """Scales an image to a contrast of 1, fits it there, and takes the result back to its unit."""
    valid = valid & jnp.isfinite(image)
    lowest = jnp.where(valid, image, jnp.inf).min()
    highest = jnp.where(valid, image, -jnp.inf).max()
    contrast = highest - lowest
    varied = jnp.isfinite(contrast) & (contrast > 0)
    lowest, contrast = jnp.where(varied, lowest, 0), jnp.where(varied, contrast, 1)
    # Few pixels of a sound image share its largest value.
    usable = varied & ((valid & (image == highest)).sum() <= _MOST_EQUAL)
    lowest, contrast, noise = jax.lax.stop_gradient((lowest, contrast, noise))
    scaled = jnp.where(valid, image - lowest, 0) / contrast
    known = dataclasses.replace(
        noise,
        gain=noise.gain / contrast,
        background_variance=noise.background_variance / contrast**2,
    )
    # The sky of the scaled image is counted from the lowest pixel. That is a whole number of counts too.
    flags = valid.astype(image.dtype)
    optimum = _optimise(model, bank, jax.lax.stop_gradient(scaled), flags, known)
    return _result(model, scaled, valid, lowest, contrast, usable, optimum)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Optimum:
    free: Float[Array, " nonlinear"]
    normal: Normal
    gain: Float[Array, ""]
    background: Float[Array, ""]
    ended: Bool[Array, ""]


def _optimise(
    model: SmoothModel,
    bank: Bank,
    image: Float[Array, "height width"],
    valid: Float[Array, "height width"],
    known: Noise,
) -> _Optimum:
    """From coarse pixels with many starts to the image's own, with the weights of the model."""
    shape = (image.shape[0], image.shape[1])
    coarse, middle = _coarse_level(model, shape), Level(shape, 2, 2)
    fine = Level(shape, 1, model.subpixels)

    binned, number = bin_valid(image, valid, coarse)
    glow = jnp.maximum(binned - jnp.percentile(binned, 10), 0)
    gain, background = from_high_frequencies(image, unbin(glow, coarse), valid, known.gain)
    weight = number / variance(glow, gain, background)
    free = _fit_from_bank(model, coarse, binned, weight, bank)

    binned, number = bin_valid(image, valid, middle)
    source = brightness(model, middle, free)
    flux = best_linear(source, binned, number)[0] * source
    free, normal, ended = _fit_from(
        model, middle, binned, number / variance(flux, gain, background), free, tolerance=1.0
    )

    def with_weights_of_the_model(turn: Array, last: _Optimum) -> _Optimum:
        source = brightness(model, fine, last.free)
        amp, sky = last.normal.linear
        weight = valid / variance(amp * source, last.gain, last.background)
        amp, sky = best_linear(source, image, weight)
        gain, background = refined(known, image - amp * source - sky, amp * source, sky, valid)
        weight = valid / variance(amp * source, gain, background)
        tolerance = jnp.where(turn == 0, _ROUGHLY, _FINALLY)
        free, normal, ended = _fit_from(model, fine, image, weight, last.free, tolerance=tolerance)
        return _Optimum(free, normal, gain, background, ended)

    return jax.lax.fori_loop(
        0, 2, with_weights_of_the_model, _Optimum(free, normal, gain, background, ended)
    )


def _result(
    model: SmoothModel,
    scaled: Float[Array, "height width"],
    valid: Bool[Array, "height width"],
    lowest: Float[Array, ""],
    contrast: Float[Array, ""],
    usable: Bool[Array, ""],
    optimum: _Optimum,
) -> LensFit:
    normal, gain, background = optimum.normal, optimum.gain, optimum.background
    dtype, flags = scaled.dtype, valid.astype(scaled.dtype)
    fine = Level((scaled.shape[0], scaled.shape[1]), 1, model.subpixels)
    # In the scaled unit, where no square leaves the range of float32.
    source = jax.lax.stop_gradient(brightness(model, fine, optimum.free))
    linear = best_linear(
        source, scaled, flags / variance(normal.linear[0] * source, gain, background)
    )
    theta = jax.lax.stop_gradient(jnp.concatenate([optimum.free, linear]))
    theta = as_function_of_image(model, fine, theta, scaled, flags, gain, background)
    free, amp, sky = theta[:-2], theta[-2], theta[-1]
    source = brightness(model, fine, free)
    spread = variance(amp * source, gain, background)
    residual = jnp.where(valid, scaled - amp * source - sky, 0) / jnp.sqrt(spread)
    degrees = jnp.maximum(valid.sum() - len(model.names), 1).astype(dtype)
    chi_square = (residual**2).sum() / degrees

    covariance = inverse(normal.matrix)
    low, high = bounds(model, dtype)
    converged = (
        usable
        & optimum.ended
        & jnp.all((free > low) & (free < high))
        & (amp > _LEAST_DETECTION * jnp.sqrt(covariance[-2, -2]))
        & (chi_square < _MOST_CHI_SQUARE)
    )
    parameters = {name: jnp.asarray(getattr(model, name).value, dtype) for name in LENS + SOURCE}
    parameters |= {name: free[index] for index, name in enumerate(model.nonlinear)}
    amp, sky = amp * contrast, sky * contrast + lowest
    parameters |= {"amp": amp, "sky": sky}
    unit = jnp.concatenate([jnp.ones_like(free), jnp.stack([contrast, contrast])])
    return LensFit(
        parameters=parameters,
        covariance=covariance * unit[:, None] * unit[None, :],
        reduced_chi_square=chi_square,
        model_image=(amp * source + sky)[..., None],
        residual=residual[..., None],
        source_plane=jnp.stack(source_plane(model, fine, free), axis=-1),
        gain=gain * contrast,
        background_variance=background * contrast**2,
        converged=converged,
    )


def _coarse_level(model: SmoothModel, shape: tuple[int, ...]) -> Level:
    binning = max(1, round(_COARSE_PIXEL / model.pixel_scale))
    return Level((shape[0], shape[1]), binning, 2 if binning > 1 else model.subpixels)


def _fit_from_bank(
    model: SmoothModel, level: Level, image: Array, weight: Array, bank: Bank
) -> Float[Array, " nonlinear"]:
    """The best of the fits from the most promising lenses of a bank."""
    free, sources = bank
    _, best = jax.lax.top_k(starts.gains(sources, image.ravel(), weight.ravel()), _STARTS)
    fit = functools.partial(
        _fit_from, model, level, image, weight, most_steps=25, tolerance=0.1, damping=1e-2
    )
    found, normal, _ = jax.vmap(fit)(jnp.asarray(free)[best])
    return found[jnp.argmin(normal.chi_square)]


def _fit_from(
    model: SmoothModel,
    level: Level,
    image: Array,
    weight: Array,
    start: Array,
    *,
    most_steps: int = 12,
    tolerance: ArrayLike = 0.01,
    damping: float = 1e-5,
) -> tuple[Float[Array, " nonlinear"], Normal, Bool[Array, ""]]:
    def evaluate(free: Array) -> Normal:
        source, slopes = brightness_and_slopes(model, level, free)
        return normal_equations(model, free, source, slopes, image, weight)

    return minimise(
        model, evaluate, start, most_steps=most_steps, tolerance=tolerance, damping=damping
    )
