"""How good a run's best epoch is on a split: its figures, its calibration, its report."""

from lensjax import workdir
from lensjax.data.images import ImageSet, Split
from lensjax.evaluation.calibration import (
    Calibration,
    fit_temperature,
    read_temperature,
    write_calibration,
)
from lensjax.prediction.predictor import Predictions
from lensjax.prediction.trained import Manner, Trained
from lensjax.report import explanations
from lensjax.report.galleries import shown_in_depth
from lensjax.report.run_facts import facts
from lensjax.report.writer import PAGE, write_report


def assess(trained: Trained, images: ImageSet, *, split: Split, tta: str = "none") -> str:
    """Writes the report on a split into the run's folder; validation images give the temperature too.

    Args:
      trained: the best epoch of a run.
      images: of the split.
      split: its name.
      tta: "none" or, for a classifier that `lensjax.prediction.tta.check` lets pass, "d4".

    Returns:
      A table of the figures and where the page lies, for the terminal.
    """
    predictions = trained.predict(images, Manner(d4=tta == "d4"))
    if split == "validation" and tta == "none":
        keep_temperature(trained, images, predictions)
    parts = ["" if split == "test" else split, "" if tta == "none" else tta]
    folder = trained.workdir.joinpath(workdir.REPORT, *filter(None, parts))
    rows = shown_in_depth(images.labels, predictions.probabilities)
    table = write_report(
        folder,
        facts=facts(trained.config, trained.workdir, split=split, tta=tta),
        images=images,
        predictions=predictions,
        best_epoch=trained.best_epoch,
        history=trained.history,
        # The temperature is of answers to images as they are.
        temperature=read_temperature(trained.workdir, trained.best_epoch)
        if tta == "none"
        else None,
        inside=explanations.panels(trained, images, predictions.probabilities, rows, split=split),
    )
    return f"{table}\n\nReport, for a browser: {folder / PAGE}"


def calibrate(trained: Trained, images: ImageSet) -> None:
    """Fits a temperature to a run's answers to its validation images, and keeps it with the run."""
    keep_temperature(trained, images, trained.predict(images))


def keep_temperature(trained: Trained, images: ImageSet, predictions: Predictions) -> None:
    """As `calibrate`, for answers that are there already."""
    temperature = fit_temperature(images.labels, predictions.probabilities)
    found = Calibration(temperature, "validation", len(images), trained.best_epoch)
    write_calibration(trained.workdir, found)
