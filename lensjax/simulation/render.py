"""From a scene to the counts that a camera expects."""

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from lensjax import physics
from lensjax.simulation.blur import blur, blur_by_products, gaussian_kernel
from lensjax.simulation.presets import Instrument, Preset
from lensjax.simulation.scene import Scene
from lensjax.simulation.substructure import with_masses
from lensjax.simulation.transposes import pointwise

# Weights from which on a kernel is applied faster by matrix products.
WIDE = 9


def expected_counts(scene: Scene, preset: Preset) -> Float[Array, "height width"]:
    """The image without noise: lensed source, point-spread function, sky.

    Args:
      scene: one scene.
      preset: what the scene was drawn from.

    Returns:
      Expected photon counts in each pixel; for presets with `ExposureNoise` in each pixel and second.
    """
    instrument = preset.instrument
    # The margin's light is blurred into the image. Published images have it: strong shear sends arcs
    # past the edge, and the outermost pixels are no darker for it.
    margin = instrument.psf_size // 2
    x, y = physics.pixel_grid(instrument.image_size + 2 * margin, instrument.pixel_scale)
    x, y = x.astype(scene.theta_E.dtype), y.astype(scene.theta_E.dtype)

    # One part of every pixel after the other, rather than all on a finer grid: what is computed for one
    # stays in a CPU's cache, and the mean needs no strided access. In the gradient each is done again.
    @jax.checkpoint
    def add_part(total: Array, offset: Array) -> tuple[Array, None]:
        return total + brightness(scene, preset, x + offset[0], y + offset[1]), None

    offsets = jnp.asarray(subpixel_offsets(instrument), x.dtype)
    if len(offsets) == 1:
        image = brightness(scene, preset, x, y)
    else:
        image = lax.scan(add_part, jnp.zeros_like(x), offsets)[0] / len(offsets)
    kernel = gaussian_kernel(instrument.psf_sigma / instrument.pixel_scale, instrument.psf_size)
    blurred = blur(image, kernel) if len(kernel) < WIDE else blur_by_products(image, kernel)
    return blurred + instrument.sky


def subpixel_offsets(instrument: Instrument) -> Float[np.ndarray, "parts 2"]:
    """X and y of the parts of a pixel from its centre, arcsec."""
    number = instrument.subpixels
    step = instrument.pixel_scale / number
    along = (np.arange(number) - (number - 1) / 2) * step
    return np.array(list(itertools.product(along, repeat=2)))


def brightness(
    scene: Scene, preset: Preset, x: Float[Array, "*grid"], y: Float[Array, "*grid"]
) -> Float[Array, "*grid"]:
    """Brightness of the lensed source at points of the image, in the preset's unit for a pixel."""
    source = jnp.stack([scene.source_e1, scene.source_e2, scene.source_x, scene.source_y])
    if not len(scene.masses):  # all at once: the gradient needs nothing in between
        every = jnp.concatenate([source, _lens_parameters(scene, preset)])
        return pointwise(functools.partial(_lensed_light, preset), every, x, y)
    beta = physics.lens_equation(x, y, *deflection(scene, preset, x, y))
    return pointwise(functools.partial(_light, preset), source, *beta)


def _lensed_light(preset: Preset, parameters: Any, x: Array, y: Array) -> Array:
    alpha = _smooth_deflection(preset, parameters[4:], x, y)
    return _light(preset, parameters[:4], *physics.lens_equation(x, y, *alpha))


def _light(preset: Preset, parameters: Any, x: Array, y: Array) -> Array:
    source = preset.source
    e1, e2, center_x, center_y = parameters
    return physics.sersic(
        x,
        y,
        source.amp,
        source.R_sersic,
        source.n_sersic,
        e1=e1,
        e2=e2,
        center_x=center_x,
        center_y=center_y,
    )


def deflection(
    scene: Scene, preset: Preset, x: Float[Array, "*grid"], y: Float[Array, "*grid"]
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Deflection of a scene's main lens, shear and substructure together, arcsec."""
    smooth = functools.partial(_smooth_deflection, preset)
    alpha = pointwise(smooth, _lens_parameters(scene, preset), x, y)
    return with_masses(*alpha, x, y, scene.masses)


def _lens_parameters(scene: Scene, preset: Preset) -> Float[Array, " number"]:
    parameters = [scene.gamma1, scene.gamma2, scene.theta_E]
    if _is_elliptical(preset):
        parameters = [scene.lens_e1, scene.lens_e2, *parameters]
    return jnp.stack(parameters)


def _is_elliptical(preset: Preset) -> bool:
    return bool(preset.lens_e1 or preset.lens_e2)


def _smooth_deflection(preset: Preset, parameters: Any, x: Array, y: Array) -> tuple[Array, Array]:
    *ellipse, gamma1, gamma2, theta_E = parameters
    if _is_elliptical(preset):
        terms = _series_terms(preset)
        lens_x, lens_y = physics.sie_deflection(x, y, theta_E, *ellipse, terms=terms)
    else:
        lens_x, lens_y = physics.sis_deflection(x, y, theta_E)
    shear_x, shear_y = physics.shear_deflection(x, y, gamma1, gamma2)
    return lens_x + shear_x, lens_y + shear_y


def _series_terms(preset: Preset) -> int:
    """How many terms of the series of an elliptical lens make it right to 1e-8."""
    e = math.hypot(preset.lens_e1, preset.lens_e2)
    return math.ceil(math.log(1e-8) / math.log(e / (2 - e)))
