"""Classification of telescope images by the command predict."""

import jax

from lensjax import modeling
from lensjax.cli.lens_batch import CLEAR_EVERY
from lensjax.cli.lens_inputs import find_lenses
from lensjax.cli.options import Options
from lensjax.data.output_folder import write_file
from lensjax.errors import UserError
from lensjax.prediction.classifier import Classifier
from lensjax.prediction.observations import classify_observation
from lensjax.prediction.table_files import (
    Row,
    check_output,
    column_names,
    encode_header,
    encode_rows,
    table_rows,
)
from lensjax.runtime.progress import progress_bar


def predict_lenses(options: Options, classifier: Classifier) -> tuple[int, int]:
    """Fits a lens model to each telescope image, classifies the residual, and writes the table.

    Args:
      options: options of the command, with `psf`.
      classifier: a classifier that was trained with a lens fit.

    Returns:
      Numbers of images with and without a class.

    Raises:
      UserError: if there are no images, or the output exists, cannot be written or is not a .csv or .jsonl
        table.
    """
    assert options.input is not None  # for the type checker
    assert options.psf is not None
    output, suffix = options.output, options.output.suffix.lower()
    check_output(output)
    if suffix == ".parquet":
        raise UserError(f"--output={output}: telescope images need a .csv or .jsonl table; change the suffix")
    if output.exists() and not options.overwrite:
        raise UserError(f"{output} exists; choose another --output, or add --overwrite")
    lenses = find_lenses(options.input, options.noise, options.psf)
    names = column_names(has_fit=True)
    rows: list[Row] = []
    with progress_bar(len(lenses), "classifying", unit="images") as bar:
        for lens in lenses:
            try:
                observation = modeling.Observation.from_fits(
                    lens.image,
                    lens.noise,
                    lens.psf,
                    lens.mask,
                    pixel_scale=options.pixel_scale,
                    extension=options.extension,
                )
                predictions, _ = classify_observation(classifier, observation)
                rows += table_rows([lens.name], predictions)
            except (ValueError, ArithmeticError) as error:
                # Errors other than UserError come from linear algebra with extreme values.
                reason = str(error) if isinstance(error, UserError) else f"the fit stopped: {error}"
                rows.append(dict.fromkeys(names) | {"file": lens.name, "error": reason})
            bar.update()
            if len(rows) % CLEAR_EVERY == 0:
                jax.clear_caches()
    write_file(output, encode_header(names, suffix) + encode_rows(rows, names, suffix))
    unclassified = sum(row["error"] is not None for row in rows)
    return len(rows) - unclassified, unclassified
