"""The figures that the rebuilt models were published with, and how far a run compares with them."""

import dataclasses

from ml_collections import ConfigDict

from lensjax.data.images import Split


@dataclasses.dataclass(frozen=True)
class Published:
    """Figures of the best epoch on the 7,500 validation images of the DeepLense Common Test.

    Attributes:
      name: of the model.
      auc: mean of the three.
      aucs: one-vs-rest AUC of no substructure, subhalo and vortex.
    """

    name: str
    auc: float
    aucs: tuple[float, float, float]


PUBLISHED = (
    Published("BaselineCNN", 0.9890, (0.9926, 0.9810, 0.9933)),
    Published("LensVIT_PINN", 0.9879, (0.9902, 0.9804, 0.9932)),
)


def is_simulated(config: ConfigDict) -> bool:
    """Whether a run's images are simulated ones."""
    return str(config.data.source).startswith("simulated:")


def comparability(config: ConfigDict, split: Split) -> str:
    """How far the figures of a split compare with the published ones, in a sentence or two.

    Args:
      config: the whole config of the run.
      split: that the figures are of.
    """
    chosen = (
        "the best epoch was chosen on the very images that it is measured on here, as it was there, "
        "which flatters both"
        if split == "validation" or config.data.selection == "reference"
        else "the images measured on here are among those that the parameters were fitted to, which "
        "says nothing of new images"
        if split == "train"
        else "the images measured on here chose nothing, while the published figures are of the very "
        "images that chose the best epoch"
    )
    if is_simulated(config):
        return (
            f"Not like for like: this run was trained and measured on simulated images "
            f"({config.data.source}), the published models on real files of the Common Test. "
            f"Besides, {chosen}."
        )
    return (
        f"The published figures are of the Common Test's dataset.zip, this run's of {config.data.source}; "
        f"they compare only where these are the same images. Besides, {chosen}."
    )
