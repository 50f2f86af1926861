"""Vision transformer (ViT) like DINO's, for images of any size.

References: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words"; Caron et al. 2021, "Emerging
Properties in Self-Supervised Vision Transformers" (DINO).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, DTypeLike, Float

from lensjax.models import cpu_kernels
from lensjax.models.layers import fan_in_uniform

linear = functools.partial(nn.Dense, kernel_init=nn.initializers.normal(0.02))
layer_norm = functools.partial(nn.LayerNorm, epsilon=1e-6)


class Attention(nn.Module):
    """Multi-head self-attention; one linear layer computes queries, keys and values.

    Attributes:
      num_heads: number of heads; must divide the width of a token.
      dtype: see `ViT`.
    """

    num_heads: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        """Tokens after attention."""
        batch, tokens, width = x.shape
        qkv = linear(3 * width, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(batch, tokens, 3, self.num_heads, width // self.num_heads)
        query, key, value = jnp.moveaxis(qkv, 2, 0)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(width // self.num_heads)
        attention = nn.softmax(scores.astype(jnp.promote_types(scores.dtype, jnp.float32)))
        self.sow("intermediates", "attention", attention)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", attention.astype(value.dtype), value)
        return linear(width, dtype=self.dtype, name="proj")(mixed.reshape(batch, tokens, width))


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a two-layer perceptron with exact GELU.

    Attributes:
      num_heads: number of heads.
      mlp_ratio: width of the hidden layer of the perceptron, in units of the width of a token.
      dtype: see `ViT`.
    """

    num_heads: int
    mlp_ratio: int = 4
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch tokens width"]) -> Float[Array, "batch tokens width"]:
        """Tokens after the block."""
        width, dtype = x.shape[-1], self.dtype
        y = layer_norm(dtype=dtype, name="norm1")(x)
        x = x + Attention(self.num_heads, dtype, name="attn")(y)
        y = layer_norm(dtype=dtype, name="norm2")(x)
        y = nn.gelu(linear(self.mlp_ratio * width, dtype=dtype, name="fc1")(y), approximate=False)
        return x + linear(width, dtype=dtype, name="fc2")(y)


class ViT(nn.Module):
    """Vision transformer that returns the features of the class token; the defaults are those of ViT-S/16.

    Attributes:
      patch_size: side of a patch, pixels; pixels beyond the last whole patch are ignored.
      embedding_size: width of a token.
      depth: number of blocks.
      num_heads: number of attention heads in each block.
      position_grid: side of the square grid of position embeddings, patches; the embeddings are resized to
        the number of patches in the image.
      dtype: dtype of tokens and products; if None, that of the inputs and parameters. Attention weights and
        the output are float32 or better.
    """

    patch_size: int = 16
    embedding_size: int = 384
    depth: int = 12
    num_heads: int = 6
    position_grid: int = 14
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width channels"]) -> Float[Array, "batch features"]:
        """Class token after the last block and the final norm."""
        size, patch = self.embedding_size, (self.patch_size, self.patch_size)
        initial = fan_in_uniform(patch[0] * patch[1] * images.shape[-1])
        patches = nn.Conv(
            size,
            patch,
            strides=patch,
            padding=0,
            kernel_init=initial,
            bias_init=initial,
            dtype=self.dtype,
            name="patch_embed",
            conv_general_dilated=cpu_kernels.conv_general_dilated,
        )(images)
        batch, rows, columns, _ = patches.shape

        normal = nn.initializers.normal(0.02)
        class_token = self.param("cls_token", normal, (1, 1, size)).astype(patches.dtype)
        positions = self.param("pos_embed", normal, (1, 1 + self.position_grid**2, size))
        positions = resize_position_embeddings(positions, rows, columns).astype(patches.dtype)

        tokens = jnp.concatenate(
            [jnp.broadcast_to(class_token, (batch, 1, size)), patches.reshape(batch, rows * columns, size)],
            axis=1,
        )
        tokens = tokens + jnp.broadcast_to(positions, tokens.shape)
        for index in range(self.depth):
            tokens = Block(self.num_heads, dtype=self.dtype, name=f"blocks_{index}")(tokens)
        features = tokens[:, 0].astype(jnp.promote_types(tokens.dtype, jnp.float32))
        return layer_norm(name="norm")(features)


def resize_position_embeddings(
    positions: Float[Array, "1 tokens width"], rows: int, columns: int
) -> Float[Array, "1 new_tokens width"]:
    """Resizes position embeddings to a grid of `rows` x `columns` patches, as DINO does.

    Args:
      positions: embedding of the class token, then those of a square grid, row by row.
      rows, columns: number of patches in the image along each axis.

    Returns:
      The embedding of the class token, then those of the new grid, row by row.

    Reference: DINO's `interpolate_pos_encoding`: bicubic, with a scale factor of (patches + 0.1) / grid that
    is also the scale of the coordinates.
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


def bicubic_matrix(old_size: int, new_size: int, scale: float) -> Float[np.ndarray, "new_size old_size"]:
    """Matrix that resizes a row of samples by bicubic convolution, with repeated edge samples.

    Args:
      old_size, new_size: number of samples before and after.
      scale: new samples per old sample, in the mapping between the coordinates of the two rows.

    Reference: Keys 1981, with A = -0.75 and half-pixel centers, as in PyTorch's "bicubic".
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
