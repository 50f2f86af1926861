"""Simulated images of strong gravitational lenses: presets, scenes, rendering and noise."""

from lensjax.simulation.images import (
    SimulatedImages,
    draw_scenes,
    fresh_batch,
    observe,
    simulate,
    simulate_split,
)
from lensjax.simulation.noise import add_noise
from lensjax.simulation.photons import poisson
from lensjax.simulation.presets import DEEPLENSESIM_DEFLECTION_SCALE, preset, survey_preset
from lensjax.simulation.render import expected_counts
from lensjax.simulation.scene import CLASSES, Scene, draw_scene
from lensjax.simulation.settings import (
    ExposureNoise,
    GaussianNoise,
    Instrument,
    LensLightPrior,
    PhotonNoise,
    Preset,
    SourcePrior,
    Variation,
)

__all__ = [
    "CLASSES",
    "DEEPLENSESIM_DEFLECTION_SCALE",
    "ExposureNoise",
    "GaussianNoise",
    "Instrument",
    "LensLightPrior",
    "PhotonNoise",
    "Preset",
    "Scene",
    "SimulatedImages",
    "SourcePrior",
    "Variation",
    "add_noise",
    "draw_scene",
    "draw_scenes",
    "expected_counts",
    "fresh_batch",
    "observe",
    "poisson",
    "preset",
    "simulate",
    "simulate_split",
    "survey_preset",
]
