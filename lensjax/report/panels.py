"""Panels of small captioned pictures, for the page and as figures for a paper."""

import dataclasses
import functools
import io
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from lensjax.report.plots import INK, MUTED, RIGHT, WIDE, WRONG

Tone = Literal["right", "wrong", ""]

_MAX_COLUMNS, _MIN_COLUMNS = 7, 6  # limits on the number of columns across a figure
_NO_DATA_COLOR = (128, 128, 128)
_GAP, _HEADER, _CAPTION = 0.06, 0.2, 0.24  # inches


@dataclasses.dataclass(frozen=True)
class Picture:
    """A small picture.

    Attributes:
      pixels: values `[rows, columns]`, NaN for missing data, or RGB colors `[rows, columns, 3]` from 0 to 1;
        the first row is at the bottom.
      caption: caption; lines are separated by newlines.
      alt: alternative text.
      colormap: name of the color map for values.
      limits: values at the ends of the color map.
      tone: "right" or "wrong" if the picture shows a correct or wrong prediction.
    """

    pixels: Float[np.ndarray, "..."]
    caption: str
    alt: str
    colormap: str = "magma"
    limits: tuple[float, float] = (0.0, 1.0)
    tone: Tone = ""


@dataclasses.dataclass(frozen=True)
class Strip:
    """A row of related pictures, such as the pictures of one image.

    Attributes:
      title: heading of the row.
      note: additional text; may be empty.
      pictures: the pictures; may be empty.
    """

    title: str
    note: str
    pictures: tuple[Picture, ...]


@dataclasses.dataclass(frozen=True)
class Panel:
    """Strips under one heading.

    Attributes:
      name: base name of its files.
      title: heading.
      text: explanation.
      strips: rows of pictures.
    """

    name: str
    title: str
    text: str
    strips: tuple[Strip, ...]


def to_rgb(picture: Picture) -> UInt8[np.ndarray, "rows columns 3"]:
    """Colors of a picture, first row at the bottom; gray where data are missing."""
    if picture.pixels.ndim == 3:
        return np.round(255 * picture.pixels.clip(0, 1)).astype(np.uint8)
    low, high = picture.limits
    scaled = (picture.pixels.astype(float) - low) / (high - low)
    missing = np.isnan(scaled)
    colors = np.array(colormaps[picture.colormap](np.where(missing, 0, scaled), bytes=True)[..., :3])
    colors[missing] = _NO_DATA_COLOR
    return colors


def encode_png(picture: Picture) -> bytes:
    """The picture as a PNG file with at most 256 colors and one dot per pixel, first row at the bottom."""
    stream = io.BytesIO()
    if picture.pixels.ndim == 3:
        image = Image.fromarray(to_rgb(picture)[::-1]).quantize(256)
        image.save(stream, "PNG")
        return stream.getvalue()
    low, high = picture.limits
    scaled = (picture.pixels[::-1].astype(float) - low) / (high - low)
    # Palette entries 0 to 254 are the color map; 255 is missing data.
    index = np.where(np.isnan(scaled), 255, np.round(254 * scaled.clip(0, 1))).astype(np.uint8)
    image = Image.fromarray(index, "L")
    palette = colormaps[picture.colormap](np.linspace(0, 1, 255), bytes=True)[:, :3]
    image.putpalette(palette.tobytes() + bytes(_NO_DATA_COLOR))
    image.save(stream, "PNG")
    return stream.getvalue()


def panel_figure(panel: Panel) -> Figure:
    """All strips of a panel as a figure of page width."""
    columns = max((len(strip.pictures) for strip in panel.strips), default=1)
    pitch = WIDE / min(max(columns, _MIN_COLUMNS), _MAX_COLUMNS)
    rows = [_HEADER + (pitch - _GAP + _CAPTION if strip.pictures else 0) for strip in panel.strips]
    height = sum(rows)
    tops = height - np.cumsum([0, *rows])
    figure = Figure(figsize=(WIDE, height))
    axes = figure.add_axes((0, 0, 1, 1))
    write = functools.partial(axes.text, parse_math=False)  # file names may contain dollar signs
    for top, strip in zip(tops[:-1], panel.strips, strict=True):
        middle = top - 0.5 * _HEADER
        write(_GAP / 2, middle, strip.title, va="center", fontsize=8)
        right = WIDE - _GAP / 2
        write(right, middle, strip.note, ha="right", va="center", color=MUTED, fontsize=6.2)
        for column, picture in enumerate(strip.pictures[:_MAX_COLUMNS]):
            left, side = pitch * column + _GAP / 2, pitch - _GAP
            bottom = top - _HEADER - side
            axes.imshow(
                to_rgb(picture),
                extent=(left, left + side, bottom, bottom + side),
                origin="lower",
                interpolation="none",
            )
            edge = {"right": RIGHT, "wrong": WRONG, "": INK}[picture.tone]
            width = 1.2 if picture.tone else 0.4
            axes.add_patch(Rectangle((left, bottom), side, side, fill=False, edgecolor=edge, linewidth=width))
            write(left, bottom - 0.03, picture.caption, va="top", fontsize=5.8, linespacing=1.1)
    axes.set(xlim=(0, WIDE), ylim=(0, height), aspect="auto")
    axes.axis("off")
    return figure
