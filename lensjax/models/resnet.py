"""ResNet of basic blocks, like torchvision's ResNet18.

Reference: He et al. 2016, "Deep Residual Learning for Image Recognition".
"""

import functools

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, DTypeLike, Float

from lensjax.models.cpu_kernels import max_pool
from lensjax.models.layers import BatchNorm, FeatureMaps, RowWeights, StemConv, conv, dense


class BasicBlock(nn.Module):
    """Residual block of two 3 x 3 convolutions; the shortcut is a 1 x 1 convolution if the shape changes.

    Attributes:
      features: channels of the output.
      stride: stride of the first convolution.
      axis_name, dtype: see `ResNet`.
    """

    features: int
    stride: int = 1
    axis_name: str | None = None
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self, x: FeatureMaps, *, train: bool, weights: RowWeights | None = None
    ) -> Float[Array, "batch new_height new_width features"]:
        """Feature maps after the block; see `BatchNorm` for the arguments."""

        def norm(name: str, y: Array) -> Array:
            layer = BatchNorm(self.axis_name, dtype=self.dtype, name=name)
            return layer(y, train=train, weights=weights)

        y = conv(self.features, 3, stride=self.stride, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(norm("bn1", y))
        y = norm("bn2", conv(self.features, 3, dtype=self.dtype, name="conv2")(y))
        if x.shape != y.shape:
            shortcut = functools.partial(conv, stride=self.stride, dtype=self.dtype)
            x = norm("downsample_bn", shortcut(self.features, 1, name="downsample_conv")(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet: a 7 x 7 stem, stages of basic blocks, global average pooling and a linear layer.

    The defaults are those of ResNet18 with the reference's stem, which has a bias.

    Attributes:
      num_classes: size of the output.
      width: channels after the stem; the stages have 1, 2, 4 and 8 times as many.
      stage_sizes: number of blocks in each stage.
      axis_name: mapped axis over which training batches are sharded; None if they are not sharded.
      dtype: dtype of feature maps and products; if None, that of the inputs and parameters. The output is
        float32 or better.
    """

    num_classes: int = 3
    width: int = 64
    stage_sizes: tuple[int, ...] = (2, 2, 2, 2)
    axis_name: str | None = None
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self, x: FeatureMaps, *, train: bool, weights: RowWeights | None = None
    ) -> Float[Array, "batch classes"]:
        """Logits; see `BatchNorm` for the arguments.

        The inputs of the linear layer are stored as `features` in the collection `intermediates`.
        """
        x = StemConv(self.width, self.dtype, name="conv1")(x, train=train)
        norm = BatchNorm(self.axis_name, dtype=self.dtype, name="bn1")
        x = max_pool(nn.relu(norm(x, train=train, weights=weights)))
        for stage, num_blocks in enumerate(self.stage_sizes):
            for block in range(num_blocks):
                x = BasicBlock(
                    features=self.width * 2**stage,
                    stride=2 if stage > 0 and block == 0 else 1,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_{block}",
                )(x, train=train, weights=weights)
        x = x.mean((1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))
        self.sow("intermediates", "features", x)
        return dense(self.num_classes, fan_in=x.shape[-1], name="fc")(x)
