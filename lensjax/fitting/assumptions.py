"""Test of the assumptions of a smooth model: the step of a fit in which its fixed parameters are free."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lensjax.fitting.amplitudes import total_light
from lensjax.fitting.model import SmoothModel
from lensjax.fitting.noise import variance
from lensjax.fitting.presets import COMMON_TEST
from lensjax.fitting.rendering import render_with_jacobian
from lensjax.fitting.resolution import Resolution
from lensjax.fitting.result import LensFit
from lensjax.fitting.solve import image_derivatives, invert_normal_matrix, normal_priors, parameter_bounds
from lensjax.fitting.types import Free, Image, Number
from lensjax.modeling.components import SIE, SIS
from lensjax.modeling.parameter import Parameter
from lensjax.physics.precision import full_precision

ASSUMPTIONS = ("R_sersic_shift", "n_sersic_shift", "all_share", "ellipticity_share", "psf_share")
_SHIFTED = ("source.0.R_sersic", "source.0.n_sersic")
_ELLIPTICITY = ("mass.0.e1", "mass.0.e2")
_FREED = (*_SHIFTED, *_ELLIPTICITY, "mass.0.center_x", "mass.0.center_y")
_FREE = Parameter.fitted((0.0, 1.0), (-10.0, 10.0))
_PSF = "psf_width"
_WHITE_DECREASE = 50.0  # far more than the decrease in chi-square from 7 more parameters in white noise
_BATCH_SIZE = 8
_UNKNOWN = 1e9  # value of a test that fails, far from those of valid fits


def assumption_tests(fit: LensFit, model: SmoothModel = COMMON_TEST) -> dict[str, Float[np.ndarray, " n"]]:
    """Tests whether an image contradicts what a smooth model assumes, to first order.

    Takes one Gauss-Newton step from the optimum of the fit, in which further parameters are free: ellipticity
    and center of the main lens, radius and Sersic index of the source, and the width of the point-spread
    function. Substructure leaves a local residual, of which these parameters explain only a part. A wrong
    assumption shifts its parameter to the correct value, and the step explains the residual. Parameters that
    the model already fits have small steps, and explain nothing.

    Args:
      fit: fits of n images.
      model: the model that was fitted.

    Returns:
      One value per fit for each name in `ASSUMPTIONS`; NaN for fits that did not converge, and 1e9 or -1e9 in
      place of other values that are not finite. `R_sersic_shift` (arcsec) and `n_sersic_shift` are the steps
      of the source's radius and index. `all_share` is the decrease in chi-square, divided by the excess of
      chi-square over its expectation; `ellipticity_share` is the same if only the ellipticity of the lens is
      free; and `psf_share` is the decrease if only the width of the point-spread function is free, divided by
      that of all. The divisors are increased by the decrease and excess that white noise may have, so that
      the shares of white noise are near 0.
    """
    wider = _free_model(model)
    amp = np.where(fit.converged, fit.parameters["source.0.amp"], 1)
    sphere = dict.fromkeys(_ELLIPTICITY, np.zeros(len(amp)))
    values = [(sphere | fit.parameters)[name] for name in wider.nonlinear]
    amplitudes = [fit.parameters[name] / amp for name in model.linear]
    inputs = (
        np.stack(values, 1).astype(fit.residual.dtype),
        np.stack(amplitudes, 1).astype(fit.residual.dtype),
        np.asarray(fit.residual[..., 0]),
        fit.gain / amp,
        fit.background_rms / amp,
    )
    found = np.full((len(amp), len(ASSUMPTIONS)), np.nan)
    converged = np.flatnonzero(fit.converged)
    for first in range(0, len(converged), _BATCH_SIZE):
        rows = converged[first : first + _BATCH_SIZE]
        padded = np.resize(rows, _BATCH_SIZE)  # to avoid a second compilation
        found[rows] = _test_batch(wider, model.nonlinear, *(each[padded] for each in inputs))[: len(rows)]
    return dict(zip(ASSUMPTIONS, found.T, strict=True))


@functools.lru_cache(maxsize=8)
def _free_model(model: SmoothModel) -> SmoothModel:
    """The model with all tested parameters free; a sphere becomes an ellipsoid of ellipticity 0."""
    main, *others = model.lens.mass
    if isinstance(main, SIS):
        zero = Parameter.fixed(0.0)
        main = SIE(theta_E=main.theta_E, e1=zero, e2=zero, center_x=main.center_x, center_y=main.center_y)
    wider = dataclasses.replace(model, lens=dataclasses.replace(model.lens, mass=(main, *others)))
    known = wider.lens.parameters
    return wider.with_parameters({name: _FREE for name in _FREED if not known[name].free})


@functools.partial(jax.jit, static_argnames=("wider", "fitted"))
@full_precision
def _test_batch(
    wider: SmoothModel, fitted: tuple[str, ...], *inputs: Array
) -> Float[Array, "batch assumptions"]:
    return jax.vmap(functools.partial(_test_one, wider, fitted))(*inputs)


def _test_one(
    model: SmoothModel,
    fitted: tuple[str, ...],
    free: Free,
    linear: Float[Array, " linear"],
    residual: Image,
    gain: Number,
    rms: Number,
) -> Float[Array, " assumptions"]:
    """Values of `ASSUMPTIONS`, for a source of amplitude 1; masked pixels have a residual of exactly 0."""
    columns, jacobian = render_with_jacobian(model, Resolution.native(model, residual.shape), free)
    flux = total_light(columns, linear)
    # An amplitude of 0 is at its bound, and stays there.
    columns = columns * (linear[:-1] > 0)[:, None, None]
    # Blurring obeys the diffusion equation: the derivative with respect to half the squared width is the
    # Laplacian.
    padded = jnp.pad(flux, 1, mode="edge")
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * flux
    names = (_PSF, *model.names)
    derivatives = jnp.stack([laplacian, *image_derivatives(model, columns, jacobian, linear)])
    valid = residual != 0
    weight = jnp.where(valid, 1 / jnp.sqrt(variance(flux, gain, rms**2)), 0)
    weighted = (derivatives * weight[None]).reshape(len(names), -1)
    means, precisions = normal_priors(model, free.dtype)
    pad = (1, len(linear))
    matrix = weighted @ weighted.T + jnp.diag(jnp.pad(precisions, pad))
    gradient = weighted @ residual.ravel() + jnp.pad((means - free) * precisions, pad)
    low, high = parameter_bounds(model, free.dtype)
    pull = gradient[1 : 1 + len(free)]
    held = jnp.pad(((free <= low) & (pull < 0)) | ((free >= high) & (pull > 0)), pad)
    matrix = jnp.where(held[:, None] | held[None, :], 0, matrix)
    gradient = jnp.where(held, 0, gradient)

    def step(freed: tuple[str, ...]) -> tuple[Float[Array, " some"], Number]:
        """Step of the freed and the fitted parameters, and the decrease in chi-square."""
        chosen = np.array([names.index(name) for name in dict.fromkeys((*freed, *fitted, *model.linear))])
        found = invert_normal_matrix(matrix[chosen[:, None], chosen]) @ gradient[chosen]
        return found, gradient[chosen] @ found

    shifts, decrease = step((*_FREED, _PSF))
    pixels = valid.sum()
    excess = jnp.maximum((residual**2).sum() - pixels, 0) + 3 * jnp.sqrt(2.0 * pixels)
    shares = [decrease / excess, step(_ELLIPTICITY)[1] / excess]
    shares.append(step((_PSF,))[1] / (decrease + _WHITE_DECREASE))
    values = jnp.stack([*shifts[: len(_SHIFTED)], *shares])
    return jnp.nan_to_num(values, nan=_UNKNOWN, posinf=_UNKNOWN, neginf=-_UNKNOWN)
