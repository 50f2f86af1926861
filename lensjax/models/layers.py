"""Layers and initial values as PyTorch has them, where Flax's own differ."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Key

from lensjax.ordered_sums import (
    batch_sum,
    device_sum,
    is_ordered,
    kept,
    on_each_row,
    pixel_sum,
    row_by_row,
)

# Of convolutions on CPUs, see `convolve`. Half as many features allow twice as many values.
_VALUES_AT_ONCE = 200_000
_FEW_FEATURES = 64
_FEW_PIXELS = 36


def fan_in_uniform(fan_in: int) -> nn.initializers.Initializer:
    """Uniform on +-1 / sqrt(fan_in): PyTorch's default for the weight and bias of linear layers."""
    bound = 1 / math.sqrt(fan_in)

    def initialize(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return initialize


def factor_type(x: Array, kernel: Array) -> jnp.dtype:
    """What a product's factors are rounded to: the weights' type where that is the less precise one."""
    return (
        kernel.dtype if kernel.dtype == jnp.bfloat16 else jnp.promote_types(x.dtype, kernel.dtype)
    )


def fan_out_normal() -> nn.initializers.Initializer:
    """Normal of variance 2 / fan_out: torchvision's initial values for ResNet convolutions."""
    return nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def affine(params: dict[str, Array], x: Array) -> Array:
    """A linear layer with a bias; `params` has both. Of low precision only the product's factors are."""
    kernel = params["kernel"]
    product = jnp.matmul(
        x.astype(factor_type(x, kernel)),
        kernel,
        preferred_element_type=jnp.promote_types(x.dtype, params["bias"].dtype),
    )
    return product + on_each_row(params["bias"], product)


class Dense(nn.Module):
    """A linear layer with a bias.

    Attributes:
      features: width of the output.
      kernel_init, bias_init: initial values.
    """

    features: int
    kernel_init: nn.initializers.Initializer
    bias_init: nn.initializers.Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *rest width"]
    ) -> Float[Array, "batch *rest features"]:
        """The last axis through the layer."""
        params = {
            "kernel": self.param("kernel", self.kernel_init, (x.shape[-1], self.features)),
            "bias": self.param("bias", self.bias_init, (self.features,)),
        }
        return row_by_row(affine, params, x)


def dense(features: int, fan_in: int, *, name: str) -> Dense:
    """A linear layer with PyTorch's default initial weight and bias."""
    initial = fan_in_uniform(fan_in)
    return Dense(features, kernel_init=initial, bias_init=initial, name=name)


def _normalise_last(params: dict[str, Array], x: Array, epsilon: float) -> Array:
    mean = x.mean(-1, keepdims=True)
    var = jnp.square(x - mean).mean(-1, keepdims=True)
    normal = (x - mean) * lax.rsqrt(var + epsilon)
    return normal * on_each_row(params["scale"], x) + on_each_row(params["bias"], x)


class LayerNorm(nn.Module):
    """Normalises the last axis, then scales and shifts it.

    Attributes:
      epsilon: added to the variance.
    """

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "batch *rest width"]) -> Float[Array, "batch *rest width"]:
        """The normalised values."""
        params = {
            "scale": self.param("scale", nn.initializers.ones, (x.shape[-1],)),
            "bias": self.param("bias", nn.initializers.zeros, (x.shape[-1],)),
        }
        return row_by_row(functools.partial(_normalise_last, epsilon=self.epsilon), params, x)


