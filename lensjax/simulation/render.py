"""Renders the expected counts of a scene."""

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
from lensjax.physics.ellipse import clip_ellipticity, elliptical_coordinates
from lensjax.physics.mass.elliptical import sie_deflection_kernel
from lensjax.physics.mass.softening import CORE
from lensjax.simulation.blur import convolve, convolve_by_matmul, gaussian_kernel
from lensjax.simulation.scene import Scene
from lensjax.simulation.settings import Instrument, Preset
from lensjax.simulation.substructure import add_mass_deflections
from lensjax.simulation.transposes import apply_pointwise

# Matrix products are faster than sums for kernels with at least this number of weights.
MATMUL_KERNEL_SIZE = 9
CENTRAL_RAYS = 16  # along each axis, around a ray through the center of the lens; even


def expected_counts(scene: Scene, preset: Preset) -> Float[Array, "height width"]:
    """Renders the noise-free image: lensed source, lens light, point-spread function and sky.

    Args:
      scene: one scene.
      preset: preset from which the scene was drawn.

    Returns:
      Expected photon counts per pixel; counts per pixel per second for presets with
      `ExposureNoise` and for noise-free presets.
    """
    instrument = preset.instrument
    # Light from this margin is blurred into the image. In the published images, strong shear pushes
    # arcs past the edge, and their outermost pixels are not darker.
    margin = instrument.psf_size // 2
    x, y = physics.pixel_grid(instrument.image_size + 2 * margin, instrument.pixel_scale)
    x, y = x.astype(scene.theta_E.dtype), y.astype(scene.theta_E.dtype)

    if preset.variation is not None:
        x, y = x - scene.center_x, y - scene.center_y
    central = _central_brightness(scene, preset, x.dtype)

    def ray_brightness(x: Array, y: Array) -> Array:
        light = brightness(scene, preset, x, y)
        return light if central is None else jnp.where((x == 0) & (y == 0), central, light)

    # Loop over the subpixels instead of rendering a finer grid: the working set of one iteration
    # stays in the CPU cache, and the mean needs no strided access. The backward pass recomputes
    # each iteration.
    @jax.checkpoint
    def add_subpixel(total: Array, offset: Array) -> tuple[Array, None]:
        return total + ray_brightness(x + offset[0], y + offset[1]), None

    offsets = jnp.asarray(subpixel_offsets(instrument), x.dtype)
    if len(offsets) == 1:
        image = ray_brightness(x, y)
    else:
        image = lax.scan(add_subpixel, jnp.zeros_like(x), offsets)[0] / len(offsets)
    sigma = instrument.psf_sigma if preset.variation is None else scene.psf_sigma
    kernel = gaussian_kernel(sigma / instrument.pixel_scale, instrument.psf_size)
    if len(kernel) < MATMUL_KERNEL_SIZE:
        blurred = convolve(image, kernel)
    else:
        blurred = convolve_by_matmul(image, kernel)
    return blurred + (instrument.sky if preset.variation is None else scene.sky)


def _central_brightness(scene: Scene, preset: Preset, dtype: jnp.dtype) -> Float[Array, ""] | None:
    """Mean brightness of the area around a ray through the center of the lens; None if there is no such ray.

    The deflection of a singular lens has no value at its center. If the number of rays along an image is odd,
    one ray is exactly there and represents the rays around it.
    """
    instrument = preset.instrument
    if instrument.image_size * instrument.subpixels % 2 == 0 or preset.variation is not None:
        return None
    side = instrument.pixel_scale / instrument.subpixels
    x, y = physics.pixel_grid(CENTRAL_RAYS, side / CENTRAL_RAYS)
    return brightness(scene, preset, x.astype(dtype), y.astype(dtype)).mean()


def subpixel_offsets(instrument: Instrument) -> Float[np.ndarray, "subpixels 2"]:
    """X and y of the subpixel centers relative to the pixel center, arcsec."""
    number = instrument.subpixels
    step = instrument.pixel_scale / number
    along = (np.arange(number) - (number - 1) / 2) * step
    return np.array(list(itertools.product(along, repeat=2)))


