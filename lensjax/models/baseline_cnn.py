"""The reference's BaselineCNN: a ResNet on the image."""

from flax import linen as nn
from jaxtyping import Array, Float

from lensjax.models.classifier import CallOptions, ClassifierModule, Outputs
from lensjax.models.resnet import ResNet


class BaselineCNN(ClassifierModule):
    """A ResNet with a one-channel stem; the defaults are the reference's ResNet18.

    Attributes:
      width, stage_sizes: see `ResNet`.
    """

    width: int = 64
    stage_sizes: tuple[int, ...] = (2, 2, 2, 2)

    @nn.compact
    def classify(self, images: Float[Array, "batch height width 1"], options: CallOptions) -> Outputs:
        """Classifies images with brightness from 0 to 1; keys and the physics loss are not used."""
        resnet = ResNet(
            self.num_classes, self.width, self.stage_sizes, self.axis_name, self.dtype, name="resnet"
        )
        return Outputs(resnet(images, train=options.train, weights=options.weights))
