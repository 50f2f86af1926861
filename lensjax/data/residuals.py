"""Residuals of smooth lens models fitted to sets of images, cached in the user's cache folder."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from lensjax import fitting
from lensjax.data.counts import recover_counts
from lensjax.data.fresh import FreshImages
from lensjax.data.images import ImageSet
from lensjax.data.splits import Splits
from lensjax.data.streamed import StreamedImages
from lensjax.errors import UserError
from lensjax.runtime import user_cache
from lensjax.runtime.progress import log, progress_bar

CODE_FOLDERS = ("fitting", "modeling", "physics")
# Names in `LensFit.parameters` of the parameters in `FIT_VALUES`.
_PARAMETERS = {
    "theta_E": "mass.0.theta_E",
    "gamma1": "mass.1.gamma1",
    "gamma2": "mass.1.gamma2",
    "lens_x": "mass.0.center_x",
    "lens_y": "mass.0.center_y",
}
FIT_VALUES = (
    *("theta_E", "theta_E_sigma", "gamma1", "gamma2", "lens_x", "lens_y"),
    *("sky_noise", "reduced_chi_square", "fit_converged"),
)
NO_FIT = "none"
# Estimated divided by true gain: 0.89 to 1.09 in 600 simulated images, and 0.94 to 1.07 in 12 published ones.
_AGREEMENT = (0.7, 1.4)
_CHUNK = 1024  # images per cache file; an interrupted run keeps the chunks it has finished


def fit_splits(splits: Splits, model_name: str) -> Splits:
    """Adds the residuals of lens fits to all splits.

    Args:
      splits: the images. Freshly simulated training images are fitted later, in each batch.
      model_name: see `add_residuals`. With "none" the splits are returned unchanged.

    Returns:
      The splits with residuals.

    Raises:
      UserError: if the model is unknown, or the training images stay on disk.
    """
    if model_name == NO_FIT:
        return splits
    train, validation, test = splits.train, splits.validation, splits.test
    if isinstance(train, StreamedImages):
        raise UserError(
            f"config.data.fit={model_name!r}: lenses can be fitted only to images in memory, but the "
            "training images stay on disk; set config.data.residence=host"
        )
    if isinstance(train, FreshImages):
        train = dataclasses.replace(train, fit=model_name)
    else:
        train = add_residuals(train, model_name, name="train", test=False)
    fitted = add_residuals(validation, model_name, name="validation")
    test = fitted if test is validation else add_residuals(test, model_name, name="test")
    return Splits(train, validation=fitted, test=test)


def add_residuals(
    image_set: ImageSet, model_name: str, *, name: str = "images", keep: bool = True, test: bool = True
) -> ImageSet:
    """Fits a smooth lens to each image and adds the residuals, in standard deviations.

    Residuals are 0 if a fit did not converge. The set is returned unchanged if it already has residuals or if
    the model is "none".

    Args:
      image_set: the images.
      model_name: name of the lens model, see `lensjax.fitting.smooth_model`, or "none".
      name: name of the images in the progress bar and the log.
      keep: whether to read fits from the cache and store new ones there, and to log a summary.
      test: whether to test the assumptions of the model, see `lensjax.fitting.assumption_tests`.

    Returns:
      The set with its residuals and the results of its fits.

    Raises:
      UserError: if the model is unknown.
    """
    if model_name == NO_FIT or image_set.residuals is not None:
        return image_set
    model = fitting.smooth_model(model_name)
    parts = []
    with progress_bar(len(image_set), f"fitting {name}") as bar:
        for first in range(0, max(len(image_set), 1), _CHUNK):
            chunk = image_set.subset(np.arange(first, min(first + _CHUNK, len(image_set))))
            fit = functools.partial(fit_images, chunk, model, bar.update, test=test)
            names = FIT_VALUES + (fitting.ASSUMPTIONS if test else ())
            parts.append(_load_or_fit(chunk, model_name, model, names, fit, bar.update) if keep else fit())
    arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    residuals = arrays.pop("residuals")
    failed = int((arrays["fit_converged"] == 0).sum())
    if keep:
        log.info(
            "%-10s smooth lenses fitted, median reduced chi-square %.3f, %s not converged%s",
            *(name, np.median(arrays["reduced_chi_square"]), f"{failed:,}"),
            " (their residuals are 0)" if failed else "",
        )
    return dataclasses.replace(image_set, residuals=residuals, fit=arrays)


def _load_or_fit(
    chunk: ImageSet,
    model_name: str,
    model: fitting.SmoothModel,
    names: tuple[str, ...],
    fit: Callable[[], dict[str, np.ndarray]],
    report: Callable[[int], object],
) -> dict[str, np.ndarray]:
    """Reads the fits of a chunk of images from the cache, or computes and stores them."""
    key = user_cache.digest((model, names, chunk.pixels, chunk.scale), code=CODE_FOLDERS)
    file = user_cache.folder("fits") / f"{model_name}-{len(chunk)}-{key[:16]}.npz"
    shapes = {"residuals": chunk.pixels.shape} | dict.fromkeys(names, (len(chunk),))
    arrays = user_cache.load(file, shapes)
    if arrays is None:
        arrays = fit()
        user_cache.save(file, arrays)
    else:
        report(len(chunk))
    return arrays


def fit_images(
    chunk: ImageSet,
    model: fitting.SmoothModel,
    report: Callable[[int], object] | None = None,
    *,
    test: bool = True,
) -> dict[str, np.ndarray]:
    """Fits a smooth lens to each image, without the cache.

    Args:
      chunk: the images.
      model: smooth model to fit.
      report: called with the number of images completed since the last call.
      test: whether to test the assumptions of the model.

    Returns:
      `FIT_VALUES`, `fitting.ASSUMPTIONS` if requested, and the `residuals`, which are 0 if a fit did not
      converge.
    """
    noise = fitting.photon_noise(counts_per_unit(chunk))
    fit = fitting.fit_in_batches(chunk.images(), model, noise=noise, report=report)
    values: dict[str, Any] = {name: fit.parameters[full] for name, full in _PARAMETERS.items()}
    deviations = dict(zip(model.names, fit.standard_errors.T, strict=True))
    values["theta_E_sigma"] = deviations.get("mass.0.theta_E", np.zeros(len(chunk)))  # 0 if it is not fitted
    values["sky_noise"] = fit.background_rms
    values["reduced_chi_square"] = fit.reduced_chi_square
    values["fit_converged"] = fit.converged
    residuals = np.where(fit.converged[:, None, None], fit.residual[..., 0], 0)
    names: tuple[str, ...] = FIT_VALUES
    if test:
        values |= fitting.assumption_tests(fit, model)
        names += fitting.ASSUMPTIONS
    return {"residuals": residuals.astype(np.float16)} | {
        name: np.asarray(values[name], np.float32) for name in names
    }


def counts_per_unit(image_set: ImageSet) -> Float32[np.ndarray, " n"]:
    """Photon counts per unit brightness of each image; NaN if unknown.

    Pixels that are all k / N need not be counts: images stored with 8 or 16 bits are also such quotients. N
    is accepted if the noise of the image agrees with it.
    """
    found = np.full(len(image_set), np.nan, np.float32)
    images = image_set.images()[..., 0].astype(np.float32)
    if image_set.pixels.dtype == np.uint16:
        found = image_set.scale.astype(np.float32)
    else:
        for row, image in enumerate(images):
            if image.min() == 0 and image.max() == 1:
                counts = recover_counts(image)
                found[row] = np.nan if counts is None else counts[1]
    known = np.flatnonzero(np.isfinite(found))
    if not len(known):
        return found
    agreement = _gains(images[known]) * found[known]
    found[known[(agreement <= _AGREEMENT[0]) | (agreement >= _AGREEMENT[1])]] = np.nan
    return found


def _gains(images: Float32[np.ndarray, "n height width"]) -> Float32[np.ndarray, " n"]:
    """Variance of the noise per unit brightness, estimated from each image."""
    blurred = ndimage.uniform_filter(images, (0, 5, 5))
    flux = blurred - np.percentile(blurred, 10, axis=(1, 2), keepdims=True).astype(np.float32)
    return np.asarray([_gain(image, light) for image, light in zip(images, flux, strict=True)], np.float32)


@jax.jit
def _gain(image: jax.Array, flux: jax.Array) -> jax.Array:
    valid = ~fitting.find_bad_pixels(image, jnp.ones(image.shape, bool))
    unknown = jnp.full((), jnp.nan, image.dtype)
    return fitting.noise_from_high_frequencies(image, flux, valid.astype(image.dtype), unknown)[0]
