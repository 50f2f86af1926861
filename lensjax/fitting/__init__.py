"""Least-squares fits of a smooth lens to images, the evidence for substructure, and fits to observations."""

from lensjax.fitting.amplitudes import solve_linear, total_light
from lensjax.fitting.assumptions import ASSUMPTIONS, assumption_tests
from lensjax.fitting.bad_pixels import find_bad_pixels
from lensjax.fitting.batches import fit_in_batches
from lensjax.fitting.evidence import Evidence, class_evidence, mass_nodes
from lensjax.fitting.least_squares import fit_lens
from lensjax.fitting.model import SmoothModel
from lensjax.fitting.noise import Noise, noise_from_high_frequencies, photon_noise, unknown_noise
from lensjax.fitting.presets import COMMON_TEST, GENERAL, smooth_model
from lensjax.fitting.rendering import render, render_with_jacobian, source_positions
from lensjax.fitting.residual import refine_parameters, standardized_residual
from lensjax.fitting.resolution import Resolution
from lensjax.fitting.result import LensFit
from lensjax.fitting.solve import parameter_bounds
from lensjax.modeling import (
    EPL,
    GALAXY,
    SIE,
    SIS,
    LensModel,
    LensModelFit,
    MultiGaussian,
    Observation,
    Parameter,
    Prior,
    Sersic,
    Shapelets,
    Shear,
    galaxy_model,
    gaussian_psf,
)
from lensjax.modeling.automatic_fit import fit

__all__ = [
    "ASSUMPTIONS",
    "COMMON_TEST",
    "EPL",
    "GALAXY",
    "GENERAL",
    "SIE",
    "SIS",
    "Evidence",
    "LensFit",
    "LensModel",
    "LensModelFit",
    "MultiGaussian",
    "Noise",
    "Observation",
    "Parameter",
    "Prior",
    "Resolution",
    "Sersic",
    "Shapelets",
    "Shear",
    "SmoothModel",
    "assumption_tests",
    "class_evidence",
    "find_bad_pixels",
    "fit",
    "fit_in_batches",
    "fit_lens",
    "galaxy_model",
    "gaussian_psf",
    "mass_nodes",
    "noise_from_high_frequencies",
    "parameter_bounds",
    "photon_noise",
    "refine_parameters",
    "render",
    "render_with_jacobian",
    "smooth_model",
    "solve_linear",
    "source_positions",
    "standardized_residual",
    "total_light",
    "unknown_noise",
]
