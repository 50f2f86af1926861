"""A trained classifier for arrays of images, as returned by `lensjax.load`."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Shaped

from lensjax.config import check_choice
from lensjax.data.images import CLASSES, ImageSet
from lensjax.data.residuals import FIT_VALUES
from lensjax.decoding import describe_error
from lensjax.errors import UserError
from lensjax.prediction import readers
from lensjax.prediction import tta as test_time
from lensjax.prediction.centering import add_centered_residuals
from lensjax.prediction.domain import find_reasons
from lensjax.prediction.readers.entry import stack_shape
from lensjax.prediction.readers.sizes import TargetSize, match_size
from lensjax.prediction.trained_model import PredictionOptions, TrainedModel, find_model, load_trained_model


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions for n images, in input order.

    Attributes:
      classes: most probable class: "no", "sphere" or "vort"; "" for images without a prediction.
      probabilities: probabilities of no, sphere and vort; NaN for images without a prediction.
      entropy: entropy of the probabilities, nats: 0 for a certain prediction, ln 3 = 1.0986 for equal
        probabilities.
      theta_E: Einstein radius of the fitted smooth lens, arcsec. The values from `theta_E` to `fit_converged`
        are None for classifiers without a lens fit.
      theta_E_sigma: standard deviation of `theta_E`, arcsec.
      gamma1, gamma2: external shear.
      lens_x, lens_y: center of the lens relative to that of the image, arcsec.
      sky_noise: standard deviation of the sky noise, relative to the range of the pixel values.
      reduced_chi_square: reduced chi-square of the fit; about 1 if a smooth lens describes the image.
      fit_converged: True if the fit converged; the lens parameters are meaningless otherwise.
      in_domain: True for images like those on which the classifier was validated; predictions for other
        images are not reliable. None if the classifier has no record of its validation images.
      reasons: why an image is outside the domain; "" for the others.
      errors: reason why an image has no prediction; "" for the others.
    """

    classes: Shaped[np.ndarray, " n"]
    probabilities: Float[np.ndarray, "n 3"]
    entropy: Float[np.ndarray, " n"]
    theta_E: Float[np.ndarray, " n"] | None
    theta_E_sigma: Float[np.ndarray, " n"] | None
    gamma1: Float[np.ndarray, " n"] | None
    gamma2: Float[np.ndarray, " n"] | None
    lens_x: Float[np.ndarray, " n"] | None
    lens_y: Float[np.ndarray, " n"] | None
    sky_noise: Float[np.ndarray, " n"] | None
    reduced_chi_square: Float[np.ndarray, " n"] | None
    fit_converged: Bool[np.ndarray, " n"] | None
    in_domain: Bool[np.ndarray, " n"] | None
    reasons: tuple[str, ...]
    errors: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.classes)


