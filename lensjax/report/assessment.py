"""Evaluation of a run's best epoch on a split: metrics, calibration and report."""

from lensjax import workdir
from lensjax.data.images import ImageSet, Split
from lensjax.evaluation.calibration import Calibration, fit_temperature, read_temperature, write_calibration
from lensjax.prediction.domain import find_reasons, measure_domain, write_domain
from lensjax.prediction.predictor import ModelPredictions
from lensjax.prediction.trained_model import PredictionOptions, TrainedModel
from lensjax.report.explanations import explanation_panels
from lensjax.report.galleries import select_for_detail
from lensjax.report.provenance import collect_provenance
from lensjax.report.writer import PAGE, write_report


def evaluate_run(trained: TrainedModel, images: ImageSet, *, split: Split, tta: str = "none") -> str:
    """Evaluates a run on a split and writes the report to the run's folder.

    On the validation split without test-time augmentation, a temperature is also fitted and the domain
    measured; both are saved in the run's folder.

    Args:
      trained: best epoch of the run.
      images: images of the split.
      split: name of the split.
      tta: "none"; or "d4", which requires a classifier that `lensjax.prediction.tta.check` accepts.

    Returns:
      A table of the metrics and the path of the page, for the terminal.
    """
    images = trained.add_residuals(images)
    predictions = trained.predict(images, PredictionOptions(d4=tta == "d4"))
    if split == "validation" and tta == "none":
        save_temperature(trained, images, predictions)
    trained.warn_without_domain()
    parts = ["" if split == "test" else split, "" if tta == "none" else tta]
    folder = trained.workdir.joinpath(workdir.REPORT, *filter(None, parts))
    rows = select_for_detail(images.labels, predictions.probabilities)
    table = write_report(
        folder,
        provenance=collect_provenance(trained.config, trained.workdir, split=split, tta=tta),
        images=images,
        predictions=predictions,
        best_epoch=trained.best_epoch,
        history=trained.history,
        # The temperature was fitted to predictions without test-time augmentation.
        temperature=read_temperature(trained.workdir, trained.best_epoch) if tta == "none" else None,
        reasons=None if trained.domain is None else find_reasons(trained.domain, images, predictions),
        detail_panels=explanation_panels(trained, images, predictions.probabilities, rows, split=split),
    )
    return f"{table}\n\nReport: {folder / PAGE}"


def calibrate_run(trained: TrainedModel, images: ImageSet) -> None:
    """Fits a temperature to the validation images, measures the domain, and saves both in the run's folder.

    Args:
      trained: best epoch of the run.
      images: the validation images.
    """
    images = trained.add_residuals(images)
    save_temperature(trained, images, trained.predict(images))


def save_temperature(trained: TrainedModel, images: ImageSet, predictions: ModelPredictions) -> None:
    """Fits a temperature to existing predictions, measures the domain, and saves both in the run's folder.

    Args:
      trained: best epoch of the run.
      images: the validation images.
      predictions: predictions for these images, without test-time augmentation.
    """
    temperature = fit_temperature(images.labels, predictions.probabilities)
    calibration = Calibration(temperature, "validation", len(images), trained.best_epoch)
    write_calibration(trained.workdir, calibration)
    write_domain(
        trained.workdir,
        measure_domain(images, predictions),
        architecture=trained.config.model.name,
        best_epoch=trained.best_epoch,
    )
