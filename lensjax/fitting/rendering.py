"""Renders the smooth model and its derivatives at the resolution of the image or a coarser resolution."""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lensjax import physics
from lensjax.fitting.lensed_source import (
    lensed_brightness,
    lensed_derivatives,
    light_brightness,
    light_derivatives,
    parameter_values,
    shoot_rays,
)
from lensjax.fitting.model import SmoothModel
from lensjax.fitting.resolution import Resolution
from lensjax.fitting.types import Free, Image
from lensjax.modeling.components import component_parameters

# Rays along each axis of the square that replaces a ray through the center of a lens; even.
CENTRAL_RAYS = 16
AT_CENTER = 1e-5  # largest distance of such a ray from the center, in pixels


def render(model: SmoothModel, resolution: Resolution, free: Free) -> Float[Array, "amplitudes rows columns"]:
    """Renders the lens light and the lensed source with amplitudes of 1, without the sky.

    Args:
      model: smooth model.
      resolution: pixels and rays of the image.
      free: values of the parameters `model.nonlinear`.

    Returns:
      Brightness of each pixel for each amplitude of `model.linear`; that of the source is last.
    """

    def shoot(x: Array, y: Array) -> list[Array]:
        return [*light_brightness(model, free, (x, y)), lensed_brightness(model, free, (x, y))]

    return _render_quantities(model, resolution, shoot, len(model.linear) - 1, free.dtype)


def render_with_jacobian(
    model: SmoothModel, resolution: Resolution, free: Free
) -> tuple[Float[Array, "amplitudes rows columns"], Float[Array, "nonlinear rows columns"]]:
    """Renders like `render`, and also returns the derivatives with respect to the parameters.

    Args:
      model: smooth model.
      resolution: pixels and rays of the image.
      free: values of the parameters `model.nonlinear`.

    Returns:
      The images of `render`, and for each of `model.nonlinear` the derivative of the only image that depends
      on it (`model.amplitude_of`).
    """

    def shoot(x: Array, y: Array) -> list[Array]:
        light, by_light = light_derivatives(model, free, (x, y))
        source, by_lens, _ = lensed_derivatives(model, free, (x, y))
        derivatives = by_lens | by_light
        return [*light, source, *(derivatives[name] for name in model.nonlinear)]

    number = len(model.linear) - 1
    images = _render_quantities(model, resolution, shoot, number + len(model.nonlinear), free.dtype)
    return images[:number], images[number:]


def source_positions(model: SmoothModel, resolution: Resolution, free: Free) -> tuple[Image, Image]:
    """Source-plane position of the ray through each pixel center.

    Args:
      model: smooth model.
      resolution: pixels of the image.
      free: values of the parameters `model.nonlinear`.

    Returns:
      X and y in the source plane, arcsec.
    """
    x, y = _pixel_centers(model, resolution, 0, free.dtype)
    return shoot_rays(model, parameter_values(model, free), x, y)


