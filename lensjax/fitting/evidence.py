"""Bayesian evidence for no substructure, point masses and a line of masses in an image."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from lensjax.errors import UserError
from lensjax.fitting.evidence_fit import (
    COARSE,
    FINE,
    NO_MASSES,
    MassFit,
    Target,
    evaluate,
    log_det,
    normal_matrix,
)
from lensjax.fitting.evidence_line import (
    NUM_STARTS,
    einstein_radius,
    fit_line,
    line_bank,
    line_log_evidence,
    line_target,
    starting_lines,
)
from lensjax.fitting.evidence_masses import (
    Modes,
    deflection_modes,
    mass_grid,
    mass_map,
    masses_log_evidence,
    mode_response,
)
from lensjax.fitting.evidence_pixels import Window, bin_image, central_window, source_image
from lensjax.fitting.model import SmoothModel
from lensjax.fitting.noise import variance
from lensjax.fitting.presets import COMMON_TEST
from lensjax.fitting.result import LensFit
from lensjax.fitting.solve import invert_normal_matrix, normal_priors
from lensjax.fitting.types import Free, Image, Mask, Number
from lensjax.physics.precision import full_precision
from lensjax.physics.substructure import SubstructurePrior, VortexPrior

# A line is fitted from more starts if the log evidence for masses is positive and that for the line exceeds
# it by less than _CLEAR, although the line explains most of the residual: the excess of chi-square over the
# number of pixels is below _MIN_EXCESS plus the fraction _UNEXPLAINED of the excess for the smooth lens.
_CLEAR, _UNEXPLAINED, _MIN_EXCESS = 10.0, 0.15, 100.0
# Maximizes the likelihood of the classes of 4,320 simulated images of common_test:
# python tools/studies/likelihood_ratio.py --split validation --images 1440
_TEMPERATURE = 1.66
_ACCELERATOR_BATCH_SIZE = 16  # images; CPUs process one at a time


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Evidence:
    """Evidence for each kind of substructure.

    Attributes:
      log_ratios: log evidence for no substructure, point masses and a line of masses, relative to no
        substructure; all 0 if the evidence of an image cannot be computed.
      masses: mass map, assuming point masses: posterior mean of the squared Einstein radius at each
        of `mass_nodes`, arcsec^2.
      line: best-fit line: mass fraction (see `physics.VortexPrior`), length (arcsec), angle (radians), x
        and y (arcsec).
      line_errors: standard deviations of the five parameters of the line in the joint fit (Laplace
        approximation); not meaningful for a parameter at a bound of its prior.
      line_chi_square: chi-square of the joint fit of smooth lens and line, on pixels binned 2 x 2.
      smooth_chi_square: chi-square of the smooth lens alone, on the same pixels.
      pixels: number of valid binned pixels.
      masses_chi_square: chi-square of the joint fit of smooth lens and the detectable masses.
      heavy_masses: squared Einstein radius (arcsec^2; 0 if there are fewer masses), x and y (arcsec) of the
        detectable masses in that fit.
    """

    log_ratios: Float[Array, "*batch 3"]
    masses: Float[Array, "*batch nodes"]
    line: Float[Array, "*batch 5"]
    line_errors: Float[Array, "*batch 5"]
    line_chi_square: Float[Array, "*batch"]
    smooth_chi_square: Float[Array, "*batch"]
    pixels: Float[Array, "*batch"]
    masses_chi_square: Float[Array, "*batch"]
    heavy_masses: Float[Array, "*batch number 3"]

    def probabilities(self) -> Float[Array, "*batch 3"]:
        """Posterior probabilities of the three classes, with equal prior probabilities.

        The log ratios are divided by a temperature that accounts for the errors of the approximations. It was
        determined from simulated images of `common_test`.
        """
        return jax.nn.softmax(self.log_ratios / _TEMPERATURE, axis=-1)


def mass_nodes(prior: SubstructurePrior) -> Float[np.ndarray, "nodes 2"]:
    """Coordinates of the nodes of `Evidence.masses`.

    Args:
      prior: prior on the substructure.

    Returns:
      X and y of each node, arcsec.
    """
    return mass_grid(prior)[0]


def class_evidence(
    images: Float[ArrayLike, "batch height width 1"],
    fit: LensFit,
    prior: SubstructurePrior,
    model: SmoothModel = COMMON_TEST,
    *,
    mask: Float[ArrayLike, "batch height width 1"] | Bool[ArrayLike, "batch height width 1"] | None = None,
) -> Evidence:
    """Computes the evidence for each kind of substructure in each image, without training.

    A pure function that works under `jax.jit`. A parameter of the smooth lens has a flat prior unless the
    model defines a normal prior for it.

    Args:
      images: the images that were fitted.
      fit: result of `fit_lens` with the same model.
      prior: prior on the substructure.
      model: smooth model.
      mask: 1 or True for valid pixels; if None, all pixels are valid.

    Returns:
      The evidence. All values are finite.

    Raises:
      UserError: if the images and the fitted images differ in shape, the model has lens light, or the
        prior on vortices is not a `VortexPrior`.
    """
    if not isinstance(prior.vortex, VortexPrior):
        kind = type(prior.vortex).__name__
        raise UserError(f"class_evidence supports only a VortexPrior, not {kind}")
    if model.lens.lens_light:
        raise UserError("the evidence for models with lens light is not implemented; subtract the lens light")
    images = jnp.asarray(images)
    if images.shape != fit.residual.shape:
        raise UserError(
            f"images have shape {images.shape}, but the fitted images have {fit.residual.shape}; "
            "pass the images that were fitted"
        )
    valid = (
        jnp.ones(images.shape, bool)
        if mask is None
        else jnp.broadcast_to(jnp.asarray(mask) > 0, images.shape)
    )
    free, linear = (
        jnp.stack([jnp.asarray(fit.parameters[name]) for name in names], axis=-1)
        for names in (model.nonlinear, model.linear)
    )
    window = central_window(model, images.shape[1:3])
    fields, (lines, fractions) = deflection_modes(window, prior), line_bank(prior)
    *mode_tables, line_table, line_amplitudes = (
        jnp.asarray(table, images.dtype) for table in (*fields, lines, fields[-1] @ fractions.T)
    )
    tables = Modes(*mode_tables), line_table, line_amplitudes
    noise = jnp.asarray(fit.gain), jnp.asarray(fit.background_variance)
    return _batch_evidence(window, prior, images[..., 0], valid[..., 0], free, linear, noise, tables)


@functools.partial(jax.jit, static_argnames=("window", "prior"))
@full_precision
def _batch_evidence(
    window: Window,
    prior: SubstructurePrior,
    images: Array,
    valid: Array,
    free: Array,
    linear: Array,
    noise: tuple[Array, Array],
    tables: tuple[Modes, Array, Array],
) -> Evidence:
    image_evidence = functools.partial(_image_evidence, window, prior, tables)
    rows = images, valid, free, linear, *noise

    def evidence(*rows: Array, batch_size: int | None) -> Evidence:
        return jax.lax.map(lambda row: image_evidence(*row), rows, batch_size=batch_size)

    return jax.lax.platform_dependent(
        *rows,
        cpu=functools.partial(evidence, batch_size=None),
        default=functools.partial(evidence, batch_size=_ACCELERATOR_BATCH_SIZE),
    )


@functools.partial(jax.jit, static_argnames=("window", "prior"), inline=True)  # traced once for all platforms
def _image_evidence(
    window: Window,
    prior: SubstructurePrior,
    tables: tuple[Modes, Array, Array],
    image: Image,
    valid: Mask,
    free: Free,
    linear: Float[Array, "2"],
    gain: Number,
    background: Number,
) -> Evidence:
    modes, lines, line_amplitudes = tables
    model, (amp, sky), line = window.model, linear, prior.vortex
    assert isinstance(line, VortexPrior)
    valid = valid & jnp.isfinite(image)
    usable = jnp.isfinite(amp) & (amp > 0) & (background > 0) & (valid.sum() > len(model.names))
    # Brightness is in units of the amplitude from here on, so that squares do not overflow float32.
    unit = jnp.where(usable, amp, 1)
    image = (jnp.where(valid, image, sky) - sky) / unit
    gain, background = gain / unit, jnp.where(usable, background, 1) / unit**2
    pixels, number = bin_image(window, image, valid)
    source = source_image(window, window.dense, free)
    weight = number / variance(source, gain, background)

    endless = jnp.full_like(free, jnp.inf)
    corrections = jnp.stack([source - source_image(window, per_bin, free) for per_bin in (COARSE, FINE)])
    priors = normal_priors(model, image.dtype)
    target = Target(pixels, weight, *priors, -endless, endless, corrections)
    theta = jnp.concatenate([free, jnp.asarray([1, 0], image.dtype)])
    smooth = evaluate(window, NO_MASSES, target, theta, FINE)
    response = mode_response(window, modes, target, smooth)
    masses_log_ratio, masses_chi_square, heavy = masses_log_evidence(
        window, modes, response, target, smooth, prior.subhalos
    )
    starts = starting_lines(response, lines, line_amplitudes, line, einstein_radius(model, free), NUM_STARTS)
    smooth_log_det = log_det(normal_matrix(target, smooth))

    def line_evidence(fit: MassFit) -> Array:
        return line_log_evidence(fit, target, response.chi_square, smooth_log_det, line)

    def is_unclear(fit: MassFit) -> Array:
        excess, smooth_excess = (
            chi_square - (number > 0).sum() for chi_square in (fit.chi_square, response.chi_square)
        )
        explains_most = excess < _UNEXPLAINED * smooth_excess + _MIN_EXCESS
        return (masses_log_ratio > 0) & explains_most & (line_evidence(fit) < masses_log_ratio + _CLEAR)

    line_fit = fit_line(window, line, target, smooth, starts, is_unclear)
    line_log_ratio = line_evidence(line_fit)
    covariance = invert_normal_matrix(normal_matrix(line_target(target, line), line_fit))
    line_errors = jnp.sqrt(jnp.maximum(jnp.diagonal(covariance), 0))
    ratios = jnp.stack([jnp.zeros_like(masses_log_ratio), masses_log_ratio, line_log_ratio])
    usable = usable & jnp.isfinite(ratios).all()
    return Evidence(
        jnp.where(usable, ratios, 0),
        _zero_if_not_finite(mass_map(modes, response, prior.subhalos)),
        _zero_if_not_finite(line_fit.theta[len(free) : -2]),
        _zero_if_not_finite(line_errors[len(free) : -2]),
        _zero_if_not_finite(line_fit.chi_square),
        _zero_if_not_finite(response.chi_square),
        (number > 0).sum().astype(image.dtype),
        _zero_if_not_finite(masses_chi_square),
        _zero_if_not_finite(heavy),
    )


def _zero_if_not_finite(value: Array) -> Array:
    return jnp.where(jnp.isfinite(value), value, 0)
