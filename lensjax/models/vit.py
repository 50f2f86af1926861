"""Vision transformer as DINO's, for images of any size.

References: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words"; Caron et al. 2021, "Emerging
Properties in Self-Supervised Vision Transformers" (DINO).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from lensjax.models.layers import Dense, LayerNorm, affine, fan_in_uniform
from lensjax.ordered_sums import last_sum, on_each_row, row_by_row

linear = functools.partial(Dense, kernel_init=nn.initializers.normal(0.02))


class PatchEmbedding(nn.Module):
    """A linear layer on each patch of an image, with the parameters of a convolution of that stride.

    Patches do not overlap, so it is one product of matrices.

    Attributes:
      features: width of a token.
      patch_size: side of a patch, pixels; what an image has beyond whole patches is cut.
    """

    features: int
    patch_size: int

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch rows columns features"]:
        """One token a patch."""
        batch, height, width, channels = images.shape
        size = self.patch_size
        rows, columns = height // size, width // size
        initial = fan_in_uniform(size * size * channels)
        kernel = self.param("kernel", initial, (size, size, channels, self.features))
        bias = self.param("bias", initial, (self.features,))
        patches = images[:, : rows * size, : columns * size]
        patches = patches.reshape(batch, rows, size, columns, size, channels)
        patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, -1)
        params = {"kernel": kernel.reshape(-1, self.features), "bias": bias}
        return row_by_row(affine, params, patches).reshape(batch, rows, columns, -1)


@jax.custom_vjp
def softmax(scores: Float[Array, "*rows columns"]) -> Float[Array, "*rows columns"]:
    """Softmax of the last axis, with sums of fixed order."""
    exponentials = jnp.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / last_sum(exponentials)


def _softmax_forward(scores: Array) -> tuple[Array, Array]:
    probabilities = softmax(scores)
    return probabilities, probabilities


def _softmax_backward(probabilities: Array, gradient: Array) -> tuple[Array]:
    return (probabilities * (gradient - last_sum(gradient * probabilities)),)


softmax.defvjp(_softmax_forward, _softmax_backward)


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values come from one linear layer.

    Attributes:
      num_heads: heads; divides the width of the tokens.
    """

    num_heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        """Each token as a mean of all tokens' values, weighted by likeness."""
        batch, tokens, width = x.shape
        qkv = linear(3 * width, name="qkv")(x)
        qkv = qkv.reshape(batch, tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = jnp.moveaxis(qkv, 2, 0)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(width // self.num_heads)
        attention = softmax(scores)
        self.sow("intermediates", "attention", attention)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", attention, value)
        return linear(width, name="proj")(mixed.reshape(batch, tokens, width))


class Block(nn.Module):
    """A pre-norm transformer block: attention, then a two-layer perceptron with exact GELU.

    Attributes:
      num_heads: heads of the attention.
      mlp_ratio: width of the perceptron's hidden layer over that of the tokens.
    """

    num_heads: int
    mlp_ratio: int = 4

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        """The tokens after the block."""
        width = x.shape[-1]
        x = x + Attention(self.num_heads, name="attn")(LayerNorm(name="norm1")(x))
        y = linear(self.mlp_ratio * width, name="fc1")(LayerNorm(name="norm2")(x))
        return x + linear(width, name="fc2")(nn.gelu(y, approximate=False))


class ViT(nn.Module):
    """Image to the features of its class token; the defaults are ViT-S/16.

    Attributes:
      patch_size: side of a patch, pixels; what an image has beyond whole patches is cut.
      embedding_size: width of a token.
      depth: number of blocks.
      num_heads: heads of each block's attention.
      position_grid: side of the square of position embeddings, in patches; they are resized to the
        image's own number of patches.
    """

    patch_size: int = 16
    embedding_size: int = 384
    depth: int = 12
    num_heads: int = 6
    position_grid: int = 14

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch features"]:
        """The class token after the last block and the final norm."""
        batch, size = images.shape[0], self.embedding_size
        patches = PatchEmbedding(size, self.patch_size, name="patch_embed")(images)
        rows, columns = patches.shape[1:3]

        normal = nn.initializers.normal(0.02)
        class_token = self.param("cls_token", normal, (1, 1, size))
        positions = self.param("pos_embed", normal, (1, 1 + self.position_grid**2, size))

        place = functools.partial(_place, rows=rows, columns=columns)
        tokens = row_by_row(place, (class_token, positions), patches.reshape(batch, -1, size))
        for index in range(self.depth):
            tokens = Block(self.num_heads, name=f"blocks_{index}")(tokens)
        return LayerNorm(name="norm")(tokens)[:, 0]


def _place(params: tuple[Array, Array], patches: Array, rows: int, columns: int) -> Array:
    """The class token before the patches, each with its position embedding."""
    class_token, positions = params
    resized = resize_position_embeddings(positions, rows, columns)
    first = on_each_row(class_token.reshape(-1), patches[:, 0]).reshape(-1, 1, patches.shape[-1])
    everywhere = on_each_row(resized.reshape(-1), patches[:, 0])
    return jnp.concatenate([first, patches], axis=1) + everywhere.reshape(-1, *resized.shape[1:])


def resize_position_embeddings(
    positions: Float[Array, "1 tokens width"], rows: int, columns: int
) -> Float[Array, "1 new_tokens width"]:
    """Position embeddings for a grid of `rows` x `columns` patches, resized as DINO does.

    Args:
      positions: the class token's embedding, then those of a square grid, row by row.
      rows, columns: patches of the image.

    Returns:
      The class token's embedding, then those of the new grid, row by row.

    Reference: DINO's `interpolate_pos_encoding`: bicubic, by a scale factor of (patches + 0.1) / grid,
    which serves as the scale of the coordinates too.
    """
    grid = math.isqrt(positions.shape[1] - 1)
    if (rows, columns) == (grid, grid):
        return positions
    square = positions[0, 1:].reshape(grid, grid, -1)
    resized = jnp.einsum(
        "ri,cj,ijw->rcw",
        jnp.asarray(bicubic_matrix(grid, rows, (rows + 0.1) / grid), positions.dtype),
        jnp.asarray(bicubic_matrix(grid, columns, (columns + 0.1) / grid), positions.dtype),
        square,
        precision=jax.lax.Precision.HIGHEST,
    )
    return jnp.concatenate([positions[:, :1], resized.reshape(1, rows * columns, -1)], axis=1)


def bicubic_matrix(
    old_size: int, new_size: int, scale: float
) -> Float[np.ndarray, "new_size old_size"]:
    """Matrix that resizes a row of samples by bicubic convolution, the edge samples repeated.

    Args:
      old_size, new_size: samples before and after.
      scale: samples after per sample before, in the map between the two rows' coordinates.

    Reference: Keys 1981, with A = -0.75 and half-pixel centres, as in PyTorch's "bicubic".
    """
    a = -0.75
    position = (np.arange(new_size) + 0.5) / scale - 0.5
    first = np.floor(position).astype(int)
    matrix = np.zeros((new_size, old_size))
    for offset in (-1, 0, 1, 2):
        distance = np.abs(position - (first + offset))
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = a * (((distance - 5) * distance + 8) * distance - 4)
        source = np.clip(first + offset, 0, old_size - 1)
        np.add.at(matrix, (np.arange(new_size), source), np.where(distance <= 1, near, far))
    return matrix
