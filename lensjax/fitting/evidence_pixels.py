"""The central window of an image, binned 2 x 2, and rendering in it.

The point-spread function leaves no structure smaller than a binned pixel. The window of an image of 150 x 150
pixels has six times fewer binned pixels than the image has pixels.
"""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from lensjax.fitting.lensed_source import lensed_brightness
from lensjax.fitting.model import SmoothModel
from lensjax.fitting.resolution import Resolution, bin_valid
from lensjax.fitting.types import Free, Image

REACH = 3.0  # half width of the window, arcsec; little light is outside
BINNING = 2


@dataclasses.dataclass(frozen=True)
class Window:
    """Central part of an image.

    Attributes:
      model: smooth model.
      shape: height and width of the window, in pixels of the image.
    """

    model: SmoothModel
    shape: tuple[int, int]

    @property
    def binned_shape(self) -> tuple[int, int]:
        """Number of rows and columns of binned pixels."""
        return Resolution(self.shape, BINNING).size

    @property
    def dense(self) -> int:
        """Rays per binned pixel along each axis, as many as the model specifies."""
        return BINNING * self.model.subpixels


def central_window(model: SmoothModel, shape: tuple[int, ...]) -> Window:
    """Window at the center of images of the given shape."""
    wanted = 2 * round(REACH / model.pixel_scale)
    rows, columns = (n - max(0, -(-(n - wanted) // 2)) * 2 for n in shape)
    return Window(model, (rows, columns))


def crop(window: Window, image: Shaped[Array, "height width"]) -> Shaped[Array, "rows columns"]:
    """Part of an image inside the window."""
    rows, columns = window.shape
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    return image[top : top + rows, left : left + columns]


def bin_image(
    window: Window, image: Float[Array, "height width"], valid: Bool[Array, "height width"]
) -> tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]:
    """Mean and number of the image pixels in each binned pixel; the number is 0 if any of them is masked."""
    resolution = Resolution(window.shape, BINNING)
    flags = crop(window, valid).astype(image.dtype)
    pixels, number = bin_valid(crop(window, image), flags, resolution)
    _, full_number = bin_valid(jnp.ones_like(flags), jnp.ones_like(flags), resolution)
    return pixels, jnp.where(number == full_number, number, 0)


@functools.lru_cache(maxsize=16)
def ray_positions(window: Window, per_bin: int) -> tuple[np.ndarray, np.ndarray]:
    """Image-plane positions of the rays of the window and of the margin whose light is blurred into it.

    Args:
      window: window of the image.
      per_bin: rays per binned pixel along each axis: 1 or an even number.
    """
    rays_per_pixel = per_bin / BINNING
    axes = []
    for number, bins in zip(window.shape, window.binned_shape, strict=True):
        margin = _margin(window.model)
        ray = np.arange((bins + 2 * margin) * per_bin) + 0.5
        axes.append((ray / rays_per_pixel - margin * BINNING - number / 2) * window.model.pixel_scale)
    x, y = np.meshgrid(axes[1], axes[0])
    return x, y


def blur_and_bin(
    window: Window, light: Float[Array, "*number tall wide"]
) -> Float[Array, "*number rows columns"]:
    """Blurs the light of the rays by the point-spread function and averages it over binned pixels."""
    rows, _ = window.binned_shape
    per_bin = light.shape[-2] // (rows + 2 * _margin(window.model))
    if per_bin == 1:  # a sum over the kernel needs fewer operations than matrix products
        kernel, (rows, columns) = _kernel(window.model, per_bin), window.binned_shape
        first = _margin(window.model) - len(kernel) // 2
        taps = list(enumerate(kernel.tolist(), first))
        light = sum(weight * light[..., shift : shift + rows, :] for shift, weight in taps)
        return sum(weight * light[..., shift : shift + columns] for shift, weight in taps)
    down, across = (
        jnp.asarray(_blur_and_bin_matrix(window.model, n, per_bin), light.dtype) for n in window.shape
    )
    return jnp.matmul(jnp.matmul(down, light, precision="highest"), across.T, precision="highest")


def _margin(model: SmoothModel) -> int:
    """Binned pixels around the window from which light is blurred into it."""
    return -(-(model.psf_size // 2) // BINNING)


@functools.lru_cache(maxsize=16)
def _blur_and_bin_matrix(model: SmoothModel, number: int, per_bin: int) -> np.ndarray:
    """Matrix that maps rays, two or more per binned pixel, to binned pixels along one axis."""
    kernel = _kernel(model, per_bin)
    rays, half, margin = per_bin // BINNING, len(kernel) // 2, _margin(model) * BINNING
    bins = -(-number // BINNING)
    matrix = np.zeros((bins, bins * per_bin + 2 * margin * rays))
    for pixel in range(number):
        pixels_in_bin = min(BINNING, number - pixel // BINNING * BINNING)
        for shift, weight in enumerate(kernel):
            first = (margin + pixel + shift - half) * rays
            matrix[pixel // BINNING, first : first + rays] += weight / (rays * pixels_in_bin)
    return matrix


def _kernel(model: SmoothModel, per_bin: int) -> np.ndarray:
    """One axis of the point-spread function, sampled at pixels; at binned pixels for one ray per bin."""
    # Fewer rays than the model specifies blur less; the kernel compensates for the missing variance.
    missing = ((BINNING / per_bin) ** 2 - 1 / model.subpixels**2) / 12
    variance = (model.psf_sigma / model.pixel_scale) ** 2 + missing
    step = BINNING if per_bin == 1 else 1
    half = model.psf_size // 2 // step
    distance = np.arange(-half, half + 1) * step
    kernel = np.exp(-0.5 * distance**2 / variance) if variance > 0 else 1.0 * (distance == 0)
    return kernel / kernel.sum()


def source_image(window: Window, per_bin: int, free: Free) -> Image:
    """Binned image of the source of amplitude 1 behind the smooth lens, without the sky."""
    x, y = ray_positions(window, per_bin)
    rays = jnp.asarray(x, free.dtype), jnp.asarray(y, free.dtype)
    return blur_and_bin(window, lensed_brightness(window.model, free, rays))
