"""The type of numbers that a model computes in, beside that of its parameters."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

PyTree = Any


def computed_in(precision: str, model: nn.Module) -> Callable[..., Any]:
    """`model.apply` with the model's products and convolutions in another type.

    In "bfloat16" the factors of products and convolutions are rounded to it, and so are the feature maps
    of a ResNet; normalisation, statistics, physics and the answer are float32, and so are the gradients of
    the parameters.

    Args:
      precision: "float32" or "bfloat16".
      model: the classifier.
    """
    if precision == "float32":
        return model.apply
    return functools.partial(_apply_rounded, model, jnp.dtype(precision))


def _apply_rounded(
    model: nn.Module, dtype: jnp.dtype, variables: PyTree, images: Array, **options: Any
) -> Any:
    # What has one axis scales or shifts after a product, which the layers do in float32.
    params = jax.tree.map(
        lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, variables["params"]
    )
    return model.apply(variables | {"params": params}, images, **options)
