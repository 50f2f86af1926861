"""lensjax: dark-matter substructure in images of strong gravitational lenses, in JAX."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensjax import (
        data,
        evaluation,
        fitting,
        models,
        physics,
        prediction,
        report,
        simulation,
        training,
        weights,
    )
    from lensjax.prediction.classifier import Classifier

__version__ = "0.2.0"
__all__ = [
    "__version__",
    "data",
    "evaluation",
    "fitting",
    "load",
    "models",
    "physics",
    "prediction",
    "report",
    "simulation",
    "training",
    "weights",
]


def load(workdir: str | os.PathLike[str]) -> "Classifier":
    """Loads the classifier of a run.

    Args:
      workdir: the folder of a run.

    Returns:
      The classifier at its best epoch, used as in `lensjax.load("runs/lens_fit").predict(images)`.

    Raises:
      UserError: if there is no run, or the run has no checkpoint of a completed epoch.
    """
    from pathlib import Path

    from lensjax.prediction.classifier import load_classifier

    return load_classifier(Path(workdir))


def __getattr__(name: str) -> Any:
    """Imports a package when it is first used, so that `import lensjax` is fast."""
    if name in __all__:
        return importlib.import_module(f"lensjax.{name}")
    raise AttributeError(f"module 'lensjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
