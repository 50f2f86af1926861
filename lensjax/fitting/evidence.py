"""Bayesian evidence for no substructure, point masses and a line of masses in an image."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from lensjax.errors import UserError
from lensjax.fitting.evidence_line import (
    einstein_radius,
    fit_line,
    line_bank,
    line_log_evidence,
    starting_lines,
)
from lensjax.fitting.evidence_masses import (
    compress,
    mass_grid,
    mass_templates,
    masses_log_evidence,
    project_out,
)
from lensjax.fitting.evidence_pixels import Window, bin_image, central_window, source_image
from lensjax.fitting.model import COMMON_TEST, SmoothModel
from lensjax.fitting.noise import variance
from lensjax.fitting.result import LensFit
from lensjax.fitting.solve import normal_priors
from lensjax.physics.substructure import SubstructurePrior, VortexPrior

_NUM_STARTS = 4
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
      line_chi_square: chi-square of the joint fit of smooth lens and line, on pixels binned 2 x 2.
      smooth_chi_square: chi-square of the smooth lens alone, on the same pixels.
      pixels: number of valid binned pixels.
    """

    log_ratios: Float[Array, "*batch 3"]
    masses: Float[Array, "*batch nodes"]
    line: Float[Array, "*batch 5"]
    line_chi_square: Float[Array, "*batch"]
    smooth_chi_square: Float[Array, "*batch"]
    pixels: Float[Array, "*batch"]

    def probabilities(self) -> Float[Array, "*batch 3"]:
        """Posterior probabilities of the three classes, with equal prior probabilities."""
        return jax.nn.softmax(self.log_ratios, axis=-1)


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

    A pure function, also under `jax.jit`. A parameter of the smooth lens has a flat prior unless the model
    defines a normal prior for it.

    Args:
      images: the images that were fitted.
      fit: result of `fit_lens` with the same model.
      prior: prior on the substructure.
      model: smooth model.
      mask: 1 or True for valid pixels; if None, all pixels are valid.

    Returns:
      The evidence. All values are finite.

    Raises:
      UserError: if the images and the fitted images differ in shape, or the vortices of the prior are
        axion vortices.
    """
    if not isinstance(prior.vortex, VortexPrior):
        raise UserError("the evidence for axion vortices is not implemented; pass a VortexPrior")
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
    free = jnp.stack([jnp.asarray(fit.parameters[name]) for name in model.nonlinear], axis=-1)
    linear = jnp.stack([jnp.asarray(fit.parameters[name]) for name in ("amp", "sky")], axis=-1)
    tables = tuple(table.astype(images.dtype) for table in (*mass_grid(prior), *line_bank(prior)))
    noise = jnp.asarray(fit.gain), jnp.asarray(fit.background_variance)
    return _batch_evidence(model, prior, images[..., 0], valid[..., 0], free, linear, noise, tables)


@functools.partial(jax.jit, static_argnames=("model", "prior"))
def _batch_evidence(
    model: SmoothModel,
    prior: SubstructurePrior,
    images: Array,
    valid: Array,
    free: Array,
    linear: Array,
    noise: tuple[Array, Array],
    tables: tuple[Array, ...],
) -> Evidence:
    window = central_window(model, images.shape[1:])
    image_evidence = functools.partial(_image_evidence, window, prior, tables)
    rows = images, valid, free, linear, *noise

    def evidence(*rows: Array, batch_size: int | None) -> Evidence:
        return jax.lax.map(lambda row: image_evidence(*row), rows, batch_size=batch_size)

    return jax.lax.platform_dependent(
        *rows,
        cpu=functools.partial(evidence, batch_size=None),
        default=functools.partial(evidence, batch_size=_ACCELERATOR_BATCH_SIZE),
    )


def _image_evidence(
    window: Window,
    prior: SubstructurePrior,
    tables: tuple[Array, ...],
    image: Float[Array, "height width"],
    valid: Bool[Array, "height width"],
    free: Float[Array, " nonlinear"],
    linear: Float[Array, "2"],
    gain: Float[Array, ""],
    background: Float[Array, ""],
) -> Evidence:
    positions, mass_fraction, lines, line_fractions = tables
    model, (amp, sky), line = window.model, linear, prior.vortex
    assert isinstance(line, VortexPrior)
    valid = valid & jnp.isfinite(image)
    usable = jnp.isfinite(amp) & (amp > 0) & (background > 0) & (valid.sum() > len(model.names))
    # Brightness is in units of the amplitude from here on, so that squares do not overflow float32.
    unit = jnp.where(usable, amp, 1)
    image = (jnp.where(valid, image, sky) - sky) / unit
    gain, background = gain / unit, jnp.where(usable, background, 1) / unit**2
    pixels, number = bin_image(window, image, valid)
    source = source_image(window, model.subpixels, free)
    weight = number / variance(source, gain, background)

    means, precisions = normal_priors(model, image.dtype)
    jacobian = jax.jacfwd(lambda free: source_image(window, 1, free))(free)
    columns = jnp.concatenate([jacobian, source[..., None], jnp.ones_like(source)[..., None]], axis=-1)
    root = jnp.sqrt(weight)
    columns = (root[..., None] * columns).reshape(-1, len(free) + 2)
    residual = (root * (pixels - source)).ravel()
    # Normal priors enter as additional pixels, which the masses do not affect.
    columns = jnp.concatenate([columns, jnp.pad(jnp.diag(jnp.sqrt(precisions)), ((0, 0), (0, 2)))])
    residual = jnp.concatenate([residual, jnp.sqrt(precisions) * (means - free)])
    templates = jnp.pad(mass_templates(window, free, positions, root), ((0, 0), (0, len(free))))
    residual, templates = (project_out(columns, residual[None])[0], project_out(columns, templates))
    smooth_chi_square = residual @ residual
    residual, templates = compress(residual, templates, mass_fraction)

    masses_log_ratio, mass_map = masses_log_evidence(residual, templates, mass_fraction, prior.subhalos)
    starts = starting_lines(
        residual, templates, lines, line_fractions, line, einstein_radius(model, free), _NUM_STARTS
    )
    unit_linear = jnp.asarray([1, 0], image.dtype)
    line_fit = fit_line(window, line, pixels, weight, free, unit_linear, starts)
    line_log_ratio = line_log_evidence(line_fit, smooth_chi_square, columns.T @ columns, line)
    ratios = jnp.stack([jnp.zeros_like(masses_log_ratio), masses_log_ratio, line_log_ratio])
    usable = usable & jnp.isfinite(ratios).all()
    return Evidence(
        jnp.where(usable, ratios, 0),
        _zero_if_not_finite(mass_map),
        _zero_if_not_finite(line_fit.free[len(free) :]),
        _zero_if_not_finite(line_fit.chi_square),
        _zero_if_not_finite(smooth_chi_square),
        (number > 0).sum().astype(image.dtype),
    )


def _zero_if_not_finite(value: Array) -> Array:
    return jnp.where(jnp.isfinite(value), value, 0)
