"""Views of the lens physics in a model: lens, residual, deflection and source of a few images."""

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
from lensjax.prediction.trained_model import TrainedModel

_SOURCE_SCALE = 0.8  # pixel scale of the source plane divided by that of the image


@dataclasses.dataclass(frozen=True)
class ViewColumn:
    """One quantity shown for each image.

    Attributes:
      title: title; the second line describes the color scale.
      values: values of each image, or RGB colors if `colormap` is empty.
      colormap: name of the color map, or "".
      limits: values at the ends of the color map.
    """

    title: str
    values: Float[np.ndarray, "n ..."]
    colormap: str = "magma"
    limits: tuple[float, float] = (0, 1)


@dataclasses.dataclass(frozen=True)
class View:
    """A table of pictures: one row per image, one column per quantity.

    Attributes:
      name: base name of its files.
      title: heading.
      text: explanation.
      columns: quantities shown for each image.
      notes: fitted values for each image, as text; None if there are none.
    """

    name: str
    title: str
    text: str
    columns: tuple[ViewColumn, ...]
    notes: tuple[str, ...] | None


def fit_view(images: ImageSet, model_name: str) -> View:
    """View of the smooth lens fitted to each image.

    Args:
      images: the images.
      model_name: name of the lens model, see `lensjax.fitting.smooth_model`.

    Returns:
      The view.
    """
    model = fitting.smooth_model(model_name)
    pixels = images.images()
    fit = fitting.fit_in_batches(pixels, model, noise=fitting.photon_noise(counts_per_unit(images)))
    light = (pixels - fit.parameters["sky"][:, None, None, None])[..., 0]
    beta, rendered, residual = map(np.asarray, (fit.source_plane, fit.model_image, fit.residual))
    deviations = dict(zip(model.names, fit.standard_errors.T, strict=True))
    sigma = deviations.get("mass.0.theta_E", np.zeros(len(images)))  # 0 if it is not fitted
    notes = tuple(
        f"θ_E = {fit.parameters['mass.0.theta_E'][row]:.4f} ± {sigma[row]:.4f} arcsec, "
        f"shear = ({fit.parameters['mass.1.gamma1'][row]:.3f}, {fit.parameters['mass.1.gamma2'][row]:.3f}), "
        f"reduced χ² {fit.reduced_chi_square[row]:.3f}"
        + ("" if fit.converged[row] else "; the fit did not converge")
        for row in range(len(images))
    )
    return View(
        "lens",
        "Fitted lens",
        "Smooth lens fitted to each image, its deflection, the light of the image traced back to the source "
        "plane, and the residual of the fit in standard deviations of the noise. Substructure is not part of "
        "the lens model and appears in the residual. The source plane is gray where no ray arrives.",
        _lens_columns(model, pixels[..., 0], rendered[..., 0], residual[..., 0], light, beta),
        notes,
    )


def encoder_view(trained: TrainedModel, inputs: Float[Array, "few height width 1"]) -> View:
    """View of the smooth lens that a `LensEncoderNet` predicts for each image.

    Args:
      trained: the classifier.
      inputs: inputs of the model.

    Returns:
      The view.
    """
    steps = trained.config.model.gauss_newton_steps
    model = fitting.smooth_model(trained.model.fit)
    resolution = fitting.Resolution.native(model, inputs.shape[1:3])

    def render(image: Array, free: Array) -> tuple[Array, Array, Array]:
        columns = fitting.render(model, resolution, free)
        linear = fitting.solve_linear(columns, image, jnp.ones_like(image))
        beta = fitting.source_positions(model, resolution, free)
        return (fitting.total_light(columns, linear) + linear[-1], image - linear[-1], jnp.stack(beta, -1))

    @jax.jit
    def evaluate(variables: Any, inputs: Array) -> tuple[Array, ...]:
        calls = _record_calls(trained.model, variables, inputs)
        guess = rendered_lens.constrain(model, calls["encoder"][1])
        free = rendered_lens.refine(model, inputs, guess, steps)
        residual = rendered_lens.standardized_residuals(model, inputs, free)[..., 0]
        return free, residual, *jax.vmap(render)(inputs[..., 0], free)

    results = map(np.asarray, evaluate(trained.variables, inputs))
    free, residual, rendered, light, beta = results
    values = model.lens.values(free.T)
    names = ("mass.0.theta_E", "mass.1.gamma1", "mass.1.gamma2")
    theta_E, gamma1, gamma2 = (np.broadcast_to(values[name], len(free)) for name in names)
    notes = tuple(
        f"θ_E = {theta_E[row]:.3f} arcsec, shear = ({gamma1[row]:.3f}, {gamma2[row]:.3f}), "
        f"mean squared residual {np.square(residual[row]).mean():.2f}"
        for row in range(len(free))
    )
    return View(
        "lens",
        "Lens predicted by the encoder",
        "Smooth lens that the encoder predicts for each image, rendered with the best amplitude and sky; its "
        "deflection; the light of the image traced back to the source plane; and the residual in standard "
        "deviations of the noise. The source plane is gray where no ray arrives.",
        _lens_columns(model, np.asarray(inputs[..., 0]), rendered, residual, light, beta),
        notes,
    )


