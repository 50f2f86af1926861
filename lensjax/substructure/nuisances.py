"""What can imitate a perturber: changes of fitted parameters and amplitudes, and effects beyond the model."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import ndimage

from lensjax.errors import UserError
from lensjax.modeling.correlation import NoiseCorrelation, measure_correlation
from lensjax.modeling.frame import Data, Frame, convolve_columns, ray_positions, square_psf
from lensjax.modeling.model import LensModel, Prior
from lensjax.modeling.observation import Observation
from lensjax.modeling.parameter import Parameter
from lensjax.modeling.perturbers import Multipole
from lensjax.modeling.result import LensModelFit
from lensjax.modeling.shapelets import Shapelets
from lensjax.modeling.variable_projection import model_columns
from lensjax.physics.precision import full_precision

_ARCS = 0.3  # standard deviations of the noise; pixels with more light of the source are part of the arcs
_WHITE = NoiseCorrelation(1.0, np.ones((1, 1)))
RIDGE = 2e-5  # penalty on amplitudes, in units of the squared norm of a column; as `SHAPELET_RIDGE`


class Nuisances(NamedTuple):
    """Effects that are fitted together with a perturber.

    Attributes:
      multipoles: orders of the multipoles of the main lens.
      multipole_deviation: standard deviation of their strength, in units of the Einstein radius.
      extra_order: additional orders of the shapelets of the source.
      psf_width: relative standard deviation of the width of the point-spread function; 0 if it is known.
    """

    multipoles: tuple[int, ...] = (3, 4)
    multipole_deviation: float = 0.01
    extra_order: int = 2
    psf_width: float = 0.03


USUAL = Nuisances()


class WideModel(NamedTuple):
    """A fitted model with the nuisances added, all 0.

    Attributes:
      model: the model without the priors on combinations of parameters; equal for all fits of the same model.
      priors: all priors on the parameters of the model.
      values: all parameters by name.
      amplitudes: linear amplitudes in units of `unit`.
      active: False for amplitudes that the fit holds at 0.
      frame, data: the pixels; the data are in units of `unit`.
      unit: median noise, in the unit of the image.
      theta_E: Einstein radius of the main lens, arcsec.
    """

    model: LensModel
    priors: tuple[Prior, ...]
    values: dict[str, float]
    amplitudes: np.ndarray
    active: np.ndarray
    frame: Frame
    data: Data
    unit: float
    theta_E: float

    @property
    def free(self) -> np.ndarray:
        """Values of the fitted parameters, in the order of `model.fitted`."""
        return np.array([self.values[name] for name in self.model.fitted], np.float64)


class LinearModel(NamedTuple):
    """First-order model of the standardized residual of a fit. Rows are pixels, then priors and penalties.

    Attributes:
      wide: the model.
      basis: orthonormal basis of the changes that the nuisances can make [rows, number].
      correlated: covariance of the noise times the basis [rows, number].
      covariance: covariance of the noise in the basis [number, number].
      residual: residual that the nuisances cannot explain [rows].
      prior_rows: derivatives of the prior rows with respect to the fitted parameters [priors, fitted].
      correlation: correlation of the noise, in units of the noise of the fit.
    """

    wide: WideModel
    basis: np.ndarray
    correlated: np.ndarray
    covariance: np.ndarray
    residual: np.ndarray
    prior_rows: np.ndarray
    correlation: NoiseCorrelation


def widen(observation: Observation, fit: LensModelFit, nuisances: Nuisances) -> WideModel:
    """Adds multipoles and a more complex source to a fitted model.

    Args:
      observation: the observation.
      fit: its fit.
      nuisances: the effects.

    Returns:
      The model with the additional parameters and amplitudes, all 0.

    Raises:
      UserError: if the source is on a grid of pixels.
    """
    if fit.model.pixel_grid:
        raise UserError("perturbers cannot be searched for with a source on a grid of pixels; use Shapelets")
    used = np.isfinite(fit.noise)
    unit = float(np.median(fit.noise[used]))
    weight = np.where(used, unit / np.where(used, fit.noise, 1), 0)
    data = Data(
        *(np.asarray(each, np.float32) for each in (fit.image / unit, weight, square_psf(observation.psf)))
    )
    model, values = fit.model, dict(fit.parameters)
    strength = Parameter.fitted((0.0, 0.0), (-0.3, 0.3))
    mass, priors = list(model.mass), list(model.all_priors)
    for order in nuisances.multipoles:
        for angle in (0.0, np.pi / (2 * order)):
            prefix = f"mass.{len(mass)}."
            center = Parameter.chosen(0.0, (-6.0, 6.0))
            mass.append(
                Multipole(
                    m=Parameter.fixed(order),
                    a_m=strength,
                    phi_m=Parameter.fixed(angle),
                    center_x=center,
                    center_y=center,
                )
            )
            values |= {f"{prefix}a_m": 0.0, f"{prefix}m": order, f"{prefix}phi_m": angle}
            values |= {
                f"{prefix}center_{axis}": values.get(f"mass.0.center_{axis}", 0.0) for axis in ("x", "y")
            }
            deviation = nuisances.multipole_deviation * fit.einstein_radius
            priors.append(Prior(((f"{prefix}a_m", 1.0),), 0.0, deviation))
    source = tuple(
        dataclasses.replace(each, order=min(each.order + nuisances.extra_order, 30))
        if isinstance(each, Shapelets)
        else each
        for each in model.source
    )
    first = model.amplitudes["lens_light"] + model.amplitudes["sky"]
    parts, position = [fit.amplitudes[:first] / unit], first
    for component, wider in zip(model.source, source, strict=True):
        part = fit.amplitudes[position : position + component.size] / unit
        parts.append(np.pad(part, (0, wider.size - component.size)))
        position += component.size
    amplitudes = np.concatenate(parts)
    wide = dataclasses.replace(model, mass=tuple(mass), source=source, priors=())
    active = (amplitudes != 0) | ~wide.nonnegative
    return WideModel(
        wide, tuple(priors), values, amplitudes, active, fit.frame, data, unit, fit.einstein_radius
    )


def linearize(observation: Observation, fit: LensModelFit, nuisances: Nuisances = USUAL) -> LinearModel:
    """Linearizes a fit in its parameters, amplitudes and nuisances.

    Priors have their own standard deviations, and not the larger weight that they have in a fit.

    Args:
      observation: the observation; its `correlation` is used if that of the residual outside of the arcs
        cannot be measured.
      fit: its fit.
      nuisances: effects that are fitted together with a perturber.

    Returns:
      The first-order model.

    Raises:
      UserError: if the source is on a grid of pixels.
    """
    wide = widen(observation, fit, nuisances)
    correlation = _residual_correlation(fit) or observation.correlation or _WHITE
    factor = correlation.variance_factor
    weight = wide.data.weight.reshape(1, -1).astype(np.float64)
    free, fitted = wide.free, wide.model.fitted
    moved = [number for number, name in enumerate(fitted) if not wide.model.parameters[name].held]
    columns = np.asarray(model_columns(wide.model, wide.frame, wide.data, free), np.float64)[wide.active]
    slopes = np.asarray(
        _slopes(
            wide.model, wide.frame, jnp.asarray(wide.data.psf), _float32(free), _float32(wide.amplitudes)
        ),
        np.float64,
    )
    pixels = [columns.reshape(len(columns), -1) * weight, slopes[moved].reshape(len(moved), -1) * weight]
    if nuisances.psf_width > 0:
        arcs = _width_response(wide, nuisances.psf_width)
        pixels.append(arcs.reshape(1, -1) * weight)
    matrix = np.concatenate(pixels)
    norms = np.linalg.norm(matrix[: len(columns)], axis=1)
    # Priors count as much as their standard deviations and the noise imply.
    deviations, rows = _prior_rows(wide)
    scale = np.sqrt(factor)
    total = len(matrix)
    below = np.zeros((len(rows) + len(columns) + (nuisances.psf_width > 0), total))
    below[: len(rows), len(columns) : len(columns) + len(moved)] = scale * rows[:, moved]
    below[len(rows) : len(rows) + len(columns), : len(columns)] = np.diag(np.sqrt(RIDGE) * norms)
    if nuisances.psf_width > 0:
        below[-1, -1] = scale
    offsets = np.zeros(len(below))
    offsets[: len(rows)] = -scale * deviations
    offsets[len(rows) : len(rows) + len(columns)] = -np.sqrt(RIDGE) * norms * wide.amplitudes[wide.active]
    augmented = np.concatenate([matrix.T, below])
    basis = _orthonormal(augmented)
    residual = np.concatenate([fit.residual.ravel(), offsets])
    residual = residual - basis @ (basis.T @ residual)
    shape = wide.frame.rows, wide.frame.columns
    number = weight.size
    correlated = basis * factor
    of_pixels = correlation.apply(basis[:number].T.reshape(-1, *shape))
    correlated[:number] = of_pixels.reshape(basis.shape[1], -1).T
    return LinearModel(wide, basis, correlated, basis.T @ correlated, residual, scale * rows, correlation)


class _Residual(NamedTuple):
    """Standardized residual of a fit as an image from which the correlation of the noise is measured."""

    image: np.ndarray
    noise: np.ndarray
    valid: np.ndarray


def _residual_correlation(fit: LensModelFit) -> NoiseCorrelation | None:
    """Correlation of the residual outside of the arcs.

    Unlike the sky of a small image, it does not contain the light of the lens.
    """
    outside = np.isfinite(fit.noise) & (fit.lensed_source < _ARCS * fit.noise)
    return measure_correlation(_Residual(fit.residual, np.ones_like(fit.residual), outside))


def _orthonormal(matrix: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the columns of a matrix, without directions of rounding errors."""
    norms = np.linalg.norm(matrix, axis=0)
    unit = matrix[:, norms > 0] / norms[norms > 0]
    values, vectors = np.linalg.eigh(unit.T @ unit)
    kept = values > 1e-9 * values.max()
    return np.linalg.qr(unit @ (vectors[:, kept] / np.sqrt(values[kept])))[0]


