"""Blurring by a kernel that is the product of its two axes, such as a Gaussian."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def gaussian_kernel(sigma: float, size: int) -> Float[np.ndarray, " size"]:
    """One axis of a Gaussian kernel, cut off at its size and adding up to 1.

    Args:
      sigma: standard deviation, pixels.
      size: number of weights, odd.
    """
    distance = np.arange(size) - size // 2
    kernel = np.exp(-0.5 * (distance / sigma) ** 2)
    return kernel / kernel.sum()


def blur(
    image: Float[Array, "rows columns"], kernel: Float[np.ndarray, " size"]
) -> Float[Array, "height width"]:
    """Convolves an image with the same symmetric kernel along both axes.

    Args:
      image: the image with a margin, half the kernel's size on each side.
      kernel: an odd number of weights.

    Returns:
      The blurred image without the margin.
    """
    height, width = (length - len(kernel) + 1 for length in image.shape)
    weights = kernel.tolist()
    image = sum(weight * image[i : i + height] for i, weight in enumerate(weights))
    return sum(weight * image[:, i : i + width] for i, weight in enumerate(weights))


def blur_by_products(
    image: Float[Array, "rows columns"], kernel: Float[np.ndarray, " size"]
) -> Float[Array, "height width"]:
    """What `blur` gives, as products with two band matrices.

    They take more operations and less time: written as sums, both axes and whatever follows become one
    loop, in which the first axis is summed anew for each step of the second.

    Args:
      image: the image with a margin, half the kernel's size on each side.
      kernel: an odd number of weights.

    Returns:
      The blurred image without the margin.
    """
    rows, columns = (_band_matrix(kernel, length) for length in image.shape)
    down = jnp.matmul(jnp.asarray(rows, image.dtype), image, precision=lax.Precision.HIGHEST)
    return jnp.matmul(down, jnp.asarray(columns.T, image.dtype), precision=lax.Precision.HIGHEST)


def _band_matrix(kernel: np.ndarray, length: int) -> np.ndarray:
    matrix = np.zeros((length - len(kernel) + 1, length))
    for row in range(len(matrix)):
        matrix[row, row : row + len(kernel)] = kernel
    return matrix
