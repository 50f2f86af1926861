"""The command substructure: searches for a dark perturber in telescope images."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lensjax.cli import fit_lenses, fit_output, lens_batch
from lensjax.cli.fit_output import Summary
from lensjax.cli.flags import choice, integer, path_to, real, usage
from lensjax.cli.lens_batch import read_observation
from lensjax.cli.lens_inputs import LensFiles
from lensjax.data.output_folder import write_file
from lensjax.errors import UserError

FLAGS = fit_lenses.FLAGS | {
    "image": path_to(
        "PATH",
        "FITS file of a lens; or a folder of such files, or of folders with image.fits, noise.fits, psf.fits "
        "and mask.fits; or a CSV table with the columns image, name, noise, psf, mask, z_lens and z_source.",
    ),
    "z-lens": real("Redshift of the lens, for lenses without one in the table.", None, 1e-3, high=20),
    "z-source": real("Redshift of the source, for lenses without one in the table.", None, 1e-3, high=20),
    "profile": choice(
        "NAME",
        "Perturber: pseudo_jaffe, truncated isothermal halo (default); nfw, Navarro-Frenk-White halo; or "
        "point_mass.",
        ("pseudo_jaffe", "nfw", "point_mass"),
        "pseudo_jaffe",
    ),
    "step": real("Spacing of the positions of the map; 0.1 if not given.", 0.1, 0.02, value="ARCSEC", high=1),
    "refits": integer(
        "Number of complete refits from the best positions, if there is a candidate; 1 if not given.",
        1,
        0,
        high=20,
    ),
}
SETTINGS = (*fit_lenses.SETTINGS, "z-lens", "z-source", "profile", "step", "refits")
USAGE = usage(
    "Searches for a dark perturber in telescope images of gravitational lenses, and maps the sensitivity.",
    [
        "lensjax substructure --image lens.fits --psf psf.fits --z-lens 0.2 --z-source 0.6 --output found",
        "lensjax substructure --image lenses.csv --output found",
    ],
    FLAGS,
    "Each lens is fitted first, as by lensjax fit. The output folder contains index.html with all lenses; "
    "substructure.csv with a row per lens; and for each lens NAME.html, a page with the maps, NAME.json, the "
    "result, and NAME.npz, the maps.",
    "The verdict of each lens is detected, candidate, none or failed; docs/substructure.md explains them.",
    codes=lens_batch.exit_codes("searched"),
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command substructure."""
    return lens_batch.run(FLAGS, arguments, SETTINGS, _search_one, SUBSTRUCTURE)


def _render_index(rows: Sequence[Mapping[str, Any]], thumbnails: Mapping[str, bytes]) -> str:
    from lensjax.report.substructure_page import render_substructure_index  # imports Matplotlib

    return render_substructure_index(rows, thumbnails)


SUBSTRUCTURE = Summary(
    "substructure", "substructure", ("detected", "candidate", "none", "failed"), _render_index
)


def _search_one(lens: LensFiles, output: Path, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Fits a lens, searches for a perturber, writes the result, and describes it in one line."""
    from lensjax import modeling
    from lensjax.report.substructure_figures import substructure_thumbnail
    from lensjax.report.substructure_page import render_substructure_page
    from lensjax.substructure import Halo, find_perturber

    z_lens = settings["z-lens"] if lens.z_lens is None else lens.z_lens
    z_source = settings["z-source"] if lens.z_source is None else lens.z_source
    if z_lens is None or z_source is None:
        raise UserError(
            f"{lens.image}: has no redshifts; add --z-lens and --z-source, or the columns z_lens and "
            "z_source of a table"
        )
    halo = Halo(z_lens, z_source, settings["profile"])
    observation = read_observation(lens, settings)
    model = modeling.galaxy_model(settings["main-lens"], settings["order"])
    fitted = modeling.fit(observation, model, radius=settings["radius"])
    search = find_perturber(observation, fitted, halo, step=settings["step"], refits=settings["refits"])
    write_file(output / f"{lens.name}.npz", _maps(search.map))
    page = render_substructure_page(lens.name, search)
    picture = substructure_thumbnail(search)
    fit_output.write_result(output, lens, search.to_json(), page, picture, inputs, settings)
    values = search.values
    return (
        f"{search.verdict}, log likelihood ratio {search.likelihood_ratio:.1f}, best at {values['x']:.2f}, "
        f"{values['y']:.2f} arcsec with log10 mass {values['log10_mass']:.2f}"
    )


def _maps(found: Any) -> bytes:
    """The maps as the content of an NPZ file."""
    stream = io.BytesIO()
    names = ("x", "y", "inside", "log10_mass", "gain", "information")
    np.savez_compressed(stream, **{name: getattr(found, name) for name in names})
    return stream.getvalue()
