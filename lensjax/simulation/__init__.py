"""Simulated images of gravitational lenses: presets, scenes, rendering and noise."""

from lensjax.simulation.images import (
    SimulatedImages,
    fresh_batch,
    observe,
    simulate,
    simulate_split,
    split_scenes,
)
from lensjax.simulation.noise import with_noise
from lensjax.simulation.photons import poisson
from lensjax.simulation.presets import PRESETS, Preset, preset, survey
from lensjax.simulation.render import expected_counts
from lensjax.simulation.scene import Scene, draw_scene

__all__ = [
    "PRESETS",
    "Preset",
    "Scene",
    "SimulatedImages",
    "draw_scene",
    "expected_counts",
    "fresh_batch",
    "observe",
    "poisson",
    "preset",
    "simulate",
    "simulate_split",
    "split_scenes",
    "survey",
    "with_noise",
]
