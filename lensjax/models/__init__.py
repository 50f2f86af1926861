"""Flax modules of the classifiers, and a function that builds them from a config."""

from collections.abc import Callable

import jax.numpy as jnp
from ml_collections import ConfigDict

from lensjax.config import INPUTS, check_choice
from lensjax.models.baseline_cnn import BaselineCNN
from lensjax.models.classifier import ClassifierModule, Outputs
from lensjax.models.lens_encoder_net import LensEncoderNet
from lensjax.models.lens_fit_net import LensFitNet
from lensjax.models.lens_vit_pinn import LensViTPINN
from lensjax.models.resnet import ResNet
from lensjax.models.vit import ViT, resize_position_embeddings

__all__ = [
    "BaselineCNN",
    "ClassifierModule",
    "LensEncoderNet",
    "LensFitNet",
    "LensViTPINN",
    "Outputs",
    "ResNet",
    "ViT",
    "build",
    "resize_position_embeddings",
]

# Maps `config.model.name` to the module and to those fields of `config.model` that are its attributes.
MODELS: dict[str, tuple[Callable[..., ClassifierModule], tuple[str, ...]]] = {
    "baseline_cnn": (BaselineCNN, ("width", "stage_sizes")),
    "lens_encoder_net": (LensEncoderNet, ("width", "num_blocks", "gauss_newton_steps")),
    "lens_fit_net": (LensFitNet, ("width", "num_blocks", "input")),
    "lens_vit_pinn": (
        LensViTPINN,
        (
            "width",
            "stage_sizes",
            "patch_size",
            "embedding_size",
            "depth",
            "num_heads",
            "position_grid",
            "dropout_rate",
            "input",
        ),
    ),
}


def build(config: ConfigDict, *, num_classes: int = 3, axis_name: str | None = None) -> ClassifierModule:
    """Builds the module that `config.model` and `config.precision` describe.

    Args:
      config: the whole config of a run.
      num_classes: number of classes.
      axis_name: mapped axis over which training batches are sharded; None if they are not sharded.

    Returns:
      The module, without parameters.

    Raises:
      UserError: if `config.model.name` or `config.model.input` is unknown.
    """
    check_choice("config.model.name", config.model.name, MODELS)
    check_choice("config.model.input", config.model.input, INPUTS)
    module, fields = MODELS[config.model.name]
    options = {field: config.model[field] for field in fields}
    dtype = jnp.bfloat16 if config.precision == "bfloat16" else None
    return module(num_classes=num_classes, axis_name=axis_name, dtype=dtype, **options)
