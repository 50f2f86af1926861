"""Layers and initial values as PyTorch has them, where Flax's own differ."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Key


def fan_in_uniform(fan_in: int) -> nn.initializers.Initializer:
    """Uniform on +-1 / sqrt(fan_in): PyTorch's default for the weight and bias of linear layers."""
    bound = 1 / math.sqrt(fan_in)

    def initialize(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return initialize


def fan_out_normal() -> nn.initializers.Initializer:
    """Normal of variance 2 / fan_out: torchvision's initial values for ResNet convolutions."""
    return nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def dense(features: int, fan_in: int, *, name: str) -> nn.Dense:
    """A linear layer with PyTorch's default initial weight and bias."""
    return nn.Dense(
        features,
        kernel_init=fan_in_uniform(fan_in),
        bias_init=fan_in_uniform(fan_in),
        name=name,
    )


def conv(
    features: int,
    kernel_size: int,
    in_channels: int,
    *,
    stride: int = 1,
    padding: int = 0,
    name: str,
) -> nn.Conv:
    """A square convolution with a bias and PyTorch's default initial values and symmetric padding."""
    fan_in = in_channels * kernel_size**2
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        strides=(stride, stride),
        padding=[(padding, padding)] * 2,
        kernel_init=fan_in_uniform(fan_in),
        bias_init=fan_in_uniform(fan_in),
        name=name,
    )


def dropout(
    features: Float[Array, "batch features"], keys: Key[Array, " batch"], rate: float
) -> Float[Array, "batch features"]:
    """Sets a random share of each row's features to zero and scales the others up to keep the mean.

    Each row has a key of its own, so a row's mask does not depend on how a batch is laid over devices.

    Args:
      features: one row an example.
      keys: one key an example.
      rate: share of features set to zero, in [0, 1).
    """
    draw = functools.partial(jax.random.bernoulli, p=1 - rate, shape=features.shape[1:])
    kept = jax.vmap(draw)(keys)
    return jnp.where(kept, features / (1 - rate), jnp.zeros_like(features))


class BatchNorm(nn.Module):
    """Batch normalisation over the real examples of a batch, on all devices together.

    The statistics leave out padding (rows of weight 0) and are those of the whole batch however many
    devices it is laid over, so a padded or divided batch trains exactly as a plain one. As in PyTorch,
    the running variance is the unbiased one, and `momentum` is the share of the new value.

    Attributes:
      axis_name: name of the mapped axis that the batch is divided over in training; None where it
        is not divided.
      momentum: share of a batch's statistics in the running ones.
      epsilon: added to the variance.
    """

    axis_name: str | None = None
    momentum: float = 0.1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        *,
        train: bool,
        weights: Float[Array, " batch"] | None = None,
    ) -> Float[Array, "batch height width channels"]:
        """Normalises with the batch's own statistics in training, otherwise with the running ones.

        Args:
          x: one feature map an example.
          train: whether to use, and take note of, the batch's own statistics.
          weights: 1 for real rows and 0 for padding; None where all are real.
        """
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if train and not self.is_initializing():
            mean, var, count = self._batch_moments(x, weights)
            unbiased = var * (count / jnp.maximum(count - 1, 1))
            for running, new in ((running_mean, mean), (running_var, unbiased)):
                running.value = (1 - self.momentum) * running.value + self.momentum * new
        else:
            mean, var = running_mean.value, running_var.value
        factor = scale * lax.rsqrt(var + self.epsilon)
        shift = bias - mean * factor
        return x * factor[None, None, None, :] + shift[None, None, None, :]

    def _batch_moments(self, x: Array, weights: Array | None) -> tuple[Array, Array, Array]:
        """Mean and biased variance of each channel, and the number of values behind them."""
        real = x if weights is None else x * weights[:, None, None, None]
        rows = jnp.asarray(x.shape[0], x.dtype) if weights is None else weights.sum()
        sums = (rows * (x.shape[1] * x.shape[2]), real.sum((0, 1, 2)), (real * x).sum((0, 1, 2)))
        if self.axis_name is not None:
            sums = lax.psum(sums, self.axis_name)
        count, total, total_of_squares = sums
        mean = total / count
        var = jnp.maximum(total_of_squares / count - mean**2, 0)
        return mean, var, count
