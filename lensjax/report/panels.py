"""Rows of small pictures with captions: as data for the page, and as one figure for a paper."""

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

_MOST_COLUMNS, _LEAST_COLUMNS = 7, 6  # that the width of a figure is shared by
_EMPTY = (128, 128, 128)
_GAP, _HEAD, _CAPTION = 0.06, 0.2, 0.24  # inches


@dataclasses.dataclass(frozen=True)
class Picture:
    """A small picture.

    Attributes:
      pixels: values `[rows, columns]`, NaN where there is none, or colours `[rows, columns, 3]` from 0 to 1;
        the first row is the lowest.
      caption: what it is; lines are divided by line breaks.
      alt: what a reader who cannot see it is told.
      colors: name of the colour map of values.
      limits: values that have its first and its last colour.
      tone: whether it shows a right or a wrong answer.
    """

    pixels: Float[np.ndarray, "..."]
    caption: str
    alt: str
    colors: str = "magma"
    limits: tuple[float, float] = (0.0, 1.0)
    tone: Tone = ""


@dataclasses.dataclass(frozen=True)
class Strip:
    """Pictures that belong together, such as those of one image.

    Attributes:
      title: what they are of.
      note: more of it; may be empty.
      pictures: the pictures; with none, the note says why.
    """

    title: str
    note: str
    pictures: tuple[Picture, ...]


@dataclasses.dataclass(frozen=True)
class Panel:
    """Some strips under one heading.

    Attributes:
      name: of its files.
      title: the heading.
      text: what is to be seen, in sentences.
      strips: the rows of pictures.
    """

    name: str
    title: str
    text: str
    strips: tuple[Strip, ...]


def colored(picture: Picture) -> UInt8[np.ndarray, "rows columns 3"]:
    """The colours of a picture, its first row the lowest; grey where there is no value."""
    if picture.pixels.ndim == 3:
        return np.round(255 * picture.pixels.clip(0, 1)).astype(np.uint8)
    low, high = picture.limits
    share = (picture.pixels.astype(float) - low) / (high - low)
    empty = np.isnan(share)
    colors = np.array(colormaps[picture.colors](np.where(empty, 0, share), bytes=True)[..., :3])
    colors[empty] = _EMPTY
    return colors


def png(picture: Picture) -> bytes:
    """The picture as a PNG file of at most 256 colours, one dot a pixel, its first row at the bottom."""
    stream = io.BytesIO()
    if picture.pixels.ndim == 3:
        image = Image.fromarray(colored(picture)[::-1]).quantize(256)
        image.save(stream, "PNG")
        return stream.getvalue()
    low, high = picture.limits
    share = (picture.pixels[::-1].astype(float) - low) / (high - low)
    # Colours 0 to 254 of the map, and 255 where there is no value.
    index = np.where(np.isnan(share), 255, np.round(254 * share.clip(0, 1))).astype(np.uint8)
    image = Image.fromarray(index, "L")
    palette = colormaps[picture.colors](np.linspace(0, 1, 255), bytes=True)[:, :3]
    image.putpalette(palette.tobytes() + bytes(_EMPTY))
    image.save(stream, "PNG")
    return stream.getvalue()


def panel_figure(panel: Panel) -> Figure:
    """All strips of a panel, as wide as a page."""
    columns = max((len(strip.pictures) for strip in panel.strips), default=1)
    pitch = WIDE / min(max(columns, _LEAST_COLUMNS), _MOST_COLUMNS)
    rows = [_HEAD + (pitch - _GAP + _CAPTION if strip.pictures else 0) for strip in panel.strips]
    height = sum(rows)
    tops = height - np.cumsum([0, *rows])
    figure = Figure(figsize=(WIDE, height))
    axes = figure.add_axes((0, 0, 1, 1))
    write = functools.partial(axes.text, parse_math=False)  # names of files may hold dollar signs
    for top, strip in zip(tops[:-1], panel.strips, strict=True):
        write(_GAP / 2, top - 0.5 * _HEAD, strip.title, va="center", fontsize=8)
        right = WIDE - _GAP / 2
        write(
            right, top - 0.5 * _HEAD, strip.note, ha="right", va="center", color=MUTED, fontsize=6.2
        )
        for column, picture in enumerate(strip.pictures[:_MOST_COLUMNS]):
            left, side = pitch * column + _GAP / 2, pitch - _GAP
            bottom = top - _HEAD - side
            axes.imshow(
                colored(picture),
                extent=(left, left + side, bottom, bottom + side),
                origin="lower",
                interpolation="none",
            )
            edge = {"right": RIGHT, "wrong": WRONG, "": INK}[picture.tone]
            width = 1.2 if picture.tone else 0.4
            axes.add_patch(
                Rectangle((left, bottom), side, side, fill=False, edgecolor=edge, linewidth=width)
            )
            write(left, bottom - 0.03, picture.caption, va="top", fontsize=5.8, linespacing=1.1)
    axes.set(xlim=(0, WIDE), ylim=(0, height), aspect="auto")
    axes.axis("off")
    return figure
