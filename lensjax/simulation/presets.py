"""What kinds of scenes there are: priors, instrument and noise as plain data to copy and change.

Angles are in arcsec, position angles in radians, masses in solar masses. Brightness is in photon counts in a
pixel, or for `ExposureNoise` in counts in a pixel and second.
"""

import dataclasses
import difflib
import math
from typing import Literal

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
    sky: float = 0.0


@dataclasses.dataclass(frozen=True)
class PhotonNoise:
    """Each pixel is one draw from the Poisson distribution of its expected counts."""


@dataclasses.dataclass(frozen=True)
class ExposureNoise:
    """An exposure of random length, as DeepLenseSim takes it.

    The expected counts get Gaussian noise of the photons and of the background and are cut off at 0; of
    what is left, each pixel is one draw from the Poisson distribution.

    Attributes:
      log10_exposure: least and largest common logarithm of the exposure, uniform between, seconds.
      background_rms: standard deviation of the background, counts in a pixel and second.
    """

    log10_exposure: tuple[float, float]
    background_rms: float


@dataclasses.dataclass(frozen=True)
class GaussianNoise:
    """Gaussian noise of photons and background together; the sky itself is taken off.

    Attributes:
      background_rms: standard deviation of the background, counts in a pixel.
    """

    background_rms: float


@dataclasses.dataclass(frozen=True)
class SourcePrior:
    """An elliptical Sersic source.

    Attributes:
      amp: brightness of a pixel at the half-light radius.
      R_sersic: half-light radius, arcsec.
      n_sersic: Sersic index.
      axis_ratio: least and largest, uniform between.
      angle: least and largest position angle, uniform between, radians.
      max_offset: largest offset from the lens, arcsec.
      offset: "radial": the distance is uniform, at any angle; "square": both coordinates are uniform.
    """

    amp: float
    R_sersic: float
    n_sersic: float
    axis_ratio: tuple[float, float]
    angle: tuple[float, float]
    max_offset: float
    offset: Literal["radial", "square"] = "radial"


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
class AxionVortexPrior:
    """Equal point masses on a line through the lens as long as an axion's de Broglie wave, for `vort`.

    Attributes:
      number: how many; the first and the last lie on the line's ends.
      total_mass: their sum, solar masses.
      log10_axion_mass: least and largest common logarithm of the axion's mass, uniform between, eV.
      length: of the line for an axion of 1e-22 eV, arcsec; it is inverse to the axion's mass.
    """

    number: int
    total_mass: float
    log10_axion_mass: tuple[float, float]
    length: float


@dataclasses.dataclass(frozen=True)
class Preset:
    """A kind of scene: an isothermal lens with external shear, a source, and substructure by class.

    Attributes:
      theta_E: mean and standard deviation of the Einstein radius, arcsec.
      shear: least and largest, uniform between.
      shear_angle: least and largest position angle of the shear, uniform between, radians.
      source: see `SourcePrior`.
      subhalos: see `SubhaloPrior`.
      vortex: see `VortexPrior` and `AxionVortexPrior`.
      instrument: see `Instrument`.
      noise: see `PhotonNoise`, `ExposureNoise` and `GaussianNoise`.
      lens_e1, lens_e2: ellipticity of the lens; 0 and 0 make it spherical.
      z_lens, z_source: redshifts, for the Einstein radii of masses.
      convention: of the distances, see `physics.lensing_distances`.
    """

    theta_E: tuple[float, float]
    shear: tuple[float, float]
    shear_angle: tuple[float, float]
    source: SourcePrior
    subhalos: SubhaloPrior
    vortex: VortexPrior | AxionVortexPrior
    instrument: Instrument
    noise: PhotonNoise | ExposureNoise | GaussianNoise = PhotonNoise()
    lens_e1: float = 0.0
    lens_e2: float = 0.0
    z_lens: float = 0.5
    z_source: float = 1.0
    convention: Convention = "angular_diameter"


# Position angles in the published images were drawn from 0 to 2 pi and then taken for degrees, clockwise.
_NEARLY_HORIZONTAL = (-math.radians(2 * math.pi), 0.0)
_FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, in standard deviations

