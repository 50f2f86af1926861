"""The smooth model's image and its derivatives, on the image's own pixels or on coarser ones."""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lensjax import physics
from lensjax.fitting.level import Level
from lensjax.fitting.model import LENS, SOURCE, SmoothModel


def brightness(
    model: SmoothModel, level: Level, free: Float[Array, " nonlinear"]
) -> Float[Array, "rows columns"]:
    """Image of a source of amplitude 1, without sky.

    Args:
      model: the smooth model.
      level: how finely it is drawn.
      free: values of `model.nonlinear`.

    Returns:
      One value for each pixel of the level.
    """
    values = _values(model, free)
    (image,) = _image(
        model, level, lambda x, y: [_sersic(values, *_beta(model, values, x, y))], 1, free.dtype
    )
    return image


def brightness_and_slopes(
    model: SmoothModel, level: Level, free: Float[Array, " nonlinear"]
) -> tuple[Float[Array, "rows columns"], Float[Array, "nonlinear rows columns"]]:
    """`brightness` and its derivatives in each free parameter.

    The parameters of the lens move rays alone, so that one gradient of the source serves them all.
    """
    images = _image(
        model,
        level,
        lambda x, y: _ray_columns(model, free, x, y),
        1 + len(model.nonlinear),
        free.dtype,
    )
    return images[0], images[1:]


def source_plane(
    model: SmoothModel, level: Level, free: Float[Array, " nonlinear"]
) -> tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]:
    """Where in the source plane the ray through each pixel's centre ends, arcsec."""
    return _beta(model, _values(model, free), *_pixels(model, level, 0, free.dtype))


def _ray_columns(
    model: SmoothModel, free: Float[Array, " nonlinear"], x: Array, y: Array
) -> list[Array]:
    """Brightness of each ray and its derivative in each free parameter."""
    values = _values(model, free)
    (beta_x, beta_y), moved = jax.linearize(
        lambda free: _beta(model, _values(model, free), x, y), free
    )
    ones, zeros = jnp.ones_like(x), jnp.zeros_like(x)

    def light(values: dict[str, Array], beta_x: Array, beta_y: Array) -> Array:
        return _sersic(values, beta_x, beta_y)

    still = jax.tree.map(jnp.zeros_like, values)
    light_value, slope = jax.linearize(light, values, beta_x, beta_y)
    by_x, by_y = slope(still, ones, zeros), slope(still, zeros, ones)
    columns = [light_value]
    for index, name in enumerate(model.nonlinear):
        if name in LENS:
            shift_x, shift_y = moved(jnp.zeros_like(free).at[index].set(1))
            columns.append(by_x * shift_x + by_y * shift_y)
        elif name == "source_x":
            columns.append(-by_x)
        elif name == "source_y":
            columns.append(-by_y)
        else:
            columns.append(slope({**still, name: jnp.ones_like(values[name])}, zeros, zeros))
    return columns


def _values(model: SmoothModel, free: Float[Array, " nonlinear"]) -> dict[str, Array]:
    """All parameters by name, the known ones too."""
    fitted = {name: free[index] for index, name in enumerate(model.nonlinear)}
    return {
        name: fitted[name]
        if name in fitted
        else jnp.asarray(getattr(model, name).value, free.dtype)
        for name in LENS + SOURCE
    }


def _beta(model: SmoothModel, values: dict[str, Array], x: Array, y: Array) -> tuple[Array, Array]:
    """Where the rays through x and y end in the source plane."""
    dx, dy = x - values["lens_x"], y - values["lens_y"]
    theta_E, ellipse = values["theta_E"], (values["lens_e1"], values["lens_e2"])
    match model.main_lens:
        case "sis":
            lens = physics.sis_deflection(dx, dy, theta_E)
        case "sie":
            lens = physics.sie_deflection(dx, dy, theta_E, *ellipse)
        case "epl":
            lens = physics.epl_deflection(dx, dy, theta_E, values["gamma"], *ellipse)
    shear = physics.shear_deflection(x, y, values["gamma1"], values["gamma2"])
    return x - lens[0] - shear[0], y - lens[1] - shear[1]


def _sersic(values: dict[str, Array], beta_x: Array, beta_y: Array) -> Array:
    return physics.sersic(
        beta_x,
        beta_y,
        1.0,
        values["R_sersic"],
        values["n_sersic"],
        e1=values["source_e1"],
        e2=values["source_e2"],
        center_x=values["source_x"],
        center_y=values["source_y"],
    )


def _image(
    model: SmoothModel,
    level: Level,
    shoot: Callable[[Array, Array], list[Array]],
    number: int,
    dtype: jnp.dtype,
) -> Float[Array, "number rows columns"]:
    """Images of quantities that `shoot` gives for rays: mean over a pixel's parts, then blurred.

    The loops are walls between the stages. Without them, XLA computes a ray's exponentials anew for each
    of the quantities, and each blurred pixel anew for each of its uses.
    """
    kernel = _kernel(model, level)
    x, y = _pixels(model, level, len(kernel) // 2, dtype)
    side = level.binning * model.pixel_scale
    parts = ((np.arange(level.subpixels) + 0.5) / level.subpixels - 0.5) * side
    offsets = jnp.asarray(list(itertools.product(parts, repeat=2)), dtype)

    def add(total: tuple[Array, ...], offset: Array) -> tuple[tuple[Array, ...], None]:
        rays = shoot(x + offset[0], y + offset[1])
        return tuple(a + b for a, b in zip(total, rays, strict=True)), None

    total, _ = jax.lax.scan(add, (jnp.zeros_like(x),) * number, offsets)
    mean = jnp.stack(total) / level.subpixels**2
    return jax.lax.map(functools.partial(_blur, kernel=kernel), mean)


def _pixels(
    model: SmoothModel, level: Level, margin: int, dtype: jnp.dtype
) -> tuple[Float[Array, "rows columns"], Float[Array, "rows columns"]]:
    """Coordinates of the pixels' centres, with a margin around the image."""
    side = level.binning * model.pixel_scale
    axes = []
    for whole, number in zip(level.shape, level.size, strict=True):
        pixel = np.arange(-margin, number + margin) + 0.5
        axes.append((pixel - whole / (2 * level.binning)) * side)
    y, x = np.meshgrid(*axes, indexing="ij", copy=False)
    return jnp.asarray(x, dtype), jnp.asarray(y, dtype)


def _kernel(model: SmoothModel, level: Level) -> np.ndarray:
    """One axis of the point-spread function in pixels of the level.

    Rays fewer than the model's blur less; the kernel has the variance that they lack as well, so that
    all levels agree to the second moment.
    """
    sigma, binning = model.psf_sigma / model.pixel_scale, level.binning
    if (binning, level.subpixels) == (1, model.subpixels):
        half = model.psf_size // 2
        distance = np.arange(-half, half + 1)
        kernel = np.exp(-0.5 * (distance / sigma) ** 2) if sigma > 0 else 1.0 * (distance == 0)
        return kernel / kernel.sum()
    wanted = ((binning * model.subpixels) ** 2 - 1) / (12 * model.subpixels**2)
    found = binning**2 * (level.subpixels**2 - 1) / (12 * level.subpixels**2)
    variance = (sigma**2 + wanted - found) / binning**2
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
