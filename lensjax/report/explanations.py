"""Panels that explain predictions for a few images: fitted lens, source and attribution maps."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from matplotlib import colormaps

from lensjax.data.images import DISPLAY_NAMES, ImageSet
from lensjax.data.preparation import crop_center, prepare
from lensjax.evaluation.types import Probabilities
from lensjax.prediction.attribution import (
    STEM,
    attention_rollout,
    attention_weights,
    grad_cam,
    resnet_layers,
    upsample_to_pixels,
)
from lensjax.prediction.trained_model import TrainedModel
from lensjax.report import lens_views
from lensjax.report.galleries import format_prediction, image_name
from lensjax.report.lens_views import View, ViewColumn
from lensjax.report.panels import Panel, Picture, Strip


def explanation_panels(
    trained: TrainedModel,
    images: ImageSet,
    probabilities: Probabilities,
    rows: Int[np.ndarray, " shown"],
    *,
    split: str,
) -> tuple[Panel, ...]:
    """Panels for selected images: the lens physics, if the model has any, and the attribution maps.

    Args:
      trained: the classifier.
      images: images of the split.
      probabilities: class probabilities of each image.
      rows: indices of the images to explain.
      split: name of the split, used for images without names.
    """
    if not len(rows):
        return ()
    shown = trained.add_residuals(images.subset(rows))
    shown_probabilities = probabilities[rows]
    names = [image_name(images, row, split) for row in rows]
    views = [] if (view := lens_view(trained, shown)) is None else [view]
    views.append(attribution_view(trained, shown, shown_probabilities.argmax(1)))
    return tuple(_panel(view, names, shown.labels, shown_probabilities) for view in views)


def lens_view(trained: TrainedModel, images: ImageSet) -> View | None:
    """View of the lens physics in a model; None if the model has none.

    Args:
      trained: the classifier.
      images: the images, with residuals if the model uses them.
    """
    if trained.config.data.fit != "none":
        return lens_views.fit_view(images, trained.config.data.fit)
    makers: dict[str, Callable[[TrainedModel, Array], View]] = {
        "lens_vit_pinn": lens_views.reference_view,
        "lens_encoder_net": lens_views.encoder_view,
    }
    maker = makers.get(trained.config.model.name)
    return None if maker is None else maker(trained, _model_inputs(trained, images))


def attribution_view(trained: TrainedModel, images: ImageSet, predicted: Int[np.ndarray, " few"]) -> View:
    """Attribution maps of the predicted classes, over the part of the images that the model uses.

    Args:
      trained: the classifier.
      images: the images.
      predicted: index of the predicted class of each image.
    """
    inputs = _model_inputs(trained, images)
    size = inputs.shape[1]
    pictures = np.asarray(crop_center(jnp.asarray(images.images()), size))[..., 0]
    columns = [ViewColumn("image\narea used by the model", pictures)]
    if inputs.shape[-1] > 1:
        residuals = np.asarray(inputs[..., 1])
        columns.append(ViewColumn("residual of the fit\n-4 to 4 sigma", residuals, "RdBu_r", (-4, 4)))
    for name, layer in _attribution_layers(resnet_layers(trained.variables)):
        maps = grad_cam(trained.model, trained.variables, inputs, jnp.asarray(predicted), layer=layer)
        title = f"Grad-CAM\n{name}, {maps.shape[1]} x {maps.shape[2]}"
        overlaid = overlay(pictures, upsample_to_pixels(np.asarray(maps), size))
        columns.append(ViewColumn(title, overlaid, colormap=""))
    if trained.config.model.name == "lens_vit_pinn":
        patch_size = trained.config.model.patch_size
        flow = attention_rollout(
            attention_weights(trained.model, trained.variables, inputs, train=False)
        ).reshape(len(images), size // patch_size, -1)
        patches = np.kron(np.asarray(flow), np.ones((1, patch_size, patch_size)))
        rest = size - patches.shape[1]
        patches = np.pad(patches, ((0, 0), (0, rest), (0, rest)))  # no patch covers these pixels
        title = f"attention rollout\n{flow.shape[1]} x {flow.shape[2]} patches"
        columns.append(ViewColumn(title, overlay(pictures, patches), colormap=""))
    text = (
        "Grad-CAM highlights the regions whose features support the predicted class. Each map has its own "
        "scale; an image without color means that no region supports the class. The maps show where the "
        "evidence is, not whether it is sound."
    )
    if trained.config.model.name == "lens_vit_pinn":
        text += (
            " Attention rollout shows which patches contribute to the features of the transformer, which "
            "determine θ_E and, through it, the second channel."
        )
    return View("where_it_looks", "Where the classifier looks", text, tuple(columns), None)


def overlay(
    images: Float[np.ndarray, "n height width"], maps: Float[np.ndarray, "n height width"]
) -> Float[np.ndarray, "n height width 3"]:
    """Overlays heat maps on gray images.

    Args:
      images: brightness; clipped to [0, 1].
      maps: values of at least 0; each map is scaled to its own maximum.

    Returns:
      RGB colors from 0 to 1.
    """
    largest = maps.max((1, 2), keepdims=True)
    scaled = np.where(largest > 0, maps / np.where(largest > 0, largest, 1), 0)
    gray = np.repeat(0.85 * images[..., None].clip(0, 1), 3, axis=-1)
    heat = colormaps["inferno"](scaled)[..., :3]
    weight = 0.65 * np.sqrt(scaled)[..., None]
    return (1 - weight) * gray + weight * heat


def _attribution_layers(layers: Sequence[tuple[str, ...]]) -> list[tuple[str, tuple[str, ...]]]:
    """Name and path of the second stage, whose maps have a higher resolution, and of the last stage."""
    if layers[-1][-1] == STEM:
        return [("stem", layers[-1])]
    second = [("second stage", layers[1])] if len(layers) > 2 else []
    return [*second, ("last stage", layers[-1])]


def _model_inputs(trained: TrainedModel, images: ImageSet) -> Array:
    """Input of the model for some images, after preparation."""
    inputs = images.images()
    if images.residuals is not None:
        inputs = np.concatenate([inputs, images.residuals[..., None].astype(np.float32)], axis=-1)
    return prepare(jnp.asarray(inputs), **trained.config.preparation)


def _panel(
    view: View,
    names: Sequence[str],
    labels: Int[np.ndarray, " few"],
    probabilities: Float[np.ndarray, "few classes"],
) -> Panel:
    strips = []
    for row, name in enumerate(names):
        predicted = format_prediction(probabilities[row])
        right = probabilities[row].argmax() == labels[row]
        note = f"true class {DISPLAY_NAMES[labels[row]]}, predicted {predicted}"
        pictures = tuple(
            Picture(
                column.values[row],
                column.title,
                f"{name}: {column.title.replace(chr(10), ', ')}",
                column.colormap,
                column.limits,
                ("right" if right else "wrong") if index == 0 else "",
            )
            for index, column in enumerate(view.columns)
        )
        if view.notes is not None:
            note = f"{note}; {view.notes[row]}"
        strips.append(Strip(name, note, pictures))
    return Panel(view.name, view.title, view.text, tuple(strips))
