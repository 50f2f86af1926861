"""Initial weights from published networks or earlier runs."""

import math
import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from lensjax import weights
from lensjax.errors import UserError
from lensjax.models import resize_position_embeddings
from lensjax.runtime.paths import user_path
from lensjax.runtime.progress import log

PyTree = Any
Flat = dict[str, Any]
Adapt = Callable[[np.ndarray], tuple[Any, str]]

# Maps (model, architecture of the file) to the submodule that the weights initialize; "" for the whole model.
MAIN_TARGETS = {
    ("baseline_cnn", "baseline_cnn"): "",
    ("baseline_cnn", "resnet18"): "resnet",
    ("lens_vit_pinn", "lens_vit_pinn"): "",
    ("lens_vit_pinn", "dino_vits16"): "vit",
}
CNN_TARGETS = {("lens_vit_pinn", "resnet18"): "cnn"}
# Layers that keep their random initial values, since the numbers of channels and classes differ.
NEW_LAYERS = {"resnet18": ("params/conv1/", "params/fc/")}


def load_pretrained(variables: PyTree, config: ConfigDict) -> PyTree:
    """Replaces a model's initial variables with weights from files, and logs the changes.

    If the layers of a published network do not fit the model, the model's layers keep their random initial
    values (stem and classifier of a ResNet), or the weights are adapted: DINO's patch embedding is averaged
    over the three colors, and its position embeddings are resized to the model's grid.

    Args:
      variables: the model's random initial variables.
      config: the `model` section of a config; its fields `pretrained` and `pretrained_cnn` name the files.

    Returns:
      The new variables.

    Raises:
      UserError: if a file does not exist, is not a weight file of lensjax, or does not fit the model.
    """
    for field, targets in (("pretrained", MAIN_TARGETS), ("pretrained_cnn", CNN_TARGETS)):
        if config[field]:
            variables = _load_file(variables, f"config.model.{field}", config, config[field], targets)
    return variables


def _load_file(
    variables: PyTree, field: str, config: ConfigDict, file: str, targets: dict[tuple[str, str], str]
) -> PyTree:
    path = user_path(file)
    source, metadata = weights.load(path)
    architecture = metadata["architecture"]
    if (config.name, architecture) not in targets:
        supported = [other for model, other in targets if model == config.name]
        advice = (
            f"{config.name} needs weights of {' or '.join(supported)}"
            if supported
            else f"{config.name} does not use this field"
        )
        raise UserError(f"{field}={path}: contains weights of {architecture}; {advice}")
    module = targets[config.name, architecture]
    loaded: Flat = traverse_util.flatten_dict(source, sep="/")
    result: Flat = traverse_util.flatten_dict(variables, sep="/")
    new_layers = NEW_LAYERS.get(architecture, ())
    adapted, new, problems = [], [], []
    unused = {key for key in loaded if not key.startswith(new_layers)}
    for name in result:
        collection, _, rest = name.partition("/")
        if module and not rest.startswith(f"{module}/"):
            continue
        key = f"{collection}/{rest.removeprefix(f'{module}/')}" if module else name
        if key.startswith(new_layers):
            new.append(rest)
            continue
        if key not in loaded:
            problems.append(f"{rest} is missing from the file")
            continue
        unused.discard(key)
        value, change = _adapt(key, loaded[key], result[name].shape)
        if value.shape != result[name].shape:
            problems.append(
                f"{rest} has shape {loaded[key].shape} in the file and {result[name].shape} in the model"
            )
            continue
        if change:
            adapted.append(f"{rest} ({change})")
        result[name] = jnp.asarray(value, result[name].dtype)
    problems += [f"{key} in the file is not in the model" for key in sorted(unused)]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        sizes = re.sub(r'[{}"]', "", metadata.get("sizes", ""))
        raise UserError(
            f"{field}={path}: does not fit the model: {'; '.join(problems[:3])}{more}. "
            f"The file contains weights of {architecture}{f' with {sizes}' if sizes else ''}"
        )
    inside = [name for name in result if not module or name.split("/")[1] == module]
    number = len(inside) - len(new) - len(adapted)
    log.info("%s: %s from %s: %d arrays loaded", module or config.name, architecture, path, number)
    for word, names in (("adapted", adapted), ("new", new)):
        if names:
            log.info("  %s: %s", word, ", ".join(names))
    return traverse_util.unflatten_dict(result, sep="/")


def _adapt(key: str, value: np.ndarray, shape: tuple[int, ...]) -> tuple[Any, str]:
    """Adapts an array to the model's shape if possible.

    Returns:
      The array, and a description of the change; "" if there is none.
    """
    if value.shape == shape or value.ndim != len(shape):
        return value, ""
    if key == "params/patch_embed/kernel" and shape[2] == 1:
        return value.mean(2, keepdims=True), f"mean over {value.shape[2]} channels"
    if key == "params/pos_embed" and _is_square(value.shape[1] - 1) and value.shape[2] == shape[2]:
        side = round((shape[1] - 1) ** 0.5)
        resized = resize_position_embeddings(jnp.asarray(value), side, side)
        return resized, f"resized to {side} x {side}"
    return value, ""


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number
