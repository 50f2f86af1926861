"""Layers and initializers that match PyTorch where Flax's defaults differ."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, DTypeLike, Float, Key

from lensjax.models import cpu_kernels

FeatureMaps = Float[Array, "batch height width channels"]
RowWeights = Float[Array, " batch"]  # 1 for real rows and 0 for padding


def fan_in_uniform(fan_in: int) -> nn.initializers.Initializer:
    """Uniform within +-1 / sqrt(fan_in), PyTorch's default initializer of weights and biases."""
    bound = 1 / math.sqrt(fan_in)

    def initialize(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return initialize


# Normal with variance 2 / fan_out.
fan_out_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def conv(
    features: int,
    kernel_size: int,
    *,
    stride: int = 1,
    kernel_init: nn.initializers.Initializer = fan_out_normal,
    dtype: DTypeLike | None = None,
    name: str | None = None,
) -> nn.Conv:
    """Square convolution without bias, with PyTorch's symmetric padding of half the kernel.

    Args:
      features: channels of the output.
      kernel_size: side of the kernel, pixels; odd.
      stride: stride, pixels.
      kernel_init: initializer of the kernel; the default is that of torchvision's ResNets.
      dtype: dtype of the products; if None, that of the inputs and parameters.
      name: name of the layer.
    """
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        strides=stride,
        padding=kernel_size // 2,
        use_bias=False,
        kernel_init=kernel_init,
        dtype=dtype,
        name=name,
        conv_general_dilated=cpu_kernels.conv_general_dilated,
    )


class StemConv(nn.Module):
    """7 x 7 convolution with stride 2 and a bias, for use before batch normalization.

    Batch normalization subtracts the bias with the mean, so the exact gradient of the bias is 0 in training.
    A computed gradient would be rounding error, which AdamW would turn into full steps, because it divides by
    the magnitude of the gradient. The gradient is therefore stopped.

    Attributes:
      features: channels of the output.
      dtype: see `conv`.
    """

    features: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: FeatureMaps, *, train: bool) -> Float[Array, "batch new_height new_width features"]:
        """Feature maps; see `BatchNorm` for `train`."""
        initial = fan_in_uniform(7 * 7 * x.shape[-1])
        convolution = conv(self.features, 7, stride=2, kernel_init=initial, dtype=self.dtype)
        nn.share_scope(self, convolution)
        y = convolution(x)
        bias = self.param("bias", initial, (self.features,))
        bias = lax.stop_gradient(bias) if train else bias
        return y + bias.astype(y.dtype)[None, None, None, :]


def dense(features: int, *, fan_in: int, name: str) -> nn.Dense:
    """Linear layer with PyTorch's default initializers."""
    initial = fan_in_uniform(fan_in)
    return nn.Dense(features, kernel_init=initial, bias_init=initial, name=name)


def dropout(
    features: Float[Array, "batch features"], keys: Key[Array, " batch"], rate: float
) -> Float[Array, "batch features"]:
    """Dropout with one random key per example.

    Unlike in `nn.Dropout`, the mask of an example does not depend on the number of devices.

    Args:
      features: one row per example.
      keys: one random key per example.
      rate: fraction of features set to zero, in [0, 1).

    Returns:
      The features after dropout.
    """
    draw = functools.partial(jax.random.bernoulli, p=1 - rate, shape=features.shape[1:])
    return jnp.where(jax.vmap(draw)(keys), features / (1 - rate), jnp.zeros_like(features))


class BatchNorm(nn.Module):
    """Batch normalization over the whole batch on all devices, excluding padding.

    Unlike in `nn.BatchNorm`, the statistics exclude padding (rows with weight 0), even if devices have
    different numbers of real rows, and the running variance is unbiased, as in PyTorch. Statistics are
    computed in float32 or better.

    Attributes:
      axis_name: mapped axis over which training batches are sharded; None if they are not sharded.
      momentum: weight of the batch statistics in the new running statistics.
      epsilon: constant added to the variance.
      dtype: dtype of the output; if None, that of the input and parameters.
    """

    axis_name: str | None = None
    momentum: float = 0.1
    epsilon: float = 1e-5
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: FeatureMaps, *, train: bool, weights: RowWeights | None = None) -> FeatureMaps:
        """Normalizes by the batch statistics in training, otherwise by the running statistics.

        Args:
          x: feature maps.
          train: True to use the batch statistics and update the running statistics.
          weights: weight of each row; None if there is no padding.
        """
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        x = x.astype(jnp.promote_types(x.dtype, scale.dtype))
        if train and not self.is_initializing():
            mean, var, count = self._moments(x, weights)
            unbiased = var * count / jnp.maximum(count - 1, 1)
            for running, new in ((running_mean, mean), (running_var, unbiased)):
                running.value = (1 - self.momentum) * running.value + self.momentum * new
        else:
            mean, var = running_mean.value, running_var.value
        factor = scale * lax.rsqrt(var + self.epsilon)
        shift = bias - mean * factor
        y = x * factor[None, None, None, :] + shift[None, None, None, :]
        return y.astype(self.dtype or x.dtype)

    def _moments(self, x: Array, weights: Array | None) -> tuple[Array, Array, Array]:
        """Mean and biased variance of each channel, and the number of values per channel."""
        real = x if weights is None else x * weights[:, None, None, None]
        rows = jnp.asarray(x.shape[0], x.dtype) if weights is None else weights.sum()
        sums = rows * (x.shape[1] * x.shape[2]), real.sum((0, 1, 2)), (real * x).sum((0, 1, 2))
        count, total, squares = sums if self.axis_name is None else lax.psum(sums, self.axis_name)
        mean = total / count
        return mean, jnp.maximum(squares / count - mean**2, 0), count
