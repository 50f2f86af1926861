"""What is done to images between the data set and the model."""

import jax.numpy as jnp
from jaxtyping import Array, Float

STRETCHES = ("none", "sqrt")


def prepare(
    images: Float[Array, "batch height width 1"], *, crop: int, stretch: str
) -> Float[Array, "batch new_height new_width 1"]:
    """Cuts out the middle of images and stretches their brightness.

    Args:
      images: brightness from 0 to 1.
      crop: side of the central square that is kept, pixels; 0 keeps the whole image.
      stretch: "none", or "sqrt": photon noise grows with the root of the brightness, so in the root it
        has nearly the same size everywhere, and faint arcs count as much as bright ones.

    Raises:
      ValueError: the stretch is not known.
    """
    if stretch not in STRETCHES:
        raise ValueError(f"stretch {stretch!r} is not one of {', '.join(STRETCHES)}")
    if crop:
        top, left = ((size - crop) // 2 for size in images.shape[1:3])
        images = images[:, top : top + crop, left : left + crop]
    return jnp.sqrt(images) if stretch == "sqrt" else images


def prepared_size(image_size: int, crop: int) -> int:
    """Side of an image after `prepare`, pixels."""
    return crop or image_size
