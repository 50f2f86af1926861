"""Simulated images of lenses with multipoles, clumpy sources and a perturber next to the arcs."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import simulated_lenses as simulated

from lensjax import modeling, physics
from lensjax.substructure import Halo

HALO = Halo(z_lens=0.25, z_source=0.6)
LOG10_MASS = (8.5, 10.5)  # of the perturbers
WIDTH_ERROR = 0.02  # standard deviation of the width of the point-spread function
MULTIPOLE = 0.005  # standard deviation of the strength of each multipole relative to the Einstein radius
PEAK = (8.0, 25.0)  # brightness of the brightest pixel of the arcs, standard deviations of its noise
BRIGHT = 3.0  # standard deviations; fainter parts of the arcs have no perturber
OFFSET = 0.2  # arcsec, largest distance of a perturber from its pixel of the arcs


class Scene(NamedTuple):
    """A lens without a perturber: parameters of the mass, multipoles, light of the lens, and source."""

    mass: dict[str, float]
    multipoles: np.ndarray
    light: list[dict[str, float]]
    source: list[dict[str, float]]


def simulate(seed: int, number: int) -> tuple[modeling.Observation, Scene, dict[str, float] | None]:
    """Simulates an observation; odd numbers have a perturber next to the arcs.

    The width of the point-spread function of the fit has an error with a standard deviation of 2 %.
    """
    generator = np.random.default_rng([seed, number, 7])
    mass = simulated.draw_mass(generator, "SIE")
    multipoles = generator.normal(0, MULTIPOLE * mass["mass.0.theta_E"], (2, 2))
    source = simulated.draw_source(generator, mass)
    scene = Scene(mass, multipoles, simulated.draw_light(generator, mass), source)
    width = generator.normal(1, WIDTH_ERROR)
    light_image, arcs = _render(scene, None, width)
    ratio, peak = generator.uniform(100, 200), generator.uniform(*PEAK)
    gain = simulated.GAIN
    light_image *= (ratio**2 / gain + np.sqrt(ratio**4 / gain**2 + 4 * ratio**2)) / 2 / light_image.max()
    sky = np.sqrt(1 + light_image / gain)
    unit = peak / (arcs / sky).max()
    perturber = draw_perturber(generator, arcs * unit / sky) if number % 2 else None
    if perturber is not None:
        arcs = _render(scene, perturber, width)[1]
    image = light_image + arcs * unit
    noise = np.sqrt(1 + image / gain)
    side, fine = simulated.PSF_SIDE, simulated.FINE
    observation = modeling.Observation(
        image + noise * simulated.SCATTER * simulated.correlated_noise(generator, image.shape),
        noise,
        simulated.moffat(side * fine).reshape(side, fine, side, fine).sum((1, 3)),
        pixel_scale=simulated.SCALE,
    )
    return observation, scene, perturber


def draw_perturber(generator: np.random.Generator, arcs: np.ndarray) -> dict[str, float]:
    """Draws a perturber next to bright parts of the arcs.

    A pixel is drawn in proportion to the brightness of the arcs, and a position within 0.2 arcsec of it.

    Args:
      generator: random numbers.
      arcs: brightness of the arcs in standard deviations of the noise; pixels below 3 are not drawn.
    """
    bright = np.where(arcs > BRIGHT, arcs, 0).ravel()
    pixel = generator.choice(bright.size, p=bright / bright.sum())
    row, column = np.unravel_index(pixel, arcs.shape)
    radius, angle = OFFSET * np.sqrt(generator.random()), generator.uniform(0, 2 * np.pi)
    middle = (simulated.SIDE - 1) / 2
    return {
        "x": float((column - middle) * simulated.SCALE + radius * np.cos(angle)),
        "y": float((row - middle) * simulated.SCALE + radius * np.sin(angle)),
        "log10_mass": float(generator.uniform(*LOG10_MASS)),
    }


def _render(scene: Scene, perturber: dict[str, float] | None, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Images of the lens galaxy and of the arcs, blurred, in an arbitrary unit."""
    mass = scene.mass
    x, y = (jnp.asarray(each, jnp.float32) for each in simulated.fine_positions())
    alpha = simulated.deflection("SIE", x, y, mass)
    center = {f"center_{axis}": mass[f"mass.0.center_{axis}"] for axis in "xy"}
    parts = [alpha]
    for m, pair in zip((3, 4), scene.multipoles, strict=True):
        for phi, a_m in zip((0.0, np.pi / (2 * m)), pair, strict=True):
            parts.append(physics.multipole_deflection(x, y, float(a_m), m=m, phi_m=phi, **center))
    if perturber is not None:
        own = HALO.parameters(10 ** perturber["log10_mass"], mass["mass.0.theta_E"])
        values = {name: float(value) for name, value in own.items()}
        parts.append(
            physics.pseudo_jaffe_deflection(
                x, y, values.pop("sigma0"), **values, center_x=perturber["x"], center_y=perturber["y"]
            )
        )
    beta = physics.lens_equation(x, y, *(sum(each) for each in zip(*parts, strict=True)))
    images = simulated.brightness(scene.light, x, y), simulated.brightness(scene.source, *beta)
    return simulated.blur(images, width)
