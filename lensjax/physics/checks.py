"""Converts and checks arguments: integers, byte order, sizes and lengths."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array


def native(values: Any) -> Any:
    """Values in native byte order.

    JAX rejects or misreads NumPy arrays of another byte order, such as those read from FITS files.
    """
    if isinstance(values, np.ndarray) and not values.dtype.isnative:
        return values.astype(values.dtype.newbyteorder("="))
    return values


def offsets(x: Any, y: Any, center_x: Any, center_y: Any) -> tuple[Any, Any]:
    """Coordinates relative to a center, for numbers and arrays of any byte order."""
    x, y = jnp.asarray(native(x)), jnp.asarray(native(y))
    return x - native(center_x), y - native(center_y)


def as_float(values: ArrayLike) -> Array:
    """Values as a floating-point array of the same precision; integers and booleans get the default one.

    JAX's interpolation rounds to integers if the image has integers.
    """
    values = native(values)
    dtype = jnp.result_type(values)
    return jnp.asarray(values, dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.result_type(float))


def image_shape(size: Any, name: str = "size") -> tuple[int, int]:
    """Rows and columns of an image, given as one number or as a pair.

    Raises:
      ValueError: if the size is not one or two positive whole numbers.
    """
    pair = tuple(size) if np.ndim(size) else (size, size)
    try:
        rows, columns = (operator.index(number) for number in pair)
    except (TypeError, ValueError):
        rows = columns = 0
    if rows < 1 or columns < 1:
        raise ValueError(f"{name} is {size!r}; expected a positive whole number, or a pair (rows, columns)")
    return rows, columns


def check_number(name: str, value: Any, smallest: int = 1) -> int:
    """A whole number of at least `smallest`, as an `int`.

    Raises:
      ValueError: for any other value.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = smallest - 1
    if number < smallest:
        raise ValueError(f"{name} is {value!r}; expected a whole number of at least {smallest}")
    return number


def check_length(name: str, value: Any) -> None:
    """Checks that a length is positive and finite; traced values under `jit` are not checked.

    Raises:
      ValueError: if the length is not positive and finite.
    """
    if not isinstance(value, jax.core.Tracer) and not 0 < float(value) < float("inf"):
        raise ValueError(f"{name} is {value}; expected a positive length in arcsec")


def check_image(name: str, image: Array, smallest: int = 1) -> None:
    """Checks that an array has two axes of at least `smallest` points.

    Raises:
      ValueError: for any other shape.
    """
    if jnp.ndim(image) != 2 or min(jnp.shape(image)) < smallest:
        least = f"at least {smallest} x {smallest}"
        raise ValueError(f"{name} has shape {jnp.shape(image)}; expected (rows, columns), {least}")