def _render_quantities(
    model: SmoothModel,
    resolution: Resolution,
    shoot: Callable[[Array, Array], list[Array]],
    number: int,
    dtype: jnp.dtype,
) -> Float[Array, "number rows columns"]:
    """Images of the quantities that `shoot` returns for each ray, averaged over subpixels and then blurred.

    The loops separate the stages. Without them, XLA would recompute the exponentials of a ray for each
    quantity, and each blurred pixel for each use.
    """
    kernel = _psf_kernel(model, resolution)
    x, y = _pixel_centers(model, resolution, len(kernel) // 2, dtype)
    side = resolution.binning * model.pixel_scale
    steps = ((np.arange(resolution.subpixels) + 0.5) / resolution.subpixels - 0.5) * side
    offsets = jnp.asarray(list(itertools.product(steps, repeat=2)), dtype)

    centers = _centers_on_rays(model, resolution, len(kernel) // 2, steps)
    around = [_mean_around(shoot, center, side / resolution.subpixels, dtype) for center in centers]

    def add(total: tuple[Array, ...], offset: Array) -> tuple[tuple[Array, ...], None]:
        rays = shoot(x + offset[0], y + offset[1])
        for center, means in zip(centers, around, strict=True):
            distance = jnp.hypot(x + offset[0] - center[0], y + offset[1] - center[1])
            at_center = distance < AT_CENTER * side
            rays = [jnp.where(at_center, mean, ray) for mean, ray in zip(means, rays, strict=True)]
        return tuple(a + b for a, b in zip(total, rays, strict=True)), None

    total, _ = jax.lax.scan(add, (jnp.zeros_like(x),) * number, offsets)
    mean = jnp.stack(total) / resolution.subpixels**2
    return jax.lax.map(functools.partial(_blur, kernel=kernel), mean)


def _centers_on_rays(
    model: SmoothModel, resolution: Resolution, margin: int, steps: np.ndarray
) -> list[tuple[float, float]]:
    """Fixed centers of masses that are on a ray; the deflection by a singular mass is undefined there."""
    side = resolution.binning * model.pixel_scale
    y, x = ((axis[:, None] + steps).ravel() for axis in _axes(model, resolution, margin))
    centers = []
    for component in model.lens.mass:
        parameters = component_parameters(component)
        fixed = [parameters[name] for name in ("center_x", "center_y") if name in parameters]
        if len(fixed) < 2 or any(parameter.free for parameter in fixed):
            continue
        center = fixed[0].value, fixed[1].value
        if max(abs(x - center[0]).min(), abs(y - center[1]).min()) <= AT_CENTER * side:
            centers.append(center)
    return list(dict.fromkeys(centers))


def _mean_around(
    shoot: Callable[[Array, Array], list[Array]], center: tuple[float, float], side: float, dtype: jnp.dtype
) -> list[Array]:
    """Means of the quantities of the rays in a square around the center of the lens."""
    x, y = physics.pixel_grid(CENTRAL_RAYS, side / CENTRAL_RAYS)
    return [rays.mean() for rays in shoot((x + center[0]).astype(dtype), (y + center[1]).astype(dtype))]


def _axes(model: SmoothModel, resolution: Resolution, margin: int) -> list[np.ndarray]:
    """Coordinates of the pixel centers along y and along x, with a margin around the image."""
    side = resolution.binning * model.pixel_scale
    axes = []
    for length, number in zip(resolution.shape, resolution.size, strict=True):
        pixel = np.arange(-margin, number + margin) + 0.5
        axes.append((pixel - length / (2 * resolution.binning)) * side)
    return axes


def _pixel_centers(
    model: SmoothModel, resolution: Resolution, margin: int, dtype: jnp.dtype
) -> tuple[Image, Image]:
    """Coordinates of the pixel centers, with a margin around the image."""
    y, x = np.meshgrid(*_axes(model, resolution, margin), indexing="ij", copy=False)
    return jnp.asarray(x, dtype), jnp.asarray(y, dtype)


def _psf_kernel(model: SmoothModel, resolution: Resolution) -> np.ndarray:
    """One axis of the point-spread function, in pixels of the resolution.

    Averaging over fewer rays than the model specifies blurs less. The kernel compensates for the missing
    variance, so that all resolutions agree to the second moment.
    """
    sigma, binning = model.psf_sigma / model.pixel_scale, resolution.binning
    if (binning, resolution.subpixels) == (1, model.subpixels):
        half = model.psf_size // 2
        distance = np.arange(-half, half + 1)
        kernel = np.exp(-0.5 * (distance / sigma) ** 2) if sigma > 0 else 1.0 * (distance == 0)
        return kernel / kernel.sum()
    model_variance = ((binning * model.subpixels) ** 2 - 1) / (12 * model.subpixels**2)
    ray_variance = binning**2 * (resolution.subpixels**2 - 1) / (12 * resolution.subpixels**2)
    variance = (sigma**2 + model_variance - ray_variance) / binning**2
    if variance <= 0:
        return np.ones(1)
    half = max(1, round(3.2 * np.sqrt(variance)))
    kernel = np.exp(-0.5 * np.arange(-half, half + 1) ** 2 / variance)
    return kernel / kernel.sum()


def _blur(image: Float[Array, "tall wide"], kernel: np.ndarray) -> Image:
    height, width = (length - len(kernel) + 1 for length in image.shape)
    weights = kernel.tolist()
    image = sum(weight * image[i : i + height] for i, weight in enumerate(weights))
    return sum(weight * image[:, i : i + width] for i, weight in enumerate(weights))
