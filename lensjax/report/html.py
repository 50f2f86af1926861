"""HTML building blocks: documents, tables, embedded figures and panels of images."""

import base64
import dataclasses
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from matplotlib.figure import Figure

import lensjax
from lensjax.report.page_style import STYLE
from lensjax.report.panels import Panel, Picture, Strip, encode_png

# Colors of a figure on a light page, and their replacements on a dark page.
DARK = {
    "#1f2328": "#e6e8eb",
    "#6b7280": "#a3abb8",
    "#c9ced6": "#4a515c",
    "#0072b2": "#5ab4ec",
    "#e69f00": "#f2b63c",
    "#009e73": "#3ccfa4",
    "#cc79a7": "#e59cc5",
}
MADE_WITH = f"Made with lensjax {escape(lensjax.__version__)}."
_DPI = 200  # for screens with two dots per CSS pixel
_SIDE = 150  # side of a small picture, CSS pixels


@dataclasses.dataclass(frozen=True)
class Cell:
    """A table cell with attributes.

    Attributes:
      text: content, HTML.
      attributes: attributes of the element, by name.
    """

    text: str
    attributes: Mapping[str, str] = dataclasses.field(default_factory=dict)


def render_table(
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str | Cell]],
    *,
    css_class: str = "numbers",
    highlighted_row: int | None = None,
) -> str:
    """A table whose first column contains the row headers.

    Args:
      caption: plain text.
      head: column headers, HTML; no header row if empty.
      rows: cells of each row, as HTML or `Cell`.
      css_class: class of the table.
      highlighted_row: index of a row to highlight.
    """
    header = "".join(f'<th scope="col">{name}</th>' for name in head)
    header = f"<thead><tr>{header}</tr></thead>" if head else ""
    body = "".join(_row(row, index == highlighted_row) for index, row in enumerate(rows))
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="{css_class}"><caption>{escape(caption)}</caption>{header}<tbody>{body}</tbody>'
        "</table></div>"
    )


def _row(cells: Sequence[str | Cell], highlighted: bool) -> str:
    first, *others = (cell if isinstance(cell, Cell) else Cell(cell) for cell in cells)
    header = _element("th", first.text, {"scope": "row", **first.attributes})
    data = "".join(_element("td", cell.text, cell.attributes) for cell in others)
    return _element("tr", header + data, {"class": "here"} if highlighted else {})


def _element(tag: str, content: str, attributes: Mapping[str, str]) -> str:
    written = "".join(f' {name}="{escape(value)}"' for name, value in attributes.items())
    return f"<{tag}{written}>{content}</{tag}>"


def data_uri(media_type: str, content: bytes) -> str:
    """A data URI with the content of a file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def render_figure(figure: Figure, alt: str, caption: str) -> str:
    """A figure as embedded SVG, in light and dark colors.

    Args:
      figure: a figure made within `plots.paper_style`; this function must be called within it too.
      alt: alternative text.
      caption: HTML.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    figure.set_layout_engine("none")  # the layout is final after the first draw
    light = stream.getvalue()
    dark = light
    for color, replacement in DARK.items():
        dark = dark.replace(color, replacement)
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    svg = "image/svg+xml"
    return (
        f'<figure class="plot" style="max-width:{1.45 * width:.0f}px"><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{data_uri(svg, dark.encode())}">'
        f'<img src="{data_uri(svg, light.encode())}" width="{width}" height="{height}" '
        f'alt="{escape(alt)}"></picture><figcaption>{caption}</figcaption></figure>'
    )


def render_document(
    title: str, header: str, sections: Mapping[str, tuple[str, str]], footer: str, *, script: str = ""
) -> str:
    """A page that needs no other files and no network access.

    Args:
      title: title of the window, HTML.
      header: content above the sections, HTML.
      sections: heading and content of each section, HTML, by its identifier, to which the navigation links.
      footer: text below the sections, HTML.
      script: JavaScript that runs when the page is loaded; no other script can run.
    """
    # Prevents the browser from loading external resources.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
    links = "".join(f'<li><a href="#{key}">{heading}</a></li>' for key, (heading, _) in sections.items())
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{heading}</h2>{content}'
        "</section>"
        for key, (heading, content) in sections.items()
    )
    nav = f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if len(sections) > 1 else ""
    return to_ascii(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>"
        f"{header}{nav}<main>{body}</main><footer>{footer}</footer>"
        f"{f'<script>{script}</script>' if script else ''}</body></html>\n"
    )


def render_header(over: str, title: str, tiles: Iterable[Sequence[str]], lead: str = "") -> str:
    """The top of a page. All arguments are HTML.

    Args:
      over: line above the title.
      title: title.
      tiles: name, value and, optionally, explanation of each key number.
      lead: paragraph below the title; none if empty.
    """
    keys = ""
    for name, *texts in tiles:
        cells = zip(("value", "more"), texts, strict=False)
        content = "".join(f'<dd class="{kind}">{text}</dd>' for kind, text in cells)
        keys += f"<div><dt>{name}</dt>{content}</div>"
    lead = f'<p class="lead">{lead}</p>' if lead else ""
    return f'<header><p class="over">{over}</p><h1>{title}</h1>{lead}<dl class="key">{keys}</dl></header>'


def render_png(figure: Figure, alt: str, caption: str) -> str:
    """A figure of many pixels as an embedded PNG, on white in light and dark pages.

    Args:
      figure, alt, caption: see `render_figure`.
    """
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return (
        f'<figure class="plot"><img src="{data_uri("image/png", stream.getvalue())}" width="{width}" '
        f'height="{height}" alt="{escape(alt)}"><figcaption>{caption}</figcaption></figure>'
    )


def render_panel(panel: Panel) -> str:
    """All strips of a panel, as HTML."""
    columns = max(5, *(len(strip.pictures) for strip in panel.strips))
    return "".join(_strip(strip, columns) for strip in panel.strips)


def _strip(strip: Strip, columns: int) -> str:
    tiles = "".join(map(_tile, strip.pictures))
    note = f'<span class="note">{escape(strip.note)}</span>' if strip.note else ""
    tiles = f'<div class="tiles" style="--columns:{columns}">{tiles}</div>' if tiles else ""
    return f'<div class="strip"><h3>{escape(strip.title)} {note}</h3>{tiles}</div>'


def _tile(picture: Picture) -> str:
    first, *others = map(escape, picture.caption.split("\n"))
    caption = first + "".join(f"<br><b>{line}</b>" for line in others)
    return (
        f'<figure class="tile {picture.tone}"><img src="{data_uri("image/png", encode_png(picture))}" '
        f'width="{_SIDE}" height="{_SIDE}" alt="{escape(picture.alt)}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def to_ascii(text: str) -> str:
    """The text in ASCII, with character references for all other characters."""
    return text.encode("ascii", "xmlcharrefreplace").decode()
