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
# Names of noise maps, and what they contain.
NOISE_KINDS = {
    **dict.fromkeys(("err", "error", "errors", "rms", "sigma", "std", "stdev"), "standard deviation"),
    **dict.fromkeys(("wht", "weight", "weights", "wt", "ivar", "invvar"), "inverse variance"),
    **dict.fromkeys(("var", "variance"), "variance"),
}
# Auxiliary planes: words in their names, and complete names.
_WORDS = (
    "psf noise uncert uncertainty dq mask masks flag flags bpm quality exptime ctx cov covariance coverage "
    "seg segm segmentation"
)
_AUXILIARY_WORDS = frozenset([*NOISE_KINDS, *_WORDS.split(" ")])
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
    words = _words(name)
    return not _AUXILIARY_WORDS.isdisjoint(words) or (len(words) == 1 and words[0] in _AUXILIARY_NAMES)


def noise_kind(name: str) -> str | None:
    """What a noise map contains according to the words in its name; None if they do not state it.

    Args:
      name: name of an extension or a file, such as "VIS_RMS" or "lens-inverse-variance.fits".

    Returns:
      "standard deviation", "inverse variance" or "variance".
    """
    words = _words(re.sub("inv(erse)?[^a-z]*var(iance)?", "ivar", name.casefold()))
    found = {NOISE_KINDS[word] for word in words if word in NOISE_KINDS}
    kinds = ("inverse variance", "variance", "standard deviation")  # "error_variance" is a variance
    return next((kind for kind in kinds if kind in found), None)


def _words(name: str) -> list[str]:
    return [word for word in re.split("[^a-z]+", name.casefold()) if word]


@contextlib.contextmanager
def suppress_warnings() -> Iterator[None]:
    """Suppresses warnings of decoders, for example about unusual keywords and unknown tags."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
