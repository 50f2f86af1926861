"""Mass profiles: lensing potential, deflection and convergence.

Lengths are in arcsec, potentials in arcsec^2, and convergences in units of the critical surface density.

All profiles are called in the same way: `profile(x, y, strength, *, ..., center_x=0.0, center_y=0.0)`. The
strength is the parameter that vanishes without a lens: `theta_E`, `alpha_Rs`, `sigma0`, `a_m`, `kappa`, or
the two components `gamma1` and `gamma2` of an external shear. It is positional; every other parameter is
keyword-only. The three functions of a profile take the same arguments. Parameters are scalars: use
`jax.vmap` for a batch of lenses and `superpose` for the sum of many lenses.

`core` softens the center of a singular profile: the squared radius r^2 becomes r^2 + core^2, so that values
and gradients stay finite. The default is below the resolution of float32 coordinates. Coordinates up to
about 1e6 arcsec, the circumference of the sky, and Einstein radii up to 100 arcsec stay within the range of
float32, even at a center.
"""

from lensjax.physics.mass.elliptical import (
    epl_convergence,
    epl_deflection,
    epl_potential,
    sie_convergence,
    sie_deflection,
    sie_potential,
)
from lensjax.physics.mass.external import (
    external_shear_convergence,
    external_shear_deflection,
    external_shear_potential,
    mass_sheet_convergence,
    mass_sheet_deflection,
    mass_sheet_potential,
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
from lensjax.physics.mass.multipole import multipole_convergence, multipole_deflection, multipole_potential
from lensjax.physics.mass.nfw import nfw_convergence, nfw_deflection, nfw_potential
from lensjax.physics.mass.point import (
    point_mass_convergence,
    point_mass_deflection,
    point_mass_potential,
    point_masses_convergence,
    point_masses_deflection,
    point_masses_potential,
)
from lensjax.physics.mass.softening import CORE
from lensjax.physics.mass.superposition import superpose

__all__ = [
    "CORE",
    "epl_convergence",
    "epl_deflection",
    "epl_potential",
    "external_shear_convergence",
    "external_shear_deflection",
    "external_shear_potential",
    "mass_sheet_convergence",
    "mass_sheet_deflection",
    "mass_sheet_potential",
    "multipole_convergence",
    "multipole_deflection",
    "multipole_potential",
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
    "sie_convergence",
    "sie_deflection",
    "sie_potential",
    "sis_convergence",
    "sis_deflection",
    "sis_potential",
    "superpose",
]
