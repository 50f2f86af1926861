"""The domain of a classifier: the kind of images on which it was validated."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lensjax import fitting, weights
from lensjax.data.images import CLASSES, ImageSet
from lensjax.errors import UserError
from lensjax.prediction.predictor import ModelPredictions

DOMAIN_FILE = "domain.safetensors"  # in the run's folder

# Name of each quantity in the reasons. The limits of `_LOGARITHMIC` quantities apply to their logarithms.
QUANTITIES = {
    "sky_noise": "sky noise",
    "reduced_chi_square": "reduced chi-square",
    "theta_E": "Einstein radius",
    "gamma1": "shear gamma1",
    "gamma2": "shear gamma2",
    # Tests of the smooth model, see `lensjax.fitting.assumption_tests`.
    "R_sersic_shift": "correction of the source's radius",
    "n_sersic_shift": "correction of the source's Sersic index",
    "all_share": "share of the residual that another smooth model explains",
    "ellipticity_share": "share of the residual that an elliptical lens explains",
    "psf_share": "share of another smooth model that is a wider or narrower point-spread function",
}
_EARLIER_NUMBER = 5  # number of quantities in earlier files, without the tests of the smooth model
_LOGARITHMIC = ("sky_noise", "reduced_chi_square")
_MARGIN = 0.1  # extension of the range of the validation images at each end, relative to its width
_RARE = 1e-3  # fraction of the validation images beyond each limit of a test of the smooth model
_ROUNDING = 1e-4  # smallest extension, relative to the largest of 1 and the absolute values of the limits
_MAX_OFFSET = 0.3  # arcsec; accuracy was measured for lenses up to 5 pixels of 0.05 arcsec off the center
_NO_LIMIT = 3e38  # limit of an unknown quantity; finite, because weight files reject infinite values
_SHRINKAGE = 0.05  # weight of the identity in the covariance of the features


@dataclasses.dataclass(frozen=True)
class Domain:
    """Limits of the images for which a classifier is reliable.

    Attributes:
      low, high: smallest and largest allowed value of each of `QUANTITIES`; for sky noise and reduced
        chi-square, of the natural logarithm. -3e38 and 3e38 for quantities that a run does not have.
      means: mean of the features (inputs of the last layer) for each predicted class.
      precision: inverse covariance of the features about these means.
      max_distance: largest allowed Mahalanobis distance of the features from the nearest mean.
    """

    low: Float[np.ndarray, " quantities"]
    high: Float[np.ndarray, " quantities"]
    means: Float[np.ndarray, "classes channels"]
    precision: Float[np.ndarray, "channels channels"]
    max_distance: Float[np.ndarray, ""]


def measure_domain(images: ImageSet, predictions: ModelPredictions) -> Domain:
    """Measures the domain of a classifier.

    The limits of a quantity are its smallest and largest value, extended by a tenth of their difference, and
    by at least 1e-4 times the largest of 1 and their absolute values. Images whose fit did not converge are
    ignored, as are, for the tests of the smooth model, 0.1 % of the images at each end. The largest allowed
    distance is 1.1 times the largest distance in a cross-validation, in which each half of the images is
    compared with the other.

    Args:
      images: validation images, with the results of the fits if the run has them.
      predictions: predictions for these images, with features.
    """
    assert predictions.features is not None  # for the type checker
    features, classes = predictions.features.astype(np.float64), predictions.probabilities.argmax(1)
    values = _quantities(images)
    if images.fit is not None and images.fit["fit_converged"].any():
        values = values[images.fit["fit_converged"] == 1]
    low, high = values.min(0), values.max(0)
    tests = [name in fitting.ASSUMPTIONS for name in QUANTITIES]
    low[tests], high[tests] = np.quantile(values[:, tests], (_RARE, 1 - _RARE), axis=0)
    with np.errstate(invalid="ignore"):
        rounding = _ROUNDING * np.maximum(np.maximum(abs(low), abs(high)), 1)
        margin = np.nan_to_num(np.maximum(_MARGIN * (high - low), rounding))
    half = np.arange(len(images)) % 2
    held_out = [
        _distances(*_fit_features(features[half != part], classes[half != part]), features[half == part])
        for part in (0, 1)
    ]
    farthest = max((distances.max() for distances in held_out if distances.size), default=0.0)
    means, precision = _fit_features(features, classes)
    return Domain(
        low=np.nan_to_num(low - margin, nan=-_NO_LIMIT).astype(np.float32),
        high=np.nan_to_num(high + margin, nan=_NO_LIMIT).astype(np.float32),
        means=means.astype(np.float32),
        precision=precision.astype(np.float32),
        max_distance=np.asarray((1 + _MARGIN) * farthest, np.float32),
    )


def find_reasons(domain: Domain, images: ImageSet, predictions: ModelPredictions) -> tuple[str, ...]:
    """Reasons why images are outside a classifier's domain; "" for images inside it.

    Args:
      domain: from `measure_domain`.
      images: images, with the results of the fits if the run has them.
      predictions: predictions for these images, with features.
    """
    assert predictions.features is not None  # for the type checker
    values = _quantities(images)
    distances = _distances(domain.means, domain.precision, predictions.features)
    offsets = np.zeros(len(images)) if images.fit is None else _offsets(images)
    reasons = []
    for row, distance, offset in zip(values, distances, offsets, strict=True):
        found = []
        for (name, title), value, low, high in zip(
            QUANTITIES.items(), row, domain.low, domain.high, strict=True
        ):
            if not low <= value <= high and not np.isnan(value):
                shown = np.exp([value, low, high]) if name in _LOGARITHMIC else np.asarray([value, low, high])
                found.append(f"{title} {shown[0]:.3g} is outside {shown[1]:.3g} to {shown[2]:.3g}")
        if offset > _MAX_OFFSET:
            found.append(f"lens is {offset:.2f} arcsec off-center, more than {_MAX_OFFSET:g}")
        if not distance <= domain.max_distance:
            found.append(f"feature distance {distance:.3g} exceeds {domain.max_distance:.3g}")
        reasons.append("; ".join(found))
    return tuple(reasons)


def write_domain(workdir: Path, domain: Domain, *, architecture: str, best_epoch: int) -> None:
    """Writes the domain to the run's folder, replacing any earlier one."""
    metadata = {"architecture": architecture, "best_epoch": str(best_epoch)}
    weights.save(workdir / DOMAIN_FILE, {"domain": dataclasses.asdict(domain)}, metadata, overwrite=True)


