"""Simulation presets: settings as plain data to copy and modify.

Lengths are in arcsec, position angles in radians. Brightness is in photon counts per pixel, or in counts per
pixel per second for `ExposureNoise` and for noise-free presets.
"""

import dataclasses
import difflib
import math

from lensjax.errors import UserError
from lensjax.physics.substructure import (
    AxionVortexPrior,
    BroadVortexPrior,
    SubhaloPrior,
    SubstructurePrior,
    VortexPrior,
)
from lensjax.simulation.settings import (
    ExposureNoise,
    GaussianNoise,
    Instrument,
    LensLightPrior,
    Preset,
    SourcePrior,
    Variation,
)

# In the published images, position angles appear to have been drawn from 0 to 2 pi and then interpreted as
# degrees, clockwise.
_NEARLY_HORIZONTAL = (-math.radians(2 * math.pi), 0.0)
_FWHM = 2 * math.sqrt(2 * math.log(2))  # FWHM of a Gaussian, in standard deviations

# Squared Einstein radius of one solar mass, arcsec^2, at redshifts 0.5 and 1 in DeepLenseSim's distance
# convention; see `physics.einstein_radius`.
_SOLAR_MASS = 1.281490**2 / 1e12
_SUBHALOS = SubhaloPrior(
    number=25, theta_E_squared=(1e6 * _SOLAR_MASS, 1e10 * _SOLAR_MASS), exponent=0.1, distance=(0.25, 2.0)
)

# The DeepLense Common Test, as inferred from smooth-lens fits to published images. The sky level follows
# from the variance in the corners of twelve of them: 10.1 +- 0.1 counts.
COMMON_TEST = Preset(
    theta_E=(1.27, 0.1675),
    shear=(0.0, 0.3),
    shear_angle=_NEARLY_HORIZONTAL,
    source=SourcePrior(
        amp=100.0, R_sersic=0.5, n_sersic=1.5, axis_ratio=(0.4, 1.0), angle=_NEARLY_HORIZONTAL, max_offset=0.5
    ),
    substructure=SubstructurePrior(
        subhalos=_SUBHALOS,
        vortex=VortexPrior(number=25, mass_fraction=(0.03, 0.055), length=(1.0, 4.0), center_sigma=0.5),
    ),
    instrument=Instrument(
        image_size=150, pixel_scale=0.05, subpixels=2, psf_sigma=0.08675, psf_size=11, sky=10.0
    ),
)

# The camera of the Common Test. The source, the ellipticity, center and light of the lens, the vortices, the
# sky and the point-spread function vary. A classifier trained on these images does not rely on fixed values
# of them.
VARIED = dataclasses.replace(
    COMMON_TEST,
    shear_angle=(0.0, math.pi),
    source=dataclasses.replace(COMMON_TEST.source, angle=(0.0, math.pi)),
    substructure=dataclasses.replace(
        COMMON_TEST.substructure,
        vortex=BroadVortexPrior(number=50, mass_fraction=(0.025, 0.055), length=(0.1, 6.0), max_distance=1.2),
    ),
    variation=Variation(
        log10_brightness=(-0.3, 0.3),
        log10_sky=(0.5, 3.0),
        R_sersic=(0.2, 0.7),
        n_sersic=(0.5, 4.0),
        axis_ratio=(0.6, 1.0),
        max_shift=0.15,
        psf_sigma=(0.035, 0.11),
        lens_light=LensLightPrior(log10_amp=(-1.5, 0.0), R_sersic=(0.2, 0.6), n_sersic=(1.0, 4.0)),
        dark=0.5,
    ),
)

# DeepLenseSim's Model I: https://github.com/mwt5345/DeepLenseSim. Its amplitude of 20 is per square arcsec.
# 1.281490 arcsec is the Einstein radius of 1e12 solar masses under its distance convention; the source has
# (e1, e2) = (-0.1, 0.1).
_SOURCE_ELLIPTICITY = math.hypot(0.1, 0.1)
MODEL_1 = Preset(
    theta_E=(1.281490, 0.0),
    shear=(0.05, 0.05),
    shear_angle=(0.0, 0.0),
    source=SourcePrior(
        amp=20.0 * 0.05**2,
        R_sersic=0.25,
        n_sersic=1.0,
        axis_ratio=((1 - _SOURCE_ELLIPTICITY) / (1 + _SOURCE_ELLIPTICITY),) * 2,
        angle=(3 * math.pi / 8,) * 2,
        max_offset=0.35,
        offset="square",
    ),
    substructure=SubstructurePrior(
        subhalos=_SUBHALOS,
        vortex=AxionVortexPrior(
            number=100, theta_E_squared=3e10 * _SOLAR_MASS, log10_axion_mass=(-24.0, -22.0), length=0.06
        ),
    ),
    instrument=Instrument(image_size=150, pixel_scale=0.05, subpixels=1, psf_sigma=0.087 / _FWHM, psf_size=5),
    noise=ExposureNoise(log10_exposure=(3.0, 3.5), background_rms=0.01),
    lens_e1=0.1,
)


