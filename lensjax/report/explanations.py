"""Panels of what a classifier makes of a few images: its lens, its source, and where it looks."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from matplotlib import colormaps

from lensjax.data.images import DISPLAY_NAMES, ImageSet
from lensjax.data.preparation import crop_center, prepare
from lensjax.prediction.attribution import (
    at_pixels,
    attention_rollout,
    attentions,
    grad_cam,
    resnet_layers,
)
from lensjax.prediction.trained import Trained
from lensjax.report import lens_views
from lensjax.report.galleries import answer, image_name
from lensjax.report.lens_views import View
from lensjax.report.panels import Panel, Picture, Strip

_STAGES = {1: "first", 2: "second", 3: "third", 4: "last"}


def panels(
    trained: Trained,
    images: ImageSet,
    probabilities: Float[np.ndarray, "n classes"],
    rows: Int[np.ndarray, " shown"],
    *,
    split: str,
) -> tuple[Panel, ...]:
    """The panels that there are for a model.

    Args:
      trained: the classifier.
      images: of the split.
      probabilities: of each class, for each image.
      rows: which images to look into.
      split: what to call the set where images have no names.
    """
    if not len(rows):
        return ()
    few = trained.add_residuals(images.subset(rows))
    answers = probabilities[rows]
    names = [image_name(images, row, split) for row in rows]
    found = [] if (lens := lens_view(trained, few)) is None else [lens]
    found.append(looks(trained, few, answers.argmax(1)))
    return tuple(_panel(view, names, few.labels, answers) for view in found)


def lens_view(trained: Trained, few: ImageSet) -> View | None:
    """What the physics in a model makes of some images; None for a model without."""
    if trained.config.data.fit != "none":
        return lens_views.of_fits(few, trained.config.data.fit)
    makers: dict[str, Callable[[Trained, Array], View]] = {
        "lens_vit_pinn": lens_views.of_intensities,
        "lens_encoder_net": lens_views.of_encoder,
    }
    maker = makers.get(trained.config.model.name)
    return None if maker is None else maker(trained, _seen(trained, few))


def looks(trained: Trained, few: ImageSet, called: Int[np.ndarray, " few"]) -> View:
    """Where a model looks for the classes that it calls, over the part of the images that it sees.

    Args:
      trained: the classifier.
      few: the images.
      called: index of the class that is called for each.
    """
    seen = _seen(trained, few)
    size = seen.shape[1]
    pictures = np.asarray(crop_center(jnp.asarray(few.images()), size))[..., 0]
    columns: list[tuple[str, np.ndarray, str, tuple[float, float]]] = [
        ("image\nas far as it is seen", pictures, "magma", (0, 1))
    ]
    if seen.shape[-1] > 1:
        residuals = np.asarray(seen[..., 1])
        columns.append(("residual of the fit\n-4 to 4 sigma", residuals, "RdBu_r", (-4, 4)))
    layers = resnet_layers(trained.variables)
    for place, layer in _finer_and_last(layers):
        maps = grad_cam(trained.model, trained.variables, seen, jnp.asarray(called), layer=layer)
        stage = _STAGES.get(place, "stem") if len(layers) > 1 else "stem"
        title = f"Grad-CAM\n{stage} stage, {maps.shape[1]} x {maps.shape[2]}"
        columns.append((title, over(pictures, at_pixels(np.asarray(maps), size)), "", (0, 1)))
    if trained.config.model.name == "lens_vit_pinn":
        flow = attention_rollout(
            attentions(trained.model, trained.variables, seen, train=False)
        ).reshape(len(few), size // trained.config.model.patch_size, -1)
        patches = np.kron(np.asarray(flow), np.ones((1, *2 * (trained.config.model.patch_size,))))
        rest = size - patches.shape[1]
        patches = np.pad(patches, ((0, 0), (0, rest), (0, rest)))  # what has no whole patch is cut
        title = f"attention rollout\n{flow.shape[1]} x {flow.shape[2]} patches"
        columns.append((title, over(pictures, patches), "", (0, 1)))
    text = (
        "Grad-CAM: the places whose features speak for the class that was called, bright where they speak "
        "loudest; each map has a scale of its own, and dark ones say that nothing speaks for it there. "
        "It shows where the evidence lies, not that it is sound."
    )
    if trained.config.model.name == "lens_vit_pinn":
        text += (
            " Attention rollout: from which patches the transformer's features come, which gives θ_E "
            "and through it the second channel."
        )
    return View("where_it_looks", "Where the classifier looks", text, tuple(columns), None)


def over(
    images: Float[np.ndarray, "n height width"], maps: Float[np.ndarray, "n height width"]
) -> Float[np.ndarray, "n height width 3"]:
    """Images in grey with maps as light over them; each map is scaled to its own largest value."""
    largest = maps.max((1, 2), keepdims=True)
    share = np.where(largest > 0, maps / np.where(largest > 0, largest, 1), 0)
    grey = np.repeat(0.85 * images[..., None].clip(0, 1), 3, axis=-1)
    heat = colormaps["inferno"](share)[..., :3]
    weight = 0.65 * np.sqrt(share)[..., None]
    return (1 - weight) * grey + weight * heat


def _finer_and_last(layers: Sequence[tuple[str, ...]]) -> list[tuple[int, tuple[str, ...]]]:
    """The second stage, whose map is four times as fine on either axis, and the last; with their places."""
    places = [2, len(layers)] if len(layers) > 2 else [len(layers)]
    return [(place, layers[place - 1]) for place in places]


def _seen(trained: Trained, few: ImageSet) -> Array:
    """What the model is given of some images."""
    inputs = few.images()
    if few.residuals is not None:
        inputs = np.concatenate([inputs, few.residuals[..., None].astype(np.float32)], axis=-1)
    return prepare(jnp.asarray(inputs), **trained.config.preparation)


def _panel(
    view: View, names: Sequence[str], labels: Int[np.ndarray, " few"], answers: np.ndarray
) -> Panel:
    strips = []
    for row, name in enumerate(names):
        called = answer(answers[row])
        right = answers[row].argmax() == labels[row]
        told = f"true class {DISPLAY_NAMES[labels[row]]}, called {called}"
        pictures = tuple(
            Picture(
                values[row],
                title,
                f"{name}: {title.replace(chr(10), ', ')}",
                colors,
                limits,
                ("right" if right else "wrong") if place == 0 else "",
            )
            for place, (title, values, colors, limits) in enumerate(view.columns)
        )
        note = told if view.notes is None else f"{told}; {view.notes[row]}"
        strips.append(Strip(name, note, pictures))
    return Panel(view.name, view.title, view.text, tuple(strips))
