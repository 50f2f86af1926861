"""PNG and TIFF files written byte by byte, with pixels of any type, byte order and meaning."""

import struct
import zlib

import numpy as np


def png_bytes(image: np.ndarray, color_type: int) -> bytes:
    """A 16-bit PNG: gray (0), RGB (2), gray with alpha (4) or RGBA (6)."""
    height, width = image.shape[:2]
    rows = np.ascontiguousarray(image, ">u2").view(np.uint8).reshape(height, -1)
    step = rows.shape[1] // width
    differences = rows.copy()
    differences[:, step:] -= rows[:, :-step]  # filter 1
    lines = np.insert(differences, 0, 1, axis=1)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(lines.tobytes()), b"IEND": b""}
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff_bytes(image: np.ndarray, *, photometric: int = 1, deflate: bool = False) -> bytes:
    """A TIFF with one strip, in the byte order of the array.

    Args:
      image: `[height, width]` or `[height, width, samples]`.
      photometric: 0 if 0 is white, 1 if 0 is black, 2 for colors.
      deflate: whether the strip is compressed.
    """
    order = ">" if image.dtype.byteorder == ">" else "<"
    height, width, *rest = image.shape
    samples = rest[0] if rest else 1
    data = zlib.compress(image.tobytes()) if deflate else image.tobytes()
    tags = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [8 * image.dtype.itemsize] * samples),
        259: ("H", [8 if deflate else 1]),
        262: ("H", [photometric]),
        273: ("I", [8]),
        277: ("H", [samples]),
        278: ("I", [height]),
        279: ("I", [len(data)]),
        339: ("H", [{"u": 1, "i": 2, "f": 3}[image.dtype.kind]] * samples),
    }
    extra, entries = b"", b""
    after = 8 + len(data) + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in tags.items():
        packed = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(packed) > 4:
            packed, extra = struct.pack(order + "I", after + len(extra)), extra + packed
        entries += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[kind], len(values))
        entries += packed.ljust(4, b"\0")
    mark = b"MM" if order == ">" else b"II"
    start = mark + struct.pack(order + "HI", 42, 8 + len(data))
    return start + data + struct.pack(order + "H", len(tags)) + entries + bytes(4) + extra
