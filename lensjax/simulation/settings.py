"""Settings of a simulation: camera, noise, and priors on source, lens and substructure.

Lengths are in arcsec, position angles in radians. Brightness is in photon counts per pixel, or in counts per
pixel per second for `ExposureNoise` and for noise-free presets.
"""

import dataclasses
import math
from typing import Literal

from lensjax.errors import UserError
from lensjax.physics.substructure import SubstructurePrior
from lensjax.simulation.checks import check_count, check_number, check_range


@dataclasses.dataclass(frozen=True)
class Instrument:
    """Camera, point-spread function and sky.

    Attributes:
      image_size: height and width of the image, pixels.
      pixel_scale: side of a pixel, arcsec.
      subpixels: rays per pixel along each axis.
      psf_sigma: standard deviation of the Gaussian point-spread function, arcsec; 0 for no blurring.
      psf_size: height and width of its kernel, pixels; odd.
      sky: expected background counts per pixel.

    Raises:
      UserError: if a number is out of its range.
    """

    image_size: int
    pixel_scale: float
    subpixels: int
    psf_sigma: float
    psf_size: int
    sky: float = 0.0

    def __post_init__(self) -> None:
        check_count("image_size", self.image_size)
        check_count("subpixels", self.subpixels)
        check_count("psf_size", self.psf_size, odd=True)
        check_number("pixel_scale", self.pixel_scale, low=0, above=True)
        check_number("psf_sigma", self.psf_sigma, low=0)
        check_number("sky", self.sky, low=0)


@dataclasses.dataclass(frozen=True)
class PhotonNoise:
    """Poisson noise of the expected counts."""


@dataclasses.dataclass(frozen=True)
class ExposureNoise:
    """Noise model of DeepLenseSim, with a random exposure time.

    Gaussian photon and background noise is added to the expected counts, and the sum is clipped at 0.
    Poisson counts are then drawn with the result as their rate.

    Attributes:
      log10_exposure: range of log10 of the exposure time in seconds; uniform.
      background_rms: standard deviation of the background noise, counts per pixel per second.

    Raises:
      UserError: if a number is out of its range.
    """

    log10_exposure: tuple[float, float]
    background_rms: float

    def __post_init__(self) -> None:
        check_range("log10_exposure", self.log10_exposure)
        check_number("background_rms", self.background_rms, low=0)


@dataclasses.dataclass(frozen=True)
class GaussianNoise:
    """Gaussian photon and background noise of sky-subtracted images.

    Attributes:
      background_rms: standard deviation of the background noise, counts per pixel.

    Raises:
      UserError: if it is negative or not finite.
    """

    background_rms: float

    def __post_init__(self) -> None:
        check_number("background_rms", self.background_rms, low=0)


@dataclasses.dataclass(frozen=True)
class SourcePrior:
    """Prior on an elliptical Sersic source.

    Attributes:
      amp: brightness per pixel at the half-light radius.
      R_sersic: half-light radius, arcsec.
      n_sersic: Sersic index.
      axis_ratio: range of the axis ratio; uniform.
      angle: range of the position angle, radians; uniform.
      max_offset: largest offset from the lens, arcsec.
      offset: "radial" for a uniform distance in a random direction, "square" for uniform coordinates.

    Raises:
      UserError: if a setting is out of its range.
    """

    amp: float
    R_sersic: float
    n_sersic: float
    axis_ratio: tuple[float, float]
    angle: tuple[float, float]
    max_offset: float
    offset: Literal["radial", "square"] = "radial"

    def __post_init__(self) -> None:
        check_number("amp of the source", self.amp, low=0)
        check_number("R_sersic of the source", self.R_sersic, low=0, above=True)
        # Below 0.164, b_n of the profile is negative, and the light grows outward.
        check_number("n_sersic of the source", self.n_sersic, low=0.2)
        check_range("axis_ratio of the source", self.axis_ratio, low=0, high=1, above=True)
        check_range("angle of the source", self.angle)
        check_number("max_offset of the source", self.max_offset, low=0)
        if self.offset not in ("radial", "square"):
            raise UserError(f"offset of the source is {self.offset!r}; expected 'radial' or 'square'")


