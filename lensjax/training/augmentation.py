"""Random changes of training images."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def rotate(
    image: Float[Array, "height width channels"], angle: Float[Array, ""]
) -> Float[Array, "height width channels"]:
    """Turns an image about its centre, taking the nearest pixel; what comes from outside is 0.

    Args:
      image: one image.
      angle: radians, counter-clockwise as the image is shown with its first row on top.

    Reference: torchvision's `rotate` of tensors (nearest, no expansion); ties go to the even pixel.
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
    images: Float[Array, "batch height width channels"],
    keys: Key[Array, " batch"],
    max_degrees: float,
) -> Float[Array, "batch height width channels"]:
    """Turns each image by an angle of its own, uniform between -max_degrees and max_degrees.

    Args:
      images: a batch.
      keys: one key an image.
      max_degrees: largest angle either way, degrees; 0 gives the images back.
    """
    if max_degrees == 0:
        return images
    limit = jnp.deg2rad(max_degrees)
    angles = jax.vmap(lambda key: jax.random.uniform(key, minval=-limit, maxval=limit))(keys)
    return jax.vmap(rotate)(images, angles)


def random_shift(
    images: Float[Array, "batch height width channels"],
    keys: Key[Array, " batch"],
    max_pixels: int,
) -> Float[Array, "batch height width channels"]:
    """Moves each image by whole pixels of its own along each axis; what comes from outside is 0.

    Args:
      images: a batch.
      keys: one key an image.
      max_pixels: largest shift either way; 0 gives the images back.
    """
    if max_pixels == 0:
        return images
    around = ((0, 0), (max_pixels, max_pixels), (max_pixels, max_pixels), (0, 0))
    shape = images.shape[1:]

    def move(padded: Array, key: Array) -> Array:
        start = jax.random.randint(key, (2,), 0, 2 * max_pixels + 1)
        return jax.lax.dynamic_slice(padded, (start[0], start[1], 0), shape)

    return jax.vmap(move)(jnp.pad(images, around), keys)


def dihedral(
    image: Float[Array, "height width channels"], element: Int[Array, ""]
) -> Float[Array, "height width channels"]:
    """Turns by quarters and mirrors a square image; no pixel changes its value.

    Args:
      image: one image.
      element: which of the square's eight symmetries, 0 (none) to 7: its bits mirror the rows, mirror the
        columns, and then exchange rows and columns.
    """
    image = jnp.where(element & 1 > 0, image[::-1], image)
    image = jnp.where(element & 2 > 0, image[:, ::-1], image)
    return jnp.where(element & 4 > 0, image.swapaxes(0, 1), image)


def random_dihedral(
    images: Float[Array, "batch height width channels"], keys: Key[Array, " batch"]
) -> Float[Array, "batch height width channels"]:
    """Each image as one of the square's eight symmetries, drawn for itself, shows it.

    Args:
      images: a batch of square images.
      keys: one key an image.
    """
    elements = jax.vmap(lambda key: jax.random.randint(key, (), 0, 8))(keys)
    return jax.vmap(dihedral)(images, elements)
