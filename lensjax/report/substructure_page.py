"""Pages of searches for dark perturbers: one per lens, and the list of all lenses."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lensjax.prediction.table_files import to_valid_utf8
from lensjax.report import html
from lensjax.report.html import Cell
from lensjax.report.lens_index import lens_cell, number_cell, render_list
from lensjax.report.lens_page import render_views
from lensjax.report.substructure_figures import substructure_views
from lensjax.substructure.perturber import CANDIDATE, DETECTED, FRACTIONS, VERDICTS, PerturberSearch

_COLORS = {"detected": "good", "candidate": "doubtful", "none": "", "failed": "failed"}
_MEANINGS = {
    "detected": "At most 1 % of simulated lenses without a perturber gave such a large likelihood ratio.",
    "candidate": "At most 10 % of simulated lenses without a perturber gave such a large likelihood ratio.",
    "none": "No perturber was found; the map of the sensitivity shows which masses would have been found.",
}
_PICTURES = "Arcs, likelihood ratio and sensitivity"
_PROFILES = {
    "pseudo_jaffe": "a truncated isothermal halo (total mass)",
    "nfw": "a Navarro-Frenk-White halo (M200)",
    "point_mass": "a point mass",
}


def render_substructure_page(name: str, search: PerturberSearch) -> str:
    """Renders the page of a lens as HTML.

    Args:
      name: name of the lens.
      search: the result.

    Returns:
      The page.
    """
    title = escape(to_valid_utf8(name))
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in search.reasons)
    verdict = f"<p>{_label(search.verdict)}: {_MEANINGS[search.verdict]}</p>"
    if reasons:
        verdict += f"<p>The result may be wrong:</p><ul>{reasons}</ul>"
    sections = {
        "verdict": ("Verdict", verdict),
        "maps": ("Maps", render_views(substructure_views(search))),
        "numbers": ("Numbers", _numbers(search)),
        "assumptions": ("Assumptions", _assumptions(search)),
    }
    footer = f"{html.MADE_WITH} This file is self-contained."
    return html.render_document(f"{title}: lensjax substructure", _header(title, search), sections, footer)


def render_substructure_index(rows: Sequence[Mapping[str, Any]], thumbnails: Mapping[str, bytes]) -> str:
    """Renders the page that lists all lenses as HTML.

    Args:
      rows: results of the lenses, as in the table of the command substructure.
      thumbnails: PNG file of each lens with a result, by name.

    Returns:
      The page.
    """
    head = ["lens", "verdict", "log likelihood ratio", "x (arcsec)", "y (arcsec)", "log10 mass"]
    return render_list(
        "lensjax substructure: dark perturbers in gravitational lenses",
        _PICTURES,
        "substructure.csv",
        [*head, *(f"area sensitive to 1e{mass}" for mass in FRACTIONS), "reasons"],
        [_row(row, thumbnails.get(row["name"])) for row in rows],
        {name: sum(row["verdict"] == name for row in rows) for name in VERDICTS},
    )


def _row(row: Mapping[str, Any], thumbnail: bytes | None) -> list[str | Cell]:
    numbers = [("likelihood_ratio", ".1f"), ("x", ".2f"), ("y", ".2f"), ("log10_mass", ".2f")]
    numbers += [(f"sensitive_fraction_1e{mass}", ".1%") for mass in FRACTIONS]
    return [
        lens_cell(row["name"], _PICTURES, thumbnail),
        Cell(_label(row["verdict"]), {"data-sort": str(VERDICTS.index(row["verdict"]))}),
        *(number_cell(row.get(key), form) for key, form in numbers),
        escape(to_valid_utf8(str(row.get("reasons") or ""))),
    ]


def _label(verdict: str) -> str:
    return f'<span class="verdict {_COLORS[verdict]}">{escape(verdict)}</span>'


def _header(title: str, search: PerturberSearch) -> str:
    values, row = search.values, search.row()
    tiles = [
        ("verdict", _label(search.verdict), f"log likelihood ratio {search.likelihood_ratio:.1f}"),
        (
            "best position",
            f"{values['x']:.2f}, {values['y']:.2f}",
            f"± {values['x_error']:.2f}, {values['y_error']:.2f} arcsec",
        ),
        ("log10 mass (solar masses)", f"{values['log10_mass']:.2f}", f"± {values['log10_mass_error']:.2f}"),
        ("area sensitive to 1e9", f"{row['sensitive_fraction_1e9']:.1%}", "of the used part of the image"),
    ]
    lead = f"Search for {_PROFILES[search.map.halo.profile]}."
    return html.render_header("lensjax substructure: search for a dark perturber", title, tiles, lead)


def _numbers(search: PerturberSearch) -> str:
    row = search.row()
    first = search.map.best
    rows = [
        ["likelihood ratio, first order", f"{first[3]:.2f}", f"at {first[0]:.2f}, {first[1]:.2f} arcsec"],
        *(
            [
                f"complete refit {number}",
                f"{each.likelihood_ratio:.2f}",
                f"at {each.x:.3f} ± {each.errors[0]:.3f}, {each.y:.3f} ± {each.errors[1]:.3f} arcsec; "
                f"log10 mass {each.log10_mass:.2f} ± {each.errors[2]:.2f}",
            ]
            for number, each in enumerate(search.refits, 1)
        ),
        ["Bayes factor", f"{search.map.log_evidence:.2f}", "logarithm; averaged over positions and masses"],
        ["candidate", f"{CANDIDATE:g}", "exceeded by 10 % of simulated lenses without a perturber"],
        ["detected", f"{DETECTED:g}", "exceeded by 1 % of simulated lenses without a perturber"],
        [
            "smallest detectable mass",
            f"{row['smallest_detectable_log10_mass']:.2f}",
            "log10, at the most sensitive position",
        ],
        *(
            [f"area sensitive to 1e{mass}", f"{row[f'sensitive_fraction_1e{mass}']:.1%}", "solar masses"]
            for mass in FRACTIONS
        ),
        ["misfit", f"{row['misfit']:.2f}", "variance of the residual of the arcs relative to the noise"],
    ]
    return html.render_table("Likelihood ratios are natural logarithms", ["", "value", "description"], rows)


def _assumptions(search: PerturberSearch) -> str:
    halo = search.map.halo
    return (
        f"<p>One perturber, {_PROFILES[halo.profile]}, at the redshift {halo.z_lens:g} of the lens; the "
        f"source is at {halo.z_source:g}. Multipoles of the main lens, a more complex source and the width "
        "of the point-spread function are fitted together with it. Thresholds are those of simulated "
        "lenses, which may be simpler than real ones.</p>"
    )
