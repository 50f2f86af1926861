"""Lens models by name: the assumptions of a fit to simulated images, as plain data to copy and modify."""

import dataclasses
import math

from lensjax.errors import UserError
from lensjax.fitting.model import SmoothModel
from lensjax.modeling.components import EPL, SIE, SIS, Sersic, Shear
from lensjax.modeling.model import LensModel
from lensjax.modeling.parameter import Parameter
from lensjax.physics.light import CORE

_ZERO = Parameter.fixed(0.0)

# The DeepLense Common Test and its simulation. Everything known about them is fixed.
COMMON_TEST = SmoothModel(
    lens=LensModel(
        mass=(
            SIS(theta_E=Parameter.fitted((0.8, 1.75), (0.05, 3.5)), center_x=_ZERO, center_y=_ZERO),
            Shear(
                gamma1=Parameter.fitted((0.0, 0.3), (-0.7, 0.7)),
                gamma2=Parameter.fitted((-0.06, 0.0), (-0.7, 0.7)),
            ),
        ),
        source=(
            Sersic(
                center_x=Parameter.fitted((-0.5, 0.5), (-2.0, 2.0)),
                center_y=Parameter.fitted((-0.5, 0.5), (-2.0, 2.0)),
                e1=Parameter.fitted((0.0, 0.4), (-0.7, 0.7)),
                e2=Parameter.fitted((-0.1, 0.0), (-0.7, 0.7)),
                R_sersic=Parameter.fixed(0.5),
                n_sersic=Parameter.fixed(1.5),
                core=CORE,
            ),
        ),
        sky=0,
    ),
    pixel_scale=0.05,
    subpixels=2,
    psf_sigma=0.08675,
    psf_size=11,
)

_LENS_ELLIPTICITY = Parameter.fitted((-0.15, 0.15), (-0.6, 0.6))
_LENS_CENTER = Parameter.fitted((-0.05, 0.05), (-0.5, 0.5))
_SHEAR = Parameter.fitted((-0.2, 0.2), (-0.7, 0.7))
_SOURCE_ELLIPTICITY = Parameter.fitted((-0.4, 0.4), (-0.7, 0.7))

# A power-law lens near the center of the image. Only the pixels and the point-spread function are fixed.
GENERAL = dataclasses.replace(
    COMMON_TEST,
    lens=LensModel(
        mass=(
            EPL(
                theta_E=Parameter.fitted((0.6, 2.0), (0.05, 3.5)),
                gamma=Parameter.fitted((1.8, 2.2), (1.3, 2.7), prior=(2.0, 0.2)),
                e1=_LENS_ELLIPTICITY,
                e2=_LENS_ELLIPTICITY,
                center_x=_LENS_CENTER,
                center_y=_LENS_CENTER,
            ),
            Shear(gamma1=_SHEAR, gamma2=_SHEAR),
        ),
        source=(
            dataclasses.replace(
                COMMON_TEST.lens.source[0],
                e1=_SOURCE_ELLIPTICITY,
                e2=_SOURCE_ELLIPTICITY,
                R_sersic=Parameter.fitted((0.15, 0.8), (0.02, 3.0)),
                n_sersic=Parameter.fitted((0.8, 2.5), (0.3, 10.0)),
            ),
        ),
        sky=0,
    ),
)

_LIGHT_CENTER = Parameter.fitted((-0.05, 0.05), (-0.25, 0.25), prior=(0.0, 0.1))
_LIGHT_ELLIPTICITY = dataclasses.replace(_LENS_ELLIPTICITY, prior=(0.0, 0.15))

# The same with the light of the lens. The priors determine the shape of the light if the lens is dark; the
# bounds keep it away from the arcs, where it would fit substructure.
VARIED = dataclasses.replace(
    GENERAL,
    lens=dataclasses.replace(
        GENERAL.lens,
        lens_light=(
            Sersic(
                center_x=_LIGHT_CENTER,
                center_y=_LIGHT_CENTER,
                e1=_LIGHT_ELLIPTICITY,
                e2=_LIGHT_ELLIPTICITY,
                R_sersic=Parameter.fitted((0.2, 0.6), (0.1, 1.0), prior=(0.4, 0.15)),
                n_sersic=Parameter.fitted((1.0, 4.0), (0.7, 6.0), prior=(2.5, 1.0)),
                core=CORE,
            ),
        ),
    ),
)

# DeepLenseSim's Models I to III. Only the position of the source varies. Models II and III have no noise:
# deviations from the smooth lens are expressed in units of NOISE_FREE_RMS.
NOISE_FREE_RMS = 0.02
_FWHM = 2 * math.sqrt(2 * math.log(2))
_SOURCE_POSITION = Parameter.fitted((-0.35, 0.35), (-1.0, 1.0))
MODEL_1 = SmoothModel(
    lens=LensModel(
        mass=(
            SIE(
                theta_E=Parameter.fixed(1.281490),
                e1=Parameter.fixed(0.1),
                e2=_ZERO,
                center_x=_ZERO,
                center_y=_ZERO,
            ),
            Shear(gamma1=Parameter.fixed(0.05), gamma2=_ZERO),
        ),
        source=(
            Sersic(
                center_x=_SOURCE_POSITION,
                center_y=_SOURCE_POSITION,
                e1=Parameter.fixed(-0.1),
                e2=Parameter.fixed(0.1),
                R_sersic=Parameter.fixed(0.25),
                n_sersic=Parameter.fixed(1.0),
                core=CORE,
            ),
        ),
        sky=0,
    ),
    pixel_scale=0.05,
    psf_sigma=0.087 / _FWHM,
    psf_size=5,
)


def _noise_free(pixel_scale: float, seeing: float, psf_size: int) -> SmoothModel:
    """Model I with the weaker deflections of Models II and III, another camera, and no noise."""
    model = dataclasses.replace(
        MODEL_1,
        pixel_scale=pixel_scale,
        psf_sigma=seeing / _FWHM,
        psf_size=psf_size,
        noise_rms=NOISE_FREE_RMS,
    )
    scale = 0.633457971  # see lensjax/simulation/presets.py
    return model.with_parameters(
        {"mass.0.theta_E": Parameter.fixed(scale * 1.281490), "mass.1.gamma1": Parameter.fixed(scale * 0.05)}
    )


MODEL_2 = _noise_free(pixel_scale=0.101, seeing=0.16, psf_size=7)
MODEL_3 = _noise_free(pixel_scale=0.08, seeing=0.08, psf_size=5)

_MODELS = {
    "common_test": COMMON_TEST,
    "general": GENERAL,
    "varied": VARIED,
    "model_1": MODEL_1,
    "model_2": MODEL_2,
    "model_3": MODEL_3,
}


def smooth_model(name: str) -> SmoothModel:
    """Returns the model with the given name.

    Args:
      name: "common_test", "general", "varied", "model_1", "model_2" or "model_3".

    Raises:
      UserError: if no model has that name.
    """
    if name not in _MODELS:
        raise UserError(f"unknown lens model {name!r}; expected one of {', '.join(_MODELS)}")
    return _MODELS[name]
