"""Training that starts from published or earlier weights instead of random ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from lensjax import weights
from lensjax.errors import UserError
from lensjax.models import resize_position_embeddings
from lensjax.runtime.progress import log

PyTree = Any
Flat = dict[str, Any]
Adapt = Callable[[np.ndarray], tuple[Any, str]]

# Which part of which model an architecture's weights go to; "" is the model itself.
MAIN = {
    ("baseline_cnn", "baseline_cnn"): "",
    ("baseline_cnn", "resnet18"): "resnet",
    ("lens_vit_pinn", "lens_vit_pinn"): "",
    ("lens_vit_pinn", "dino_vits16"): "vit",
}
CNN = {("lens_vit_pinn", "resnet18"): "cnn"}
# Layers of a published network that are not taken: another number of channels, other classes.
NEW = {"resnet18": ("params/conv1/", "params/fc/")}


def start_from(variables: PyTree, config: ConfigDict) -> PyTree:
    """The model's initial variables with those that `config` names files for, and says in the log which.

    The layers of a published network that cannot be taken keep their random initial values (a ResNet's
    stem and classifier) or are adapted: DINO's patch embedding by its mean over the three colours, its
    position embeddings by resizing to the model's grid.

    Args:
      variables: the model's random initial variables.
      config: the `model` part of a config; `pretrained` and `pretrained_cnn` name files.

    Raises:
      UserError: no such file, not a file of lensjax's weights, or of a network that does not fit.
    """
    for field, targets in (("pretrained", MAIN), ("pretrained_cnn", CNN)):
        if config[field]:
            variables = _fill(variables, f"config.model.{field}", config, config[field], targets)
    return variables


def _fill(
    variables: PyTree,
    field: str,
    config: ConfigDict,
    file: str,
    targets: dict[tuple[str, str], str],
) -> PyTree:
    path = Path(file)
    source, metadata = weights.load(path)
    architecture = metadata["architecture"]
    if (config.name, architecture) not in targets:
        fitting = [other for model, other in targets if model == config.name]
        advice = f"it takes {' or '.join(fitting)}" if fitting else "it takes no such file"
        raise UserError(f"{field}={path}: holds {architecture}; for {config.name} {advice}")
    module = targets[config.name, architecture]
    found: Flat = traverse_util.flatten_dict(source, sep="/")
    wanted: Flat = traverse_util.flatten_dict(variables, sep="/")
    adapted, new, problems = [], [], []
    unused = {key for key in found if not key.startswith(NEW.get(architecture, ()))}
    for name in wanted:
        collection, _, rest = name.partition("/")
        if module and not rest.startswith(f"{module}/"):
            continue
        key = f"{collection}/{rest.removeprefix(f'{module}/')}" if module else name
        if key.startswith(NEW.get(architecture, ())):
            new.append(rest)
            continue
        if key not in found:
            problems.append(f"{rest} is not in it")
            continue
        unused.discard(key)
        value, change = _adapt(key, found[key], wanted[name].shape)
        if value.shape != wanted[name].shape:
            problems.append(f"{rest} has shape {found[key].shape}, needs {wanted[name].shape}")
            continue
        if change:
            adapted.append(f"{rest} ({change})")
        wanted[name] = jnp.asarray(value, wanted[name].dtype)
    problems += [f"{key} in it has no place in the model" for key in sorted(unused)]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        sizes = json.loads(metadata.get("sizes", "{}"))
        said = ", ".join(f"{size}={value}" for size, value in sizes.items())
        raise UserError(
            f"{field}={path}: does not fit the model: {'; '.join(problems[:3])}{more}. "
            f"Its sizes: {said or architecture}"
        )
    inside = [name for name in wanted if not module or name.split("/")[1] == module]
    loaded = len(inside) - len(new) - len(adapted)
    log.info("%s: %s from %s: %d arrays loaded", module or config.name, architecture, path, loaded)
    for word, names in (("adapted", adapted), ("new", new)):
        if names:
            log.info("  %s: %s", word, ", ".join(names))
    return traverse_util.unflatten_dict(wanted, sep="/")


def _adapt(key: str, value: np.ndarray, shape: tuple[int, ...]) -> tuple[Any, str]:
    """A value in the model's shape, where that can be made, and what was done; "" for nothing."""
    if value.shape == shape:
        return value, ""
    if key == "params/patch_embed/kernel" and shape[2] == 1:
        return value.mean(2, keepdims=True), f"mean over {value.shape[2]} channels"
    if key == "params/pos_embed" and value.shape[2] == shape[2]:
        side = round((shape[1] - 1) ** 0.5)
        resized = resize_position_embeddings(jnp.asarray(value), side, side)
        return resized, f"resized to {side} x {side}"
    return value, ""
