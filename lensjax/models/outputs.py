"""What every classifier gives for a batch of images."""

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
