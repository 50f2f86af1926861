"""Reader of NumPy's pickled object arrays that runs no code from the file.

A pickle names functions and calls them. This reader knows only the four names that NumPy writes into the
pickle of an array, and replaces them with the functions and classes below, which accept only numbers and
lists of numbers. NumPy's own functions are not safe: they allocate arrays of any size, and a forged data type
can make them read bytes of the file as pointers to Python objects.
"""

import io
import itertools
import math
import pickle
import pickletools
import re
from typing import Any

import numpy as np

from lensjax.errors import UserError

MAX_OPCODES = 1_000  # an array of an image and a number has about 100
# The opcodes in NumPy's pickles of object arrays. Others could create objects, or dictionaries and sets,
# whose keys can take exponentially long to hash.
_NAMES = (
    "PROTO FRAME STOP MARK TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS NONE NEWTRUE "
    "NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT SHORT_BINBYTES BINBYTES BINBYTES8 SHORT_BINUNICODE "
    "BINUNICODE GLOBAL STACK_GLOBAL REDUCE BUILD BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET"
)
OPCODES = frozenset(_NAMES.split())
REFUSED = "it can run code and was not loaded; if you trust the file, save only the image with np.save"


def load_object_array(data: bytes) -> list[Any]:
    """Elements of a pickled one-dimensional object array.

    The memory for them is at most a few times the length of the data.

    Args:
      data: the pickle, without the header of the .npy file.

    Returns:
      The elements: NumPy arrays of numbers, and Python objects without code, such as floats.

    Raises:
      UserError: if the pickle is damaged or contains anything else. The message does not contain the file's
        name.
    """
    _check_opcodes(data)
    try:
        loaded = _Unpickler(io.BytesIO(data), fix_imports=False).load()
    except UserError:
        raise
    # Invalid pickles raise many kinds of errors (UnpicklingError, IndexError, TypeError, ...).
    except Exception as error:
        raise UserError("damaged pickle; copy or download it again") from error
    if not isinstance(loaded, _Array) or not isinstance(loaded.content, list):
        raise UserError("its pickle is not a NumPy object array; save only the image with np.save")
    return [element.content if isinstance(element, _Array) else element for element in loaded.content]


def _check_opcodes(data: bytes) -> None:
    """Checks the syntax of a pickle before it is loaded.

    Raises:
      UserError: if the pickle is truncated, too long or followed by other bytes, or has an opcode or memo
        index that NumPy does not write for object arrays.
    """
    try:
        operations: list[Any] = list(itertools.islice(pickletools.genops(data), MAX_OPCODES))
    except Exception as error:
        raise UserError("truncated or damaged pickle; copy or download it again") from error
    for opcode, argument, _ in operations:
        if opcode.name not in OPCODES:
            raise UserError(f"its pickle contains the opcode {opcode.name}, unlike NumPy's; {REFUSED}")
        # The unpickler allocates memory for all indices up to the largest.
        if opcode.name in ("BINPUT", "LONG_BINPUT") and argument > MAX_OPCODES:
            raise UserError(f"its pickle has the memo index {argument}, unlike NumPy's; {REFUSED}")
    last, _, position = operations[-1]
    if last.name != "STOP":
        raise UserError("its pickle has too many parts for an image; save only the image with np.save")
    if position + 1 != len(data):
        raise UserError("extra bytes after the array; save one image per file with np.save")


class _DType:
    """Stands in for `numpy.dtype`."""

    def __init__(self, code: Any, *unused: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch("f[248]|[iu][1248]|O[48]", code):
            raise UserError(
                "its pickle has values of another type; save floats or integers of at most 64 bits"
            )
        self.code = code
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        version, self.order, *structure = state[:5]
        if version != 3 or self.order not in ("<", ">", "=", "|") or any(x is not None for x in structure):
            raise UserError(f"its pickle has a structured data type, unlike an image; {REFUSED}")

    def frombuffer(self, content: Any, shape: tuple[int, ...], order: Any) -> np.ndarray:
        """Array of the numbers in `content`."""
        if self.code.startswith("O") or not isinstance(content, bytes):
            raise UserError(f"its pickle has values that are not numbers; {REFUSED}")
        dtype = np.dtype(self.order + self.code)
        if len(content) != math.prod(shape) * dtype.itemsize:
            raise UserError(
                f"its pickle has {len(content):,} bytes for an array of shape {shape!s:.40}; "
                "copy or download it again"
            )
        return np.frombuffer(content, dtype).reshape(shape, order=order)


class _Array:
    """Stands in for `numpy.ndarray`.

    Attributes:
      content: a NumPy array of numbers, the list of elements of an object array, or None.
    """

    content: np.ndarray | list[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran_order, content = state
        if not isinstance(shape, tuple) or any(type(size) is not int or size < 0 for size in shape):
            raise UserError("its pickle has an array without a shape; copy or download it again")
        if not isinstance(dtype, _DType):
            raise UserError(f"its pickle has an array without a data type; {REFUSED}")
        if dtype.code.startswith("O"):
            if not isinstance(content, list) or shape != (len(content),):
                raise UserError(
                    f"its pickle has an object array of shape {shape!s:.40} with a different number of "
                    "elements; copy or download it again"
                )
            self.content = list(content)
        else:
            self.content = dtype.frombuffer(content, shape, "F" if fortran_order else "C")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    """Stands in for `numpy._core.multiarray._reconstruct`: an array that is filled later."""
    if kind is not _Array or shape != (0,) or code not in (b"b", "b"):
        raise UserError(f"its pickle creates an array in a different way than NumPy does; {REFUSED}")
    return _Array()


def _scalar(dtype: Any, content: Any) -> float:
    """Stands in for `numpy._core.multiarray.scalar`."""
    if not isinstance(dtype, _DType):
        raise UserError(f"its pickle has a number without a data type; {REFUSED}")
    return dtype.frombuffer(content, (), "C").item()


_GLOBALS: dict[tuple[str, str], Any] = {("numpy", "ndarray"): _Array, ("numpy", "dtype"): _DType}
for _core in ("core", "_core"):  # NumPy 1 and 2
    _GLOBALS[f"numpy.{_core}.multiarray", "_reconstruct"] = _reconstruct
    _GLOBALS[f"numpy.{_core}.multiarray", "scalar"] = _scalar


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Replacement of a function or class.

        Raises:
          UserError: if NumPy does not use it for arrays of numbers.
        """
        try:
            return _GLOBALS[module, name]
        except KeyError:
            called = f"{module}.{name}"
            raise UserError(f"its pickle calls {called!r:.80}; {REFUSED}") from None
