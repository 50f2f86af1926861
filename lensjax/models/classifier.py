"""The interface of classifier modules: base class, outputs and call options."""

import dataclasses

from flax import linen as nn
from flax import struct
from jaxtyping import Array, DTypeLike, Float, Key


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


@dataclasses.dataclass(frozen=True)
class CallOptions:
    """Options of one call of a classifier module.

    Attributes:
      train, weights: see `BatchNorm`.
      keys: one random key per image, for models with dropout; needed only in training.
      with_physics_loss: True to compute the physics loss, for models that have one.
    """

    train: bool
    weights: Float[Array, " batch"] | None
    keys: Key[Array, " batch"] | None
    with_physics_loss: bool


class ClassifierModule(nn.Module):
    """Base class of the Flax modules that classify images, such as `BaselineCNN`.

    A module does not hold parameters; they are arguments of `apply`. `lensjax.load` returns a trained module
    with its parameters as a `lensjax.prediction.classifier.Classifier`.

    Attributes:
      num_classes: number of classes.
      axis_name: mapped axis over which training batches are sharded; None if they are not sharded.
      dtype: dtype of the products; if None, that of the inputs and parameters.
    """

    num_classes: int = 3
    axis_name: str | None = None
    dtype: DTypeLike | None = None

    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        *,
        train: bool,
        weights: Float[Array, " batch"] | None = None,
        keys: Key[Array, " batch"] | None = None,
        with_physics_loss: bool = False,
    ) -> Outputs:
        """Classifies images.

        Args:
          images: brightness from 0 to 1; some models accept a second channel, see their `classify`.
          train, weights, keys, with_physics_loss: see `CallOptions`.

        Returns:
          The outputs for the batch.

        Raises:
          ValueError: if the images lack a channel, or keys are required and not given.
        """
        return self.classify(images, CallOptions(train, weights, keys, with_physics_loss))

    def classify(self, images: Float[Array, "batch height width channels"], options: CallOptions) -> Outputs:
        """Classifies images; each model implements this method."""
        raise NotImplementedError