# The images of the DeepLense Common Test, as far as fits of a smooth lens to published ones tell. The sky is
# what the variance of their corners says: 10.1 +- 0.1 counts in twelve of them.
COMMON_TEST = Preset(
    theta_E=(1.27, 0.1675),
    shear=(0.0, 0.3),
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

# DeepLenseSim's Model I: https://github.com/mwt5345/DeepLenseSim. Its amplitude of 20 is for a square arcsec.
# 1.281490 arcsec is the Einstein radius of 1e12 solar masses under its convention; (e1, e2) of the source is
# (-0.1, 0.1).
_SOURCE_SIZE = math.hypot(0.1, 0.1)
MODEL_1 = Preset(
    theta_E=(1.281490, 0.0),
    shear=(0.05, 0.05),
    shear_angle=(0.0, 0.0),
    source=SourcePrior(
        amp=20.0 * 0.05**2,
        R_sersic=0.25,
        n_sersic=1.0,
        axis_ratio=((1 - _SOURCE_SIZE) / (1 + _SOURCE_SIZE),) * 2,
        angle=(3 * math.pi / 8,) * 2,
        max_offset=0.35,
        offset="square",
    ),
    subhalos=COMMON_TEST.subhalos,
    vortex=AxionVortexPrior(
        number=100, total_mass=3e10, log10_axion_mass=(-24.0, -22.0), length=0.06
    ),
    instrument=Instrument(
        image_size=150, pixel_scale=0.05, subpixels=1, psf_sigma=0.087 / _FWHM, psf_size=5
    ),
    noise=ExposureNoise(log10_exposure=(3.0, 3.5), background_rms=0.01),
    lens_e1=0.1,
    convention="deeplensesim",
)


def survey(
    *,
    pixel_scale: float,
    seeing: float,
    psf_size: int,
    exposure: float,
    num_exposures: int,
    zero_point: float,
    sky_magnitude: float,
    read_noise: float,
    source_magnitude: float = 20.0,
    image_size: int = 64,
) -> Preset:
    """Model I's scenes as another instrument sees them: the photons of a number of exposures added up.

    Args:
      pixel_scale: side of a pixel, arcsec.
      seeing: full width at half maximum of the point-spread function, arcsec.
      psf_size: pixels on each side of its kernel, an odd number.
      exposure: length of each exposure, seconds.
      num_exposures: how many.
      zero_point: magnitude of one photon a second.
      sky_magnitude: of the background, a square arcsec.
      read_noise: standard deviation each time that a pixel is read, photons.
      source_magnitude: of the whole source, unlensed.
      image_size: pixels on each side.
    """
    total = exposure * num_exposures
    sky = total * 10 ** (0.4 * (zero_point - sky_magnitude)) * pixel_scale**2
    source = MODEL_1.source
    photons = total * 10 ** (0.4 * (zero_point - source_magnitude)) * pixel_scale**2
    return dataclasses.replace(
        MODEL_1,
        source=dataclasses.replace(source, amp=photons / _sersic_flux(source)),
        instrument=Instrument(
            image_size=image_size,
            pixel_scale=pixel_scale,
            subpixels=1,
            psf_sigma=seeing / _FWHM,
            psf_size=psf_size,
        ),
        noise=GaussianNoise(background_rms=math.sqrt(num_exposures * read_noise**2 + sky)),
    )


def _sersic_flux(source: SourcePrior) -> float:
    """Light of the whole source where the brightness at its half-light radius is 1 in a square arcsec."""
    n, b = source.n_sersic, 1.9992 * source.n_sersic - 0.3271
    disc = 2 * math.pi * source.R_sersic**2 * n
    return disc * math.exp(b) * b ** (-2 * n) * math.gamma(2 * n)


# DeepLenseSim's Models II and III take their instruments from lenstronomy: Euclid's VIS with the figures
# that it had in 2022, and Hubble's WFC3 in F160W. docs/simulator.md says what is known and what is assumed.
MODEL_2 = survey(
    pixel_scale=0.101,
    seeing=0.16,
    psf_size=7,
    exposure=565.0,
    num_exposures=4,
    zero_point=24.0,
    sky_magnitude=22.35,
    read_noise=4.2,
)
MODEL_3 = survey(
    pixel_scale=0.08,
    seeing=0.08,
    psf_size=5,
    exposure=5400.0,
    num_exposures=1,
    zero_point=25.96,
    sky_magnitude=22.3,
    read_noise=4.0,
)

PRESETS = {
    "common_test": COMMON_TEST,
    "model_1": MODEL_1,
    "model_2": MODEL_2,
    "model_3": MODEL_3,
}


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
