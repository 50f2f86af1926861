"""What kinds of scenes there are: priors, instrument and noise as plain data to copy and change.

Angles are in arcsec, position angles in radians, masses in solar masses, brightness in photon counts.
"""

import dataclasses
import difflib
import math

from lensjax.errors import UserError
from lensjax.physics.cosmology import Convention


@dataclasses.dataclass(frozen=True)
class Instrument:
    """How a scene becomes an image.

    Attributes:
      image_size: pixels on each side.
      pixel_scale: side of a pixel, arcsec.
      subpixels: parts of a pixel on each axis at which rays are shot.
      psf_sigma: standard deviation of the Gaussian point-spread function, arcsec.
      psf_size: pixels on each side of its kernel, an odd number.
      sky: expected counts of the background in each pixel.
    """

    image_size: int
    pixel_scale: float
    subpixels: int
    psf_sigma: float
    psf_size: int
    sky: float


@dataclasses.dataclass(frozen=True)
class SourcePrior:
    """An elliptical Sersic source.

    Attributes:
      amp: counts in a pixel at the half-light radius.
      R_sersic: half-light radius, arcsec.
      n_sersic: Sersic index.
      axis_ratio: least and largest, uniform between.
      angle: least and largest position angle, uniform between, radians.
      max_offset: largest distance from the lens; the distance is uniform, at any angle, arcsec.
    """

    amp: float
    R_sersic: float
    n_sersic: float
    axis_ratio: tuple[float, float]
    angle: tuple[float, float]
    max_offset: float


@dataclasses.dataclass(frozen=True)
class SubhaloPrior:
    """Point masses about the lens, for the class `sphere`.

    Attributes:
      number: how many.
      mass: least and largest, solar masses.
      exponent: mass^exponent is uniform between the two ends' values.
      distance: least and largest distance from the lens; uniform between, at any angle, arcsec.
    """

    number: int
    mass: tuple[float, float]
    exponent: float
    distance: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class VortexPrior:
    """Equal point masses on a straight line, for the class `vort`.

    Attributes:
      number: how many; the first and the last lie on the line's ends.
      total_mass: least and largest sum, uniform between, solar masses.
      length: least and largest, uniform between, arcsec.
      center_sigma: standard deviation of the line's centre on each axis, arcsec.
    """

    number: int
    total_mass: tuple[float, float]
    length: tuple[float, float]
    center_sigma: float


@dataclasses.dataclass(frozen=True)
class Preset:
    """A kind of scene: an isothermal lens with external shear, a source, and substructure by class.

    Attributes:
      theta_E: mean and standard deviation of the Einstein radius, arcsec.
      max_shear: the shear is uniform between 0 and this.
      shear_angle: least and largest position angle of the shear, uniform between, radians.
      source: see `SourcePrior`.
      subhalos: see `SubhaloPrior`.
      vortex: see `VortexPrior`.
      instrument: see `Instrument`.
      z_lens, z_source: redshifts, for the Einstein radii of masses.
      convention: of the distances, see `physics.lensing_distances`.
    """

    theta_E: tuple[float, float]
    max_shear: float
    shear_angle: tuple[float, float]
    source: SourcePrior
    subhalos: SubhaloPrior
    vortex: VortexPrior
    instrument: Instrument
    z_lens: float = 0.5
    z_source: float = 1.0
    convention: Convention = "angular_diameter"


# Position angles in the published images were drawn from 0 to 2 pi and then taken for degrees, clockwise.
_NEARLY_HORIZONTAL = (-math.radians(2 * math.pi), 0.0)

# The images of the DeepLense Common Test, as far as fits of a smooth lens to published ones tell. The sky is
# what the variance of their corners says: 10.1 +- 0.1 counts in twelve of them.
COMMON_TEST = Preset(
    theta_E=(1.27, 0.1675),
    max_shear=0.3,
    shear_angle=_NEARLY_HORIZONTAL,
    source=SourcePrior(
        amp=100.0,
        R_sersic=0.5,
        n_sersic=1.5,
        axis_ratio=(0.4, 1.0),
        angle=_NEARLY_HORIZONTAL,
        max_offset=0.5,
    ),
    subhalos=SubhaloPrior(number=25, mass=(1e6, 1e10), exponent=0.1, distance=(0.25, 2.0)),
    vortex=VortexPrior(number=25, total_mass=(3e10, 5.5e10), length=(0.5, 2.0), center_sigma=0.5),
    instrument=Instrument(
        image_size=150, pixel_scale=0.05, subpixels=2, psf_sigma=0.08675, psf_size=11, sky=10.0
    ),
    convention="deeplensesim",
)

PRESETS = {"common_test": COMMON_TEST}


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
      UserError: there is none; the message names those that there are.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"no simulation preset {name!r}: there is {', '.join(PRESETS)}{hint}")
    return PRESETS[name]
