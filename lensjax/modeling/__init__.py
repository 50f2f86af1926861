"""Lens models of telescope images."""

from lensjax.modeling.automatic_fit import fit
from lensjax.modeling.components import EPL, SIE, SIS, MultiGaussian, Sersic, Shear
from lensjax.modeling.correlation import NoiseCorrelation, measure_correlation
from lensjax.modeling.galaxy import GALAXY, galaxy_model
from lensjax.modeling.model import LensModel, Prior
from lensjax.modeling.observation import Observation
from lensjax.modeling.parameter import Parameter
from lensjax.modeling.perturbers import NFW, Multipole, PointMass, PseudoJaffe
from lensjax.modeling.pixel_source import PixelGrid
from lensjax.modeling.posterior import Posterior, sample_posterior
from lensjax.modeling.psf import gaussian_psf
from lensjax.modeling.result import LensModelFit
from lensjax.modeling.shapelets import Shapelets
from lensjax.modeling.verdict import Verdict

__all__ = [
    "EPL",
    "GALAXY",
    "NFW",
    "SIE",
    "SIS",
    "LensModel",
    "LensModelFit",
    "MultiGaussian",
    "Multipole",
    "NoiseCorrelation",
    "Observation",
    "Parameter",
    "PixelGrid",
    "PointMass",
    "Posterior",
    "Prior",
    "PseudoJaffe",
    "Sersic",
    "Shapelets",
    "Shear",
    "Verdict",
    "fit",
    "galaxy_model",
    "gaussian_psf",
    "measure_correlation",
    "sample_posterior",
]
