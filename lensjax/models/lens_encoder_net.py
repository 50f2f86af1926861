"""End-to-end model: an encoder predicts a lens, and a ResNet classifies the residual of the rendered lens."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lensjax import fitting
from lensjax.models import rendered_lens
from lensjax.models.classifier import CallOptions, ClassifierModule, Outputs
from lensjax.models.resnet import ResNet


class LensEncoderNet(ClassifierModule):
    """LensFitNet with an encoder in place of the fit, trained jointly with the classifier.

    The encoder is a ResNet that predicts the parameters of the lens from the image, each within its bounds.
    The lens is rendered with the best-fit amplitude and sky, and a second ResNet classifies the image and
    arsinh(residual). The physics loss is the logarithm of chi-square per pixel, which is about 0 if the
    residual is pure noise; it does not need the true parameters. The gradient of the classification loss also
    passes through the renderer to the encoder, unless there are Gauss-Newton steps.

    Attributes:
      width: channels after the stem of each ResNet.
      num_blocks: number of blocks in each of the four stages; 0 for only the stem.
      gauss_newton_steps: maximum number of steps that refine the predicted parameters before the residual is
        classified. Gradients do not pass through these steps, so the encoder then learns only from the
        physics loss.
      fit: name of the lens model; see `lensjax.fitting.smooth_model`.
      dtype: dtype of both ResNets; see `ResNet`. The lens is rendered in float32.
    """

    width: int = 16
    num_blocks: int = 1
    gauss_newton_steps: int = 0
    fit: str = "common_test"

    @nn.compact
    def classify(self, images: Float[Array, "batch height width 1"], options: CallOptions) -> Outputs:
        """Classifies images with brightness from 0 to 1; keys are not used."""
        model = fitting.smooth_model(self.fit)
        settings = (self.width, (self.num_blocks,) * 4, self.axis_name, self.dtype)
        encoder = ResNet(len(model.nonlinear), *settings, name="encoder")
        # The square root makes the standard deviation of photon noise uniform.
        root = jnp.sqrt(jnp.maximum(images, 1e-6))
        predicted = rendered_lens.constrain(
            model, encoder(root, train=options.train, weights=options.weights)
        )
        free = rendered_lens.refine(model, images, predicted, self.gauss_newton_steps)
        residual = rendered_lens.standardized_residuals(model, images, free)
        classifier = ResNet(self.num_classes, *settings, name="resnet")
        channels = jnp.concatenate([images, jnp.arcsinh(residual)], -1)
        logits = classifier(channels, train=options.train, weights=options.weights)
        theta_E = free[:, model.nonlinear.index("mass.0.theta_E")]
        if not options.with_physics_loss:
            return Outputs(logits, theta_E)
        if self.gauss_newton_steps:
            residual = rendered_lens.standardized_residuals(model, images, predicted)
        chi_square = jnp.square(residual).mean((1, 2, 3))
        return Outputs(logits, theta_E, jnp.log(chi_square))
