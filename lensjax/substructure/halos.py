"""Dark halos: from mass and redshifts to the parameters of a lens profile."""

import dataclasses
from typing import Any

import numpy as np

from lensjax import physics
from lensjax.errors import UserError
from lensjax.modeling.parameter import Parameter
from lensjax.modeling.perturbers import NFW, PointMass, PseudoJaffe

PROFILES: dict[str, Any] = {"pseudo_jaffe": PseudoJaffe, "nfw": NFW, "point_mass": PointMass}
STRENGTHS = {"pseudo_jaffe": "sigma0", "nfw": "alpha_Rs", "point_mass": "theta_E"}
CORE_RADIUS = 0.005  # arcsec, of a pseudo-Jaffe halo
_GRAVITY = 4.30091727e-9  # Mpc (km / s)^2 per solar mass
H0, OM0 = 70.0, 0.3


@dataclasses.dataclass(frozen=True)
class Halo:
    """A dark halo at the redshift of the lens.

    Attributes:
      z_lens, z_source: redshifts.
      profile: "pseudo_jaffe", an isothermal sphere truncated at its tidal radius, whose mass is the total
        mass; "nfw", with the mass-concentration relation of Duffy et al. 2008, whose mass is M200; or
        "point_mass".

    Raises:
      UserError: if the profile is unknown, or the redshifts do not satisfy 0 < z_lens < z_source.
    """

    z_lens: float
    z_source: float
    profile: str = "pseudo_jaffe"

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise UserError(f"profile is {self.profile!r}; expected one of {', '.join(PROFILES)}")
        if not 0 < self.z_lens < self.z_source < np.inf:
            raise UserError(
                f"z_lens is {self.z_lens} and z_source is {self.z_source}; expected 0 < z_lens < z_source"
            )

    @property
    def strength(self) -> str:
        """Name of the parameter to which the deflection is proportional (its square for a point mass)."""
        return STRENGTHS[self.profile]

    def component(self, *, free: bool = False) -> Any:
        """The mass component.

        Args:
          free: whether a fit changes its strength and position; all others are held at their start.
        """
        usual = PROFILES[self.profile]()
        parameters = {}
        for field in dataclasses.fields(usual):
            if not (free and getattr(usual, field.name).free):
                parameters[field.name] = Parameter.chosen(0.1, (-1e3, 1e3))
        return dataclasses.replace(usual, **parameters)

    def parameters(self, mass: np.ndarray | float, theta_E: float) -> dict[str, np.ndarray]:
        """Parameters of the profile without its position.

        Args:
          mass: solar masses, any shape.
          theta_E: Einstein radius of the main lens, arcsec.

        Returns:
          Values by name, each of the shape of the mass.

        Reference: Vegetti et al. 2010, MNRAS 408, 1969, for the tidal radius.
        """
        mass = np.asarray(mass, np.float64)
        square = float(physics.einstein_radius(1.0, self.z_lens, self.z_source, H0=H0, Om0=OM0)) ** 2 * mass
        if self.profile == "point_mass":
            return {"theta_E": np.sqrt(square)}
        if self.profile == "pseudo_jaffe":
            # The mass is that of an isothermal sphere of Einstein radius b truncated at sqrt(b theta_E).
            b = (square / np.sqrt(theta_E)) ** (2 / 3)
            truncation = np.maximum(np.sqrt(b * theta_E), 2 * CORE_RADIUS)
            # Total mass in units of pi times the critical surface density: 2 sigma0 Ra Rs.
            sigma0 = square / (2 * CORE_RADIUS * truncation)
            return {"sigma0": sigma0, "Ra": np.full_like(mass, CORE_RADIUS), "Rs": truncation}
        radius, alpha = _nfw(mass, self.z_lens, square)
        return {"alpha_Rs": alpha, "Rs": radius}

    def mass(self, mass: float, ratio: float) -> float:
        """Mass of a halo whose strength is `ratio` times that of one of the given mass, at the same size."""
        return mass * (ratio**2 if self.profile == "point_mass" else ratio)

    def critical_mass(self) -> float:
        """Mass of one square arcsec at the critical surface density, solar masses."""
        return float(physics.einstein_mass(1.0, self.z_lens, self.z_source, H0=H0, Om0=OM0)) / np.pi


def _nfw(mass: np.ndarray, z_lens: float, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale radius and the deflection at it, arcsec, of halos of mass M200.

    Args:
      mass: M200, solar masses.
      z_lens: redshift.
      square: squared Einstein radius of a point of this mass, arcsec^2.

    Reference: Duffy et al. 2008, MNRAS 390, L64, table 1 (M200, full sample).
    """
    concentration = 5.71 * (mass / (2e12 / (H0 / 100))) ** -0.084 * (1 + z_lens) ** -0.47
    hubble = H0**2 * (OM0 * (1 + z_lens) ** 3 + 1 - OM0)
    critical = 3 * hubble / (8 * np.pi * _GRAVITY)  # solar masses per Mpc^3
    r200 = (3 * mass / (4 * np.pi * 200 * critical)) ** (1 / 3)
    distance = float(physics.comoving_distance(z_lens, H0=H0, Om0=OM0)) / (1 + z_lens)
    radius = r200 / concentration / distance * 180 * 3600 / np.pi
    # The mass within the cylinder of radius Rs is M200 (1 - ln 2) / (ln(1 + c) - c / (1 + c)).
    enclosed = (1 - np.log(2)) / (np.log1p(concentration) - concentration / (1 + concentration))
    return radius, square * enclosed / radius
