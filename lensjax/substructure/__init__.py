"""Dark perturbers in fitted lenses: evidence, position and mass, and sensitivity."""

from lensjax.substructure.halos import Halo
from lensjax.substructure.nuisances import LinearModel, Nuisances, linearize
from lensjax.substructure.perturber import PerturberSearch, find_perturber
from lensjax.substructure.population import PopulationPosterior, Survey, population_posterior, survey
from lensjax.substructure.refit import Refit, refit_with, refit_without
from lensjax.substructure.search import PerturberMap, map_perturbers

__all__ = [
    "Halo",
    "LinearModel",
    "Nuisances",
    "PerturberMap",
    "PerturberSearch",
    "PopulationPosterior",
    "Refit",
    "Survey",
    "find_perturber",
    "linearize",
    "map_perturbers",
    "population_posterior",
    "refit_with",
    "refit_without",
    "survey",
]
