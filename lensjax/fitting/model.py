"""The smooth lens model as plain data: fixed and fitted parameters with their bounds."""

import dataclasses
import math
from typing import Literal

from lensjax.errors import UserError
from lensjax.modeling.parameter import Parameter

MainLens = Literal["sis", "sie", "epl"]

LENS = ("theta_E", "gamma", "lens_e1", "lens_e2", "lens_x", "lens_y", "gamma1", "gamma2")
SOURCE = ("source_x", "source_y", "source_e1", "source_e2", "R_sersic", "n_sersic")
LINEAR = ("amp", "sky")


_ZERO, _ISOTHERMAL = Parameter.fixed(0.0), Parameter.fixed(2.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmoothModel:
    """Smooth model: a main lens with external shear, an elliptical Sersic source and a constant sky.

    The amplitude of the source and the sky are always fitted; their only bound is amp >= 0.

    Attributes:
      main_lens: "sis" (singular isothermal sphere), "sie" (ellipsoid) or "epl" (elliptical power law).
      pixel_scale: side of a pixel, arcsec.
      subpixels: rays per pixel along each axis.
      psf_sigma: standard deviation of the Gaussian point-spread function, arcsec.
      psf_size: height and width of its kernel, pixels; odd.
      theta_E: Einstein radius, arcsec.
      gamma: slope of the density profile of an "epl"; 2 is isothermal.
      lens_e1, lens_e2: ellipticity of an "sie" or "epl".
      lens_x, lens_y: center of the lens, arcsec.
      gamma1, gamma2: external shear, about the center of the image.
      source_x, source_y: center of the source, arcsec.
      source_e1, source_e2: ellipticity of the source.
      R_sersic: half-light radius of the source, arcsec.
      n_sersic: Sersic index of the source.
    """

    main_lens: MainLens
    pixel_scale: float
    subpixels: int = 1
    psf_sigma: float
    psf_size: int
    theta_E: Parameter
    gamma: Parameter = _ISOTHERMAL
    lens_e1: Parameter = _ZERO
    lens_e2: Parameter = _ZERO
    lens_x: Parameter = _ZERO
    lens_y: Parameter = _ZERO
    gamma1: Parameter = _ZERO
    gamma2: Parameter = _ZERO
    source_x: Parameter
    source_y: Parameter
    source_e1: Parameter = _ZERO
    source_e2: Parameter = _ZERO
    R_sersic: Parameter
    n_sersic: Parameter

    def __post_init__(self) -> None:
        if self.main_lens not in ("sis", "sie", "epl"):
            raise UserError(f"main_lens is {self.main_lens!r}; expected 'sis', 'sie' or 'epl'")
        if not 0 < self.pixel_scale < math.inf:
            raise UserError(f"pixel_scale is {self.pixel_scale}; expected a positive number of arcsec")
        if not 0 <= self.psf_sigma < math.inf:
            raise UserError(f"psf_sigma is {self.psf_sigma}; expected 0 or a positive number of arcsec")
        if self.subpixels != int(self.subpixels) or self.subpixels < 1:
            raise UserError(f"subpixels is {self.subpixels}; expected a positive whole number")
        if not self.nonlinear:
            raise UserError("no parameter is fitted; use Parameter.fitted for at least one")
        if self.psf_size % 2 != 1 or self.psf_size < 1:
            raise UserError(f"psf_size is {self.psf_size}; expected an odd number of pixels")
        for name in self.nonlinear:
            if name in unused_parameters(self.main_lens):
                raise UserError(
                    f"{name} is fitted, but main_lens={self.main_lens!r} does not use it; use Parameter.fixed"
                )

    @property
    def nonlinear(self) -> tuple[str, ...]:
        """Names of the fitted parameters, excluding the amplitude and the sky."""
        return tuple(name for name in LENS + SOURCE if getattr(self, name).free)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all fitted parameters, in the order of the covariance."""
        return self.nonlinear + LINEAR


def unused_parameters(main_lens: str) -> tuple[str, ...]:
    """Names of the parameters that a main lens does not use."""
    return {"sis": ("gamma", "lens_e1", "lens_e2"), "sie": ("gamma",), "epl": ()}[main_lens]


# The DeepLense Common Test and its simulation. Everything known about them is fixed.
COMMON_TEST = SmoothModel(
    main_lens="sis",
    pixel_scale=0.05,
    subpixels=2,
    psf_sigma=0.08675,
    psf_size=11,
    theta_E=Parameter.fitted((0.8, 1.75), (0.05, 3.5)),
    gamma1=Parameter.fitted((0.0, 0.3), (-0.7, 0.7)),
    gamma2=Parameter.fitted((-0.06, 0.0), (-0.7, 0.7)),
    source_x=Parameter.fitted((-0.5, 0.5), (-2.0, 2.0)),
    source_y=Parameter.fitted((-0.5, 0.5), (-2.0, 2.0)),
    source_e1=Parameter.fitted((0.0, 0.4), (-0.7, 0.7)),
    source_e2=Parameter.fitted((-0.1, 0.0), (-0.7, 0.7)),
    R_sersic=Parameter.fixed(0.5),
    n_sersic=Parameter.fixed(1.5),
)

# A power-law lens near the center of the image. Only the pixels and the point-spread function are fixed.
GENERAL = dataclasses.replace(
    COMMON_TEST,
    main_lens="epl",
    theta_E=Parameter.fitted((0.6, 2.0), (0.05, 3.5)),
    gamma=Parameter.fitted((1.8, 2.2), (1.3, 2.7), prior=(2.0, 0.2)),
    lens_e1=Parameter.fitted((-0.15, 0.15), (-0.6, 0.6)),
    lens_e2=Parameter.fitted((-0.15, 0.15), (-0.6, 0.6)),
    lens_x=Parameter.fitted((-0.05, 0.05), (-0.5, 0.5)),
    lens_y=Parameter.fitted((-0.05, 0.05), (-0.5, 0.5)),
    gamma1=Parameter.fitted((-0.2, 0.2), (-0.7, 0.7)),
    gamma2=Parameter.fitted((-0.2, 0.2), (-0.7, 0.7)),
    source_e1=Parameter.fitted((-0.4, 0.4), (-0.7, 0.7)),
    source_e2=Parameter.fitted((-0.4, 0.4), (-0.7, 0.7)),
    R_sersic=Parameter.fitted((0.15, 0.8), (0.02, 3.0)),
    n_sersic=Parameter.fitted((0.8, 2.5), (0.3, 6.0)),
)

_MODELS = {"common_test": COMMON_TEST, "general": GENERAL}


def smooth_model(name: str) -> SmoothModel:
    """Returns the model with the given name.

    Args:
      name: "common_test" or "general".

    Raises:
      UserError: if no model has that name.
    """
    if name not in _MODELS:
        raise UserError(f"unknown lens model {name!r}; expected one of {', '.join(_MODELS)}")
    return _MODELS[name]
