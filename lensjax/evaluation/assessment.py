"""How good a run's best epoch is on a split: its figures, its calibration, its report."""

from lensjax import workdir
from lensjax.data.images import ImageSet, Split
from lensjax.evaluation.calibration import (
    Calibration,
    fit_temperature,
    read_temperature,
    write_calibration,
)
from lensjax.evaluation.prediction import Predictions
from lensjax.evaluation.report import write_report
from lensjax.evaluation.trained import Manner, Trained


def assess(trained: Trained, images: ImageSet, *, split: Split, tta: str = "none") -> str:
    """Writes the report on a split into the run's folder; validation images give the temperature too.

    Args:
      trained: the best epoch of a run.
      images: of the split.
      split: its name.
      tta: "none" or, for a classifier that `lensjax.evaluation.tta.check` lets pass, "d4".

    Returns:
      A table of the figures, for the terminal.
    """
    predictions = trained.predict(images, Manner(d4=tta == "d4"))
    if split == "validation" and tta == "none":
        keep_temperature(trained, images, predictions)
    parts = ["" if split == "test" else split, "" if tta == "none" else tta]
    # The temperature is of answers to images as they are.
    known = read_temperature(trained.workdir, trained.best_epoch) if tta == "none" else None
    return write_report(
        trained.workdir.joinpath(workdir.REPORT, *filter(None, parts)),
        split=split,
        images=images,
        predictions=predictions,
        best_epoch=trained.best_epoch,
        history=trained.history,
        temperature=known,
        tta=tta,
    )


def calibrate(trained: Trained, images: ImageSet) -> None:
    """Fits a temperature to a run's answers to its validation images, and keeps it with the run."""
    keep_temperature(trained, images, trained.predict(images))


def keep_temperature(trained: Trained, images: ImageSet, predictions: Predictions) -> None:
    """As `calibrate`, for answers that are there already."""
    temperature = fit_temperature(images.labels, predictions.probabilities)
    found = Calibration(temperature, "validation", len(images), trained.best_epoch)
    write_calibration(trained.workdir, found)
