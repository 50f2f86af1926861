"""Renders the smooth model and its derivatives at the resolution of the image or a coarser resolution."""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lensjax import physics
from lensjax.fitting.model import LENS, SOURCE, SmoothModel
from lensjax.fitting.resolution import Resolution

# Rays along each axis of the square that stands for a ray through the center of a lens; even.
CENTRAL_RAYS = 16
AT_CENTER = 1e-5  # largest distance of such a ray from the center, in pixels


def render(
    model: SmoothModel, resolution: Resolution, free: Float[Array, " nonlinear"]
) -> Float[Array, "rows columns"]:
    """Renders the lensed source with amplitude 1, without the sky.

    Args:
      model: smooth model.
      resolution: pixels and rays of the image.
      free: values of the parameters `model.nonlinear`.

    Returns:
      Brightness of each pixel.
    """
    values = parameter_values(model, free)
    (image,) = _render_quantities(
        model,
        resolution,
        lambda x, y: [source_brightness(values, *shoot_rays(model, values, x, y))],
        1,
        free.dtype,
    )
    return image


def render_with_jacobian(
    model: SmoothModel, resolution: Resolution, free: Float[Array, " nonlinear"]
) -> tuple[Float[Array, "rows columns"], Float[Array, "nonlinear rows columns"]]:
    """Renders like `render`, and also returns the derivatives with respect to the parameters.

    Lens parameters only deflect rays, so they all share one gradient of the source.

    Args:
      model: smooth model.
      resolution: pixels and rays of the image.
      free: values of the parameters `model.nonlinear`.

    Returns:
      Brightness of each pixel, and its derivative with respect to each of `model.nonlinear`.
    """
    images = _render_quantities(
        model,
        resolution,
        lambda x, y: _brightness_and_derivatives(model, free, x, y),
        1 + len(model.nonlinear),
        free.dtype,
    )
    return images[0], images[1:]


def source_positions(
    model: SmoothModel, resolution: Resolution, free: Float[Array, " nonlinear"]
) -> tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]:
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


def parameter_values(model: SmoothModel, free: Float[Array, " nonlinear"]) -> dict[str, Array]:
    """Values of all fixed and fitted parameters by name."""
    fitted = {name: free[index] for index, name in enumerate(model.nonlinear)}
    return {
        name: fitted[name] if name in fitted else jnp.asarray(getattr(model, name).value, free.dtype)
        for name in LENS + SOURCE
    }


def source_brightness(values: dict[str, Array], beta_x: Array, beta_y: Array) -> Array:
    """Brightness of the source of amplitude 1 at points of the source plane."""
    return physics.sersic(
        beta_x,
        beta_y,
        1.0,
        R_sersic=values["R_sersic"],
        n_sersic=values["n_sersic"],
        e1=values["source_e1"],
        e2=values["source_e2"],
        center_x=values["source_x"],
        center_y=values["source_y"],
    )


def _brightness_and_derivatives(
    model: SmoothModel, free: Float[Array, " nonlinear"], x: Array, y: Array
) -> list[Array]:
    """Brightness of each ray and its derivative with respect to each free parameter."""
    values = parameter_values(model, free)
    (beta_x, beta_y), trace_jvp = jax.linearize(
        lambda free: shoot_rays(model, parameter_values(model, free), x, y), free
    )
    ones, zeros = jnp.ones_like(x), jnp.zeros_like(x)
    no_change = jax.tree.map(jnp.zeros_like, values)
    brightness, light_jvp = jax.linearize(source_brightness, values, beta_x, beta_y)
    by_x, by_y = light_jvp(no_change, ones, zeros), light_jvp(no_change, zeros, ones)
    columns = [brightness]
    for index, name in enumerate(model.nonlinear):
        if name in LENS:
            shift_x, shift_y = trace_jvp(jnp.zeros_like(free).at[index].set(1))
            columns.append(by_x * shift_x + by_y * shift_y)
        elif name == "source_x":
            columns.append(-by_x)
        elif name == "source_y":
            columns.append(-by_y)
        else:
            change = {**no_change, name: jnp.ones_like(values[name])}
            columns.append(light_jvp(change, zeros, zeros))
    return columns


def shoot_rays(model: SmoothModel, values: dict[str, Array], x: Array, y: Array) -> tuple[Array, Array]:
    """Source-plane position of the rays through x and y."""
    dx, dy = x - values["lens_x"], y - values["lens_y"]
    theta_E, e1, e2 = values["theta_E"], values["lens_e1"], values["lens_e2"]
    match model.main_lens:
        case "sis":
            lens = physics.sis_deflection(dx, dy, theta_E)
        case "sie":
            lens = physics.sie_deflection(dx, dy, theta_E, e1=e1, e2=e2)
        case "epl":
            lens = physics.epl_deflection(dx, dy, theta_E, gamma=values["gamma"], e1=e1, e2=e2)
    shear = physics.external_shear_deflection(x, y, values["gamma1"], values["gamma2"])
    return x - lens[0] - shear[0], y - lens[1] - shear[1]


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

    center = _center_on_a_ray(model, resolution, len(kernel) // 2, steps)
    around = None if center is None else _mean_around(shoot, center, side / resolution.subpixels, dtype)

    def add(total: tuple[Array, ...], offset: Array) -> tuple[tuple[Array, ...], None]:
        rays = shoot(x + offset[0], y + offset[1])
        if center is not None and around is not None:
            distance = jnp.hypot(x + offset[0] - center[0], y + offset[1] - center[1])
            at_center = distance < AT_CENTER * side
            rays = [jnp.where(at_center, mean, ray) for mean, ray in zip(around, rays, strict=True)]
        return tuple(a + b for a, b in zip(total, rays, strict=True)), None

    total, _ = jax.lax.scan(add, (jnp.zeros_like(x),) * number, offsets)
    mean = jnp.stack(total) / resolution.subpixels**2
    return jax.lax.map(functools.partial(_blur, kernel=kernel), mean)


def _center_on_a_ray(
    model: SmoothModel, resolution: Resolution, margin: int, steps: np.ndarray
) -> tuple[float, float] | None:
    """Center of the lens if it is fixed and on a ray; a singular lens has no deflection there."""
    if model.lens_x.free or model.lens_y.free:
        return None
    side = resolution.binning * model.pixel_scale
    center = model.lens_x.value, model.lens_y.value
    for along, axis in zip(center, reversed(_axes(model, resolution, margin)), strict=True):
        if abs(axis[:, None] + steps - along).min() > AT_CENTER * side:
            return None
    return center


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
) -> tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]:
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


def _blur(image: Float[Array, "wide high"], kernel: np.ndarray) -> Float[Array, "rows columns"]:
    height, width = (length - len(kernel) + 1 for length in image.shape)
    weights = kernel.tolist()
    image = sum(weight * image[i : i + height] for i, weight in enumerate(weights))
    return sum(weight * image[:, i : i + width] for i, weight in enumerate(weights))
