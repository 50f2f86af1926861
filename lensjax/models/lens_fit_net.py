"""A small ResNet on an image and on what the fit of a smooth lens leaves over."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, DTypeLike, Float, Key

from lensjax.models.outputs import Outputs
from lensjax.models.resnet import ResNet
from lensjax.physics import reference


class LensFitNet(nn.Module):
    """ResNet whose input is the image, the standardised residual of a lens fit, or both.

    A residual is white noise where the lens is smooth; substructure leaves dipoles and lines in it. It
    enters as arsinh(residual): unchanged where it is noise, and bounded where a fit is far off.

    Attributes:
      num_classes: number of classes.
      width: channels after the stem.
      num_blocks: blocks in each of the four stages; 0 leaves the stem alone.
      input: "image", "residual", "image_and_residual", or "image_and_reference_source": the reference's
        theta_S of the image (`physics.reference`), with a theta_E from a second ResNet.
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
          images: brightness from 0 to 1 and, as a second channel, the residual in standard deviations.
          train, weights: see `BatchNorm`.
          keys: not used: the model has no random part.
          with_physics_loss: not used: the physics is in the residual.

        Raises:
          ValueError: the residual is asked for and there is none.
        """
        del keys, with_physics_loss
        seen = images[..., :1]
        options = (self.width, (self.num_blocks,) * 4, self.axis_name, self.dtype)
        if self.input == "image_and_reference_source":
            encoder = ResNet(1, *options, name="encoder")
            theta_E = encoder(seen, train=train, weights=weights)[:, 0]
            theta_S = reference.intensity_lens_equation(seen, theta_E)
            seen = jnp.concatenate([seen, theta_S], -1)
        elif self.input != "image":
            if images.shape[-1] != 2:
                raise ValueError(f"LensFitNet sees {self.input}: needs an image and a residual")
            residual = jnp.arcsinh(images[..., 1:])
            seen = residual if self.input == "residual" else jnp.concatenate([seen, residual], -1)
        resnet = ResNet(self.num_classes, *options, name="resnet")
        return Outputs(resnet(seen, train=train, weights=weights))
