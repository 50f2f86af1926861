"""Scenes: the true parameters of simulated images, drawn from the priors of a preset."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lensjax import physics
from lensjax.errors import UserError
from lensjax.physics.substructure import AxionVortexPrior
from lensjax.simulation.settings import ExposureNoise, Preset, SourcePrior, Variation

# No substructure, subhalos and vortex. The names are the folder names of the published data set.
CLASSES = ("no", "sphere", "vort")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scene:
    """True parameters of an image.

    Lengths are in arcsec. Shear and ellipticity components refer to position angles counterclockwise
    from +x.

    Attributes:
      label: class as an index into `CLASSES`.
      theta_E: Einstein radius of the main lens.
      lens_e1, lens_e2: ellipticity of the main lens; used only by presets with an elliptical lens.
      gamma1, gamma2: external shear.
      source_x, source_y: position of the source.
      source_e1, source_e2: ellipticity of the source.
      source_amp: brightness of the source at its half-light radius.
      R_sersic, n_sersic: half-light radius and Sersic index of the source.
      masses: Einstein radius, x and y of each point mass of the substructure; unused rows have an
        Einstein radius of 0.
      axion_mass: axion mass of a vortex, eV; 0 for other classes and for presets without axions.
      exposure: exposure time, seconds; 1 for presets without `ExposureNoise`.
      center_x, center_y: center of the lens in the image; positions of source and masses are relative to it.
      psf_sigma: standard deviation of the point-spread function.
      sky: expected background counts per pixel.
      light_amp: brightness of the lens at its half-light radius; 0 without lens light.
      light_R_sersic, light_n_sersic: half-light radius and Sersic index of the light of the lens.

    If the preset has no `Variation`, the quantities that it would draw are constant.
    """

    label: Int[Array, "*batch"]
    theta_E: Float[Array, "*batch"]
    lens_e1: Float[Array, "*batch"]
    lens_e2: Float[Array, "*batch"]
    gamma1: Float[Array, "*batch"]
    gamma2: Float[Array, "*batch"]
    source_x: Float[Array, "*batch"]
    source_y: Float[Array, "*batch"]
    source_e1: Float[Array, "*batch"]
    source_e2: Float[Array, "*batch"]
    source_amp: Float[Array, "*batch"]
    R_sersic: Float[Array, "*batch"]
    n_sersic: Float[Array, "*batch"]
    masses: Float[Array, "*batch number 3"]
    axion_mass: Float[Array, "*batch"]
    exposure: Float[Array, "*batch"]
    center_x: Float[Array, "*batch"]
    center_y: Float[Array, "*batch"]
    psf_sigma: Float[Array, "*batch"]
    sky: Float[Array, "*batch"]
    light_amp: Float[Array, "*batch"]
    light_R_sersic: Float[Array, "*batch"]
    light_n_sersic: Float[Array, "*batch"]


def draw_scene(key: Key[Array, ""], preset: Preset, substructure: str | Int[Array, ""]) -> Scene:
    """Draws a scene from the priors of a preset.

    Args:
      key: random key for the scene.
      preset: definition of the scenes.
      substructure: class of the scene: "no", "sphere" (subhalos) or "vort" (vortex). To map over
        classes with `jax.vmap`, pass an integer array of indices into `CLASSES`.

    Returns:
      The scene. Its arrays have the same shapes for every class.

    Raises:
      UserError: if no class has that name or index.
    """
    label = _class_index(substructure)
    keys = iter(jax.random.split(key, 10))
    source = preset.source
    mean, sigma = preset.theta_E
    theta_E = jnp.maximum(mean + sigma * jax.random.normal(next(keys)), 0.0)
    shear = _uniform(next(keys), preset.shear)
    shear_angle = _uniform(next(keys), preset.shear_angle)
    source_x, source_y = _draw_source_position(next(keys), next(keys), source)
    e1, e2 = physics.ellipticity(_uniform(next(keys), source.axis_ratio), _uniform(next(keys), source.angle))
    prior = preset.substructure
    subhalos, vortex_key = prior.subhalos.draw(next(keys)), next(keys)
    axion_mass = jnp.zeros(())
    if isinstance(prior.vortex, AxionVortexPrior):
        vortex, axion_mass = prior.vortex.draw(vortex_key)
    else:
        vortex = prior.vortex.draw(vortex_key, theta_E)
    number = max(len(subhalos), len(vortex))
    masses_of_class = [
        jnp.pad(masses, ((0, number - len(masses)), (0, 0)))
        for masses in (jnp.zeros((0, 3)), subhalos, vortex)
    ]
    exposure = jnp.ones(())
    if isinstance(preset.noise, ExposureNoise):
        exposure = 10 ** _uniform(next(keys), preset.noise.log10_exposure)
    fixed: dict[str, Any] = {
        "lens_e1": preset.lens_e1,
        "lens_e2": preset.lens_e2,
        "source_amp": source.amp,
        "R_sersic": source.R_sersic,
        "n_sersic": source.n_sersic,
        "center_x": 0.0,
        "center_y": 0.0,
        "psf_sigma": preset.instrument.psf_sigma,
        "sky": preset.instrument.sky,
        "light_amp": 0.0,
        "light_R_sersic": 1.0,
        "light_n_sersic": 1.0,
    }
    if preset.variation is not None:
        fixed |= _draw_variation(jax.random.fold_in(key, 1), preset.variation, source.amp)
    return Scene(
        label=label,
        theta_E=theta_E,
        gamma1=shear * jnp.cos(2 * shear_angle),
        gamma2=shear * jnp.sin(2 * shear_angle),
        source_x=source_x,
        source_y=source_y,
        source_e1=e1,
        source_e2=e2,
        masses=jnp.stack(masses_of_class)[label],
        axion_mass=jnp.where(label == CLASSES.index("vort"), axion_mass, 0.0),
        exposure=exposure,
        **{name: jnp.asarray(value, shear.dtype) for name, value in fixed.items()},
    )


def _draw_variation(key: Key[Array, ""], variation: Variation, amp: float) -> dict[str, Array]:
    """Quantities that the preset would otherwise fix, by name of the field of `Scene`."""
    keys = iter(jax.random.split(key, 13))
    lens_e1, lens_e2 = physics.ellipticity(
        _uniform(next(keys), variation.axis_ratio), _uniform(next(keys), (0.0, jnp.pi))
    )
    shift, direction = (
        _uniform(next(keys), (0.0, variation.max_shift)),
        _uniform(next(keys), (0.0, 2 * jnp.pi)),
    )
    light, dark = variation.lens_light, _uniform(next(keys), (0.0, 1.0)) < variation.dark
    return {
        "lens_e1": lens_e1,
        "lens_e2": lens_e2,
        "center_x": shift * jnp.cos(direction),
        "center_y": shift * jnp.sin(direction),
        "source_amp": amp * 10 ** _uniform(next(keys), variation.log10_brightness),
        "R_sersic": _uniform(next(keys), variation.R_sersic),
        "n_sersic": _uniform(next(keys), variation.n_sersic),
        "psf_sigma": _uniform(next(keys), variation.psf_sigma),
        "sky": 10 ** _uniform(next(keys), variation.log10_sky),
        "light_amp": jnp.where(dark, 0.0, amp * 10 ** _uniform(next(keys), light.log10_amp)),
        "light_R_sersic": _uniform(next(keys), light.R_sersic),
        "light_n_sersic": _uniform(next(keys), light.n_sersic),
    }


def _class_index(substructure: str | Int[Array, ""]) -> Int[Array, ""]:
    if isinstance(substructure, str) and substructure in CLASSES:
        return jnp.asarray(CLASSES.index(substructure), jnp.int32)
    if isinstance(substructure, str | int):
        raise UserError(f"substructure is {substructure!r}; expected one of {', '.join(map(repr, CLASSES))}")
    if not isinstance(substructure, jax.core.Tracer) and not 0 <= int(substructure) < len(CLASSES):
        raise UserError(f"substructure is {substructure}; expected an index from 0 to {len(CLASSES) - 1}")
    return jnp.asarray(substructure, jnp.int32)


def _draw_source_position(
    first_key: Key[Array, ""], second_key: Key[Array, ""], source: SourcePrior
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    if source.offset == "square":
        limits = (-source.max_offset, source.max_offset)
        return _uniform(first_key, limits), _uniform(second_key, limits)
    distance = jax.random.uniform(first_key, maxval=source.max_offset)
    angle = jax.random.uniform(second_key, maxval=2 * jnp.pi)
    return distance * jnp.cos(angle), distance * jnp.sin(angle)


def _uniform(key: Key[Array, ""], limits: tuple[float, float]) -> Float[Array, ""]:
    return jax.random.uniform(key, minval=limits[0], maxval=limits[1])