@dataclasses.dataclass(frozen=True)
class LensLightPrior:
    """Prior on the light of the main lens: a Sersic profile with the ellipticity and the center of the lens.

    Attributes:
      log10_amp: range of log10 of the brightness at the half-light radius, relative to `amp` of the source;
        uniform.
      R_sersic: range of the half-light radius, arcsec; uniform.
      n_sersic: range of the Sersic index; uniform.

    Raises:
      UserError: if a setting is out of its range.
    """

    log10_amp: tuple[float, float]
    R_sersic: tuple[float, float]
    n_sersic: tuple[float, float]

    def __post_init__(self) -> None:
        check_range("log10_amp of the lens light", self.log10_amp)
        check_range("R_sersic of the lens light", self.R_sersic, low=0, above=True)
        check_range("n_sersic of the lens light", self.n_sersic, low=0.2)


@dataclasses.dataclass(frozen=True)
class Variation:
    """Distributions of quantities that are otherwise fixed; they replace the values of the preset.

    Attributes:
      log10_brightness: range of log10 of a factor that multiplies the source's brightness; uniform.
      log10_sky: range of log10 of the expected background counts per pixel; uniform.
      R_sersic: range of the half-light radius of the source, arcsec; uniform.
      n_sersic: range of the Sersic index of the source; uniform.
      axis_ratio: range of the axis ratio of the lens, whose position angle is random; uniform.
      max_shift: largest distance of the lens from the center of the image, arcsec. The distance is uniform,
        the direction is random. The source and the substructure move with the lens.
      psf_sigma: range of the standard deviation of the point-spread function, arcsec; uniform.
      lens_light: prior on the light of the lens.
      dark: fraction of the images without lens light.

    Raises:
      UserError: if a setting is out of its range.
    """

    log10_brightness: tuple[float, float]
    log10_sky: tuple[float, float]
    R_sersic: tuple[float, float]
    n_sersic: tuple[float, float]
    axis_ratio: tuple[float, float]
    max_shift: float
    psf_sigma: tuple[float, float]
    lens_light: LensLightPrior
    dark: float

    def __post_init__(self) -> None:
        check_range("log10_brightness", self.log10_brightness)
        check_range("log10_sky", self.log10_sky)
        check_range("R_sersic of the source", self.R_sersic, low=0, above=True)
        check_range("n_sersic of the source", self.n_sersic, low=0.2)
        check_range("axis_ratio of the lens", self.axis_ratio, low=0.1, high=1)
        check_number("max_shift", self.max_shift, low=0)
        check_range("psf_sigma", self.psf_sigma, low=0, above=True)
        check_number("fraction of images without lens light", self.dark, low=0, high=1)


@dataclasses.dataclass(frozen=True)
class Preset:
    """Definition of scenes: an isothermal lens with external shear, a source, and substructure by class.

    Attributes:
      theta_E: mean and standard deviation of the Einstein radius, arcsec; normal, negative draws become 0.
      shear: range of the external shear; uniform.
      shear_angle: range of the position angle of the shear, radians; uniform.
      source: prior on the source.
      substructure: priors on the point masses of the classes `sphere` and `vort`.
      instrument: camera, point-spread function and sky.
      noise: noise model; None for noise-free images.
      lens_e1, lens_e2: ellipticity of the lens, with a modulus of at most 0.9; both 0 for a spherical lens.
      variation: distributions of quantities that are otherwise fixed; None if all of them are fixed.

    Raises:
      UserError: if a number is out of its range.
    """

    theta_E: tuple[float, float]
    shear: tuple[float, float]
    shear_angle: tuple[float, float]
    source: SourcePrior
    substructure: SubstructurePrior
    instrument: Instrument
    noise: PhotonNoise | ExposureNoise | GaussianNoise | None = PhotonNoise()
    lens_e1: float = 0.0
    lens_e2: float = 0.0
    variation: Variation | None = None

    def __post_init__(self) -> None:
        check_number("mean of theta_E", self.theta_E[0])
        check_number("standard deviation of theta_E", self.theta_E[1], low=0)
        check_range("shear", self.shear)
        check_range("shear_angle", self.shear_angle)
        check_number("ellipticity of the lens", math.hypot(self.lens_e1, self.lens_e2), high=0.9)
