"""Preparation of images for a model: central crop and brightness stretch."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from lensjax.config import STRETCHES
from lensjax.simulation.blur import convolve, gaussian_kernel

NARROW, WIDE = 1.0, 2.0  # standard deviations of the band-pass's two Gaussians, pixels
MARGIN = 6  # half-width of both kernels, pixels


def prepare(
    images: Float[Array, "batch height width channels"], *, crop: int, stretch: str
) -> Float[Array, "batch new_height new_width channels"]:
    """Crops the central square of images and stretches their brightness.

    Args:
      images: brightness from 0 to 1 in the first channel. Other channels, such as the residuals of a lens
        fit, are cropped but not stretched.
      crop: side of the central square, pixels; 0 keeps the whole image.
      stretch: "none"; "sqrt": the square root of the brightness, in which photon noise is nearly uniform, so
        that faint arcs count as much as bright ones; or "band_pass": ten times the difference of the square
        root blurred by Gaussians of 1 and 2 pixels, which removes the smooth arcs and keeps the
        perturbations by substructure.

    Returns:
      The prepared images.

    Raises:
      ValueError: if the stretch is unknown.
    """
    if stretch not in STRETCHES:
        raise ValueError(f"stretch {stretch!r} is not one of {', '.join(STRETCHES)}")
    if images.shape[-1] > 1:
        stretched = prepare(images[..., :1], crop=crop, stretch=stretch)
        return jnp.concatenate([stretched, crop_center(images[..., 1:], crop)], axis=-1)
    if stretch == "none":
        return crop_center(images, crop)
    if stretch == "sqrt":
        return jnp.sqrt(crop_center(images, crop))
    filtered = band_pass(jnp.sqrt(crop_center(images, crop + 2 * MARGIN if crop else 0)))
    # The barrier makes XLA blur only once, even if several parts of a model use the image.
    return lax.optimization_barrier(crop_center(filtered, crop))


def band_pass(images: Float[Array, "batch height width 1"]) -> Float[Array, "batch height width 1"]:
    """Difference of Gaussians of 1 and 2 pixels, times ten. Edge pixels are repeated outward."""
    padded = jnp.pad(images[..., 0], ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)), mode="edge")
    size = 2 * MARGIN + 1
    narrow, wide = (
        jax.vmap(lambda image, sigma=sigma: convolve(image, gaussian_kernel(sigma, size)))(padded)
        for sigma in (NARROW, WIDE)
    )
    return 10 * (narrow - wide)[..., None]


def crop_center(
    images: Float[Array, "batch height width channels"], side: int
) -> Float[Array, "batch new_height new_width channels"]:
    """Crops the central square of images.

    Args:
      images: the images.
      side: side of the square, pixels. Images that are not larger are returned unchanged, as are all images
        if it is 0.

    Returns:
      The cropped images.
    """
    if not side or side >= images.shape[1]:
        return images
    top, left = ((size - side) // 2 for size in images.shape[1:3])
    return images[:, top : top + side, left : left + side]


def prepared_size(image_size: int, crop: int) -> int:
    """Side of an image after `prepare`, pixels.

    Args:
      image_size: side of the image before `prepare`, pixels.
      crop: see `prepare`; at most `image_size`.
    """
    return crop or image_size


def num_channels(fit: str) -> int:
    """Number of input channels of a model: the image and, with a lens fit, its residuals.

    Args:
      fit: name of the lens model, `config.data.fit`.
    """
    return 1 if fit == "none" else 2
