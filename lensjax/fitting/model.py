"""Lens models of batch fits: components of a lens and the instrument that observes it."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lensjax.errors import UserError
from lensjax.modeling.arguments import positive_length, whole_number
from lensjax.modeling.components import Sersic
from lensjax.modeling.model import GROUPS, LensModel
from lensjax.modeling.parameter import Parameter

MAX_AMPLITUDES = 4  # the solution for nonnegative amplitudes compares all their subsets
SKY = "sky"
_HINT = "fitting.fit can fit it to one image"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmoothModel:
    """Lens model for batch fits, with a constant sky and a Gaussian point-spread function.

    The model has any mass components, one Sersic source, and up to three Sersic components of lens light. The
    amplitudes of the light and the sky are always fitted; their only bound is that amplitudes are at least 0.

    Attributes:
      lens: components of the model, with `sky=0`.
      pixel_scale: side of a pixel, arcsec.
      subpixels: rays per pixel along each axis.
      psf_sigma: standard deviation of the Gaussian point-spread function, arcsec.
      psf_size: height and width of its kernel, pixels; odd.
      noise_rms: standard deviation of the noise relative to the range of pixel values, for images whose noise
        cannot be estimated, such as noise-free ones; None to estimate the noise and to mask outliers.

    Raises:
      UserError: if a setting is out of its range, or a batch fit cannot fit the lens model.
    """

    lens: LensModel
    pixel_scale: float
    subpixels: int = 1
    psf_sigma: float
    psf_size: int
    noise_rms: float | None = None

    def __post_init__(self) -> None:
        positive_length("pixel_scale", self.pixel_scale)
        if not 0 <= self.psf_sigma < math.inf:
            raise UserError(f"psf_sigma is {self.psf_sigma}; expected 0 or a positive number of arcsec")
        whole_number("subpixels", self.subpixels)
        if whole_number("psf_size", self.psf_size) % 2 == 0:
            raise UserError(f"psf_size is {self.psf_size}; expected an odd number of pixels")
        if self.noise_rms is not None and not 0 < self.noise_rms < math.inf:
            raise UserError(f"noise_rms is {self.noise_rms}; expected a positive number or None")
        if problem := _find_problem(self.lens):
            raise UserError(f"a batch fit cannot fit this lens model: {problem}")

    @property
    def nonlinear(self) -> tuple[str, ...]:
        """Names of the fitted parameters, excluding the amplitudes and the sky."""
        return self.lens.fitted

    @functools.cached_property
    def linear(self) -> tuple[str, ...]:
        """Names of the amplitudes, that of the source last, and of the sky."""
        light = (f"lens_light.{number}.amp" for number in range(len(self.lens.lens_light)))
        return (*light, "source.0.amp", SKY)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all fitted parameters, in the order of the covariance."""
        return self.nonlinear + self.linear

    @functools.cached_property
    def amplitude_of(self) -> np.ndarray:
        """For each of `nonlinear`, the index in `linear` of the amplitude of the light that it changes."""
        groups = [name.split(".") for name in self.nonlinear]
        source = len(self.lens.lens_light)
        return np.array([int(number) if group == "lens_light" else source for group, number, _ in groups])

    def with_parameters(self, parameters: Mapping[str, Parameter]) -> "SmoothModel":
        """The model with some parameters replaced.

        Args:
          parameters: new parameters by name, such as "mass.0.theta_E".

        Raises:
          UserError: if the model has no parameter of that name, or a batch fit cannot fit the new model.
        """
        groups: dict[str, Any] = {group: list(getattr(self.lens, group)) for group in GROUPS}
        for name, parameter in parameters.items():
            if name not in self.lens.parameters:
                raise UserError(f"no parameter {name!r}; expected one of {', '.join(self.lens.parameters)}")
            group, number, field = name.split(".")
            component = groups[group][int(number)]
            groups[group][int(number)] = dataclasses.replace(component, **{field: parameter})
        changed: dict[str, Any] = {group: tuple(components) for group, components in groups.items()}
        return dataclasses.replace(self, lens=dataclasses.replace(self.lens, **changed))


def _find_problem(lens: LensModel) -> str:
    """Why a batch fit cannot fit a model; "" if it can."""
    if not lens.mass:
        return "it has no mass"
    if len(lens.source) != 1 or not isinstance(lens.source[0], Sersic):
        return f"its source is not a single Sersic component; {_HINT}"
    if not all(isinstance(component, Sersic) for component in lens.lens_light):
        return f"its lens light has components other than Sersic; {_HINT}"
    if len(lens.lens_light) >= MAX_AMPLITUDES:
        return f"it has more than {MAX_AMPLITUDES - 1} components of lens light; {_HINT}"
    if lens.sky != 0:
        return "its sky is a plane; set sky=0 for a constant"
    if lens.priors:
        return f"it has priors on combinations of parameters; {_HINT}"
    if not lens.fitted:
        return "no parameter is fitted; use Parameter.fitted for at least one"
    if lens.held.any():
        return f"{lens.fitted[int(np.argmax(lens.held))]} is a chosen parameter; fix it or fit it"
    return ""