def brightness(
    scene: Scene, preset: Preset, x: Float[Array, "*grid"], y: Float[Array, "*grid"]
) -> Float[Array, "*grid"]:
    """Brightness of the lensed source and of the lens per pixel, in the unit of the preset.

    Args:
      scene: one scene.
      preset: preset from which the scene was drawn.
      x, y: points of the image relative to the center of the lens, arcsec.
    """
    light, lens = _light_parameters(scene, preset), _lens_parameters(scene, preset)
    # One pass: the backward pass needs no intermediate fields.
    if not len(scene.masses) and preset.variation is None:
        all_parameters = jnp.concatenate([light[:-1], lens[:-1], light[-1:], lens[-1:]])
        return apply_pointwise(functools.partial(_lensed_light, preset), all_parameters, x, y)
    beta = physics.lens_equation(x, y, *deflection(scene, preset, x, y))
    image = apply_pointwise(functools.partial(_light, preset), light, *beta)
    return image if preset.variation is None else image + _lens_light(scene, x, y)


def _lens_light(scene: Scene, x: Float[Array, "*grid"], y: Float[Array, "*grid"]) -> Float[Array, "*grid"]:
    return physics.sersic(
        x,
        y,
        scene.light_amp,
        R_sersic=scene.light_R_sersic,
        n_sersic=scene.light_n_sersic,
        e1=scene.lens_e1,
        e2=scene.lens_e2,
    )


def deflection(
    scene: Scene, preset: Preset, x: Float[Array, "*grid"], y: Float[Array, "*grid"]
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Total deflection of main lens, external shear and substructure, arcsec."""
    smooth = functools.partial(_smooth_deflection, preset)
    alpha = apply_pointwise(smooth, _lens_parameters(scene, preset), x, y)
    return add_mass_deflections(*alpha, x, y, scene.masses)


def _lensed_light(preset: Preset, parameters: Any, x: Array, y: Array) -> Array:
    *light, axis, strength = parameters
    light, lens = light[:4], light[4:]
    alpha = _smooth_deflection(preset, [*lens, strength], x, y)
    return _light(preset, [*light, axis], *physics.lens_equation(x, y, *alpha))


# The parameters below are quantities that all points of a scene share, so they are computed only once.
# `apply_pointwise` differentiates neighboring entries together, so their order matters for speed.


def _light_parameters(scene: Scene, preset: Preset) -> Float[Array, " number"]:
    e1, e2 = clip_ellipticity(scene.source_e1, scene.source_e2)
    varied = [] if preset.variation is None else [scene.source_amp, scene.R_sersic, scene.n_sersic]
    return jnp.stack([e1, e2, scene.source_x, scene.source_y, 1 - (e1**2 + e2**2), *varied])


def _light(preset: Preset, parameters: Any, x: Array, y: Array) -> Array:
    e1, e2, center_x, center_y, axis, *varied = parameters
    along_x, along_y = elliptical_coordinates(x - center_x, y - center_y, e1, e2)
    radius = jnp.sqrt((along_x**2 + along_y**2) / axis + physics.light.CORE**2)
    source = preset.source
    amp, R_sersic, n_sersic = varied or (source.amp, source.R_sersic, source.n_sersic)
    return physics.sersic_at_radius(radius, amp, R_sersic=R_sersic, n_sersic=n_sersic)


def _lens_parameters(scene: Scene, preset: Preset) -> Float[Array, " number"]:
    if not _is_elliptical(preset):
        return jnp.stack([scene.gamma1, scene.gamma2, scene.theta_E])
    e1, e2 = clip_ellipticity(scene.lens_e1, scene.lens_e2)
    strength = scene.theta_E * jnp.sqrt(1 - e1**2 - e2**2)
    return jnp.stack([e1, e2, scene.gamma1, scene.gamma2, strength])


def _is_elliptical(preset: Preset) -> bool:
    return bool(preset.lens_e1 or preset.lens_e2 or preset.variation)


def _smooth_deflection(preset: Preset, parameters: Any, x: Array, y: Array) -> tuple[Array, Array]:
    *ellipse, gamma1, gamma2, strength = parameters
    if ellipse:
        lens = sie_deflection_kernel(CORE, _series_terms(preset), strength, *ellipse, x, y)
    else:
        lens = physics.sis_deflection(x, y, strength)
    shear = physics.external_shear_deflection(x, y, gamma1, gamma2)
    return lens[0] + shear[0], lens[1] + shear[1]


def _series_terms(preset: Preset) -> int:
    """Number of terms, at least 4, for which the series of an elliptical lens is accurate to 1e-8.

    The derivatives of a series with fewer terms would be inaccurate.
    """
    e = math.hypot(preset.lens_e1, preset.lens_e2)
    if preset.variation is not None:
        flattest = preset.variation.axis_ratio[0]
        e = (1 - flattest) / (1 + flattest)
    e = max(e, 0.01)
    return math.ceil(math.log(1e-8) / math.log(e / (2 - e)))
