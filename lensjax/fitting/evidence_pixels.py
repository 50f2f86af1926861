"""The central window of an image, binned 2 x 2, and the smooth lens rendered in it.

The point-spread function leaves no structure smaller than a binned pixel. The window of an image of 150 x 150
pixels has six times fewer binned pixels than the image has pixels.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from lensjax.fitting.model import SmoothModel
from lensjax.fitting.rendering import parameter_values, source_brightness, source_positions
from lensjax.fitting.resolution import Resolution, bin_valid

REACH = 3.0  # half width of the window, arcsec; little light is outside
BINNING = 2

Positions = tuple[Array, Array]  # x and y


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


def ray_positions(window: Window, subpixels: int, dtype: jnp.dtype) -> Positions:
    """Image-plane positions of the rays of the window and of the margin whose light is blurred into it."""
    model = window.model
    margin = model.psf_size // 2
    y, x = (
        (np.arange((n + 2 * margin) * subpixels) - ((n + 2 * margin) * subpixels - 1) / 2)
        * (model.pixel_scale / subpixels)
        for n in window.shape
    )
    grid = np.meshgrid(x, y)
    return jnp.asarray(grid[0], dtype), jnp.asarray(grid[1], dtype)


def blur_and_bin(
    window: Window, light: Float[Array, "*number tall wide"]
) -> Float[Array, "*number rows columns"]:
    """Blurs the light of the rays by the point-spread function and averages it over binned pixels."""
    margin = window.model.psf_size // 2
    subpixels = light.shape[-2] // (window.shape[0] + 2 * margin)
    down, across = (
        jnp.asarray(_blur_and_bin_matrix(window.model, n, subpixels), light.dtype) for n in window.shape
    )
    return down @ light @ across.T


@functools.lru_cache(maxsize=16)
def _blur_and_bin_matrix(model: SmoothModel, number: int, subpixels: int) -> np.ndarray:
    """Matrix that maps rays to binned pixels along one axis."""
    half = model.psf_size // 2
    # Fewer rays than the model specifies blur less; the kernel compensates for the missing variance.
    missing = (1 / subpixels**2 - 1 / model.subpixels**2) / 12
    variance = (model.psf_sigma / model.pixel_scale) ** 2 + missing
    distance = np.arange(-half, half + 1)
    kernel = np.exp(-0.5 * distance**2 / variance) if variance > 0 else 1.0 * (distance == 0)
    kernel = kernel / kernel.sum() / subpixels
    matrix = np.zeros((-(-number // BINNING), (number + 2 * half) * subpixels))
    for pixel in range(number):
        pixels_in_bin = min(BINNING, number - pixel // BINNING * BINNING)
        for shift, weight in enumerate(kernel):
            first = (pixel + shift) * subpixels
            matrix[pixel // BINNING, first : first + subpixels] += weight / pixels_in_bin
    return matrix


def trace_rays(window: Window, subpixels: int, free: Float[Array, " nonlinear"]) -> Positions:
    """Source-plane positions of the rays behind the smooth lens."""
    rows, columns = (n + 2 * (window.model.psf_size // 2) for n in window.shape)
    # The same lens, with one pixel per ray.
    finer = dataclasses.replace(window.model, pixel_scale=window.model.pixel_scale / subpixels)
    return source_positions(finer, Resolution((rows * subpixels, columns * subpixels)), free)


def brightness_at(model: SmoothModel, free: Float[Array, " nonlinear"], beta: Positions) -> Array:
    """Brightness of the source of amplitude 1 at points of the source plane."""
    return source_brightness(parameter_values(model, free), *beta)


def brightness_gradient(
    model: SmoothModel, free: Float[Array, " nonlinear"], beta: Positions
) -> tuple[Float[Array, "tall wide"], Float[Array, "tall wide"]]:
    """Derivatives of `brightness_at` with respect to both source-plane coordinates."""
    _, jvp = jax.linearize(lambda *beta: brightness_at(model, free, beta), *beta)
    ones, zeros = jnp.ones_like(beta[0]), jnp.zeros_like(beta[0])
    return jvp(ones, zeros), jvp(zeros, ones)


def source_image(
    window: Window, subpixels: int, free: Float[Array, " nonlinear"]
) -> Float[Array, "rows columns"]:
    """Binned image of the source of amplitude 1 behind the smooth lens, without the sky."""
    beta = trace_rays(window, subpixels, free)
    return blur_and_bin(window, brightness_at(window.model, free, beta))
