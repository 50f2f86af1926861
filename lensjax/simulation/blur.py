"""Convolution with separable kernels, such as a Gaussian point-spread function."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def gaussian_kernel(sigma: float, size: int) -> Float[np.ndarray, " size"]:
    """One axis of a truncated Gaussian kernel, normalized to a sum of 1.

    Args:
      sigma: standard deviation, pixels; 0 for no blurring.
      size: number of weights, odd.
    """
    distance = np.arange(size) - size // 2
    # A smaller standard deviation does not change the kernel, but its square may be out of range.
    kernel = np.exp(-0.5 * (distance / max(sigma, 1e-3)) ** 2)
    return kernel / kernel.sum()


def convolve(
    image: Float[Array, "rows columns"], kernel: Float[np.ndarray, " size"]
) -> Float[Array, "height width"]:
    """Convolves an image with the same symmetric kernel along both axes.

    Args:
      image: image with a margin of half the kernel size on each side.
      kernel: weights along one axis; their number must be odd.

    Returns:
      The convolved image without the margin.
    """
    height, width = (length - len(kernel) + 1 for length in image.shape)
    weights = kernel.tolist()
    image = sum(weight * image[i : i + height] for i, weight in enumerate(weights))
    return sum(weight * image[:, i : i + width] for i, weight in enumerate(weights))


def convolve_by_matmul(
    image: Float[Array, "rows columns"], kernel: Float[np.ndarray, " size"]
) -> Float[Array, "height width"]:
    """Computes `convolve`, with the same arguments, as products with two band matrices.

    This takes more operations but less time. XLA fuses the sums of `convolve` over both axes, and
    the operations that follow them, into one loop, which recomputes the sum along the first axis
    for every weight along the second.
    """
    rows, columns = (_band_matrix(kernel, length) for length in image.shape)
    down = jnp.matmul(jnp.asarray(rows, image.dtype), image, precision=lax.Precision.HIGHEST)
    return jnp.matmul(down, jnp.asarray(columns.T, image.dtype), precision=lax.Precision.HIGHEST)


def _band_matrix(kernel: np.ndarray, length: int) -> np.ndarray:
    matrix = np.zeros((length - len(kernel) + 1, length))
    for row in range(len(matrix)):
        matrix[row, row : row + len(kernel)] = kernel
    return matrix
