"""lensjax: dark-matter substructure from images of strong gravitational lenses, in JAX."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lensjax.prediction.classifier import Classifier

__version__ = "0.1.0"


def load(workdir: str | os.PathLike[str]) -> "Classifier":
    """The classifier that a run made: `lensjax.load("runs/lens_fit").predict(images)`.

    Args:
      workdir: the folder of a run.

    Raises:
      UserError: there is no run or no whole epoch.
    """
    # Importing lensjax alone stays cheap.
    from pathlib import Path

    from lensjax.prediction.classifier import load_classifier

    return load_classifier(Path(workdir))
