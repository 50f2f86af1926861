"""Gravitational lensing as pure functions of arrays: angles in arcsec, masses in solar masses."""

from lensjax.physics import cosmology, grid, light, mass, rays, reference
from lensjax.physics.cosmology import comoving_distance, einstein_radius, lensing_distances
from lensjax.physics.grid import bin_mean, pixel_grid, to_pixel
from lensjax.physics.light import elliptical_radius, ellipticity, sersic
from lensjax.physics.mass import (
    point_mass_deflection,
    point_mass_potential,
    point_masses_deflection,
    shear_deflection,
    shear_potential,
    sis_convergence,
    sis_deflection,
    sis_potential,
)
from lensjax.physics.rays import lens_equation, sis_lens_equation

__all__ = [
    "bin_mean",
    "comoving_distance",
    "cosmology",
    "einstein_radius",
    "elliptical_radius",
    "ellipticity",
    "grid",
    "lens_equation",
    "lensing_distances",
    "light",
    "mass",
    "pixel_grid",
    "point_mass_deflection",
    "point_mass_potential",
    "point_masses_deflection",
    "rays",
    "reference",
    "sersic",
    "shear_deflection",
    "shear_potential",
    "sis_convergence",
    "sis_deflection",
    "sis_lens_equation",
    "sis_potential",
    "to_pixel",
]
