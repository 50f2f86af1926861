"""AUC, accuracy and confusion matrix of classifier probabilities."""

import numpy as np
from jaxtyping import Int

from lensjax.data.images import CLASSES
from lensjax.evaluation.types import Labels, Probabilities


def classification_metrics(labels: Labels, probabilities: Probabilities) -> dict[str, float]:
    """One-vs-rest AUC of each class, mean AUC, and accuracy.

    Args:
      labels: class index of each image; every class must occur.
      probabilities: class probabilities of each image.

    Returns:
      `auc_<class>` for each class, `auc` (the unweighted mean, as in the reference), and `accuracy`.
    """
    from sklearn.metrics import roc_auc_score  # slow to import

    per_class = {
        f"auc_{name}": float(roc_auc_score(labels == index, probabilities[:, index]))
        for index, name in enumerate(CLASSES)
    }
    return {
        **per_class,
        "auc": float(np.mean(list(per_class.values()))),
        "accuracy": float(np.mean(probabilities.argmax(1) == labels)),
    }


def confusion_matrix(labels: Labels, probabilities: Probabilities) -> Int[np.ndarray, "classes classes"]:
    """Number of images by true class (row) and predicted class (column).

    Args:
      labels: class index of each image.
      probabilities: class probabilities of each image.
    """
    from sklearn import metrics  # slow to import

    return metrics.confusion_matrix(labels, probabilities.argmax(1), labels=range(len(CLASSES)))
