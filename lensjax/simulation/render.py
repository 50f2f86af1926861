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
from lensjax.physics.ellipse import bounded, stretched
from lensjax.physics.mass.elliptical import isothermal
from lensjax.physics.mass.softening import CORE
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
    light, lens = _light_numbers(scene), _lens_numbers(scene, preset)
    if not len(scene.masses):  # all at once: the gradient needs nothing in between
        every = jnp.concatenate([light[:-1], lens[:-1], light[-1:], lens[-1:]])
        return pointwise(functools.partial(_lensed_light, preset), every, x, y)
    beta = physics.lens_equation(x, y, *deflection(scene, preset, x, y))
    return pointwise(functools.partial(_light, preset), light, *beta)


def deflection(
    scene: Scene, preset: Preset, x: Float[Array, "*grid"], y: Float[Array, "*grid"]
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Deflection of a scene's main lens, shear and substructure together, arcsec."""
    smooth = functools.partial(_smooth_deflection, preset)
    alpha = pointwise(smooth, _lens_numbers(scene, preset), x, y)
    return with_masses(*alpha, x, y, scene.masses)


def _lensed_light(preset: Preset, numbers: Any, x: Array, y: Array) -> Array:
    *light, axis, strength = numbers
    light, lens = light[:4], light[4:]
    alpha = _smooth_deflection(preset, [*lens, strength], x, y)
    return _light(preset, [*light, axis], *physics.lens_equation(x, y, *alpha))


# The numbers that all points of a scene share, computed once. Neighbours are differentiated together.


def _light_numbers(scene: Scene) -> Float[Array, " number"]:
    e1, e2 = bounded(scene.source_e1, scene.source_e2)
    return jnp.stack([e1, e2, scene.source_x, scene.source_y, 1 - (e1**2 + e2**2)])


def _light(preset: Preset, numbers: Any, x: Array, y: Array) -> Array:
    e1, e2, center_x, center_y, axis = numbers
    along_x, along_y = stretched(x - center_x, y - center_y, e1, e2)
    radius = jnp.sqrt((along_x**2 + along_y**2) / axis + physics.light.CORE**2)
    source = preset.source
    return physics.light.sersic_at(radius, source.amp, source.R_sersic, source.n_sersic)


def _lens_numbers(scene: Scene, preset: Preset) -> Float[Array, " number"]:
    if not _is_elliptical(preset):
        return jnp.stack([scene.gamma1, scene.gamma2, scene.theta_E])
    e1, e2 = bounded(scene.lens_e1, scene.lens_e2)
    strength = scene.theta_E * jnp.sqrt(1 - e1**2 - e2**2)
    return jnp.stack([e1, e2, scene.gamma1, scene.gamma2, strength])


def _is_elliptical(preset: Preset) -> bool:
    return bool(preset.lens_e1 or preset.lens_e2)


def _smooth_deflection(preset: Preset, numbers: Any, x: Array, y: Array) -> tuple[Array, Array]:
    *ellipse, gamma1, gamma2, strength = numbers
    if ellipse:
        lens = isothermal(CORE, _series_terms(preset), strength, *ellipse, x, y)
    else:
        lens = physics.sis_deflection(x, y, strength)
    shear = physics.shear_deflection(x, y, gamma1, gamma2)
    return lens[0] + shear[0], lens[1] + shear[1]


def _series_terms(preset: Preset) -> int:
    """How many terms of the series of an elliptical lens make it right to 1e-8."""
    e = math.hypot(preset.lens_e1, preset.lens_e2)
    return math.ceil(math.log(1e-8) / math.log(e / (2 - e)))
