"""The interface of classifier modules: their outputs and methods."""

from typing import Any, Protocol

from flax import struct
from jaxtyping import Array, Float


class Outputs(struct.PyTreeNode):
    """Outputs of a classifier module for a batch.

    Attributes:
      logits: unnormalized log-probabilities of the classes.
      theta_E: Einstein radius predicted by the model, in the model's units; None if it does not predict one.
      physics_loss: physics loss of each image; None if it was not requested or the model has none.
    """

    logits: Float[Array, "batch classes"]
    theta_E: Float[Array, " batch"] | None = None
    physics_loss: Float[Array, " batch"] | None = None


class ClassifierModule(Protocol):
    """Protocol of the Flax modules that classify images, such as `BaselineCNN`.

    A module does not hold parameters; they are arguments of `apply`. A trained module with its parameters is
    a `lensjax.prediction.classifier.Classifier`, which `lensjax.load` returns.

    Attributes:
      axis_name: mapped axis over which training batches are sharded; None if they are not sharded.
      dtype: dtype of the products; None for that of inputs and parameters.
    """

    axis_name: str | None
    dtype: Any

    def clone(self, **changes: Any) -> "ClassifierModule":
        """See `flax.linen.Module.clone`."""

    def init(self, *arguments: Any, **options: Any) -> Any:
        """See `flax.linen.Module.init`."""

    def apply(self, *arguments: Any, **options: Any) -> Any:
        """See `flax.linen.Module.apply`; returns `Outputs`."""