def reference_view(trained: TrainedModel, inputs: Float[Array, "few height width 1"]) -> View:
    """View of the reference's lens equation, applied to brightness, in a `LensViTPINN`.

    Args:
      trained: the classifier.
      inputs: inputs of the model.

    Returns:
      The view.
    """

    @jax.jit
    def evaluate(variables: Any, inputs: Array) -> tuple[Array, ...]:
        calls = _record_calls(trained.model, variables, inputs, with_physics_loss=True)
        alpha = calls["alpha_proj"][1][1]
        theta_E = alpha.mean((1, 2, 3))
        source = reference.intensity_lens_equation(inputs, theta_E)
        return theta_E, alpha[..., 0], source[..., 0]

    theta_E, alpha, source = map(np.asarray, evaluate(trained.variables, inputs))
    images = np.asarray(inputs[..., 0])
    limits = float(images.min()), float(images.max())
    low, high = limits
    residual = images - (source + alpha)
    largest = max(float(np.quantile(np.abs(residual), 0.99)), 1e-6)
    spread = max(float(np.quantile(np.abs(alpha), 0.99)), 1e-6)
    columns = (
        ViewColumn(f"image as seen by the model\n{low:.2g} to {high:.2g}", images, "magma", limits),
        ViewColumn(f"deflection as brightness\n± {spread:.2g}", alpha, "PuOr", (-spread, spread)),
        ViewColumn(f"source θ_S\n{low:.2g} to {high:.2g}", source, "magma", limits),
        ViewColumn(f"re-lensed, θ_S + alpha\n{low:.2g} to {high:.2g}", source + alpha, "magma", limits),
        ViewColumn(f"image - re-lensed\n± {largest:.2g}", residual, "RdBu_r", (-largest, largest)),
    )
    return View(
        "lens",
        "Lens equation of the reference",
        "The reference's lens equation acts on brightness and does not deflect rays. The transformer's "
        "deflection alpha is a brightness at each pixel, and θ_E is its mean. The source is the image minus "
        "θ_E, clipped at 0. The re-lensed image is the source plus the deflection. The physics loss is the "
        "mean squared difference between the re-lensed image and the image.",
        columns,
        tuple(f"θ_E = {value:.4f} (as brightness)" for value in theta_E),
    )


def _lens_columns(
    model: SmoothModel,
    images: np.ndarray,
    rendered: np.ndarray,
    residual: np.ndarray,
    light: np.ndarray,
    beta: np.ndarray,
) -> tuple[ViewColumn, ...]:
    """Image, rendered lens, residual, deflection angle, and the image's light in the source plane."""
    size, scale = images.shape[1], model.pixel_scale
    theta = (np.arange(size) - (size - 1) / 2) * scale
    alpha = np.hypot(theta[None, None, :] - beta[..., 0], theta[None, :, None] - beta[..., 1])
    low, high = (float(np.quantile(alpha, share)) for share in (0.01, 0.99))
    side = size // 2
    cloud_in_cell = functools.partial(
        physics.cloud_in_cell, source_size=side, source_scale=_SOURCE_SCALE * scale
    )
    arrived, weight = map(
        np.asarray, jax.jit(jax.vmap(cloud_in_cell))(*map(jnp.asarray, (light, beta[..., 0], beta[..., 1])))
    )
    source = np.where(weight > 0.05, arrived / np.maximum(weight, 0.05), np.nan)
    field = side * _SOURCE_SCALE * scale
    deflection_range = f"{low:.2g} to {high:.2g} arcsec"
    return (
        ViewColumn("image\n0 to 1", images),
        ViewColumn("rendered lens\n0 to 1", rendered),
        ViewColumn("residual\n-4 to 4 sigma", residual, "RdBu_r", (-4, 4)),
        ViewColumn(f"deflection\n{deflection_range}", alpha, "viridis", (low, high)),
        ViewColumn(f"source plane\n{field:.1f} arcsec wide", source),
    )


def _record_calls(
    model: nn.Module, variables: Any, inputs: Array, **options: Any
) -> dict[str, tuple[Any, Any]]:
    """Arguments and result of the first call of each direct submodule, by name."""
    calls: dict[str, tuple[Any, Any]] = {}

    def record(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        result = call(*arguments, **keywords)
        if len(context.module.path) == 1 and context.method_name == "__call__":
            calls.setdefault(context.module.name, (arguments, result))
        return result

    with nn.intercept_methods(record):
        model.apply(variables, inputs, train=False, **options)
    return calls
