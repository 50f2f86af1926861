"""The middle of an image on pixels of twice the size, and the smooth lens drawn there.

The point-spread function leaves nothing between such pixels, and there are six times fewer of them.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from lensjax import physics
from lensjax.fitting.level import Level, bin_valid
from lensjax.fitting.model import LENS, SOURCE, SmoothModel
from lensjax.fitting.render import source_plane

REACH = 3.0  # arcsec from the centre on both axes; beyond it there is little light
BINNING = 2

Rays = tuple[Array, Array]


@dataclasses.dataclass(frozen=True)
class Window:
    """The middle of an image, and how it is drawn.

    Attributes:
      model: the smooth model.
      shape: rows and columns of the middle, in the image's own pixels.
    """

    model: SmoothModel
    shape: tuple[int, int]

    @property
    def bins(self) -> tuple[int, int]:
        """Rows and columns of the larger pixels."""
        return Level(self.shape, BINNING, 1).size


def window(model: SmoothModel, shape: tuple[int, ...]) -> Window:
    """The middle of images of a shape, with the same centre as they."""
    wanted = 2 * round(REACH / model.pixel_scale)
    rows, columns = (n - max(0, -(-(n - wanted) // 2)) * 2 for n in shape)
    return Window(model, (rows, columns))


def middle(window: Window, image: Shaped[Array, "height width"]) -> Shaped[Array, "rows columns"]:
    """The part of an image that a window shows."""
    rows, columns = window.shape
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    return image[top : top + rows, left : left + columns]


def binned(
    window: Window, image: Float[Array, "height width"], valid: Bool[Array, "height width"]
) -> tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]:
    """Means of the larger pixels, and of how many pixels; 0 where one of them does not count."""
    level = Level(window.shape, BINNING, 1)
    flags = middle(window, valid).astype(image.dtype)
    pixels, number = bin_valid(middle(window, image), flags, level)
    _, whole = bin_valid(jnp.ones_like(flags), jnp.ones_like(flags), level)
    return pixels, jnp.where(number == whole, number, 0)


def rays(window: Window, subpixels: int, dtype: jnp.dtype) -> Rays:
    """X and y of the rays that are shot: in each pixel, and in the margin whose light is blurred in."""
    model = window.model
    margin = model.psf_size // 2
    y, x = (
        (np.arange((n + 2 * margin) * subpixels) - ((n + 2 * margin) * subpixels - 1) / 2)
        * (model.pixel_scale / subpixels)
        for n in window.shape
    )
    grid = np.meshgrid(x, y)
    return jnp.asarray(grid[0], dtype), jnp.asarray(grid[1], dtype)


def drawn(
    window: Window, light: Float[Array, "*number tall wide"]
) -> Float[Array, "*number rows columns"]:
    """The larger pixels, from the light of rays: averaged, and blurred."""
    margin = window.model.psf_size // 2
    subpixels = light.shape[-2] // (window.shape[0] + 2 * margin)
    down, across = (
        jnp.asarray(_operator(window.model, n, subpixels), light.dtype) for n in window.shape
    )
    return down @ light @ across.T


@functools.lru_cache(maxsize=16)
def _operator(model: SmoothModel, number: int, subpixels: int) -> np.ndarray:
    """One axis of blur and averages: larger pixels from rays."""
    half = model.psf_size // 2
    # Rays fewer than the model's blur less; the kernel has the variance that they lack as well.
    lacking = (1 / subpixels**2 - 1 / model.subpixels**2) / 12
    squared = (model.psf_sigma / model.pixel_scale) ** 2 + lacking
    distance = np.arange(-half, half + 1)
    kernel = np.exp(-0.5 * distance**2 / squared) if squared > 0 else 1.0 * (distance == 0)
    kernel = kernel / kernel.sum() / subpixels
    operator = np.zeros((-(-number // BINNING), (number + 2 * half) * subpixels))
    for pixel in range(number):
        whole = min(BINNING, number - pixel // BINNING * BINNING)
        for shift, weight in enumerate(kernel):
            first = (pixel + shift) * subpixels
            operator[pixel // BINNING, first : first + subpixels] += weight / whole
    return operator


def in_source_plane(window: Window, subpixels: int, free: Float[Array, " nonlinear"]) -> Rays:
    """Where the rays end behind the smooth lens."""
    rows, columns = (n + 2 * (window.model.psf_size // 2) for n in window.shape)
    # The same lens on pixels as small as the rays are dense.
    finer = dataclasses.replace(window.model, pixel_scale=window.model.pixel_scale / subpixels)
    return source_plane(finer, Level((rows * subpixels, columns * subpixels), 1, 1), free)


def light(model: SmoothModel, free: Float[Array, " nonlinear"], beta: Rays) -> Array:
    """Brightness of the source of amplitude 1 where rays end."""
    fitted = {name: free[index] for index, name in enumerate(model.nonlinear)}
    values = {
        name: fitted.get(name, jnp.asarray(getattr(model, name).value, free.dtype))
        for name in LENS + SOURCE
    }
    return physics.sersic(
        *beta,
        1.0,
        values["R_sersic"],
        values["n_sersic"],
        e1=values["source_e1"],
        e2=values["source_e2"],
        center_x=values["source_x"],
        center_y=values["source_y"],
    )


def slope(
    model: SmoothModel, free: Float[Array, " nonlinear"], beta: Rays
) -> tuple[Float[Array, "tall wide"], Float[Array, "tall wide"]]:
    """Derivatives of `light` in both coordinates of the source plane."""
    _, moved = jax.linearize(lambda *beta: light(model, free, beta), *beta)
    ones, zeros = jnp.ones_like(beta[0]), jnp.zeros_like(beta[0])
    return moved(ones, zeros), moved(zeros, ones)


def source(
    window: Window, subpixels: int, free: Float[Array, " nonlinear"]
) -> Float[Array, "rows columns"]:
    """Image of a source of amplitude 1 behind the smooth lens, without sky, on the larger pixels."""
    beta = in_source_plane(window, subpixels, free)
    return drawn(window, light(window.model, free, beta))
