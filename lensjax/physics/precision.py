"""Precision of matrix products."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator for functions whose matrix products are computed with the precision of their dtype.

    By default, JAX rounds the factors of float32 products to 10 bits on GPUs (TF32) and to 7 bits on TPUs
    (bfloat16). That is too coarse for the normal equations of a fit.

    Args:
      function: function that is traced or run by JAX; under `jax.jit`, decorate the inner function.
    """

    @functools.wraps(function)
    def with_full_precision(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.default_matmul_precision("float32"):
            return function(*args, **kwargs)

    return with_full_precision
