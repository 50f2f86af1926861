"""A small ResNet on an image and on the residual of a smooth lens fitted to it."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, DTypeLike, Float, Key

from lensjax.models.outputs import Outputs
from lensjax.models.resnet import ResNet
from lensjax.physics import reference


class LensFitNet(nn.Module):
    """ResNet whose input is the image, the standardized residual of a lens fit, or both.

    The residual is white noise if the lens is smooth; substructure leaves dipoles and lines. The input is
    arsinh(residual), which leaves noise nearly unchanged and compresses the large residuals of a bad fit.

    Attributes:
      num_classes: number of classes.
      width: channels after the stem.
      num_blocks: number of blocks in each of the four stages; 0 for only the stem.
      input: "image", "residual", "image_and_residual", or "image_and_reference_source": the reference's
        theta_S of the image (`physics.reference`), with theta_E from a second ResNet.
      axis_name, dtype: see `ResNet`.
    """

    num_classes: int = 3
    width: int = 16
    num_blocks: int = 1
    input: str = "image_and_residual"
    axis_name: str | None = None
    dtype: DTypeLike | None = None

    @nn.compact
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
          images: brightness from 0 to 1; the optional second channel is the residual in standard deviations.
          train, weights: see `BatchNorm`.
          keys: not used; the model has no random part.
          with_physics_loss: not used; the model has no physics loss.

        Raises:
          ValueError: if `input` includes the residual and `images` does not have it.
        """
        del keys, with_physics_loss
        x = images[..., :1]
        options = (self.width, (self.num_blocks,) * 4, self.axis_name, self.dtype)
        if self.input == "image_and_reference_source":
            encoder = ResNet(1, *options, name="encoder")
            theta_E = encoder(x, train=train, weights=weights)[:, 0]
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
        resnet = ResNet(self.num_classes, *options, name="resnet")
        return Outputs(resnet(x, train=train, weights=weights))
