"""The page that lists all fitted lenses."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

import lensjax
from lensjax.prediction.table_files import to_valid_utf8
from lensjax.report import html
from lensjax.report.html import Cell
from lensjax.report.lens_page import verdict_label

# Sorts the table by a column when its heading is clicked.
SORTING = """
const table = document.querySelector("table.lenses");
const heads = [...table.tHead.rows[0].cells];
const number = (text) => (text === "" ? Infinity : Number(text));
heads.forEach((head, column) => {
  const button = document.createElement("button");
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows];
    const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
    const numeric = rows.every((row) => !Number.isNaN(number(key(row))));
    rows.sort((a, b) => numeric ? number(key(a)) - number(key(b)) || 0 : key(a).localeCompare(key(b)));
    table.tBodies[0].append(...(descending ? rows.reverse() : rows));
  });
});
"""
_RANK = {"good": "0", "doubtful": "1", "failed": "2"}


def render_index(rows: Sequence[Mapping[str, Any]], thumbnails: Mapping[str, bytes]) -> str:
    """Renders the page that lists all lenses as HTML.

    Args:
      rows: results of the lenses, as in the table of the command fit.
      thumbnails: PNG file of each fitted lens, by name.

    Returns:
      The page.
    """
    counts = {name: sum(row["verdict"] == name for row in rows) for name in _RANK}
    keys = "".join(
        f'<div><dt>{name}</dt><dd class="value">{number:,}</dd></div>' for name, number in counts.items()
    )
    header = (
        '<header><p class="over">lensjax fit: models of gravitational lenses</p>'
        f"<h1>{len(rows):,} lens{'es' * (len(rows) != 1)}</h1>"
        f'<dl class="key">{keys}</dl></header>'
    )
    table = html.render_table(
        "Data, model and residual (-5 to 5 standard deviations). Click a heading to sort the table",
        ["lens", "theta_E (arcsec)", "error", "verdict", "reduced chi-square", "reasons"],
        [_row(row, thumbnails.get(row["name"])) for row in rows],
        css_class="lenses",
    )
    footer = f"Made with lensjax {escape(lensjax.__version__)}. The table is also in fits.csv."
    return html.render_document("lensjax fits", header, {"lenses": ("Lenses", table)}, footer, script=SORTING)


def _row(row: Mapping[str, Any], thumbnail: bytes | None) -> list[str | Cell]:
    """Cells of a lens; a lens without a thumbnail has no page to link to."""
    name = to_valid_utf8(row["name"])
    label = escape(name)
    if thumbnail is not None:
        picture = (
            f'<img src="{html.data_uri("image/png", thumbnail)}" alt="Data, model and residual of {label}">'
        )
        label = f'<a href="{quote(name)}.html">{picture}{label}</a>'
    verdict = row["verdict"]
    return [
        Cell(label, {"data-sort": name}),
        _number(row.get("mass.0.theta_E"), ".4f"),
        _number(row.get("mass.0.theta_E_error"), ".2g"),
        Cell(verdict_label(verdict), {"data-sort": _RANK.get(verdict, "")}),
        _number(row.get("reduced_chi_square"), ".3f"),
        escape(to_valid_utf8(str(row.get("reasons") or ""))),
    ]


def _number(value: float | None, form: str) -> Cell:
    """A number that is sorted by its full value; empty for None."""
    if value is None:
        return Cell("", {"data-sort": ""})
    return Cell(f"{value:{form}}", {"data-sort": str(value)})
