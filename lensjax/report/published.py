"""Published results of the reference models, and their comparability with a run."""

import dataclasses

from ml_collections import ConfigDict

from lensjax.data.images import Split
from lensjax.data.simulated import FRESH


@dataclasses.dataclass(frozen=True)
class Published:
    """Results of the best epoch on the 7,500 validation images of the DeepLense Common Test.

    Attributes:
      name: name of the model.
      auc: mean AUC.
      aucs: one-vs-rest AUCs of no substructure, subhalo and vortex.
    """

    name: str
    auc: float
    aucs: tuple[float, float, float]


PUBLISHED = (
    Published("BaselineCNN", 0.9890, (0.9926, 0.9810, 0.9933)),
    Published("LensVIT_PINN", 0.9879, (0.9902, 0.9804, 0.9932)),
)


def is_simulated(config: ConfigDict) -> bool:
    """True if a run uses simulated images."""
    return str(config.data.source).startswith("simulated:")


def training_images(config: ConfigDict) -> str:
    """The training images of a run, for a cell of a table."""
    if not is_simulated(config):
        return "see Reproducibility"
    repeated = not config.data.source.endswith(FRESH)
    return f"{config.data.num_train:,} simulated" + ("" if repeated else " per epoch")


def comparability_note(config: ConfigDict, split: Split) -> str:
    """Note on the comparability of a run's results with the published ones, in a few sentences.

    Args:
      config: the full config of the run.
      split: split of the results.
    """
    selection = (
        "This run is evaluated on its training images, which does not measure performance on new images."
        if split == "train"
        else "For this run and for the published models, the best epoch was selected on the images used for "
        "evaluation, which makes both results optimistic."
        if split == "validation" or config.data.selection == "reference"
        else "This run is evaluated on images that were not used to select the best epoch, whereas the "
        "published results are for the images on which the best epoch was selected."
    )
    if is_simulated(config):
        return (
            f"Not directly comparable: this run was trained and evaluated on simulated images "
            f"({config.data.source}), and the published models on the files of the Common Test. {selection}"
        )
    return (
        f"The published results are for the Common Test's dataset.zip, and those of this run are for "
        f"{config.data.source}; they are comparable only if the images are the same. {selection}"
    )
