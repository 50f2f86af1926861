"""The reference's LensVIT_PINN: a deflection from a ViT, a lens equation on intensities, and a ResNet."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lensjax.models.classifier import CallOptions, ClassifierModule, Outputs
from lensjax.models.layers import dropout, fan_in_uniform
from lensjax.models.resnet import ResNet
from lensjax.models.vit import ViT
from lensjax.physics import reference


class DeflectionProjection(nn.Module):
    """Linear layer from features to the reference's deflection alpha, with two components per pixel.

    The classifier only needs the mean of alpha over the image, and the physics loss its mean over the two
    components. Both means are linear, so the weights are averaged before the product instead of the result.
    """

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "batch features"],
        clean_features: Float[Array, "batch features"] | None,
        height: int,
        width: int,
    ) -> tuple[Float[Array, " batch"], Float[Array, "batch height width 1"] | None]:
        """Computes means of the deflection.

        Args:
          features: features for the classifier, after dropout.
          clean_features: features for the physics loss, without dropout; None to omit the second result.
          height, width: size of the image, pixels.

        Returns:
          The mean of alpha over pixels and components, from `features`, and the mean over components, from
          `clean_features`.
        """
        fan_in = features.shape[-1]
        kernel = self.param("kernel", fan_in_uniform(fan_in), (fan_in, height * width * 2))
        bias = self.param("bias", fan_in_uniform(fan_in), (height * width * 2,))
        theta_E = features @ kernel.mean(1) + bias.mean()
        if clean_features is None:
            return theta_E, None
        pixel_kernel = kernel.reshape(fan_in, height * width, 2).mean(-1)
        pixel_bias = bias.reshape(1, height * width, 2).mean(-1)
        alpha_mean = clean_features @ pixel_kernel + pixel_bias
        return theta_E, alpha_mean.reshape(-1, height, width, 1)


class LensViTPINN(ClassifierModule):
    """The reference's LensVIT_PINN.

    A ViT predicts theta_E, a lens equation on intensities computes theta_S from the image and theta_E, and a
    ResNet classifies the image and theta_S. The reference also constructs a second dropout layer (0.5) that
    it never uses; this module does not have it.

    Attributes:
      width, stage_sizes: see `ResNet`; the defaults are the reference's.
      patch_size, embedding_size, depth, num_heads, position_grid: see `ViT`; the defaults are the
        reference's.
      dropout_rate: fraction of the ViT's features set to zero in training.
      input: "image", or a form of `reference.gradient_input`, which then replaces the image in the ViT, the
        lens equation and the ResNet. The physics loss still uses the image, as in the reference's code: the
        ViT runs a second time, on the image, for a deflection alpha' that is not used for classification, and
        theta_S' is computed from the image and alpha'.
      dtype: dtype of ViT and ResNet; see `ResNet`. The physics is computed in float32.
    """

    width: int = 64
    stage_sizes: tuple[int, ...] = (2, 2, 2, 2)
    patch_size: int = 16
    embedding_size: int = 384
    depth: int = 12
    num_heads: int = 6
    position_grid: int = 14
    dropout_rate: float = 0.3
    input: str = "image"

    @nn.compact
    def classify(self, images: Float[Array, "batch height width 1"], options: CallOptions) -> Outputs:
        """Classifies images.

        Args:
          images: brightness from 0 to 1.
          options: keys are used for dropout. The physics loss requires a product with the whole deflection
            layer and, if `input` is not "image", a second run of the ViT.

        Raises:
          ValueError: if `dropout_rate` is above 0 and keys are not given in training.
        """
        vit = ViT(
            self.patch_size,
            self.embedding_size,
            self.depth,
            self.num_heads,
            self.position_grid,
            self.dtype,
            name="vit",
        )
        channel = images
        if self.input != "image":
            channel = reference.gradient_input(images, form=self.input)
        clean = features = vit(channel)
        if options.train and self.dropout_rate > 0:
            if options.keys is None:
                raise ValueError("LensViTPINN needs one key per image in training, for dropout")
            features = dropout(clean, options.keys, self.dropout_rate)
        if options.with_physics_loss and channel is not images:
            clean = vit(images)
        theta_E, alpha_mean = DeflectionProjection(name="alpha_proj")(
            features, clean if options.with_physics_loss else None, *images.shape[1:3]
        )
        theta_S = reference.intensity_lens_equation(channel, theta_E)
        resnet = ResNet(
            self.num_classes, self.width, self.stage_sizes, self.axis_name, self.dtype, name="cnn"
        )
        logits = resnet(jnp.concatenate([channel, theta_S], -1), train=options.train, weights=options.weights)
        if alpha_mean is None:
            return Outputs(logits, theta_E)
        # The physics loss has its own theta_E, from the features before dropout.
        clean_theta_E = alpha_mean.mean((1, 2, 3))
        clean_theta_S = reference.intensity_lens_equation(images, clean_theta_E)
        return Outputs(logits, theta_E, reference.physics_loss(images, clean_theta_S, alpha_mean))
