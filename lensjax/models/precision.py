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

    In "float32" they are exact to rounding, also on GPUs where JAX left to itself would round their factors.
    In "tensorfloat32", for such GPUs, the factors are rounded to 10 bits of mantissa. In "bfloat16" the
    factors are rounded to 7 bits, and so are the feature maps of a ResNet; normalisation, statistics,
    physics and the answer are float32, and so are the gradients of the parameters.

    Args:
      precision: "float32", "tensorfloat32" or "bfloat16".
      model: the classifier.
    """
    return functools.partial(_apply, model, precision)


def _apply(
    model: nn.Module, precision: str, variables: PyTree, images: Array, **options: Any
) -> Any:
    if precision == "bfloat16":
        # What has one axis scales or shifts after a product, which the layers do in float32.
        params = jax.tree.map(
            lambda leaf: leaf.astype(jnp.bfloat16) if leaf.ndim > 1 else leaf, variables["params"]
        )
        variables = variables | {"params": params}
    with jax.default_matmul_precision(precision):
        return model.apply(variables, images, **options)
