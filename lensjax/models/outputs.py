"""What every classifier gives for a batch of images."""

from typing import Any, Protocol

from flax import struct
from jaxtyping import Array, Float


class Outputs(struct.PyTreeNode):
    """A classifier's answer to a batch.

    Attributes:
      logits: unnormalised log-probabilities of the classes.
      theta_E: Einstein radius that the model inferred, in the model's own units; None where it has none.
      physics_loss: how far each image is from the model's physics; None where not asked for or not had.
    """

    logits: Float[Array, "batch classes"]
    theta_E: Float[Array, " batch"] | None = None
    physics_loss: Float[Array, " batch"] | None = None


class ClassifierModule(Protocol):
    """A Flax module that classifies images.

    Attributes:
      axis_name: mapped axis that a training batch is divided over; None if it is not divided.
      dtype: of products; that of inputs and parameters if None.
    """

    axis_name: str | None
    dtype: Any

    def clone(self, **changes: Any) -> "ClassifierModule":
        """See `flax.linen.Module.clone`."""

    def init(self, *arguments: Any, **options: Any) -> Any:
        """See `flax.linen.Module.init`."""

    def apply(self, *arguments: Any, **options: Any) -> Any:
        """See `flax.linen.Module.apply`; gives `Outputs`."""
