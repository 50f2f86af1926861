"""Least-squares fits of a smooth lens to images: what is left over is substructure, or noise."""

from lensjax.fitting.batches import fit_in_batches
from lensjax.fitting.evidence import Evidence, class_evidence, mass_nodes
from lensjax.fitting.evidence_prior import MassLine, PointMasses, SubstructurePrior
from lensjax.fitting.fit import fit_lens
from lensjax.fitting.model import (
    COMMON_TEST,
    GENERAL,
    Parameter,
    SmoothModel,
    free,
    known,
    smooth_model,
)
from lensjax.fitting.noise import Noise, photon_noise, unknown_noise
from lensjax.fitting.result import LensFit

__all__ = [
    "COMMON_TEST",
    "GENERAL",
    "Evidence",
    "LensFit",
    "MassLine",
    "Noise",
    "Parameter",
    "PointMasses",
    "SmoothModel",
    "SubstructurePrior",
    "class_evidence",
    "fit_in_batches",
    "fit_lens",
    "free",
    "known",
    "mass_nodes",
    "photon_noise",
    "smooth_model",
    "unknown_noise",
]
