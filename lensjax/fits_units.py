"""Opens untrusted FITS files; checks sizes before astropy reads them."""

import bz2
import contextlib
import dataclasses
import gzip
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from io import BufferedIOBase
from typing import Any, cast

from astropy.io import fits

from lensjax.decoding import ALWAYS_ALLOWED, MAX_BLOCK, check_expansion, expansion_limit, stream_length
from lensjax.errors import UserError

BLOCK, CARD = 2880, 80  # bytes
MAX_HEADER_BLOCKS = 2_000  # 72,000 cards
OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open}


@dataclasses.dataclass(frozen=True)
class Units:
    """The readable part of an open FITS file.

    Attributes:
      images: image units with two or more axes, by number.
      primary: the first unit, which may have no pixels.
      number: number of complete units.
      problem: what is wrong with the unit after the last complete one; "" if there is no problem.
      length: length of the file after decompression, bytes.
    """

    images: dict[int, Any]
    primary: Any
    number: int
    problem: str
    length: int


@contextlib.contextmanager
def open_units(stream: BufferedIOBase) -> Iterator[Units]:
    """Opens a FITS file, compressed or not. BSCALE and BZERO are applied; BLANK becomes NaN.

    Args:
      stream: the file; must stay open and seekable.

    Raises:
      UserError: if it is not a FITS file, no unit is complete, or its compressed data are truncated or expand
        to more than `decoding.expansion_limit`.
      Exception: of any type if a decoder fails on a damaged file.
    """
    with _unpack(stream) as plain:
        length = stream_length(plain)
        whole, problem = _count_units(plain, length)
        plain.seek(0)
        if not whole:
            raise UserError(problem or "contains no image")
        with fits.open(plain, memmap=False, ignore_missing_simple=False) as units:
            # astropy reads a unit on first access, and units after the last whole one are not accessed.
            read = [units[index] for index in range(whole)]
            images = {
                index: unit for index, unit in enumerate(read) if unit.is_image and len(unit.shape) >= 2
            }
            yield Units(images, read[0], whole, problem, length)


def check_compressed(unit: Any, length: int) -> None:
    """Rejects a compressed image that is far larger than its file.

    Args:
      unit: image unit.
      length: length of the file, bytes.

    Raises:
      UserError: if the image is larger than `decoding.expansion_limit`.
    """
    if isinstance(unit, fits.CompImageHDU):
        check_expansion(math.prod(unit.shape) * abs(unit.header["BITPIX"]) // 8, length)


def _unpack(stream: BufferedIOBase) -> BufferedIOBase:
    """The file; if compressed, decompressed into memory or, if it is large, into a temporary file."""
    length = stream_length(stream)
    start = stream.read(3)
    stream.seek(0)
    opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), None)
    if opener is None:
        return cast(BufferedIOBase, _KeptOpen(stream))
    target = tempfile.SpooledTemporaryFile(ALWAYS_ALLOWED)  # noqa: SIM115 (closed by the caller)
    try:
        limit = expansion_limit(length)
        with opener(stream) as packed:
            while block := packed.read(2**20):
                if target.tell() + len(block) > limit:
                    raise UserError(
                        f"expands to more than {limit:,} bytes from {length:,}; unpack it if you trust it"
                    )
                target.write(block)
    except BaseException as error:
        target.close()
        if isinstance(error, EOFError):
            raise UserError("its compressed data are truncated; copy or download it again") from None
        raise
    return cast(BufferedIOBase, target)


class _KeptOpen:
    """A stream that a `with` statement does not close."""

    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> "_KeptOpen":
        return self

    def __exit__(self, *error: object) -> None:
        pass


def _count_units(stream: BufferedIOBase, length: int) -> tuple[int, str]:
    """Number of complete header-and-data units, and the problem with the next one; "" if there is none."""
    position = number = 0
    while position < length:
        stream.seek(position)
        header = _read_header(stream, b"XTENSION" if number else b"SIMPLE")
        if header is None:  # padding or special records after the last unit
            break
        if not header:
            return number, "is truncated or damaged: a header has no END; copy or download it again"
        size = _data_size(header)
        if size is None:
            return number, "has a damaged header; copy or download it again"
        found = length - stream.tell()
        if found < size:
            return number, f"truncated: {found:,} of {size:,} bytes of pixels; copy or download it again"
        position = stream.tell() + -(-size // BLOCK) * BLOCK
        number += 1
    return number, "" if number else "is not a FITS file; check the file"


def _read_header(stream: BufferedIOBase, first_keyword: bytes) -> bytearray | None:
    """The cards of a header up to END; empty if there is no END, None if there is no header."""
    header = bytearray()
    for number in range(MAX_HEADER_BLOCKS):
        block = stream.read(BLOCK)
        if number == 0 and not block.startswith(first_keyword):
            return None
        for start in range(0, len(block), CARD):
            if block.startswith(b"END     ", start):
                return header + block[:start]
        if len(block) < BLOCK:
            break
        header += block
    return bytearray()


def _data_size(header: bytearray) -> int | None:
    """Length of the data that a header describes, bytes; None if it is damaged."""
    cards: dict[str, str] = {}
    for start in range(0, len(header), CARD):
        card = header[start : start + CARD].decode("ascii", "replace")
        if card[8] == "=":
            cards.setdefault(card[:8].strip(), card[10:].partition("/")[0].strip(" '"))
    try:
        sides = [int(cards[f"NAXIS{axis}"]) for axis in _numbers(cards, "NAXIS")]
        groups, parameters = int(cards.get("GCOUNT", 1)), int(cards.get("PCOUNT", 0))
        bits = abs(int(cards["BITPIX"]))
        if bits not in (8, 16, 32, 64) or min([*sides, groups, parameters]) < 0:
            return None
        if cards.get("ZIMAGE") == "T" and not _has_valid_tiles(cards):
            return None
        _numbers(cards, "TFIELDS")
    except (ValueError, KeyError):
        return None
    if cards.get("GROUPS") == "T" and sides and sides[0] == 0:
        sides = sides[1:]
    return bits // 8 * groups * (parameters + (math.prod(sides) if sides else 0))


def _numbers(cards: Mapping[str, str], name: str) -> range:
    """Numbers of the keywords that a card counts: 1, 2, ..., at most 999."""
    number = int(cards.get(name, 0))
    if not 0 <= number <= 999:
        raise ValueError
    return range(1, number + 1)


def _has_valid_tiles(cards: Mapping[str, str]) -> bool:
    """Returns whether the tiles of a compressed image are valid and cover it; decoders do not check them."""
    tiles, pixels = 1, 1
    for axis in _numbers(cards, "ZNAXIS"):
        side = int(cards[f"ZNAXIS{axis}"])
        tile = int(cards.get(f"ZTILE{axis}", side if axis == 1 else 1))
        if side < 1 or tile < 1:
            return False
        tiles, pixels = tiles * -(-side // tile), pixels * min(tile, side)
    allowed = {"BLOCKSIZE": ("16", "32"), "BYTEPIX": ("1", "2", "4", "8")}
    for name, parameter in cards.items():
        if name.startswith("ZNAME") and parameter in allowed:
            value = cards[f"ZVAL{name.removeprefix('ZNAME')}"]
            if value.strip() not in allowed[parameter]:
                return False
    return tiles == int(cards["NAXIS2"]) and 8 * pixels <= MAX_BLOCK
