"""A small ResNet that classifies an image and the residual of a smooth lens fit."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lensjax.models.classifier import CallOptions, ClassifierModule, Outputs
from lensjax.models.resnet import ResNet
from lensjax.physics import reference


class LensFitNet(ClassifierModule):
    """ResNet whose input is the image, the standardized residual of a lens fit, or both.

    The residual is white noise if the lens is smooth; substructure leaves dipoles and lines in it. The input
    is arsinh(residual), which leaves noise nearly unchanged and compresses the large residuals of a bad fit.

    Attributes:
      width: channels after the stem.
      num_blocks: number of blocks in each of the four stages; 0 for only the stem.
      input: "image", "residual", "image_and_residual" or "image_and_reference_source". The last adds the
        reference's theta_S of the image (`physics.reference`), with theta_E from a second ResNet.
    """

    width: int = 16
    num_blocks: int = 1
    input: str = "image_and_residual"

    @nn.compact
    def classify(self, images: Float[Array, "batch height width channels"], options: CallOptions) -> Outputs:
        """Classifies images.

        Args:
          images: brightness from 0 to 1; the optional second channel is the residual in standard deviations.
          options: keys and the physics loss are not used.

        Raises:
          ValueError: if `input` includes the residual and `images` has no second channel.
        """
        x = images[..., :1]
        settings = (self.width, (self.num_blocks,) * 4, self.axis_name, self.dtype)
        if self.input == "image_and_reference_source":
            encoder = ResNet(1, *settings, name="encoder")
            theta_E = encoder(x, train=options.train, weights=options.weights)[:, 0]
            theta_S = reference.intensity_lens_equation(x, theta_E)
            x = jnp.concatenate([x, theta_S], -1)
        elif self.input != "image":
            if images.shape[-1] != 2:
                raise ValueError(
                    f"LensFitNet with input={self.input!r} needs two channels, image and residual; got "
                    f"{images.shape[-1]}"
                )
            residual = jnp.arcsinh(images[..., 1:])
            x = residual if self.input == "residual" else jnp.concatenate([x, residual], -1)
        resnet = ResNet(self.num_classes, *settings, name="resnet")
        return Outputs(resnet(x, train=options.train, weights=options.weights))
