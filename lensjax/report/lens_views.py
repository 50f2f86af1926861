"""What the physics in a model makes of a few images: deflection, source, lens drawn again, residual."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from lensjax import fitting, physics
from lensjax.data.images import ImageSet
from lensjax.data.residuals import counts_per_unit
from lensjax.fitting import SmoothModel
from lensjax.models import rendered_lens
from lensjax.physics import reference
from lensjax.prediction.trained import Trained

_FINER = 0.8  # pixel of the source plane over one of the image

# The title, values of each image, colour map ("" for colours), and the limits of its colours.
Column = tuple[str, np.ndarray, str, tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class View:
    """Some pictures of each of a few images.

    Attributes:
      name: of its files.
      title: the heading.
      text: what is to be seen.
      columns: what is shown of each image.
      notes: numbers of each image, as text; None where there are none.
    """

    name: str
    title: str
    text: str
    columns: tuple[Column, ...]
    notes: tuple[str, ...] | None


def of_fits(few: ImageSet, model_name: str) -> View:
    """The smooth lens that is fitted to each image.

    Args:
      few: the images.
      model_name: what is fitted, see `lensjax.fitting.smooth_model`.
    """
    model = fitting.smooth_model(model_name)
    images = few.images()
    fit = fitting.fit_in_batches(images, model, noise=fitting.photon_noise(counts_per_unit(few)))
    light = (images - fit.parameters["sky"][:, None, None, None])[..., 0]
    beta, drawn, residual = map(np.asarray, (fit.source_plane, fit.model_image, fit.residual))
    place = model.names.index("theta_E")
    sigma = np.sqrt(np.maximum(fit.covariance[:, place, place], 0))
    notes = tuple(
        f"θ_E = {fit.parameters['theta_E'][row]:.4f} ± {sigma[row]:.4f} arcsec, "
        f"shear = ({fit.parameters['gamma1'][row]:.3f}, {fit.parameters['gamma2'][row]:.3f}), "
        f"reduced χ² {fit.reduced_chi_square[row]:.3f}"
        + ("" if fit.converged[row] else "; the fit did not converge")
        for row in range(len(few))
    )
    return View(
        "lens",
        "The lens that was fitted",
        "A smooth lens fitted to each image, its deflection, the light of the image sent back to the source "
        "plane along the deflected rays, and what the lens leaves over in standard deviations of the noise. "
        "Substructure is not in the lens: it stands in the residual. Where no ray arrives the source plane "
        "is grey.",
        _lens_columns(model, images[..., 0], drawn[..., 0], residual[..., 0], light, beta),
        notes,
    )


def of_encoder(trained: Trained, seen: Float[Array, "few height width 1"]) -> View:
    """The smooth lens that a `LensEncoderNet` guesses for each image.

    Args:
      trained: the classifier.
      seen: what the model is given.
    """
    steps = trained.config.model.gauss_newton_steps
    model = fitting.smooth_model(trained.model.fit)
    resolution = fitting.Resolution.native(model, seen.shape[1:3])

    def draw(image: Array, free: Array) -> tuple[Array, Array, Array]:
        source = fitting.render(model, resolution, free)
        amp, sky = fitting.solve_linear(source, image, jnp.ones_like(image))
        beta = fitting.source_positions(model, resolution, free)
        return amp * source + sky, image - sky, jnp.stack(beta, -1)

    @jax.jit
    def look(variables: Any, seen: Array) -> tuple[Array, ...]:
        kept = _kept(trained.model, variables, seen)
        guess = rendered_lens.constrain(model, kept["encoder"][1])
        free = rendered_lens.refine(model, seen, guess, steps)
        residual = rendered_lens.standardized_residuals(model, seen, free)[..., 0]
        return free, residual, *jax.vmap(draw)(seen[..., 0], free)

    found = map(np.asarray, look(trained.variables, seen))
    free, residual, drawn, light, beta = found
    values = dict(zip(model.nonlinear, free.T, strict=True))
    notes = tuple(
        f"θ_E = {values['theta_E'][row]:.3f} arcsec, shear = ({values['gamma1'][row]:.3f}, "
        f"{values['gamma2'][row]:.3f}), mean square of the residual {np.square(residual[row]).mean():.2f}"
        for row in range(len(free))
    )
    return View(
        "lens",
        "The lens that the encoder guesses",
        "The smooth lens that the encoder reads off each image, drawn with the best amplitude and sky; its "
        "deflection; the light of the image sent back to the source plane; and what the lens leaves over in "
        "standard deviations of the noise. Where no ray arrives the source plane is grey.",
        _lens_columns(model, np.asarray(seen[..., 0]), drawn, residual, light, beta),
        notes,
    )


def of_intensities(trained: Trained, seen: Float[Array, "few height width 1"]) -> View:
    """The reference's lens equation on brightness, as a `LensViTPINN` has it.

    Args:
      trained: the classifier.
      seen: what the model is given.
    """

    @jax.jit
    def look(variables: Any, seen: Array) -> tuple[Array, ...]:
        kept = _kept(trained.model, variables, seen, with_physics_loss=True)
        alpha = kept["alpha_proj"][1][1]
        theta_E = alpha.mean((1, 2, 3))
        source = reference.intensity_lens_equation(seen, theta_E)
        return theta_E, alpha[..., 0], source[..., 0]

    theta_E, alpha, source = map(np.asarray, look(trained.variables, seen))
    images = np.asarray(seen[..., 0])
    low, high = float(images.min()), float(images.max())
    residual = images - (source + alpha)
    largest = max(float(np.quantile(np.abs(residual), 0.99)), 1e-6)
    spread = max(float(np.quantile(np.abs(alpha), 0.99)), 1e-6)
    columns: tuple[Column, ...] = (
        (f"image as the model sees it\n{low:.2g} to {high:.2g}", images, "magma", (low, high)),
        (f"deflection, a brightness\n± {spread:.2g}", alpha, "PuOr", (-spread, spread)),
        (f"source θ_S\n{low:.2g} to {high:.2g}", source, "magma", (low, high)),
        (
            f"re-lensed, θ_S + alpha\n{low:.2g} to {high:.2g}",
            source + alpha,
            "magma",
            (low, high),
        ),
        (f"image less re-lensed\n± {largest:.2g}", residual, "RdBu_r", (-largest, largest)),
    )
    return View(
        "lens",
        "The lens equation of the reference",
        "The reference's lens equation acts on brightness: no ray is bent. The transformer's deflection "
        "alpha is a brightness at each pixel, its mean is θ_E, and the source is the image less θ_E, "
        "not below 0. Re-lensed is source plus deflection; the mean square of what it leaves over of the "
        "image is the physics loss.",
        columns,
        tuple(f"θ_E = {value:.4f}, a brightness" for value in theta_E),
    )


def _lens_columns(
    model: SmoothModel,
    images: np.ndarray,
    drawn: np.ndarray,
    residual: np.ndarray,
    light: np.ndarray,
    beta: np.ndarray,
) -> tuple[Column, ...]:
    """Image, lens drawn again, residual, size of the deflection, and the image's light sent to the source."""
    size, scale = images.shape[1], model.pixel_scale
    theta = (np.arange(size) - (size - 1) / 2) * scale
    alpha = np.hypot(theta[None, None, :] - beta[..., 0], theta[None, :, None] - beta[..., 1])
    low, high = (float(np.quantile(alpha, share)) for share in (0.01, 0.99))
    side = size // 2
    send = functools.partial(physics.splat, source_size=side, source_scale=_FINER * scale)
    arrived, weight = map(
        np.asarray, jax.jit(jax.vmap(send))(*map(jnp.asarray, (light, *_xy(beta))))
    )
    source = np.where(weight > 0.05, arrived / np.maximum(weight, 0.05), np.nan)
    field = side * _FINER * scale
    return (
        ("image\n0 to 1", images, "magma", (0, 1)),
        ("lens, drawn again\n0 to 1", drawn, "magma", (0, 1)),
        ("residual\n-4 to 4 sigma", residual, "RdBu_r", (-4, 4)),
        (f"deflection\n{low:.2g} to {high:.2g} arcsec", alpha, "viridis", (low, high)),
        (f"source plane\n{field:.1f} arcsec wide", source, "magma", (0, 1)),
    )


def _xy(beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return beta[..., 0], beta[..., 1]


def _kept(
    model: nn.Module, variables: Any, seen: Array, **options: Any
) -> dict[str, tuple[Any, Any]]:
    """What the parts of a model were called with first, and what they gave, by name."""
    kept: dict[str, tuple[Any, Any]] = {}

    def watch(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        result = call(*arguments, **keywords)
        if len(context.module.path) == 1 and context.method_name == "__call__":
            kept.setdefault(context.module.name, (arguments, result))
        return result

    with nn.intercept_methods(watch):
        model.apply(variables, seen, train=False, **options)
    return kept
