"""What is done to images between the data set and the model."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lensjax.config import STRETCHES
from lensjax.simulation.blur import convolve, gaussian_kernel

NARROW, WIDE = 1.0, 2.0  # standard deviations of the band-pass's two Gaussians, pixels
MARGIN = 6  # how far the wide one reaches, pixels


def prepare(
    images: Float[Array, "batch height width channels"], *, crop: int, stretch: str
) -> Float[Array, "batch new_height new_width channels"]:
    """Cuts out the middle of images and stretches their brightness.

    Args:
      images: brightness from 0 to 1, the first channel; others, such as the residual of a lens fit, are
        cut alike and not stretched.
      crop: side of the central square that is kept, pixels; 0 keeps the whole image.
      stretch: "none"; "sqrt": photon noise grows with the root of the brightness, so in the root it has
        nearly the same size everywhere, and faint arcs count as much as bright ones; or "band_pass":
        the root blurred by a Gaussian of 1 pixel less that by one of 2, ten times as large, which
        takes away the smooth arcs and leaves what substructure does to them.

    Raises:
      ValueError: the stretch is not known.
    """
    if stretch not in STRETCHES:
        raise ValueError(f"stretch {stretch!r} is not one of {', '.join(STRETCHES)}")
    if images.shape[-1] > 1:
        stretched = prepare(images[..., :1], crop=crop, stretch=stretch)
        return jnp.concatenate([stretched, middle(images[..., 1:], crop)], axis=-1)
    if stretch == "none":
        return middle(images, crop)
    if stretch == "sqrt":
        return jnp.sqrt(middle(images, crop))
    filtered = band_pass(jnp.sqrt(middle(images, crop + 2 * MARGIN if crop else 0)))
    # The blurs are done once, however many parts of a model use the image.
    return lax.optimization_barrier(middle(filtered, crop))


def band_pass(
    images: Float[Array, "batch height width 1"],
) -> Float[Array, "batch height width 1"]:
    """What lies between 1 and 2 pixels in size, times ten; the edge is continued outwards."""
    padded = jnp.pad(images[..., 0], ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)), mode="edge")
    size = 2 * MARGIN + 1
    narrow, wide = (
        jax.vmap(lambda image, sigma=sigma: convolve(image, gaussian_kernel(sigma, size)))(padded)
        for sigma in (NARROW, WIDE)
    )
    return 10 * (narrow - wide)[..., None]


def middle(
    images: Float[Array, "batch height width channels"], side: int
) -> Float[Array, "batch new_height new_width channels"]:
    """The central square of that side, pixels; the whole image for 0 or where it is no larger."""
    if not side or side >= images.shape[1]:
        return images
    top, left = ((size - side) // 2 for size in images.shape[1:3])
    return images[:, top : top + side, left : left + side]


def prepared_size(image_size: int, crop: int) -> int:
    """Side of an image after `prepare`, pixels."""
    return crop or image_size


def num_channels(fit: str) -> int:
    """Channels that a model is given: the image, and the residual where a lens is fitted.

    Args:
      fit: what is fitted, `config.data.fit`.
    """
    return 1 if fit == "none" else 2
