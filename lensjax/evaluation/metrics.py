"""How good a classifier's probabilities are."""

import numpy as np
from jaxtyping import Float, Int, Integer

from lensjax.data.images import CLASSES


def classification_metrics(
    labels: Integer[np.ndarray, " n"], probabilities: Float[np.ndarray, "n classes"]
) -> dict[str, float]:
    """One-vs-rest AUC of each class, their mean, and accuracy.

    Args:
      labels: index of each image's class; every class has to occur.
      probabilities: of each class, for each image.

    Returns:
      `auc_<class>` for each class, `auc` (the mean, as the reference's), and `accuracy`.
    """
    from sklearn.metrics import roc_auc_score  # takes a third of a second to import

    per_class = {
        f"auc_{name}": float(roc_auc_score(labels == index, probabilities[:, index]))
        for index, name in enumerate(CLASSES)
    }
    return {
        **per_class,
        "auc": float(np.mean(list(per_class.values()))),
        "accuracy": float(np.mean(probabilities.argmax(1) == labels)),
    }


def confusion(
    labels: Integer[np.ndarray, " n"], probabilities: Float[np.ndarray, "n classes"]
) -> Int[np.ndarray, "classes classes"]:
    """How often images of each true class (row) were given each class (column)."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, probabilities.argmax(1), labels=range(len(CLASSES)))