@dataclasses.dataclass(frozen=True)
class Classifier:
    """The best epoch of a run, ready for prediction.

    Attributes:
      trained: config, model and variables of the run.
    """

    trained: TrainedModel

    def predict(
        self,
        images: Shaped[np.ndarray, "..."],
        *,
        calibrated: bool = False,
        tta: Literal["none", "d4"] = "none",
        bad: Literal["raise", "mark"] = "raise",
    ) -> Predictions:
        """Classifies images.

        Args:
          images: array of shape `(n, h, w)`, `(n, h, w, 1)` or, for a single image, `(h, w)`. Real numbers in
            any unit; each image is scaled to [0, 1]. h and w must be those of the training images.
          calibrated: if True, logits are divided by the temperature fitted to the validation images, at the
            end of training or by `lensjax evaluate --split validation`.
          tta: "d4" averages over the eight rotated and mirrored views of each image; only for classifiers
            trained with such views.
          bad: treatment of images that are constant or contain NaN, infinite or masked values: "raise" raises
            an error, "mark" returns them without a prediction.

        Returns:
          The predictions, in the order of the images.

        Raises:
          UserError: if the images have the wrong size or cannot be used, or if the run does not support
            an option.
        """
        check_choice("bad", bad, ("raise", "mark"))
        options = self.prediction_options(calibrated=calibrated, tta=tta)
        try:
            if isinstance(images, list | tuple):
                images = [_fill_masked(each) for each in images]
            array = np.asarray(_fill_masked(images))
        except ValueError:
            raise UserError("the images have different shapes; crop or resample them") from None
        except (RuntimeError, TypeError) as error:  # such as PyTorch's for a tensor that requires a gradient
            raise UserError(f"the images are not an array: {describe_error(error)}") from None
        size = self.trained.config.data.image_size
        number, *shape = (0, size, size) if array.shape[:1] == (0,) else stack_shape(array.shape)
        if tuple(shape) != (size, size):
            raise UserError(
                f"images of shape {array.shape}: the classifier needs {size} x {size} pixels; crop or "
                "resample the images"
            )
        pixels = np.zeros((number, size, size), np.float32)
        errors = [""] * number
        for row, image in enumerate(array.reshape(number, size, size)):
            try:
                pixels[row] = match_size(readers.validate_pixels(image), TargetSize(size))
            except UserError as error:
                if bad == "raise":
                    raise UserError(f"image {row}: {error}") from None
                errors[row] = str(error)
        return self.predict_scaled(pixels, errors, options)

    def prediction_options(self, *, calibrated: bool, tta: str) -> PredictionOptions:
        """Prediction options, checked against the run.

        Args:
          calibrated, tta: see `predict`.

        Raises:
          UserError: if no temperature was fitted, or the classifier was not trained on rotated images.
        """
        check_choice("tta", tta, test_time.CHOICES)
        if tta == "d4":
            test_time.check(self.trained.config, self.trained.workdir)
        temperature = self.trained.temperature if calibrated else 1.0
        if temperature is None:
            raise UserError(
                f"{self.trained.workdir} has no temperature yet; fit one with lensjax evaluate "
                f"--workdir={self.trained.workdir} --split=validation"
            )
        return PredictionOptions(temperature, tta == "d4")

    def predict_scaled(
        self, pixels: Float[np.ndarray, "n height width"], errors: Sequence[str], options: PredictionOptions
    ) -> Predictions:
        """Classifies images that already have the classifier's size and are scaled to [0, 1].

        Args:
          pixels: the images.
          errors: reason why an image cannot be classified; "" for the others.
          options: temperature and test-time augmentation.
        """
        good = np.array([not error for error in errors], bool)
        number = int(good.sum())
        images = ImageSet(
            pixels=pixels[good],
            scale=np.ones(number, np.float32),
            labels=np.zeros(number, np.int32),
            names=("",) * number,
        )
        if number:
            images = add_centered_residuals(images, self.trained.config.data.fit)
        return self.predict_fitted(images, errors, options)

    def predict_fitted(
        self, images: ImageSet, errors: Sequence[str], options: PredictionOptions, *, note: str = ""
    ) -> Predictions:
        """Classifies images that already have the residuals of their lens fits, if the classifier uses them.

        Args:
          images: the images without an error.
          errors: reason why an image cannot be classified; "" for the others; one entry per result.
          options: temperature and test-time augmentation.
          note: reason why all images are outside the domain; "" if they may be inside.
        """
        errors = list(errors)
        good = np.array([not error for error in errors], bool)
        probabilities = np.full((len(errors), len(CLASSES)), np.nan)
        has_fit = self.trained.config.data.fit != "none"
        values = {name: np.full(len(errors), np.nan) for name in FIT_VALUES} if has_fit else {}
        reasons = [""] * len(errors)
        domain = self.trained.domain
        if good.any():
            predictions = self.trained.predict(images, options, quiet=True)
            probabilities[good] = predictions.probabilities
            for name, column in values.items():
                assert images.fit is not None  # for the type checker
                column[good] = images.fit[name]
            found = [""] * len(images) if domain is None else find_reasons(domain, images, predictions)
            for row, reason in zip(np.flatnonzero(good), found, strict=True):
                reasons[row] = "; ".join(each for each in (note, reason) if each)
        if has_fit:
            for row in np.flatnonzero(good & (values["fit_converged"] != 1)):
                errors[row] = "no lens was found: the fit of a smooth lens did not converge"
                good[row], probabilities[row], reasons[row] = False, np.nan, ""
        best = np.array(CLASSES)[probabilities.argmax(1)]
        fit_values = {name: values.get(name) for name in FIT_VALUES}
        if has_fit:
            fit_values["fit_converged"] = values["fit_converged"] == 1
        known = domain is not None or note
        return Predictions(
            classes=np.where(good, best, ""),
            probabilities=probabilities,
            entropy=entropy(probabilities),
            in_domain=np.array([not reason for reason in reasons]) & good if known else None,
            reasons=tuple(reasons),
            errors=tuple(errors),
            **fit_values,
        )


def entropy(probabilities: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, " n"]:
    """Shannon entropy of each row, nats; NaN for rows with NaN."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1))
    return np.where(np.isnan(probabilities).any(1), np.nan, 0 - (probabilities * logs).sum(1))


def load_classifier(
    model: str | os.PathLike[str], *, devices: Sequence[jax.Device] | None = None
) -> Classifier:
    """Loads a trained classifier.

    Args:
      model: name of a model of the package ("common_test" or "robust"), the folder of a run, or a model
        file.
      devices: devices to predict on; all devices of this process if not given.

    Returns:
      The classifier.

    Raises:
      UserError: if there is no such model, or the run has no complete epoch.
    """
    return Classifier(
        load_trained_model(find_model(os.fspath(model)), devices=devices or jax.local_devices())
    )


def _fill_masked(image: ArrayLike) -> ArrayLike:
    """The image, with NaN for masked values."""
    if isinstance(image, np.ma.MaskedArray) and image.dtype.kind in "biuf":
        return np.ma.filled(image.astype(np.float64), np.nan)
    return image
