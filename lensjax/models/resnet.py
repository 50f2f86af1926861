"""ResNet of basic blocks, as torchvision's ResNet18.

Reference: He et al. 2016, "Deep Residual Learning for Image Recognition".
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from lensjax.models.layers import BatchNorm, Conv, StemConv, dense
from lensjax.models.pooling import max_pool
from lensjax.ordered_sums import kept, pixel_sum


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside an identity, or a 1 x 1 convolution where the shape changes.

    Attributes:
      features: channels of the block's output.
      stride: step of the first convolution.
      axis_name: see `BatchNorm`.
    """

    features: int
    stride: int = 1
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        *,
        train: bool,
        weights: Float[Array, " batch"] | None = None,
    ) -> Float[Array, "batch new_height new_width features"]:
        """The block's feature maps; arguments as for `BatchNorm`."""
        features, stride = self.features, self.stride

        def norm(y: Array, name: str) -> Array:
            return BatchNorm(self.axis_name, name=name)(y, train=train, weights=weights)

        y = Conv(features, kernel_size=3, stride=stride, name="conv1")(x)
        y = kept(nn.relu(norm(y, "bn1")), self.axis_name if train else None)
        y = Conv(features, kernel_size=3, name="conv2")(y)
        y = norm(y, "bn2")
        if x.shape != y.shape:
            x = Conv(features, kernel_size=1, stride=stride, name="downsample_conv")(x)
            x = norm(x, "downsample_bn")
        return kept(nn.relu(x + y), self.axis_name if train else None)


class ResNet(nn.Module):
    """A 7 x 7 stem, four stages of basic blocks, global mean and a linear layer.

    The defaults are ResNet18 with the reference's stem, which has a bias.

    Attributes:
      num_classes: size of the output.
      width: channels after the stem; the stages have 1, 2, 4 and 8 times as many.
      stage_sizes: blocks in each stage.
      axis_name: see `BatchNorm`.
    """

    num_classes: int = 3
    width: int = 64
    stage_sizes: tuple[int, ...] = (2, 2, 2, 2)
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        *,
        train: bool,
        weights: Float[Array, " batch"] | None = None,
    ) -> Float[Array, "batch classes"]:
        """Logits; arguments as for `BatchNorm`."""
        x = StemConv(self.width, kernel_size=7, stride=2, name="conv1")(x, train=train)
        x = BatchNorm(self.axis_name, name="bn1")(x, train=train, weights=weights)
        x = max_pool(nn.relu(x), self.axis_name)
        for stage, num_blocks in enumerate(self.stage_sizes):
            for block in range(num_blocks):
                x = BasicBlock(
                    features=self.width * 2**stage,
                    stride=2 if stage > 0 and block == 0 else 1,
                    axis_name=self.axis_name,
                    name=f"layer{stage + 1}_{block}",
                )(x, train=train, weights=weights)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        x = pixel_sum(x) / (x.shape[1] * x.shape[2])
        return dense(self.num_classes, x.shape[-1], name="fc")(x)