def _prior_rows(wide: WideModel) -> tuple[np.ndarray, np.ndarray]:
    """Deviations from the priors in standard deviations, and their derivatives with respect to parameters."""
    index = {name: number for number, name in enumerate(wide.model.fitted)}
    deviations, rows = np.zeros(len(wide.priors)), np.zeros((len(wide.priors), len(index)))
    for number, prior in enumerate(wide.priors):
        total = sum(coefficient * wide.values[name] for name, coefficient in prior.terms) - prior.mean
        deviations[number] = total / prior.deviation
        for name, coefficient in prior.terms:
            if name in index:
                rows[number, index[name]] = coefficient / prior.deviation
    return deviations, rows


def _width_response(wide: WideModel, deviation: float) -> np.ndarray:
    """Change of the image of the lensed source if the point-spread function is wider by a relative amount.

    That of the lens light is part of the error of its model, which the noise includes.
    """
    psf = np.asarray(wide.data.psf, np.float64)
    middle = (np.array(psf.shape) - 1) / 2

    def scaled(factor: float) -> np.ndarray:
        moved = ndimage.affine_transform(
            psf, np.eye(2) / factor, middle - middle / factor, order=3, mode="constant"
        )
        return moved / moved.sum()

    change = (scaled(1 + deviation) - scaled(1 - deviation)) / 2
    unblurred = _rendered_source(wide.model, wide.frame, _float32(wide.free), _float32(wide.amplitudes))
    return np.asarray(convolve_columns(unblurred[None], _float32(change), wide.frame)[0], np.float64)


def _float32(values: Any) -> Array:
    return jnp.asarray(values, jnp.float32)


@partial(jax.jit, static_argnums=(0, 1))
@full_precision
def _rendered_source(model: LensModel, frame: Frame, free: Array, amplitudes: Array) -> Array:
    """Lensed source on the rays of a frame, before the convolution."""
    x, y = ray_positions(frame)
    alone = amplitudes.at[: model.amplitudes["lens_light"]].set(0)
    return model.image(x, y, model.values(free), alone)


@partial(jax.jit, static_argnums=(0, 1))
@full_precision
def _slopes(
    model: LensModel, frame: Frame, psf: Array, free: Array, amplitudes: Array
) -> Float[Array, "fitted rows columns"]:
    """Derivatives of the model image with respect to the fitted parameters, at fixed amplitudes."""
    x, y = ray_positions(frame)

    def image(free: Array) -> Array:
        return model.image(x, y, model.values(free), amplitudes)

    _, slope = jax.linearize(image, free)
    slopes = jax.lax.map(slope, jnp.eye(len(free), dtype=free.dtype), batch_size=8)
    return convolve_columns(slopes, psf, frame)