def survey_preset(
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
    """Returns a preset of Model I scenes observed by another instrument, summed over its exposures.

    Args:
      pixel_scale: side of a pixel, arcsec.
      seeing: full width at half maximum of the point-spread function, arcsec.
      psf_size: height and width of its kernel, pixels; odd.
      exposure: time per exposure, seconds.
      num_exposures: number of exposures.
      zero_point: magnitude that corresponds to one photon per second.
      sky_magnitude: sky background, magnitudes per square arcsec.
      read_noise: standard deviation per readout of a pixel, photons.
      source_magnitude: total magnitude of the unlensed source.
      image_size: height and width of the image, pixels.

    Returns:
      The preset, with brightness in photons per pixel.

    Raises:
      UserError: if a setting of the instrument or of the noise is out of its range.
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
    """Total flux of a source with a brightness of 1 per square arcsec at its half-light radius."""
    n, b = source.n_sersic, 1.9992 * source.n_sersic - 0.3271
    disk = 2 * math.pi * source.R_sersic**2 * n
    return disk * math.exp(b) * b ** (-2 * n) * math.gamma(2 * n)


# lenstronomy's instrument settings: Euclid VIS with the values of 2022, and Hubble WFC3 F160W.
EUCLID_LIKE = survey_preset(
    pixel_scale=0.101,
    seeing=0.16,
    psf_size=7,
    exposure=565.0,
    num_exposures=4,
    zero_point=24.0,
    sky_magnitude=22.35,
    read_noise=4.2,
)
HUBBLE_LIKE = survey_preset(
    pixel_scale=0.08,
    seeing=0.08,
    psf_size=5,
    exposure=5400.0,
    num_exposures=1,
    zero_point=25.96,
    sky_magnitude=22.3,
    read_noise=4.0,
)

# DeepLenseSim defines the lenses of Models II and III for sources at redshift 2.5 (lenstronomy's
# `z_source_convention`), but places the source at 1. lenstronomy therefore multiplies every deflection by
# D_LS / D_S at redshift 1 over that at 2.5. The lens is at 0.5; the cosmology is flat LCDM with Om0 = 0.309,
# the default of pyHalo.
DEEPLENSESIM_DEFLECTION_SCALE = 0.633457971


def _deeplensesim_version(survey: Preset, exposure: float) -> Preset:
    """DeepLenseSim's version of a survey: weaker deflections, no noise, and twice the counts per second.

    DeepLenseSim adds the image, in counts per second, to itself instead of adding noise.
    """
    scale, prior = DEEPLENSESIM_DEFLECTION_SCALE, survey.substructure
    assert isinstance(prior.vortex, AxionVortexPrior)
    (mean, sigma), (low, high) = survey.theta_E, prior.subhalos.theta_E_squared
    return dataclasses.replace(
        survey,
        theta_E=(scale * mean, scale * sigma),
        shear=(scale * survey.shear[0], scale * survey.shear[1]),
        source=dataclasses.replace(survey.source, amp=2 * survey.source.amp / exposure),
        substructure=SubstructurePrior(
            subhalos=dataclasses.replace(prior.subhalos, theta_E_squared=(scale * low, scale * high)),
            vortex=dataclasses.replace(prior.vortex, theta_E_squared=scale * prior.vortex.theta_E_squared),
        ),
        noise=None,
    )


MODEL_2 = _deeplensesim_version(EUCLID_LIKE, exposure=4 * 565.0)
MODEL_3 = _deeplensesim_version(HUBBLE_LIKE, exposure=5400.0)

_PRESETS = {
    "common_test": COMMON_TEST,
    "varied": VARIED,
    "model_1": MODEL_1,
    "model_2": MODEL_2,
    "model_3": MODEL_3,
    "euclid_like": EUCLID_LIKE,
    "hubble_like": HUBBLE_LIKE,
}


def preset(name: str) -> Preset:
    """Returns the preset with the given name.

    Args:
      name: "common_test", "varied", "model_1", "model_2", "model_3", "euclid_like" or "hubble_like".

    Raises:
      UserError: if no preset has that name.
    """
    if name not in _PRESETS:
        near = difflib.get_close_matches(name, _PRESETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        names = ", ".join(_PRESETS)
        raise UserError(f"unknown simulation preset {name!r}; expected one of {names}{hint}")
    return _PRESETS[name]