def read_domain(workdir: Path, best_epoch: int) -> Domain | None:
    """Domain measured for a run's best epoch; None if there is none for this epoch.

    Args:
      workdir: the run's folder.
      best_epoch: number of the epoch, from 1.

    Raises:
      UserError: if the file is damaged.
    """
    path = workdir / DOMAIN_FILE
    if not path.is_file():
        return None
    variables, metadata = weights.load(path)
    if metadata.get("best_epoch") != str(best_epoch):
        return None
    return from_arrays(variables.get("domain"), path)


def from_arrays(arrays: Mapping[str, Any] | None, path: Path) -> Domain | None:
    """Domain from the arrays of a file; None if the file has none.

    Quantities that a file of an earlier version does not have get no limits.

    Args:
      arrays: the fields of `Domain`, by name; None if the file has none.
      path: the file, for the error message.

    Raises:
      UserError: if arrays are missing or their shapes do not match.
    """
    if arrays is None:
        return None
    number = len(QUANTITIES)
    missing = number - _EARLIER_NUMBER
    found = {
        name: np.append(value, np.full(missing, _NO_LIMIT if name == "high" else -_NO_LIMIT, np.float32))
        if name in ("low", "high") and np.shape(value) == (_EARLIER_NUMBER,)
        else value
        for name, value in arrays.items()
    }
    shapes = {name: np.shape(value) for name, value in found.items()}
    channels = shapes.get("means", (0, 0))[-1]
    expected = {"low": (number,), "high": (number,), "means": (len(CLASSES), channels)}
    if shapes != expected | {"precision": (channels, channels), "max_distance": ()}:
        raise UserError(f"{path}: the domain in the file is invalid; export or evaluate the run again")
    return Domain(**found)


def _quantities(images: ImageSet) -> Float[np.ndarray, "n quantities"]:
    """Values of `QUANTITIES`; NaN if unknown."""
    columns = {name: np.full(len(images), np.nan) for name in QUANTITIES}
    if images.fit is None:
        columns["sky_noise"] = np.asarray([_sky_noise(image) for image in images.images()[..., 0]], float)
    else:
        columns |= {name: images.fit[name].astype(float) for name in QUANTITIES if name in images.fit}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name in _LOGARITHMIC:
            columns[name] = np.log(np.maximum(columns[name], 1e-30))
    return np.stack(list(columns.values()), 1)


@jax.jit
def _sky_noise(image: jax.Array) -> jax.Array:
    """Standard deviation of the sky noise, estimated from the highest spatial frequencies."""
    flux = jnp.maximum(image - jnp.percentile(image, 10), 0)
    unknown = jnp.full((), jnp.nan, image.dtype)
    return jnp.sqrt(fitting.noise_from_high_frequencies(image, flux, jnp.ones_like(image), unknown)[1])


def _offsets(images: ImageSet) -> Float[np.ndarray, " n"]:
    assert images.fit is not None  # for the type checker
    return np.hypot(images.fit["lens_x"], images.fit["lens_y"])


def _fit_features(
    features: Float[np.ndarray, "n channels"], classes: np.ndarray
) -> tuple[Float[np.ndarray, "classes channels"], Float[np.ndarray, "channels channels"]]:
    """Mean of each class (the overall mean for a class without images), and the inverse covariance."""
    overall = features.mean(0)
    means = np.stack(
        [features[classes == c].mean(0) if (classes == c).any() else overall for c in range(len(CLASSES))]
    )
    deviations = features - means[classes]
    covariance = deviations.T @ deviations / len(deviations)
    scale = max(np.trace(covariance) / len(covariance), 1e-12)
    return means, np.linalg.inv(covariance + _SHRINKAGE * scale * np.eye(len(covariance)))


def _distances(means: np.ndarray, precision: np.ndarray, features: np.ndarray) -> Float[np.ndarray, " n"]:
    """Mahalanobis distance of the features from the nearest mean."""
    deviations = features[:, None].astype(np.float64) - means
    squares = np.einsum("ncd,de,nce->nc", deviations, precision, deviations, optimize=True)
    return np.sqrt(np.maximum(squares, 0).min(1))
