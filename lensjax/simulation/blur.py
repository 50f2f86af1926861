"""Convolution with separable kernels, such as a Gaussian point-spread function."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Kernel = Float[np.ndarray, " size"] | Float[Array, " size"]


def gaussian_kernel(sigma: float | Float[Array, ""], size: int) -> Kernel:
    """One axis of a truncated Gaussian kernel, normalized to a sum of 1.

    Args:
      sigma: standard deviation, pixels; 0 for no blurring.
      size: number of weights, odd.

    Returns:
      The weights; a NumPy array if sigma is a Python number.
    """
    xp = jnp if isinstance(sigma, jax.Array) else np
    distance = np.arange(size) - size // 2
    # A smaller standard deviation does not change the kernel, but its square may be out of range.
    kernel = xp.exp(-0.5 * (distance / xp.maximum(sigma, 1e-3)) ** 2)
    return kernel / kernel.sum()


def convolve(image: Float[Array, "rows columns"], kernel: Kernel) -> Float[Array, "height width"]:
    """Convolves an image with the same symmetric kernel along both axes.

    Args:
      image: image with a margin of half the kernel size on each side.
      kernel: weights along one axis; their number must be odd.

    Returns:
      The convolved image without the margin.
    """
    height, width = (length - len(kernel) + 1 for length in image.shape)
    weights = list(kernel) if isinstance(kernel, jax.Array) else kernel.tolist()
    image = sum(weight * image[i : i + height] for i, weight in enumerate(weights))
    return sum(weight * image[:, i : i + width] for i, weight in enumerate(weights))


def convolve_by_matmul(image: Float[Array, "rows columns"], kernel: Kernel) -> Float[Array, "height width"]:
    """Computes `convolve`, with the same arguments, as products with two band matrices.

    For large kernels, this takes more operations but less time. XLA fuses the sums of `convolve` over
    both axes, and the operations that follow them, into one loop, which recomputes the sum along the
    first axis for every weight along the second.
    """
    rows, columns = (_band_matrix(kernel, length) for length in image.shape)
    down = jnp.matmul(jnp.asarray(rows, image.dtype), image, precision=lax.Precision.HIGHEST)
    return jnp.matmul(down, jnp.asarray(columns.T, image.dtype), precision=lax.Precision.HIGHEST)


def _band_matrix(kernel: Kernel, length: int) -> np.ndarray | Array:
    rows = length - len(kernel) + 1
    offset = np.arange(length) - np.arange(rows)[:, None]
    inside = (offset >= 0) & (offset < len(kernel))
    xp = jnp if isinstance(kernel, jax.Array) else np
    return xp.where(inside, kernel[np.where(inside, offset, 0)], 0.0)
