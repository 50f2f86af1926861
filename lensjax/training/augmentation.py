"""Random augmentation of training images."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def rotate(
    image: Float[Array, "height width channels"], angle: Float[Array, ""]
) -> Float[Array, "height width channels"]:
    """Rotates an image about its center with nearest-neighbor interpolation.

    Pixels from outside the image are 0.

    Args:
      image: one image.
      angle: radians, counterclockwise when the first row is displayed at the top.

    Reference: torchvision's `rotate` for tensors (nearest, no expansion); ties go to the even pixel.
    """
    height, width, _ = image.shape
    y = jnp.arange(height) - (height - 1) / 2
    x = jnp.arange(width) - (width - 1) / 2
    y, x = jnp.meshgrid(y, x, indexing="ij")
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    column = jnp.round(cos * x - sin * y + (width - 1) / 2).astype(jnp.int32)
    row = jnp.round(sin * x + cos * y + (height - 1) / 2).astype(jnp.int32)
    return image.at[row, column].get(mode="fill", fill_value=0, wrap_negative_indices=False)


def random_rotation(
    images: Float[Array, "batch height width channels"], keys: Key[Array, " batch"], max_degrees: float
) -> Float[Array, "batch height width channels"]:
    """Rotates each image by a random angle, uniform in [-max_degrees, max_degrees].

    Args:
      images: a batch.
      keys: one key per image.
      max_degrees: largest angle, degrees; 0 returns the images unchanged.
    """
    if max_degrees == 0:
        return images
    limit = jnp.deg2rad(max_degrees)
    angles = jax.vmap(lambda key: jax.random.uniform(key, minval=-limit, maxval=limit))(keys)
    return jax.vmap(rotate)(images, angles)


def random_shift(
    images: Float[Array, "batch height width channels"], keys: Key[Array, " batch"], max_pixels: int
) -> Float[Array, "batch height width channels"]:
    """Shifts each image by a random whole number of pixels along each axis.

    Pixels from outside the image are 0.

    Args:
      images: a batch.
      keys: one key per image.
      max_pixels: largest shift in either direction, pixels; 0 returns the images unchanged.
    """
    if max_pixels == 0:
        return images
    padding = ((0, 0), (max_pixels, max_pixels), (max_pixels, max_pixels), (0, 0))
    shape = images.shape[1:]

    def shift(padded: Array, key: Array) -> Array:
        start = jax.random.randint(key, (2,), 0, 2 * max_pixels + 1)
        return jax.lax.dynamic_slice(padded, (start[0], start[1], 0), shape)

    return jax.vmap(shift)(jnp.pad(images, padding), keys)


def apply_dihedral(
    image: Float[Array, "height width channels"], element: Int[Array, ""]
) -> Float[Array, "height width channels"]:
    """Applies one of the eight symmetries of the square to an image; pixel values do not change.

    Args:
      image: a square image.
      element: the symmetry, from 0 (identity) to 7. Bit 0 reverses the rows, bit 1 reverses the columns and
        bit 2 then transposes the image.
    """
    image = jnp.where(element & 1 > 0, image[::-1], image)
    image = jnp.where(element & 2 > 0, image[:, ::-1], image)
    return jnp.where(element & 4 > 0, image.swapaxes(0, 1), image)


def random_dihedral(
    images: Float[Array, "batch height width channels"], keys: Key[Array, " batch"]
) -> Float[Array, "batch height width channels"]:
    """Applies a random symmetry of the square to each image; see `apply_dihedral`.

    Args:
      images: a batch of square images.
      keys: one key per image.
    """
    elements = jax.vmap(lambda key: jax.random.randint(key, (), 0, 8))(keys)
    return jax.vmap(apply_dihedral)(images, elements)
