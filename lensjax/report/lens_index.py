"""The page that lists all fitted lenses."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from lensjax.prediction.table_files import to_valid_utf8
from lensjax.report import html
from lensjax.report.html import Cell
from lensjax.report.lens_page import verdict_label

# Sorts the table by a column when its heading is clicked.
_SORTING = """
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
    return render_list(
        "lensjax fit: models of gravitational lenses",
        "Data, model and residual (-5 to 5 standard deviations)",
        "fits.csv",
        ["lens", "theta_E (arcsec)", "error", "verdict", "reduced chi-square", "reasons"],
        [_row(row, thumbnails.get(row["name"])) for row in rows],
        {name: sum(row["verdict"] == name for row in rows) for name in _RANK},
    )


def render_list(
    title: str,
    pictures: str,
    file: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str | Cell]],
    counts: Mapping[str, int],
) -> str:
    """Renders a page with a sortable table of lenses as HTML.

    Args:
      title: the command, a colon, and what it produces.
      pictures: what the thumbnails show.
      file: name of the file with the same table.
      head: headings.
      rows: cells of each lens.
      counts: number of lenses with each verdict.

    Returns:
      The page.
    """
    tiles = [(name, f"{number:,}") for name, number in counts.items()]
    header = html.render_header(title, f"{len(rows):,} lens{'es' * (len(rows) != 1)}", tiles)
    caption = f"{pictures}. Click a heading to sort the table"
    table = html.render_table(caption, head, rows, css_class="lenses")
    footer = f"{html.MADE_WITH} The table is also in {file}."
    sections = {"lenses": ("Lenses", table)}
    return html.render_document(title.partition(":")[0], header, sections, footer, script=_SORTING)


def lens_cell(name: str, pictures: str, thumbnail: bytes | None) -> Cell:
    """The name of a lens with its thumbnail, linked to its page; without a thumbnail it has no page.

    Args:
      name: the name.
      pictures: what the thumbnail shows.
      thumbnail: the PNG file.
    """
    valid = to_valid_utf8(name)
    label = escape(valid)
    if thumbnail is not None:
        source = html.data_uri("image/png", thumbnail)
        label = f'<a href="{quote(valid)}.html"><img src="{source}" alt="{pictures} of {label}">{label}</a>'
    return Cell(label, {"data-sort": valid})


def number_cell(value: float | None, form: str) -> Cell:
    """A number that is sorted by its full value; empty for None."""
    if value is None:
        return Cell("", {"data-sort": ""})
    return Cell(f"{value:{form}}", {"data-sort": str(value)})


def _row(row: Mapping[str, Any], thumbnail: bytes | None) -> list[str | Cell]:
    verdict = row["verdict"]
    return [
        lens_cell(row["name"], "Data, model and residual", thumbnail),
        number_cell(row.get("mass.0.theta_E"), ".4f"),
        number_cell(row.get("mass.0.theta_E_error"), ".2g"),
        Cell(verdict_label(verdict), {"data-sort": _RANK.get(verdict, "")}),
        number_cell(row.get("reduced_chi_square"), ".3f"),
        escape(to_valid_utf8(str(row.get("reasons") or ""))),
    ]
