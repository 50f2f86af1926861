"""The command fit: fits lens models to telescope images and writes a table and pages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lensjax.cli import fit_output, lens_batch
from lensjax.cli.flags import Flag, choice, integer, path_to, real, switch, usage
from lensjax.cli.lens_batch import read_observation
from lensjax.cli.lens_inputs import LensFiles

FLAGS = {
    "image": path_to(
        "PATH",
        "FITS file of a lens; or a folder of such files, or of folders with image.fits, noise.fits, psf.fits "
        "and mask.fits; or a CSV table with the columns image, name, noise, psf and mask.",
    ),
    "noise": path_to(
        "FILE",
        "Noise map. If not given, the extension of the image file with a name such as ERR, RMS, IVAR or VAR "
        "is used; without such an extension, the noise is estimated.",
    ),
    "psf": path_to(
        "FILE", "Point-spread function. If not given, the extension PSF of the image file is used."
    ),
    "mask": path_to("FILE", "Mask, 1 for valid pixels."),
    "output": path_to("FOLDER", "Folder of the results. Rerun the same command to resume."),
    "pixel-scale": real(
        "Side of a pixel; read from the header if not given.", None, 1e-6, value="ARCSEC", high=10
    ),
    "extension": Flag(
        "NAME", "Name, number, or name and version (such as SCI,2) of the extension with the image."
    ),
    "main-lens": choice(
        "NAME",
        "Main lens: sie, singular isothermal ellipsoid (default); epl, elliptical power law; or sis, "
        "singular isothermal sphere. An external shear is always fitted.",
        ("sie", "epl", "sis"),
        "sie",
    ),
    "order": integer(
        "Largest order of the shapelets of the source; if not given, 8, or up to 16 if the arcs require it.",
        *(None, 0),
        high=30,
    ),
    "radius": real(
        "Pixels farther from the lens are not used; 3 if not given.", 3.0, 0.1, value="ARCSEC", high=60
    ),
    "psf-fwhm": real(
        "A Gaussian of this full width at half maximum is used if there is no point-spread function.",
        None,
        1e-3,
        value="ARCSEC",
        high=10,
    ),
    "format": choice(
        "FORMAT", "Format of the table: csv (default), or parquet to write both.", ("csv", "parquet"), "csv"
    ),
    "overwrite": switch("Replace results that were made with other files or settings."),
}
# The flags that determine the results, in addition to the files.
SETTINGS = ("pixel-scale", "extension", "main-lens", "order", "radius", "psf-fwhm")
USAGE = usage(
    "Fits lens models to telescope images of gravitational lenses.",
    [
        "lensjax fit --image lens.fits --noise noise.fits --psf psf.fits --output fits",
        "lensjax fit --image lenses.csv --main-lens epl --output fits",
    ],
    FLAGS,
    "The output folder contains index.html with all lenses; fits.csv with a row per lens; and for each lens "
    "NAME.html, a page with figures, and NAME.json, the result with the model in lenstronomy's format.",
    "The verdict of each lens is good, doubtful or failed, with reasons; docs/real_images.md explains them.",
    codes=lens_batch.exit_codes("fitted"),
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command fit."""
    return lens_batch.run(FLAGS, arguments, SETTINGS, _fit_one, fit_output.FITS)


def _fit_one(lens: LensFiles, output: Path, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Fits a lens, writes its result, and describes it in one line."""
    from lensjax import modeling
    from lensjax.report.lens_figures import thumbnail
    from lensjax.report.lens_page import render_lens_page

    observation = read_observation(lens, settings)
    model = modeling.galaxy_model(settings["main-lens"], settings["order"])
    fitted = modeling.fit(observation, model, radius=settings["radius"])
    page = render_lens_page(lens.name, fitted)
    fit_output.write_result(output, lens, fitted.to_json(), page, thumbnail(fitted), inputs, settings)
    error = fitted.standard_errors["mass.0.theta_E"]
    return f"{fitted.verdict.name}, theta_E = {fitted.einstein_radius:.4g} ± {error:.2g} arcsec"
