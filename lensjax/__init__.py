"""lensjax: dark-matter substructure in images of strong gravitational lenses, in JAX."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensjax import (
        data,
        evaluation,
        fitting,
        modeling,
        models,
        physics,
        prediction,
        report,
        simulation,
        substructure,
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
    "modeling",
    "models",
    "physics",
    "prediction",
    "report",
    "simulation",
    "substructure",
    "training",
    "weights",
]


def load(model: str | os.PathLike[str]) -> "Classifier":
    """Loads a trained classifier, as in `lensjax.load("common_test").predict(images)`.

    Args:
      model: name of a model of the package ("common_test" or "robust"), the folder of a run, or a model file
        written by `lensjax export --format safetensors`.

    Returns:
      The classifier.

    Raises:
      UserError: if there is no such model, its files are damaged, the folder contains several runs, or the
        run has no checkpoint of a completed epoch.
    """
    from lensjax.prediction.classifier import load_classifier

    return load_classifier(model)


def __getattr__(name: str) -> Any:
    """Imports a package when it is first used, so that `import lensjax` is fast."""
    if name in __all__:
        return importlib.import_module(f"lensjax.{name}")
    raise AttributeError(f"module 'lensjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
