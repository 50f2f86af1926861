"""Scenes: every true parameter of a simulated image, drawn from a preset's priors."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lensjax import physics
from lensjax.simulation.presets import (
    AxionVortexPrior,
    ExposureNoise,
    Preset,
    SourcePrior,
    SubhaloPrior,
    VortexPrior,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scene:
    """The truth behind an image. Lengths are arcsec, position angles are counter-clockwise from +x.

    Attributes:
      label: class: 0 no substructure, 1 subhalos (`sphere`), 2 vortex (`vort`).
      theta_E: Einstein radius of the main lens, which lies in the image's centre.
      lens_e1, lens_e2: its ellipticity; only presets with an elliptical lens make use of it.
      gamma1, gamma2: external shear.
      source_x, source_y: position of the source.
      source_e1, source_e2: its ellipticity.
      masses: Einstein radius, x and y of the point masses of the substructure; Einstein radius 0 where
        there are fewer.
      axion_mass: of the axion whose vortex this is, eV; 0 where the preset or the class has none.
      exposure: seconds that brightness is counted for; 1 where the preset gives counts.
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
    masses: Float[Array, "*batch number 3"]
    axion_mass: Float[Array, "*batch"]
    exposure: Float[Array, "*batch"]


def draw_scene(key: Key[Array, ""], preset: Preset, label: Int[Array, ""] | int) -> Scene:
    """One scene of a class, drawn from the preset's priors.

    Args:
      key: everything in the scene follows from it.
      preset: the priors.
      label: class: 0 no substructure, 1 subhalos, 2 vortex.

    Returns:
      A scene whose `masses` have the same shape for every class.
    """
    keys = iter(jax.random.split(key, 10))
    source = preset.source
    mean, deviation = preset.theta_E
    theta_E = mean + deviation * jax.random.normal(next(keys))
    shear = _uniform(next(keys), preset.shear)
    shear_angle = _uniform(next(keys), preset.shear_angle)
    source_x, source_y = _offset(next(keys), next(keys), source)
    e1, e2 = physics.ellipticity(
        _uniform(next(keys), source.axis_ratio), _uniform(next(keys), source.angle)
    )
    number = max(preset.subhalos.number, preset.vortex.number)
    subhalos = draw_subhalos(next(keys), preset.subhalos)
    vortex, axion_mass = draw_vortex(next(keys), preset.vortex)
    candidates = [
        jnp.zeros((number, 3)),
        _padded(subhalos, preset, number),
        _padded(vortex, preset, number),
    ]
    label = jnp.asarray(label, jnp.int32)
    exposure = jnp.ones(())
    if isinstance(preset.noise, ExposureNoise):
        exposure = 10 ** _uniform(next(keys), preset.noise.log10_exposure)
    return Scene(
        label=label,
        theta_E=jnp.maximum(theta_E, 0.0),
        lens_e1=jnp.asarray(preset.lens_e1, shear.dtype),
        lens_e2=jnp.asarray(preset.lens_e2, shear.dtype),
        gamma1=shear * jnp.cos(2 * shear_angle),
        gamma2=shear * jnp.sin(2 * shear_angle),
        source_x=source_x,
        source_y=source_y,
        source_e1=e1,
        source_e2=e2,
        masses=jnp.stack(candidates)[label],
        axion_mass=jnp.where(label == 2, axion_mass, 0.0),
        exposure=exposure,
    )


def draw_subhalos(key: Key[Array, ""], prior: SubhaloPrior) -> Float[Array, "number 3"]:
    """Mass (solar masses), x and y (arcsec) of each subhalo."""
    mass_key, distance_key, angle_key = jax.random.split(key, 3)
    shape = (prior.number,)
    low, high = (mass**prior.exponent for mass in prior.mass)
    power = jax.random.uniform(mass_key, shape, minval=low, maxval=high)
    low, high = prior.distance
    distance = jax.random.uniform(distance_key, shape, minval=low, maxval=high)
    angle = jax.random.uniform(angle_key, shape, maxval=2 * jnp.pi)
    x, y = distance * jnp.cos(angle), distance * jnp.sin(angle)
    return jnp.stack([power ** (1 / prior.exponent), x, y], axis=1)


def draw_vortex(
    key: Key[Array, ""], prior: VortexPrior | AxionVortexPrior
) -> tuple[Float[Array, "number 3"], Float[Array, ""]]:
    """Mass (solar masses), x and y (arcsec) of each point of the line, and the axion's mass (eV)."""
    mass_key, length_key, angle_key, center_key = jax.random.split(key, 4)
    axion_mass = jnp.zeros(())
    center_x = center_y = jnp.zeros(())
    if isinstance(prior, AxionVortexPrior):
        total = jnp.asarray(prior.total_mass, axion_mass.dtype)
        log10_mass = _uniform(mass_key, prior.log10_axion_mass)
        axion_mass = 10**log10_mass
        length = prior.length * 10 ** (-22 - log10_mass)
    else:
        total = _uniform(mass_key, prior.total_mass)
        length = _uniform(length_key, prior.length)
        center_x, center_y = prior.center_sigma * jax.random.normal(center_key, (2,))
    angle = jax.random.uniform(angle_key, maxval=jnp.pi)
    along = length * jnp.linspace(-0.5, 0.5, prior.number)
    x, y = center_x + along * jnp.cos(angle), center_y + along * jnp.sin(angle)
    return jnp.stack([jnp.full_like(x, total / prior.number), x, y], axis=1), axion_mass


def _offset(
    one: Key[Array, ""], other: Key[Array, ""], source: SourcePrior
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    if source.offset == "square":
        limits = (-source.max_offset, source.max_offset)
        return _uniform(one, limits), _uniform(other, limits)
    distance = jax.random.uniform(one, maxval=source.max_offset)
    angle = jax.random.uniform(other, maxval=2 * jnp.pi)
    return distance * jnp.cos(angle), distance * jnp.sin(angle)


def _padded(
    substructure: Float[Array, "found 3"], preset: Preset, number: int
) -> Float[Array, "number 3"]:
    """Einstein radius, x and y of each mass, with rows of zeros up to `number`."""
    radius = physics.einstein_radius(
        substructure[:, 0], preset.z_lens, preset.z_source, convention=preset.convention
    )
    rows = substructure.at[:, 0].set(radius)
    return jnp.pad(rows, ((0, number - rows.shape[0]), (0, 0)))


def _uniform(key: Key[Array, ""], limits: tuple[float, float]) -> Float[Array, ""]:
    return jax.random.uniform(key, minval=limits[0], maxval=limits[1])
