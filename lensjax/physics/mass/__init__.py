"""Mass profiles: lensing potential, deflection and convergence.

All lengths are arcsec, potentials arcsec^2, convergence is in units of the critical surface density.
`core` softens the centre of a singular profile inside the root of the radius, so that value and gradient
stay finite there; its default is below what float32 coordinates tell apart. Arguments up to some 1e6 arcsec,
the circumference of the sky, and Einstein radii up to 100 are in the range of float32, also at a centre.

A profile is called as `profile(x, y, *parameters, center_x=0.0, center_y=0.0)`. Parameters are numbers;
for one number a lens in a batch of lenses, use `jax.vmap`; for many lenses in one field, `summed`.
"""

from lensjax.physics.mass.elliptical import (
    epl_convergence,
    epl_deflection,
    epl_potential,
    sie_convergence,
    sie_deflection,
    sie_potential,
)
from lensjax.physics.mass.isothermal import (
    pseudo_jaffe_convergence,
    pseudo_jaffe_deflection,
    pseudo_jaffe_potential,
    pseudo_jaffe_sigma0,
    sis_convergence,
    sis_deflection,
    sis_potential,
)
from lensjax.physics.mass.nfw import nfw_convergence, nfw_deflection, nfw_potential
from lensjax.physics.mass.point import (
    point_mass_convergence,
    point_mass_deflection,
    point_mass_potential,
    point_masses_convergence,
    point_masses_deflection,
    point_masses_potential,
    summed,
)
from lensjax.physics.mass.sheet import (
    shear_convergence,
    shear_deflection,
    shear_potential,
    sheet_convergence,
    sheet_deflection,
    sheet_potential,
)
from lensjax.physics.mass.softening import CORE

__all__ = [
    "CORE",
    "epl_convergence",
    "epl_deflection",
    "epl_potential",
    "nfw_convergence",
    "nfw_deflection",
    "nfw_potential",
    "point_mass_convergence",
    "point_mass_deflection",
    "point_mass_potential",
    "point_masses_convergence",
    "point_masses_deflection",
    "point_masses_potential",
    "pseudo_jaffe_convergence",
    "pseudo_jaffe_deflection",
    "pseudo_jaffe_potential",
    "pseudo_jaffe_sigma0",
    "shear_convergence",
    "shear_deflection",
    "shear_potential",
    "sheet_convergence",
    "sheet_deflection",
    "sheet_potential",
    "sie_convergence",
    "sie_deflection",
    "sie_potential",
    "sis_convergence",
    "sis_deflection",
    "sis_potential",
    "summed",
]
