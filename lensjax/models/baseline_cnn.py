"""The reference's BaselineCNN: a ResNet on the image."""

from flax import linen as nn
from jaxtyping import Array, DTypeLike, Float, Key

from lensjax.models.outputs import Outputs
from lensjax.models.resnet import ResNet


class BaselineCNN(nn.Module):
    """A ResNet with a one-channel stem; the defaults are the reference's ResNet18.

    Attributes:
      num_classes: number of classes.
      width, stage_sizes: see `ResNet`.
      axis_name, dtype: see `ResNet`.
    """

    num_classes: int = 3
    width: int = 64
    stage_sizes: tuple[int, ...] = (2, 2, 2, 2)
    axis_name: str | None = None
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width 1"],
        *,
        train: bool,
        weights: Float[Array, " batch"] | None = None,
        keys: Key[Array, " batch"] | None = None,
        with_physics_loss: bool = False,
    ) -> Outputs:
        """Classifies images.

        Args:
          images: brightness from 0 to 1.
          train, weights: see `BatchNorm`.
          keys: not used; the model has no random part.
          with_physics_loss: not used; the model has no physics loss.
        """
        del keys, with_physics_loss
        resnet = ResNet(
            self.num_classes,
            self.width,
            self.stage_sizes,
            self.axis_name,
            self.dtype,
            name="resnet",
        )
        return Outputs(resnet(images, train=train, weights=weights))
