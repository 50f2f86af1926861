"""Limits for untrusted files, and errors and warnings of their decoders."""

import contextlib
import os
import re
import warnings
from collections.abc import Iterator
from io import BufferedIOBase

from lensjax.errors import UserError

MAX_PIXELS = 2**26  # per image; limits the memory that a damaged header can request
MAX_BLOCK = 8 * MAX_PIXELS  # bytes that are decompressed at once
# Largest ratio of decompressed to compressed size, unless the data are small; lens images reach about 20.
MAX_EXPANSION = 250
ALWAYS_ALLOWED = 2**26  # bytes
# Auxiliary planes: words in their names, and complete names.
_WORDS = (
    "psf rms wht weight weights wt ivar invvar var variance err error errors sigma std stdev noise uncert "
    "uncertainty dq mask masks flag flags bpm quality exptime ctx cov covariance coverage seg segm "
    "segmentation"
)
_AUXILIARY_WORDS = frozenset(_WORDS.split(" "))
_AUXILIARY_NAMES = frozenset({"bkg", "background", "sky", "con", "exp", "time", "samp"})


def describe_error(error: Exception) -> str:
    """First line of an exception's message, at most 200 characters; unprintable characters are escaped."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:200])


def stream_length(stream: BufferedIOBase) -> int:
    """Length of a seekable stream, bytes; its position becomes 0."""
    length = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    return length


def expansion_limit(length: int) -> int:
    """Number of bytes that a compressed file of this length may contain."""
    return max(ALWAYS_ALLOWED, MAX_EXPANSION * length)


def check_expansion(claimed: int, length: int) -> None:
    """Rejects data that are far larger than their file.

    Args:
      claimed: number of bytes according to the header.
      length: length of the file, bytes.

    Raises:
      UserError: if the data are larger than `expansion_limit`.
    """
    if claimed > expansion_limit(length):
        raise UserError(
            f"claims {claimed:,} bytes of pixels in a file of {length:,} bytes; it is damaged or empty"
        )


def is_auxiliary(name: str) -> bool:
    """Returns whether a name belongs to an auxiliary plane, such as "VIS_PSF" or "DQ"."""
    words = [word for word in re.split("[^a-z]+", name.casefold()) if word]
    return not _AUXILIARY_WORDS.isdisjoint(words) or (len(words) == 1 and words[0] in _AUXILIARY_NAMES)


@contextlib.contextmanager
def suppress_warnings() -> Iterator[None]:
    """Suppresses warnings of decoders, for example about unusual keywords and unknown tags."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
