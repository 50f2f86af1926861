"""The page of a fitted lens: a single file without external resources."""

import math
from collections.abc import Iterable
from html import escape

from lensjax.modeling.result import LensModelFit
from lensjax.prediction.table_files import to_valid_utf8
from lensjax.report import html
from lensjax.report.lens_figures import LensView, lens_views
from lensjax.report.plots import paper_style

_UNITS = {
    "theta_E": "arcsec",
    "center_x": "arcsec",
    "center_y": "arcsec",
    "beta": "arcsec",
    "R_sersic": "arcsec",
    "width": "arcsec",
}
_MEANINGS = {
    "theta_E": "Einstein radius",
    "gamma": "slope of the density profile; 2 is isothermal",
    "e1": "ellipticity along x and y",
    "e2": "ellipticity along the diagonals",
    "outer_e1": "ellipticity of the widest Gaussian along x and y",
    "outer_e2": "ellipticity of the widest Gaussian along the diagonals",
    "center_x": "position along columns, from the center of the image",
    "center_y": "position along rows, from the center of the image",
    "gamma1": "external shear along x and y",
    "gamma2": "external shear along the diagonals",
    "beta": "scale of the shapelets",
    "R_sersic": "half-light radius",
    "n_sersic": "Sersic index",
    "width": "distance between the outer nodes of the grid",
    "strength": "strength of the regularization",
}
_GROUPS = {"mass": "mass", "lens_light": "foreground light", "source": "source"}
_ADVICE = {
    "good": "No check found a reason to doubt this fit.",
    "doubtful": "The fit found a lens, but the values below may be wrong by more than their errors:",
    "failed": "Do not use the values below:",
}


def render_lens_page(name: str, fitted: LensModelFit) -> str:
    """Renders the page of a lens as HTML.

    Args:
      name: name of the lens.
      fitted: the fit.

    Returns:
      The page.
    """
    title = escape(to_valid_utf8(name))
    sections = {
        "verdict": ("Verdict", _verdict(fitted)),
        "figures": ("Figures", render_views(lens_views(fitted))),
        "parameters": ("Parameters", _parameters(fitted)),
        "quality": ("Quality of the fit", _quality(fitted)),
        "assumptions": ("Assumptions", _assumptions(fitted)),
    }
    footer = (
        f"{html.MADE_WITH} This file is self-contained. {title}.json contains the numbers, and the model in "
        "lenstronomy's format."
    )
    return html.render_document(f"{title}: lensjax fit", _header(title, fitted), sections, footer)


def render_views(views: Iterable[LensView]) -> str:
    """Renders figures with captions as HTML.

    Args:
      views: the figures; those of an iterator are created in the style of the page.
    """
    with paper_style():
        pictures = "".join(
            html.render_png(
                view.figure, f"{view.title}: {view.caption}", f"<b>{view.title}.</b> {view.caption}"
            )
            for view in views
        )
    return f'<div class="views">{pictures}</div>'


def verdict_label(name: str) -> str:
    """A verdict as HTML."""
    return f'<span class="verdict {escape(name)}">{escape(name)}</span>'


def _header(title: str, fitted: LensModelFit) -> str:
    names = " + ".join(type(component).__name__ for component in fitted.model.mass)
    error = fitted.standard_errors.get("mass.0.theta_E", math.nan)
    tiles = [
        ("verdict", verdict_label(fitted.verdict.name), _count_reasons(len(fitted.verdict.reasons))),
        ("Einstein radius", f"{fitted.einstein_radius:.4g}", f"± {error:.2g} arcsec"),
        ("reduced chi-square", f"{fitted.reduced_chi_square:.3f}", "relative to the blank sky"),
        ("lensed source", f"{fitted.detection:.0f}", "detection significance, standard deviations"),
    ]
    frame = fitted.frame
    size = f"{frame.rows} x {frame.columns} pixels of {frame.pixel_scale:.4g} arcsec"
    return html.render_header(
        "lensjax fit: model of a gravitational lens", title, tiles, f"{names}, fitted to {size}."
    )


def _count_reasons(number: int) -> str:
    return "all checks passed" if not number else f"{number} reason{'s' * (number > 1)}"


def _verdict(fitted: LensModelFit) -> str:
    verdict = fitted.verdict
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in verdict.reasons)
    reasons = f"<ul>{reasons}</ul>" if reasons else ""
    return f"<p>{verdict_label(verdict.name)}: {_ADVICE[verdict.name]}</p>{reasons}"


def _parameters(fitted: LensModelFit) -> str:
    errors = fitted.standard_errors
    rows: list[list[str]] = []
    for full, value in fitted.parameters.items():
        group, number, name = full.split(".")
        component = type(getattr(fitted.model, group)[int(number)]).__name__
        without_error = "chosen" if fitted.model.parameters[full].held else "fixed"
        error = f"± {errors[full]:.2g}" if full in errors else without_error
        digits = _decimals(errors.get(full, math.nan))
        unit = _UNITS.get(name, "")
        rows.append(
            [
                escape(f"{_GROUPS[group]}: {component} {name}"),
                f"{value:.{digits}f}",
                error,
                unit,
                escape(_MEANINGS.get(name, "")),
            ]
        )
    return html.render_table(
        "Parameters; their errors account for the measured correlation of the noise",
        ["parameter", "value", "error", "unit", "description"],
        rows,
    )


def _decimals(error: float) -> int:
    """Decimals that show two digits of an error."""
    if not (math.isfinite(error) and error > 0):
        return 4
    return min(max(1 - math.floor(math.log10(error)), 0), 8)


def _quality(fitted: LensModelFit) -> str:
    masked = int(fitted.artifacts.sum())
    rows = [
        [
            "reduced chi-square",
            f"{fitted.reduced_chi_square:.3f}",
            "per degree of freedom, relative to the variance of the blank sky; 1 is expected",
        ],
        ["chi-square", f"{fitted.chi_square:,.1f}", f"{fitted.degrees_of_freedom:,} degrees of freedom"],
        [
            "variance of the blank sky",
            f"{fitted.sky_variance:.3f}",
            "relative to the noise map; 1 if the noise map is correct",
        ],
        ["lensed source", f"{fitted.detection:.1f}", "detection significance, standard deviations"],
        ["masked by the fit", f"{masked:,}", "pixels with artifacts or neighboring galaxies"],
    ]
    quality = html.render_table("Quality of the fit", ["", "value", "description"], rows)
    radii = [
        [escape(name), f"{radius:.4f}", f"{100 * (radius / fitted.einstein_radius - 1):+.2f} %"]
        for name, radius in fitted.radii.items()
    ]
    radii += [
        [
            f"another solution, {cost:.2f} times the cost",
            f"{radius:.4f}",
            f"{100 * (radius / fitted.einstein_radius - 1):+.2f} %",
        ]
        for radius, cost in fitted.others
    ]
    models = html.render_table(
        "Einstein radius for each model of the source", ["source", "theta_E (arcsec)", "difference"], radii
    )
    return f'<div class="pair">{quality}{models}</div>'


def _assumptions(fitted: LensModelFit) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in fitted.notes)
    return (
        "<p>Unless the model has other priors, mass and light are assumed to have about the same center and "
        "ellipticity. The errors do not include those of the point-spread function or of these "
        "assumptions.</p>" + (f"<p>Estimated or read from the files:</p><ul>{notes}</ul>" if notes else "")
    )
