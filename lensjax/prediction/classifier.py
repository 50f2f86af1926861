"""A trained classifier for arrays of images: what `lensjax.load` gives."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jaxtyping import Bool, Float, Shaped

from lensjax.config import check_choice
from lensjax.data.images import CLASSES, ImageSet
from lensjax.errors import UserError
from lensjax.evaluation.calibration import read_temperature
from lensjax.prediction import readers
from lensjax.prediction import tta as test_time
from lensjax.prediction.readers.entry import stack_shape
from lensjax.prediction.readers.sizes import Target, fitted
from lensjax.prediction.trained import Manner, Trained, load_trained


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a classifier says of n images, in their order.

    Attributes:
      classes: the most probable class: "no", "sphere" or "vort"; "" for an image that has no answer.
      probabilities: of no, sphere and vort; NaN for an image that has no answer.
      entropy: of the probabilities, in nats: 0 where the classifier is certain, ln 3 = 1.0986 where it is
        as unsure as can be.
      theta_E: Einstein radius of the smooth lens that was fitted, arcsec; None, as all below, for
        classifiers that fit none.
      theta_E_sigma: its standard deviation, arcsec.
      gamma1, gamma2: external shear.
      reduced_chi_square: of the fit; 1 where a smooth lens explains the image.
      fit_converged: whether the fit found a lens; where it did not, its numbers mean nothing.
      errors: what is wrong with each image that has no answer; "" for the others.
    """

    classes: Shaped[np.ndarray, " n"]
    probabilities: Float[np.ndarray, "n 3"]
    entropy: Float[np.ndarray, " n"]
    theta_E: Float[np.ndarray, " n"] | None
    theta_E_sigma: Float[np.ndarray, " n"] | None
    gamma1: Float[np.ndarray, " n"] | None
    gamma2: Float[np.ndarray, " n"] | None
    reduced_chi_square: Float[np.ndarray, " n"] | None
    fit_converged: Bool[np.ndarray, " n"] | None
    errors: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.classes)


FIT_VALUES = tuple(field.name for field in dataclasses.fields(Answers))[3:-1]


@dataclasses.dataclass(frozen=True)
class Classifier:
    """The best epoch of a run, ready to classify.

    Attributes:
      trained: the run's config, model and parameters.
    """

    trained: Trained

    def predict(
        self,
        images: Shaped[np.ndarray, "..."],
        *,
        calibrated: bool = False,
        tta: Literal["none", "d4"] = "none",
        bad: Literal["raise", "mark"] = "raise",
    ) -> Answers:
        """Classifies images.

        Args:
          images: `(n, h, w)`, `(n, h, w, 1)` or, for one image, `(h, w)`: real numbers in any unit, as each
            image is scaled to 0..1. h and w are those the classifier was trained with.
          calibrated: whether probabilities are softened or sharpened by the temperature that was fitted to
            the validation images (`--mode evaluate --split validation` fits it).
          tta: "d4" for the mean over the eight views of each image, for classifiers trained on such.
          bad: what becomes of images that are constant or hold NaN: "raise" refuses all, "mark" gives
            these no answer.

        Raises:
          UserError: the images have another size or cannot be used, or what is asked for is not to be had.
        """
        check_choice("bad", bad, ("raise", "mark"))
        manner = self.manner(calibrated=calibrated, tta=tta)
        array = np.asarray(images)
        size = self.trained.config.data.image_size
        number, *shape = (0, size, size) if not len(array) else stack_shape(array.shape)
        if tuple(shape) != (size, size):
            raise UserError(
                f"images of shape {array.shape}: the classifier takes {size} x {size} pixels; cut out or "
                "resample them"
            )
        pixels = np.zeros((number, size, size), np.float32)
        errors = [""] * number
        for row, image in enumerate(array.reshape(number, size, size)):
            try:
                real = readers.checked(image)
                pixels[row] = fitted(real, Target(size))
            except UserError as error:
                if bad == "raise":
                    raise UserError(f"image {row}: {error}") from None
                errors[row] = str(error)
        return self.answer(pixels, errors, manner)

    def manner(self, *, calibrated: bool, tta: str) -> Manner:
        """How to answer, after a look at whether the run can.

        Raises:
          UserError: there is no temperature, or the classifier has not seen turned images.
        """
        check_choice("tta", tta, test_time.CHOICES)
        if tta == "d4":
            test_time.check(self.trained.config, self.trained.workdir)
        temperature = 1.0
        if calibrated:
            found = read_temperature(self.trained.workdir, self.trained.best_epoch)
            if found is None:
                raise UserError(
                    f"{self.trained.workdir} has no temperature yet; fit one with --mode=evaluate "
                    f"--workdir={self.trained.workdir} --split=validation"
                )
            temperature = found
        return Manner(temperature, tta == "d4")

    def answer(
        self,
        pixels: Float[np.ndarray, "n height width"],
        errors: Sequence[str],
        manner: Manner,
    ) -> Answers:
        """The answers to images of the right size from 0 to 1; none where `errors` says what is wrong."""
        good = np.array([not error for error in errors], bool)
        probabilities = np.full((len(pixels), len(CLASSES)), np.nan)
        fits = self.trained.config.data.fit != "none"
        values = {name: np.full(len(pixels), np.nan) for name in FIT_VALUES} if fits else {}
        if good.any():
            number = int(good.sum())
            images = ImageSet(
                pixels=pixels[good],
                scale=np.ones(number, np.float32),
                labels=np.zeros(number, np.int32),
                names=("",) * number,
            )
            images = self.trained.add_residuals(images)
            predictions = self.trained.predict(images, manner, quiet=True)
            probabilities[good] = predictions.probabilities
            for name, found in values.items():
                assert images.fit is not None  # for the type checker: it was just made
                found[good] = images.fit[name]
        best = np.array(CLASSES)[probabilities.argmax(1)]
        fitted_values = {name: values.get(name) for name in FIT_VALUES}
        if fits:
            fitted_values["fit_converged"] = values["fit_converged"] == 1
        return Answers(
            classes=np.where(good, best, ""),
            probabilities=probabilities,
            entropy=entropy(probabilities),
            errors=tuple(errors),
            **fitted_values,
        )


def entropy(probabilities: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, " n"]:
    """Shannon's entropy of each row, nats; NaN where the row is."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1))
    return np.where(np.isnan(probabilities).any(1), np.nan, 0 - (probabilities * logs).sum(1))


def load_classifier(workdir: Path, *, devices: Sequence[jax.Device] | None = None) -> Classifier:
    """The classifier that a run made.

    Args:
      workdir: the run's folder.
      devices: what to predict on; all of this process if not given.

    Raises:
      UserError: there is no run or no whole epoch.
    """
    return Classifier(load_trained(workdir, devices=devices or jax.local_devices()))
