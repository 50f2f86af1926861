"""Images in PNG and TIFF files of 1 to 32 bits, read one page at a time at full bit depth."""

import functools
import itertools
import sys
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from typing import IO, Any, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from lensjax.decoding import MAX_PIXELS, check_expansion, stream_length
from lensjax.errors import UserError
from lensjax.prediction.readers.entry import CheckSize, Entry, error_entry

MAX_PAGES = 10_000  # Pillow's time grows with the square of the number of pages
PNG = b"\x89PNG\r\n\x1a\n"  # first bytes of a PNG file
CHECKED = (b"IHDR", b"PLTE", b"IDAT")  # chunks that determine the pixels
LOSSY = ("jpeg", "tiff_jpeg", "webp")  # Pillow's names of compressions of TIFF files
PHOTOMETRIC, SAMPLE_FORMAT = 262, 339  # TIFF tags
UNSIGNED, SIGNED = (1,), (2,)  # values of SAMPLE_FORMAT
# Color modes whose conversion to RGB keeps the stored values. Other color modes are rejected.
COLOR_MODES = ("P", "PA", "LA", "RGB", "RGBA")


def read(stream: BufferedIOBase, check_size: CheckSize, extension: str | None = None) -> Iterator[Entry]:
    """The images of a PNG or TIFF file, which has no extensions.

    Gray images stored as color are accepted; transparency is ignored.
    """
    del extension
    length = stream_length(stream)
    _check_png(stream)
    with _open(stream) as picture:
        if picture.format == "PNG" and getattr(picture, "is_animated", False):
            raise UserError("is an animation; save each image to a file of its own")
        several = _has_page(picture, 1)
        for index in itertools.count():
            if index == MAX_PAGES:
                yield error_entry(f"more than {MAX_PAGES:,} pages; split the file", f"[{index}]")
                return
            if not _has_page(picture, index):
                return
            load = functools.partial(_load, stream, picture, index, length, check_size)
            yield Entry(f"[{index}]" if several else "", load)


def _check_png(stream: BufferedIOBase) -> None:
    """Checks the checksums of a PNG file and rewinds the stream; Pillow ignores those of the pixels.

    Raises:
      UserError: if one is wrong.
    """
    if stream.read(len(PNG)) == PNG:
        while len(start := stream.read(8)) == 8:
            length, kind = int.from_bytes(start[:4], "big"), start[4:]
            checksum, remaining = zlib.crc32(kind), length
            while remaining and (block := stream.read(min(remaining, 2**20))):
                checksum, remaining = zlib.crc32(block, checksum), remaining - len(block)
            stored = stream.read(4)
            if kind in CHECKED and len(stored) == 4 and checksum != int.from_bytes(stored, "big"):
                raise UserError("is damaged: a checksum is wrong; copy or download it again")
            if kind == b"IEND":
                break
    stream.seek(0)


def _open(stream: BufferedIOBase) -> Image.Image:
    try:
        return Image.open(cast(IO[bytes], stream), formats=("PNG", "TIFF"))
    except UnidentifiedImageError:
        raise UserError("is not a PNG or TIFF image of at most 32 bits; save it as .npy") from None


def _has_page(picture: Image.Image, index: int) -> bool:
    try:
        picture.seek(index)
    except EOFError:
        return False
    return True


def _load(
    stream: BufferedIOBase, picture: Image.Image, index: int, length: int, check_size: CheckSize
) -> np.ndarray:
    picture.seek(index)
    if picture.width * picture.height > MAX_PIXELS:
        raise UserError(f"more than {MAX_PIXELS:,} pixels per image; crop to the lens")
    if picture.format == "TIFF" and picture.info.get("compression") in LOSSY:
        raise UserError("has lossy compression, which changes the noise; use lossless compression")
    check_size((picture.height, picture.width))
    check_expansion(4 * picture.width * picture.height, length)
    if picture.mode in COLOR_MODES:
        colors = _colors(stream, picture, index)
        if (colors != colors[..., :1]).any():
            raise UserError("is a color image; save a single channel")
        return colors[..., 0]
    if picture.mode not in ("1", "L", "I", "F") and not picture.mode.startswith("I;16"):
        raise UserError(f"has the color mode {picture.mode}; save a single channel")
    return _gray(picture)


def _gray(picture: Any) -> np.ndarray:
    """Pixels of one channel, as stored; 0 is black."""
    tags = getattr(picture, "tag_v2", {})
    sample_format = tags.get(SAMPLE_FORMAT)
    _set_raw_mode(picture, lambda codec, mode: mode.replace("B", "N") if codec == "libtiff" else mode)
    pixels = np.asarray(picture)
    if picture.mode == "I" and sample_format == UNSIGNED:
        pixels = pixels.view(np.uint32)
    elif picture.mode == "L" and sample_format == SIGNED:
        pixels = pixels.view(np.int8)
    if tags.get(PHOTOMETRIC) == 0 and picture.mode not in ("1", "L"):  # Pillow inverts these two itself
        if not picture.mode.startswith("I;16"):
            raise UserError("stores white as 0 in a type without a maximum; save it with black as 0")
        pixels = np.iinfo(np.uint16).max - pixels
    return pixels


def _colors(stream: BufferedIOBase, picture: Any, index: int) -> np.ndarray:
    """Gray values, or red, green and blue values, `[height, width, channels]`."""
    raw_mode = _raw_mode(picture)
    if ";16" not in raw_mode:
        return np.asarray(picture.convert("RGB"))
    # Pillow keeps only one of the two bytes of each value, so the bytes are read one after the other. 16-bit
    # gray with alpha has the layout of 8-bit RGBA.
    if raw_mode == "LA;16B":
        _set_raw_mode(picture, lambda _, mode: "RGBA")
        high, low = np.asarray(picture)[..., 0:1], np.asarray(picture)[..., 1:2]
    elif raw_mode.startswith(("RGB;16", "RGBA;16", "RGBX;16")):
        high = np.asarray(picture)[..., :3]
        other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
        with _open(stream) as second:
            second.seek(index)
            _set_raw_mode(second, lambda _, mode: mode[:-1] + other[mode[-1]])
            low = np.asarray(second)[..., :3]
    else:
        raise UserError("has an unsupported layout of 16-bit colors; save a single channel")
    return high.astype(np.uint16) << 8 | low


def _raw_mode(picture: Any) -> str:
    """Layout of the stored pixels, as Pillow names it."""
    arguments = picture.tile[0][3] if picture.tile else ""
    return arguments if isinstance(arguments, str) else str(arguments[0])


def _set_raw_mode(picture: Any, change: Any) -> None:
    """Changes the layout from which Pillow decodes the pixels.

    libtiff converts pixels to the byte order of the machine, which Pillow does not take into account for all
    types; "N" is this order.
    """
    tiles = []
    for tile in picture.tile:
        codec, *place, arguments = tile
        if isinstance(arguments, str):
            arguments = change(codec, arguments)
        else:
            arguments = (change(codec, arguments[0]), *arguments[1:])
        # Tiles are plain tuples before Pillow 11, and named tuples since.
        changed = (codec, *place, arguments)
        tiles.append(changed if type(tile) is tuple else type(tile)(*changed))
    picture.tile = tiles
