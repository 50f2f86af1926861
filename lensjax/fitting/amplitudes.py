"""Best nonnegative amplitudes and best sky for given light and images."""

import itertools

import jax.numpy as jnp
from jaxtyping import Array, Float

from lensjax.fitting.types import Matrix, Theta


def solve_linear(
    columns: Float[Array, "amplitudes *grid"], image: Float[Array, "*grid"], weight: Float[Array, "*grid"]
) -> Float[Array, " linear"]:
    """Solves for the nonnegative amplitudes and the sky that minimize chi-square.

    Args:
      columns: rendered light of amplitude 1 for each amplitude, without the sky; see `render`.
      image: observed image.
      weight: inverse variance of each pixel, 0 for masked pixels.

    Returns:
      Amplitudes, and the sky as the last element, in the unit of the image.
    """
    grid = tuple(range(1, columns.ndim))
    total = weight.sum()
    total = jnp.where(total > 0, total, 1)
    means, mean_image = (weight[None] * columns).sum(grid) / total, (weight * image).sum() / total
    contrast = columns - means.reshape(-1, *(1,) * image.ndim)
    weighted = weight[None] * contrast
    projection = (weighted * (image - mean_image)[None]).sum(grid)
    gram = jnp.stack([(weighted * other[None]).sum(grid) for other in contrast])
    amplitudes = solve_nonnegative(gram, projection)
    return jnp.append(amplitudes, mean_image - (amplitudes * means).sum())


def solve_nonnegative(
    gram: Float[Array, "amplitudes amplitudes"], projection: Float[Array, " amplitudes"]
) -> Float[Array, " amplitudes"]:
    """Minimizes |A c - d|^2 over amplitudes c >= 0.

    At the minimum, some of the amplitudes are positive and solve the equations without the others. All
    subsets are compared, which is exact, and fast for a few amplitudes.

    Args:
      gram: A^T A.
      projection: A^T d.

    Returns:
      The amplitudes.
    """
    number = len(projection)
    if number == 1:
        square = gram[0]
        return jnp.maximum(projection / jnp.where(square > 0, square, 1), 0)
    scale = diagonal_scales(gram)
    unit, right = gram * scale[:, None] * scale[None, :], projection * scale
    subsets = jnp.asarray(list(itertools.product((0, 1), repeat=number)), gram.dtype)
    tiny = 8 * jnp.finfo(gram.dtype).eps
    identity = jnp.eye(number, dtype=gram.dtype)
    matrices = subsets[:, :, None] * subsets[:, None, :] * unit[None]
    matrices += identity[None] * (tiny + 1 - subsets)[:, None]
    solutions = jnp.linalg.solve(matrices, (subsets * right[None])[..., None])[..., 0]
    gain = jnp.where((solutions >= 0).all(1), (solutions * right[None]).sum(1), -jnp.inf)
    return scale * solutions[jnp.argmax(gain)]


def total_light(
    columns: Float[Array, "amplitudes *grid"], linear: Float[Array, " linear"]
) -> Float[Array, "*grid"]:
    """Sum of the light times its amplitudes, without the sky.

    Args:
      columns: rendered light of amplitude 1 for each amplitude.
      linear: amplitudes and sky.
    """
    return sum(amplitude * column for amplitude, column in zip(linear[:-1], columns, strict=True))


def diagonal_scales(matrix: Matrix) -> Theta:
    """Factors that scale the diagonal to 1 when applied to rows and columns."""
    diagonal = jnp.diagonal(matrix)
    return jnp.where(diagonal > 0, 1 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1)), 1)
