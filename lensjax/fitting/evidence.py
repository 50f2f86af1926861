"""How likely an image is without substructure, with point masses, and with a line of masses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from lensjax.errors import UserError
from lensjax.fitting import evidence_line as line_of
from lensjax.fitting import evidence_masses as masses_of
from lensjax.fitting.evidence_pixels import Window, binned, source, window
from lensjax.fitting.evidence_prior import SubstructurePrior
from lensjax.fitting.model import COMMON_TEST, SmoothModel
from lensjax.fitting.noise import variance
from lensjax.fitting.result import LensFit
from lensjax.fitting.solve import priors

_STARTS = 4
_AT_ONCE = 16  # images on an accelerator; a CPU takes one after the other


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Evidence:
    """What speaks for each kind of substructure.

    Attributes:
      log_ratios: logarithms of the evidences of no substructure, point masses and a line of masses, over
        that of no substructure; 0 for all three where an image holds nothing to compare.
      masses: where masses are if there are point masses: the posterior mean of their squared Einstein
        radius on each of `mass_nodes`, arcsec^2.
      line: the best line: squared Einstein radius (arcsec^2), length (arcsec), angle, x and y (arcsec).
      line_chi_square: chi-square of smooth lens and line, on pixels of twice the size.
      smooth_chi_square: of the smooth lens.
      pixels: how many such pixels count.
    """

    log_ratios: Float[Array, "*batch 3"]
    masses: Float[Array, "*batch nodes"]
    line: Float[Array, "*batch 5"]
    line_chi_square: Float[Array, "*batch"]
    smooth_chi_square: Float[Array, "*batch"]
    pixels: Float[Array, "*batch"]

    def probabilities(self) -> Float[Array, "*batch 3"]:
        """Of the three, where all are as likely before the image is seen."""
        return jax.nn.softmax(self.log_ratios, axis=-1)


def mass_nodes(prior: SubstructurePrior) -> Float[np.ndarray, "nodes 2"]:
    """X and y of the nodes of `Evidence.masses`, arcsec."""
    return masses_of.nodes(prior)[0]


def class_evidence(
    images: Float[ArrayLike, "batch height width 1"],
    fit: LensFit,
    prior: SubstructurePrior,
    model: SmoothModel = COMMON_TEST,
    *,
    mask: Float[ArrayLike, "batch height width 1"]
    | Bool[ArrayLike, "batch height width 1"]
    | None = None,
) -> Evidence:
    """What speaks for each kind of substructure in each image: no training, only priors.

    Pure, under `jax.jit` too. The smooth lens's parameters have flat priors, or the normal ones of the model.

    Args:
      images: those that were fitted.
      fit: what `fit_lens` found, with the same model.
      prior: of the substructure.
      model: the smooth lens.
      mask: which pixels count, as 1 or True; all if not given.

    Raises:
      UserError: there are not as many images as fits, or they have another shape.
    """
    images = jnp.asarray(images)
    if images.shape != fit.residual.shape:
        raise UserError(
            f"images of shape {images.shape}, and fits of images of shape {fit.residual.shape}; "
            "expected the images that were fitted"
        )
    valid = (
        jnp.ones(images.shape, bool)
        if mask is None
        else jnp.broadcast_to(jnp.asarray(mask) > 0, images.shape)
    )
    free = jnp.stack([jnp.asarray(fit.parameters[name]) for name in model.nonlinear], axis=-1)
    linear = jnp.stack([jnp.asarray(fit.parameters[name]) for name in ("amp", "sky")], axis=-1)
    lines, shares = line_of.bank(prior)
    positions, share = masses_of.nodes(prior)
    tables = tuple(table.astype(images.dtype) for table in (positions, share, lines, shares))
    noise = jnp.asarray(fit.gain), jnp.asarray(fit.background_variance)
    return _batch(model, prior, images[..., 0], valid[..., 0], free, linear, noise, tables)


@functools.partial(jax.jit, static_argnames=("model", "prior"))
def _batch(
    model: SmoothModel,
    prior: SubstructurePrior,
    images: Array,
    valid: Array,
    free: Array,
    linear: Array,
    noise: tuple[Array, Array],
    tables: tuple[Array, ...],
) -> Evidence:
    area = window(model, images.shape[1:])
    one = functools.partial(_one, area, prior, tables)
    rows = images, valid, free, linear, *noise

    def evidence(*rows: Array, at_once: int | None) -> Evidence:
        return jax.lax.map(lambda row: one(*row), rows, batch_size=at_once)

    return jax.lax.platform_dependent(
        *rows,
        cpu=functools.partial(evidence, at_once=None),
        default=functools.partial(evidence, at_once=_AT_ONCE),
    )


def _one(
    area: Window,
    prior: SubstructurePrior,
    tables: tuple[Array, ...],
    image: Float[Array, "height width"],
    valid: Bool[Array, "height width"],
    free: Float[Array, " nonlinear"],
    linear: Float[Array, "2"],
    gain: Float[Array, ""],
    background: Float[Array, ""],
) -> Evidence:
    positions, share, lines, shares = tables
    model, (amp, sky) = area.model, linear
    valid = valid & jnp.isfinite(image)
    # In units of the amplitude, where no square leaves the range of float32.
    usable = jnp.isfinite(amp) & (amp > 0) & (background > 0) & (valid.sum() > len(model.names))
    unit = jnp.where(usable, amp, 1)
    image = (jnp.where(valid, image, sky) - sky) / unit
    gain, background = gain / unit, jnp.where(usable, background, 1) / unit**2
    pixels, number = binned(area, image, valid)
    glow = source(area, model.subpixels, free)
    weight = number / variance(glow, gain, background)

    means, precisions = priors(model, image.dtype)
    slopes = jax.jacfwd(lambda free: source(area, 1, free))(free)
    columns = jnp.concatenate([slopes, glow[..., None], jnp.ones_like(glow)[..., None]], axis=-1)
    root = jnp.sqrt(weight)
    columns = (root[..., None] * columns).reshape(-1, len(free) + 2)
    residual = (root * (pixels - glow)).ravel()
    # Normal priors are pixels of their own, which no mass changes.
    columns = jnp.concatenate([columns, jnp.pad(jnp.diag(jnp.sqrt(precisions)), ((0, 0), (0, 2)))])
    residual = jnp.concatenate([residual, jnp.sqrt(precisions) * (means - free)])
    found = jnp.pad(masses_of.templates(area, free, positions, root), ((0, 0), (0, len(free))))
    residual, found = (
        masses_of.without(columns, residual[None])[0],
        masses_of.without(columns, found),
    )
    smooth_chi_square = residual @ residual
    residual, found = masses_of.compressed(residual, found, share)

    for_masses, where = masses_of.log_evidence_and_map(residual, found, share, prior.masses)
    begin = line_of.starts(residual, found, lines, shares, prior.line, _STARTS)
    fit = line_of.fit_line(
        area, prior.line, pixels, weight, free, jnp.asarray([1, 0], image.dtype), begin
    )
    for_line = line_of.log_evidence(fit, smooth_chi_square, columns.T @ columns, prior.line)
    ratios = jnp.stack([jnp.zeros_like(for_masses), for_masses, for_line])
    usable = usable & jnp.isfinite(ratios).all()
    return Evidence(
        jnp.where(usable, ratios, 0),
        _finite(where),
        _finite(fit.free[len(free) :]),
        _finite(fit.chi_square),
        _finite(smooth_chi_square),
        (number > 0).sum().astype(image.dtype),
    )


def _finite(value: Array) -> Array:
    return jnp.where(jnp.isfinite(value), value, 0)
