"""Small pieces of HTML: text made safe, tables, pictures that lie in the page itself."""

import base64
import io
from collections.abc import Sequence
from html import escape

from matplotlib.figure import Figure

from lensjax.report.panels import Panel, Picture, Strip, png

# What a figure's colours become on a dark page.
DARK = {
    "#1f2328": "#e6e8eb",
    "#6b7280": "#a3abb8",
    "#c9ced6": "#4a515c",
    "#0072b2": "#5ab4ec",
    "#e69f00": "#f2b63c",
    "#009e73": "#3ccfa4",
    "#cc79a7": "#e59cc5",
}
_SIDE = 150  # of a small picture, dots on a page


def table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "numbers"
) -> str:
    """A table whose first column names the rows; cells are HTML.

    Args:
      caption: what it shows, text.
      head: the names of the columns.
      rows: the cells.
      kind: the table's class.
    """
    top = "".join(f'<th scope="col">{name}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{name}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        for name, *cells in rows
    )
    top = f"<thead><tr>{top}</tr></thead>" if head else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="{kind}"><caption>{escape(caption)}</caption>{top}<tbody>{body}</tbody>'
        "</table></div>"
    )


def data_uri(kind: str, content: bytes) -> str:
    """A file as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def figure(drawing: Figure, alt: str, caption: str) -> str:
    """A figure, with other colours on a dark page.

    Args:
      drawing: made, and written here, within `plots.paper_style`.
      alt: what a reader who cannot see it is told.
      caption: HTML.
    """
    stream = io.StringIO()
    drawing.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    drawing.set_layout_engine("none")  # it is laid out by now
    light = stream.getvalue()
    dark = light
    for color, other in DARK.items():
        dark = dark.replace(color, other)
    width, height = (round(96 * inches) for inches in drawing.get_size_inches())
    kind = "image/svg+xml"
    return (
        f'<figure class="plot" style="max-width:{1.45 * width:.0f}px"><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{data_uri(kind, dark.encode())}">'
        f'<img src="{data_uri(kind, light.encode())}" width="{width}" height="{height}" '
        f'alt="{escape(alt)}"></picture><figcaption>{caption}</figcaption></figure>'
    )


def panel(shown: Panel) -> str:
    """All strips of a panel."""
    columns = max(5, *(len(strip.pictures) for strip in shown.strips))
    return "".join(_strip(strip, columns) for strip in shown.strips)


def _strip(strip: Strip, columns: int) -> str:
    tiles = "".join(map(_tile, strip.pictures))
    note = f'<span class="note">{escape(strip.note)}</span>' if strip.note else ""
    tiles = f'<div class="tiles" style="--columns:{columns}">{tiles}</div>' if tiles else ""
    return f'<div class="strip"><h3>{escape(strip.title)} {note}</h3>{tiles}</div>'


def _tile(picture: Picture) -> str:
    first, *others = map(escape, picture.caption.split("\n"))
    caption = first + "".join(f"<br><b>{line}</b>" for line in others)
    return (
        f'<figure class="tile {picture.tone}"><img src="{data_uri("image/png", png(picture))}" '
        f'width="{_SIDE}" height="{_SIDE}" alt="{escape(picture.alt)}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def as_ascii(text: str) -> str:
    """The same page in letters that every encoding has."""
    return text.encode("ascii", "xmlcharrefreplace").decode()
