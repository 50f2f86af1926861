"""Samples from the posterior of a fitted lens model, to check its standard errors and show degeneracies."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from lensjax.errors import UserError
from lensjax.modeling.correlation import measure_correlation
from lensjax.modeling.frame import Data, Frame, convolve_columns, pixel_positions, ray_positions, square_psf
from lensjax.modeling.model import LensModel
from lensjax.modeling.observation import Observation
from lensjax.modeling.result import LensModelFit
from lensjax.modeling.sources import LATER
from lensjax.modeling.variable_projection import RIDGE
from lensjax.physics.precision import full_precision


class Posterior(NamedTuple):
    """Result of `sample_posterior`.

    Attributes:
      names: names of the fitted parameters.
      samples: values of the parameters, [chains, samples, parameters].
      r_hat: potential scale reduction of each parameter, with each chain split in two, [parameters]; values
        close to 1, at most 1.01 (strict) or 1.05, indicate convergence.
      effective_samples: effective number of independent samples of each parameter, [parameters].
      divergences: number of divergent transitions of the sampler.
    """

    names: tuple[str, ...]
    samples: np.ndarray
    r_hat: np.ndarray
    effective_samples: np.ndarray
    divergences: int

    @property
    def mean(self) -> dict[str, float]:
        """Posterior mean of each parameter."""
        return dict(zip(self.names, self.samples.mean((0, 1)).tolist(), strict=True))

    @property
    def standard_errors(self) -> dict[str, float]:
        """Posterior standard deviation of each parameter."""
        return dict(zip(self.names, self.samples.std((0, 1)).tolist(), strict=True))


def sample_posterior(
    observation: Observation,
    fit: LensModelFit,
    key: Key[Array, ""],
    *,
    chains: int = 4,
    warmup: int = 300,
    samples: int = 500,
) -> Posterior:
    """Samples the posterior of the fitted parameters with the No-U-Turn sampler.

    For each value of the parameters, the linear amplitudes have their best values. Amplitudes that must not
    be negative and are 0 in the fit remain 0; the others may have any sign. Chi-square is divided by the
    variance factor of the correlated noise, and priors have the same weight as in the fit. Values outside of
    the bounds of the model are excluded. The center of shapelets and their amplitudes are nearly degenerate,
    so the samples of the center may not converge; this does not affect those of the mass.

    Args:
      observation: the observation.
      fit: its fit, which gives the starting point and the scale of each direction.
      key: random key.
      chains: number of chains.
      warmup: steps per chain that adapt the sampler and are discarded.
      samples: samples per chain; an even number of at least 4.

    Returns:
      The samples. Check `r_hat` of the parameters of interest.

    Raises:
      UserError: if blackjax is not installed, a number is too small, `samples` is odd, the source is on a
        grid of pixels, a parameter is a chosen one, or the covariance of the fit is not positive definite.
    """
    if chains < 1 or warmup < 1 or samples < 4 or samples % 2:
        raise UserError(
            f"chains={chains}, warmup={warmup}, samples={samples}; expected at least 1, 1, and an even "
            "number of at least 4"
        )
    try:
        import blackjax
        from blackjax.diagnostics import effective_sample_size, potential_scale_reduction
    except ImportError:
        raise UserError("sampling needs blackjax; run: pip install 'lensjax[posterior]'") from None
    if fit.model.pixel_grid:
        raise UserError("the posterior of a source on a grid of pixels cannot be sampled; use Shapelets")
    if fit.model.held.any():
        name = fit.model.fitted[int(np.argmax(fit.model.held))]
        raise UserError(f"{name} is a chosen parameter, which cannot be sampled; fix it or fit it")
    mode = np.array([fit.parameters[name] for name in fit.names])
    try:
        scale = np.linalg.cholesky(fit.covariance)
    except np.linalg.LinAlgError:
        raise UserError("the covariance of the fit is not positive definite; check its verdict") from None
    log_density = _log_density(observation, fit, mode, scale)

    @jax.jit
    @full_precision
    def run(key: Array, start: Array) -> tuple[Array, Array]:
        warm_key, sample_key = jax.random.split(key)
        adaptation = blackjax.window_adaptation(blackjax.nuts, log_density, target_acceptance_rate=0.8)
        (state, settings), _ = adaptation.run(warm_key, start, num_steps=warmup)
        kernel = blackjax.nuts(log_density, **settings).step

        def step(state: Any, key: Array) -> tuple[Any, tuple[Array, Array]]:
            state, info = kernel(key, state)
            return state, (state.position, info.is_divergent)

        _, found = jax.lax.scan(step, state, jax.random.split(sample_key, samples))
        return found

    start_key, run_key = jax.random.split(key)
    starts = jax.random.normal(start_key, (chains, len(mode)), jnp.float32)
    allowed = jax.vmap(log_density)(starts) > -jnp.inf
    starts = jnp.where(allowed[:, None], starts, 0.0)
    offsets, divergent = jax.vmap(run)(jax.random.split(run_key, chains), starts)
    found = mode + np.asarray(offsets, np.float64) @ scale.T
    halves = offsets.reshape(2 * chains, samples // 2, len(mode)) @ jnp.asarray(scale.T, jnp.float32)
    return Posterior(
        fit.names,
        found,
        np.asarray(potential_scale_reduction(halves)),
        np.asarray(effective_sample_size(halves)),
        int(divergent.sum()),
    )


def _log_density(
    observation: Observation, fit: LensModelFit, mode: np.ndarray, scale: np.ndarray
) -> Callable[[Array], Array]:
    """Logarithm of the posterior, a function of the offset from the fit, whitened by its covariance."""
    used = np.isfinite(fit.noise)
    unit, psf = np.median(fit.noise[used]), square_psf(observation.psf)
    weight = np.where(used, unit / fit.noise, 0)
    data = Data(*(np.asarray(each, np.float32) for each in (fit.image / unit, weight, psf)))
    correlation = observation.correlation or measure_correlation(observation)
    factor = correlation.variance_factor if correlation else 1.0
    active = (fit.amplitudes != 0) | ~fit.model.nonnegative
    low, high = fit.model.bounds
    priors = fit.model.all_priors

    def log_density(step: Float[Array, "parameters"]) -> Array:
        offset = jnp.asarray(scale, jnp.float32) @ step
        free = jnp.asarray(mode, jnp.float32) + offset
        values = fit.model.values(free)
        deviations = [
            (sum(coefficient * values[name] for name, coefficient in prior.terms) - prior.mean)
            / prior.deviation
            for prior in priors
        ]
        penalty = LATER.prior_weight * sum(each**2 for each in deviations)
        cost = _profiled_cost(fit.model, fit.frame, data, values, active) / factor + penalty
        inside = jnp.all((free >= low) & (free <= high))
        return jnp.where(inside, -cost / 2, -jnp.inf)

    return log_density


def _profiled_cost(
    model: LensModel, frame: Frame, data: Data, values: dict[str, Any], active: np.ndarray
) -> Array:
    """Chi-square at the best amplitudes.

    There, the derivatives of the amplitudes do not contribute to the derivative of chi-square. They are not
    computed.
    """
    columns = _columns(model, frame, data, values, active)
    target = (data.image * data.weight).reshape(-1)
    unit = columns / jnp.sqrt(jnp.sum(columns**2, axis=1, keepdims=True) + 1e-30)
    fixed = jax.lax.stop_gradient(unit)
    gram = fixed @ fixed.T + RIDGE * jnp.eye(len(fixed), dtype=fixed.dtype)
    amplitudes = jnp.linalg.solve(gram, fixed @ target)
    return jnp.sum((target - amplitudes @ unit) ** 2) + RIDGE * jnp.sum(amplitudes**2)


def _columns(
    model: LensModel, frame: Frame, data: Data, values: dict[str, Any], active: np.ndarray
) -> Float[Array, "active pixels"]:
    """Weighted images of the active amplitudes."""
    x, y = ray_positions(frame)
    light, sky, _ = np.cumsum(list(model.amplitudes.values()))
    parts = (
        model.light_columns(x, y, values)[active[:light]],
        model.source_columns(x, y, values)[active[sky:]],
    )
    blurred = convolve_columns(jnp.concatenate(parts), jnp.asarray(data.psf), frame)
    right, up = pixel_positions(frame)
    plane = np.stack([np.ones_like(right), right - frame.center_x, up - frame.center_y])
    columns = jnp.concatenate([blurred, jnp.asarray(plane[: sky - light], jnp.float32)])
    return columns.reshape(len(columns), -1) * data.weight.reshape(1, -1)
