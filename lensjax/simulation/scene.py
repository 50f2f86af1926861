"""Scenes: the true parameters of simulated images, drawn from the priors of a preset."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from lensjax import physics
from lensjax.errors import UserError
from lensjax.simulation.presets import (
    AxionVortexPrior,
    ExposureNoise,
    Preset,
    SourcePrior,
    SubhaloPrior,
    VortexPrior,
)

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
      theta_E: Einstein radius of the main lens, which is at the center of the image.
      lens_e1, lens_e2: ellipticity of the main lens; used only by presets with an elliptical lens.
      gamma1, gamma2: external shear.
      source_x, source_y: position of the source.
      source_e1, source_e2: ellipticity of the source.
      masses: Einstein radius, x and y of each point mass of the substructure; unused rows have an
        Einstein radius of 0.
      axion_mass: axion mass of a vortex, eV; 0 for other classes and for presets without axions.
      exposure: exposure time, seconds; 1 for presets whose brightness is in counts.
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


def draw_scene(key: Key[Array, ""], preset: Preset, substructure: str | Int[Array, ""]) -> Scene:
    """Draws a scene from the priors of a preset.

    Args:
      key: random key for the scene.
      preset: kind of scene.
      substructure: class of the scene: "no", "sphere" (subhalos) or "vort" (vortex). To map over
        classes with `jax.vmap`, pass an integer array of indices into `CLASSES`.

    Returns:
      The scene. Its arrays have the same shapes for every class.

    Raises:
      UserError: if no class has that name.
    """
    label = _class_index(substructure)
    keys = iter(jax.random.split(key, 10))
    source = preset.source
    mean, sigma = preset.theta_E
    theta_E = mean + sigma * jax.random.normal(next(keys))
    shear = _uniform(next(keys), preset.shear)
    shear_angle = _uniform(next(keys), preset.shear_angle)
    source_x, source_y = _draw_source_position(next(keys), next(keys), source)
    e1, e2 = physics.ellipticity(_uniform(next(keys), source.axis_ratio), _uniform(next(keys), source.angle))
    number = max(preset.subhalos.number, preset.vortex.number)
    subhalos = draw_subhalos(next(keys), preset.subhalos)
    vortex, axion_mass = draw_vortex(next(keys), preset.vortex)
    masses_of_class = [
        jnp.zeros((number, 3)),
        _einstein_radii(subhalos, preset, number),
        _einstein_radii(vortex, preset, number),
    ]
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
        masses=jnp.stack(masses_of_class)[label],
        axion_mass=jnp.where(label == CLASSES.index("vort"), axion_mass, 0.0),
        exposure=exposure,
    )


def draw_subhalos(key: Key[Array, ""], prior: SubhaloPrior) -> Float[Array, "number 3"]:
    """Draws the mass (solar masses), x and y (arcsec) of each subhalo."""
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
    """Draws the mass (solar masses), x and y (arcsec) of each point of a line, and the axion mass (eV)."""
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


def _class_index(substructure: str | Int[Array, ""]) -> Int[Array, ""]:
    if isinstance(substructure, str) and substructure in CLASSES:
        return jnp.asarray(CLASSES.index(substructure), jnp.int32)
    if isinstance(substructure, str | int):
        raise UserError(f"substructure is {substructure!r}; expected one of {', '.join(map(repr, CLASSES))}")
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


def _einstein_radii(masses: Float[Array, "found 3"], preset: Preset, number: int) -> Float[Array, "number 3"]:
    """Einstein radius, x and y of each mass, padded with zeros to `number` rows."""
    radius = physics.einstein_radius(
        masses[:, 0], preset.z_lens, preset.z_source, convention=preset.convention
    )
    rows = masses.at[:, 0].set(radius)
    return jnp.pad(rows, ((0, number - rows.shape[0]), (0, 0)))


def _uniform(key: Key[Array, ""], limits: tuple[float, float]) -> Float[Array, ""]:
    return jax.random.uniform(key, minval=limits[0], maxval=limits[1])
