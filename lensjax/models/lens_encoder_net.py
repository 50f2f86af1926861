"""End to end: an encoder guesses the lens, a renderer draws it, a ResNet sees what is left over."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, DTypeLike, Float, Key

from lensjax import fitting
from lensjax.models import rendered_lens
from lensjax.models.outputs import Outputs
from lensjax.models.resnet import ResNet


class LensEncoderNet(nn.Module):
    """LensFitNet with a network in place of the fit, trained together with the classifier.

    A ResNet on the image gives the lens's parameters, each within its bounds; the lens is drawn, with the
    best amplitude and sky, and a second ResNet classifies the image and arsinh(residual). The physics
    loss is the logarithm of the reduced chi-square, 0 where the residual is noise: it needs no true
    parameters. The classifier's loss passes through the renderer to the encoder too, unless
    Gauss-Newton steps lie in between.

    Attributes:
      num_classes: number of classes.
      width: channels after the stem of each ResNet.
      num_blocks: blocks in each of the four stages; 0 leaves the stem alone.
      gauss_newton_steps: steps by which the guess is refined before the classifier sees what it leaves
        over; no gradient passes them, and the encoder then learns from the physics loss alone.
      fit: what is drawn, see `lensjax.fitting.smooth_model`.
      axis_name: see `ResNet`.
      dtype: of both ResNets, see there; the lens is drawn in float32.
    """

    num_classes: int = 3
    width: int = 16
    num_blocks: int = 1
    gauss_newton_steps: int = 0
    fit: str = "common_test"
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
          keys: not used: the model has no random part.
          with_physics_loss: whether to give the physics loss too.
        """
        del keys
        model = fitting.smooth_model(self.fit)
        options = (self.width, (self.num_blocks,) * 4, self.axis_name, self.dtype)
        encoder = ResNet(len(model.nonlinear), *options, name="encoder")
        # In the root, photon noise has the same size everywhere.
        seen = jnp.sqrt(jnp.maximum(images, 1e-6))
        guess = rendered_lens.constrain(model, encoder(seen, train=train, weights=weights))
        free = rendered_lens.refine(model, images, guess, self.gauss_newton_steps)
        residual = rendered_lens.standardized_residuals(model, images, free)
        classifier = ResNet(self.num_classes, *options, name="resnet")
        channels = jnp.concatenate([images, jnp.arcsinh(residual)], -1)
        logits = classifier(channels, train=train, weights=weights)
        theta_E = free[:, model.nonlinear.index("theta_E")]
        if not with_physics_loss:
            return Outputs(logits, theta_E)
        if self.gauss_newton_steps:
            residual = rendered_lens.standardized_residuals(model, images, guess)
        chi_square = jnp.square(residual).mean((1, 2, 3))
        return Outputs(logits, theta_E, jnp.log(chi_square))
