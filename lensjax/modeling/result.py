"""Result of a fit of a lens model."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lensjax.json_text import encode_json
from lensjax.modeling.frame import Frame
from lensjax.modeling.model import LensModel
from lensjax.modeling.verdict import Verdict


@dataclasses.dataclass(frozen=True, eq=False)
class LensModelFit:
    """A fitted lens model. Images are those of the fitted part of the observation, in its unit.

    Attributes:
      model: the model.
      parameters: values of all parameters by name, such as "mass.0.theta_E"; lengths in arcsec, and positions
        relative to the center of the observation, x along columns and y along rows.
      names: names of the parameters in the covariance, in its order: the fitted ones, without chosen ones.
      covariance: covariance of these parameters for the measured correlation of the noise, multiplied by the
        mean squared residual in the arcs, relative to the blank sky, if this is above 1 [names, names].
      amplitudes: linear amplitudes of the foreground light, the sky and the source, in the unit of the image.
      frame: the fitted pixels.
      image: the observed image [rows, columns].
      noise: standard deviations [rows, columns], which include the error of the model of the foreground
        light; infinite for pixels that were not used.
      lens_light, sky, lensed_source: images of the parts of the model [rows, columns].
      artifacts: True for pixels of artifacts and neighboring galaxies, which the fit masked [rows, columns].
      chi_square: sum of the squared standardized residuals.
      degrees_of_freedom: number of pixels used minus number of fitted parameters and amplitudes; regularized
        amplitudes count by the part that the data determine.
      sky_variance: mean squared standardized residual of the blank sky; 1 if it was not measured.
      detection: significance of the lensed source, standard deviations.
      radii: Einstein radius for each model of the source and strength of the priors, arcsec.
      others: Einstein radius (arcsec) and cost relative to the best, of other solutions.
      verdict: "good", "doubtful" or "failed", and reasons.
      notes: what was estimated or assumed.
    """

    model: LensModel
    parameters: dict[str, float]
    names: tuple[str, ...]
    covariance: np.ndarray
    amplitudes: np.ndarray
    frame: Frame
    image: np.ndarray
    noise: np.ndarray
    lens_light: np.ndarray
    sky: np.ndarray
    lensed_source: np.ndarray
    artifacts: np.ndarray
    chi_square: float
    degrees_of_freedom: int
    sky_variance: float
    detection: float
    radii: dict[str, float]
    others: tuple[tuple[float, float], ...]
    verdict: Verdict
    notes: tuple[str, ...]

    @property
    def einstein_radius(self) -> float:
        """Einstein radius of the main lens, arcsec."""
        return self.parameters["mass.0.theta_E"]

    @property
    def standard_errors(self) -> dict[str, float]:
        """Standard error of each fitted parameter, by name."""
        deviations = np.sqrt(np.maximum(np.diag(self.covariance), 0))
        return dict(zip(self.names, map(float, deviations), strict=True))

    @property
    def model_image(self) -> np.ndarray:
        """Image of the whole model [rows, columns]."""
        return self.lens_light + self.sky + self.lensed_source

    @property
    def residual(self) -> np.ndarray:
        """Residual in standard deviations; 0 for pixels that were not used [rows, columns]."""
        return (self.image - self.model_image) / self.noise

    @property
    def reduced_chi_square(self) -> float:
        """Chi-square per degree of freedom, relative to the variance of the blank sky."""
        return self.chi_square / (max(self.degrees_of_freedom, 1) * self.sky_variance)

    def deflection(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Deflection of the lens at x and y, arcsec."""
        return self.model.deflection(x, y, self.parameters)

    def source(self, beta_x: np.ndarray, beta_y: np.ndarray) -> np.ndarray:
        """Brightness of the source, neither lensed nor blurred, in the unit of the image.

        Args:
          beta_x, beta_y: positions in the source plane [rows, columns], arcsec.
        """
        x, y = (jnp.asarray(each, jnp.float32) for each in (beta_x, beta_y))
        columns = np.asarray(self.model.unlensed_columns(x, y, self.parameters), np.float64)
        return np.tensordot(self.amplitudes[-len(columns) :], columns, 1)

    def to_lenstronomy(self) -> dict[str, Any]:
        """The model as lenstronomy's lists of profiles and their arguments.

        Positions are relative to the center of the observation. Amplitudes are those of the brightness per
        square arcsec, which lenstronomy multiplies by the area of a pixel. The sky is not exported.
        """
        return self.model.to_lenstronomy(self.parameters, self.amplitudes / self.frame.pixel_scale**2)

    def row(self) -> dict[str, Any]:
        """The result as a row of a table: verdict, reasons, parameters, errors and quality of the fit."""
        errors = self.standard_errors
        row: dict[str, Any] = {"verdict": self.verdict.name, "reasons": "; ".join(self.verdict.reasons)}
        for name, value in self.parameters.items():
            row[name] = value
            if name in errors:
                row[f"{name}_error"] = errors[name]
        return row | {
            "reduced_chi_square": self.reduced_chi_square,
            "detection": self.detection,
            "masked_pixels": int(self.artifacts.sum()),
            "notes": "; ".join(self.notes),
        }

    def to_json(self) -> str:
        """Model, parameters, errors and verdict as JSON, with the model in lenstronomy's terms.

        Values that are not finite are null.
        """
        content = {
            **self.row(),
            "covariance": {"names": self.names, "values": self.covariance.tolist()},
            "theta_E_by_source": self.radii,
            "frame": self.frame._asdict(),
            "lenstronomy": self.to_lenstronomy(),
        }
        return encode_json(content, indent=2)