def plain_convolution(kernel: Array, x: Array, stride: int) -> Array:
    """`convolve` by XLA's own convolution and its gradients."""
    pad, dtype = kernel.shape[0] // 2, factor_type(x, kernel)
    return lax.conv_general_dilated(
        x.astype(dtype),
        kernel.astype(dtype),
        window_strides=(stride, stride),
        padding=[(pad, pad)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def product_convolution(kernel: Array, x: Array, stride: int) -> Array:
    """`convolve` as one product of matrices: of what each pixel of the result sees with the kernel."""
    side, pad, dtype = kernel.shape[0], kernel.shape[0] // 2, factor_type(x, kernel)
    padded = jnp.pad(x.astype(dtype), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width = ((size - 1) // stride + 1 for size in x.shape[1:3])
    seen = jnp.concatenate(
        [
            padded[
                :, row : row + stride * height : stride, column : column + stride * width : stride
            ]
            for row in range(side)
            for column in range(side)
        ],
        axis=-1,
    )[:, :height, :width]
    return seen @ kernel.astype(dtype).reshape(-1, kernel.shape[-1])


def convolve(
    kernel: Float[Array, "side side channels features"],
    x: Float[Array, "batch height width channels"],
    *,
    stride: int,
) -> Float[Array, "batch new_height new_width features"]:
    """A convolution, padded by half the kernel, in the forms that are quickest on the device.

    On CPUs XLA's own gradient in the kernel is slow except for parts of some 200,000 values of the result,
    more where features are few (tools/benchmark_convolutions.py); where feature maps are small the gradient
    of a product of matrices is quicker. Of a kernel of a single pixel, and of one larger than the feature
    map, for which XLA has no more than plain loops, all is such a product.

    Args:
      kernel: of odd side.
      x: feature maps.
      stride: step.
    """
    plain = functools.partial(plain_convolution, stride=stride)
    product = functools.partial(product_convolution, stride=stride)
    if not is_ordered():
        return row_by_row(plain, kernel, x)
    pixels = (x.shape[1] // stride) * (x.shape[2] // stride)
    if kernel.shape[0] == 1 or pixels < kernel.shape[0] ** 2:
        return row_by_row(product, kernel, x)
    if pixels <= _FEW_PIXELS:
        return row_by_row(plain, kernel, x, pulled_back=product)
    features = kernel.shape[-1]
    values = _VALUES_AT_ONCE * max(_FEW_FEATURES // features, 1)
    fitting = max(values // (pixels * features), 2)
    return row_by_row(plain, kernel, x, quickest=2 ** (fitting.bit_length() - 1))


class Conv(nn.Module):
    """A square convolution without bias; the padding is half the kernel, symmetric as in PyTorch.

    Attributes:
      features: channels of the output.
      kernel_size: side of the kernel, pixels; odd.
      stride: step.
    """

    features: int
    kernel_size: int
    stride: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch new_height new_width features"]:
        """The feature maps."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", fan_out_normal(), shape)
        return convolve(kernel, x, stride=self.stride)


class StemConv(nn.Module):
    """A convolution with a bias, before batch normalisation; initial values and padding as in PyTorch.

    Batch normalisation takes the mean away and the bias with it: in training the bias has a gradient of
    exactly 0, which arithmetic only rounds to. It is given as 0 here, since AdamW, which divides by the
    gradient's own size, would make steps of full length out of the rounding.

    Attributes:
      features: channels of the output.
      kernel_size: side of the kernel, pixels.
      stride: step.
    """

    features: int
    kernel_size: int
    stride: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch new_height new_width features"]:
        """The feature maps.

        Args:
          x: images.
          train: whether batch normalisation uses the batch's own statistics.
        """
        channels, size = x.shape[-1], self.kernel_size
        initial = fan_in_uniform(channels * size**2)
        kernel = self.param("kernel", initial, (size, size, channels, self.features))
        bias = self.param("bias", initial, (self.features,))
        y = convolve(kernel, x, stride=self.stride)
        shifted = y + (lax.stop_gradient(bias) if train else bias)[None, None, None, :]
        return shifted.astype(y.dtype)


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
        channels, dtype = x.shape[-1], x.dtype
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        x = x.astype(jnp.promote_types(dtype, scale.dtype))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if train and not self.is_initializing():
            rows = jnp.ones_like(x[:, 0, 0, 0]) if weights is None else weights
            y, mean, var, count = _normalise_batch(
                x, rows, scale, bias, self.epsilon, self.axis_name
            )
            unbiased = var * (count / jnp.maximum(count - 1, 1))
            for running, new in ((running_mean, mean), (running_var, unbiased)):
                running.value = (1 - self.momentum) * running.value + self.momentum * new
            return y.astype(dtype)
        factor = scale * lax.rsqrt(running_var.value + self.epsilon)
        shift = bias - running_mean.value * factor
        return (x * factor[None, None, None, :] + shift[None, None, None, :]).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _normalise_batch(
    x: Array, rows: Array, scale: Array, bias: Array, epsilon: float, axis_name: str | None
) -> tuple[Array, Array, Array, Array]:
    """Normalised values, then mean and biased variance of each channel and the number behind them."""
    return _normalise_batch_forward(x, rows, scale, bias, epsilon, axis_name)[0]


def _normalise_batch_forward(
    x: Array, rows: Array, scale: Array, bias: Array, epsilon: float, axis_name: str | None
) -> tuple[tuple[Array, Array, Array, Array], tuple[Array, ...]]:
    real = x * rows[:, None, None, None]
    # One count a channel: by a number common to all, XLA divides or multiplies with its inverse, as it
    # sees fit, and rounds in two ways.
    counts = jnp.broadcast_to(rows[:, None] * (x.shape[1] * x.shape[2]), (x.shape[0], x.shape[3]))
    sums = (counts, pixel_sum(real), pixel_sum(real * x))
    count, total, total_of_squares = device_sum(jax.tree.map(batch_sum, sums), axis_name)
    mean = total / count
    var = jnp.maximum(total_of_squares / count - mean**2, 0)
    inverse = lax.rsqrt(var + epsilon)
    factor = scale * inverse
    shift = bias - mean * factor
    y = x * factor[None, None, None, :] + shift[None, None, None, :]
    return (y, mean, var, count), (x, rows, scale, mean, inverse, count)


def _normalise_batch_backward(
    epsilon: float,
    axis_name: str | None,
    residuals: tuple[Array, ...],
    gradients: tuple[Array, ...],
) -> tuple[Array, ...]:
    """The running statistics, which the other results are for, take no part in the loss."""
    del epsilon
    x, rows, scale, mean, inverse, count = residuals
    gradient = gradients[0]
    normal = (x - mean[None, None, None, :]) * inverse[None, None, None, :]
    own = tuple(batch_sum(pixel_sum(values)) for values in (gradient, gradient * normal))
    for_bias, for_scale = (total / count for total in device_sum(own, axis_name))
    common = for_bias[None, None, None, :] + normal * for_scale[None, None, None, :]
    factor = (scale * inverse)[None, None, None, :]
    for_x = factor * (gradient - rows[:, None, None, None] * common)
    return kept(for_x, axis_name), jnp.zeros_like(rows), own[1], own[0]


_normalise_batch.defvjp(_normalise_batch_forward, _normalise_batch_backward)
