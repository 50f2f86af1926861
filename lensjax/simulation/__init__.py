"""Simulated images of gravitational lenses: presets, scenes, rendering and noise."""

from lensjax.simulation.images import SimulatedImages, simulate
from lensjax.simulation.presets import PRESETS, Preset, preset
from lensjax.simulation.render import expected_counts
from lensjax.simulation.scene import Scene, draw_scene

__all__ = [
    "PRESETS",
    "Preset",
    "Scene",
    "SimulatedImages",
    "draw_scene",
    "expected_counts",
    "preset",
    "simulate",
]
