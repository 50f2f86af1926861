"""The smooth lens as plain data: what is known, what is fitted, within which limits."""

import dataclasses
from typing import Literal

from lensjax.errors import UserError

MainLens = Literal["sis", "sie", "epl"]

LENS = ("theta_E", "gamma", "lens_e1", "lens_e2", "lens_x", "lens_y", "gamma1", "gamma2")
SOURCE = ("source_x", "source_y", "source_e1", "source_e2", "R_sersic", "n_sersic")
LINEAR = ("amp", "sky")


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One number of the model, known or to be fitted.

    Attributes:
      value: its value where it is known.
      free: whether it is fitted.
      start: least and largest value that a fit sets out from.
      bounds: least and largest value that a fit may reach.
      prior: mean and standard deviation of a normal prior; None for a flat one.
    """

    value: float = 0.0
    free: bool = False
    start: tuple[float, float] = (0.0, 0.0)
    bounds: tuple[float, float] = (0.0, 0.0)
    prior: tuple[float, float] | None = None


def known(value: float) -> Parameter:
    """A parameter whose value is given."""
    return Parameter(value=value)


def free(
    start: tuple[float, float],
    bounds: tuple[float, float],
    prior: tuple[float, float] | None = None,
) -> Parameter:
    """A parameter to be fitted.

    Args:
      start: least and largest value that a fit sets out from.
      bounds: least and largest value that it may reach.
      prior: mean and standard deviation of a normal prior; a flat one if not given.

    Raises:
      UserError: `start` does not lie within `bounds`, or the prior's width is not positive.
    """
    if not bounds[0] <= start[0] <= start[1] <= bounds[1]:
        raise UserError(f"a parameter's start {start} must lie within its bounds {bounds}")
    if prior is not None and prior[1] <= 0:
        raise UserError(f"a prior's standard deviation must be positive, and is {prior[1]}")
    return Parameter((start[0] + start[1]) / 2, True, start, bounds, prior)


@dataclasses.dataclass(frozen=True)
class SmoothModel:
    """A main lens with external shear before one elliptical Sersic source, on a constant sky.

    The amplitude of the source and the sky are always fitted, and have no limits but amp >= 0.

    Attributes:
      main_lens: singular isothermal sphere, the ellipsoid, or the elliptical power law.
      pixel_scale: side of a pixel, arcsec.
      subpixels: parts of a pixel on each axis at which rays are shot.
      psf_sigma: standard deviation of the Gaussian point-spread function, arcsec.
      psf_size: pixels on each side of its kernel, an odd number.
      theta_E: Einstein radius, arcsec.
      gamma: slope of the density of an "epl"; 2 is isothermal.
      lens_e1, lens_e2: ellipticity of an "sie" or "epl".
      lens_x, lens_y: centre of the lens, arcsec.
      gamma1, gamma2: external shear, about the image's centre.
      source_x, source_y: centre of the source, arcsec.
      source_e1, source_e2: its ellipticity.
      R_sersic: its half-light radius, arcsec.
      n_sersic: its Sersic index.
    """

    main_lens: MainLens
    pixel_scale: float
    subpixels: int
    psf_sigma: float
    psf_size: int
    theta_E: Parameter
    gamma: Parameter
    lens_e1: Parameter
    lens_e2: Parameter
    lens_x: Parameter
    lens_y: Parameter
    gamma1: Parameter
    gamma2: Parameter
    source_x: Parameter
    source_y: Parameter
    source_e1: Parameter
    source_e2: Parameter
    R_sersic: Parameter
    n_sersic: Parameter

    def __post_init__(self) -> None:
        if self.main_lens not in ("sis", "sie", "epl"):
            raise UserError(f"main_lens is {self.main_lens!r}; it can be sis, sie or epl")
        if self.psf_size % 2 != 1 or self.psf_size < 1:
            raise UserError(f"psf_size is {self.psf_size}; it must be an odd number of pixels")
        for name in self.nonlinear:
            if name in unused(self.main_lens):
                raise UserError(
                    f"{name} is free, but main_lens={self.main_lens!r} has none: fix it"
                )

    @property
    def nonlinear(self) -> tuple[str, ...]:
        """Names of the free parameters but the amplitude and the sky."""
        return tuple(name for name in LENS + SOURCE if getattr(self, name).free)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all free parameters, in the order of the covariance."""
        return self.nonlinear + LINEAR


def unused(main_lens: str) -> tuple[str, ...]:
    """Parameters that a main lens does without."""
    return {"sis": ("gamma", "lens_e1", "lens_e2"), "sie": ("gamma",), "epl": ()}[main_lens]


# The images of the DeepLense Common Test and their simulation; what is known of them is known exactly.
COMMON_TEST = SmoothModel(
    main_lens="sis",
    pixel_scale=0.05,
    subpixels=2,
    psf_sigma=0.08675,
    psf_size=11,
    theta_E=free((0.8, 1.75), (0.05, 3.5)),
    gamma=known(2.0),
    lens_e1=known(0.0),
    lens_e2=known(0.0),
    lens_x=known(0.0),
    lens_y=known(0.0),
    gamma1=free((0.0, 0.3), (-0.7, 0.7)),
    gamma2=free((-0.06, 0.0), (-0.7, 0.7)),
    source_x=free((-0.5, 0.5), (-2.0, 2.0)),
    source_y=free((-0.5, 0.5), (-2.0, 2.0)),
    source_e1=free((0.0, 0.4), (-0.7, 0.7)),
    source_e2=free((-0.1, 0.0), (-0.7, 0.7)),
    R_sersic=known(0.5),
    n_sersic=known(1.5),
)

# Nothing is known but pixels and point-spread function: a power law anywhere near the image's centre.
GENERAL = dataclasses.replace(
    COMMON_TEST,
    main_lens="epl",
    theta_E=free((0.6, 2.0), (0.05, 3.5)),
    gamma=free((1.8, 2.2), (1.3, 2.7), prior=(2.0, 0.2)),
    lens_e1=free((-0.15, 0.15), (-0.6, 0.6)),
    lens_e2=free((-0.15, 0.15), (-0.6, 0.6)),
    lens_x=free((-0.05, 0.05), (-0.5, 0.5)),
    lens_y=free((-0.05, 0.05), (-0.5, 0.5)),
    gamma1=free((-0.2, 0.2), (-0.7, 0.7)),
    gamma2=free((-0.2, 0.2), (-0.7, 0.7)),
    source_e1=free((-0.4, 0.4), (-0.7, 0.7)),
    source_e2=free((-0.4, 0.4), (-0.7, 0.7)),
    R_sersic=free((0.15, 0.8), (0.02, 3.0)),
    n_sersic=free((0.8, 2.5), (0.3, 6.0)),
)

MODELS = {"common_test": COMMON_TEST, "general": GENERAL}


def smooth_model(name: str) -> SmoothModel:
    """The preset of that name.

    Raises:
      UserError: there is none; the message names those that there are.
    """
    if name not in MODELS:
        raise UserError(f"no model {name!r} to fit: there is {', '.join(MODELS)}")
    return MODELS[name]
