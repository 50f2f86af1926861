"""The output folder of the commands fit and substructure: results, table and index."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lensjax
from lensjax.cli.lens_inputs import LensFiles
from lensjax.data.output_folder import claim_folder, write_file
from lensjax.errors import UserError
from lensjax.json_text import encode_json
from lensjax.prediction.table_files import FORMULA_STARTS, to_valid_utf8
from lensjax.workdir import seal, unseal

MANIFEST = "settings.json"


class Summary(NamedTuple):
    """Table and index of a command.

    Attributes:
      command: name of the command.
      table: base name of the table.
      verdicts: all verdicts of a lens; the last one is that of a lens without a result.
      render: creates the index from the rows and the thumbnails, by name.
    """

    command: str
    table: str
    verdicts: tuple[str, ...]
    render: Callable[[Sequence[Mapping[str, Any]], Mapping[str, bytes]], str]


def _render_fits(rows: Sequence[Mapping[str, Any]], thumbnails: Mapping[str, bytes]) -> str:
    from lensjax.report import lens_index  # imports Matplotlib

    return lens_index.render_index(rows, thumbnails)


FITS = Summary("fit", "fits", ("good", "doubtful", "failed"), _render_fits)


def check_format(form: str) -> None:
    """Checks that a table of this format can be written.

    Args:
      form: "csv" or "parquet".

    Raises:
      UserError: if a package is missing.
    """
    if form == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UserError('--format parquet needs pyarrow: pip install "lensjax[formats]"') from None


def claim(output: Path, settings: Mapping[str, Any], *, overwrite: bool) -> None:
    """Creates the folder, or checks that an existing one contains results for the same settings.

    Args:
      output: the folder.
      settings: the command and its settings.
      overwrite: whether other settings of this command may replace those of the folder.

    Raises:
      UserError: if the folder has other settings, was not made by this command, or cannot be written.
    """
    replaceable = (output / MANIFEST).is_file() and _command(output) in (None, settings["command"])
    try:
        if overwrite and replaceable:
            write_file(output / MANIFEST, encode_json(dict(settings), indent=1).encode())
        claim_folder(output, MANIFEST, settings)
    except UserError as error:
        advice = ", or add --overwrite" if replaceable else ""
        raise UserError(f"{error}{advice}") from None
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror or error}") from None


def _command(output: Path) -> str | None:
    """The command that made a folder; None if the manifest is damaged or does not name it."""
    try:
        return json.loads((output / MANIFEST).read_text(encoding="utf-8"))["command"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def is_finished(output: Path, name: str, inputs: Mapping[str, str], *, overwrite: bool) -> bool:
    """Returns whether there is a result for the same files and settings.

    Args:
      output: the folder.
      name: name of the lens.
      inputs: see `LensFiles.digests`.
      overwrite: whether results for other files or settings may be replaced.

    Raises:
      UserError: if there is a result for other files or settings, or a damaged one, without `overwrite`.
    """
    file = output / f"{name}.json"
    if not file.exists():
        return False
    content = _read(file)
    settings = json.loads((output / MANIFEST).read_text())
    wanted = {"inputs": dict(inputs), "settings": settings}
    if content is not None and all(content.get(key) == value for key, value in wanted.items()):
        return True
    if overwrite:
        return False
    problem = "is damaged" if content is None else "was made with other files or settings"
    raise UserError(f"{file} {problem}; choose another --output, or add --overwrite")


def write_result(
    output: Path,
    lens: LensFiles,
    result: str,
    page: str,
    picture: bytes,
    inputs: Mapping[str, str],
    settings: Mapping[str, Any],
) -> None:
    """Writes the page, the thumbnail and finally the JSON file of a lens, which marks it as finished.

    Args:
      output: the folder.
      lens: the files of the lens.
      result: its result, a JSON object.
      page: its page, HTML.
      picture: its thumbnail, a PNG file.
      inputs: see `LensFiles.digests`.
      settings: the command and its settings.
    """
    about = {"image": str(lens.image), "inputs": dict(inputs), "settings": dict(settings)}
    content = {"name": lens.name, **json.loads(result), **about, "lensjax": lensjax.__version__}
    write_file(output / f"{lens.name}.html", to_valid_utf8(page).encode())
    write_file(output / f"{lens.name}.png", picture)
    write_file(output / f"{lens.name}.json", (encode_json(seal(content), indent=2) + "\n").encode())


def write_summary(output: Path, unusable: Mapping[str, str], form: str, summary: Summary) -> dict[str, int]:
    """Writes the table and the index of all intact results for the current settings in a folder.

    Args:
      output: the folder.
      unusable: reason for each lens without a result, by name.
      form: "csv"; or "parquet" to write both tables.
      summary: table and index.

    Returns:
      The number of lenses with each verdict.
    """
    settings = json.loads((output / MANIFEST).read_text())
    rows: dict[str, dict[str, Any]] = {}
    for file in output.glob("*.json"):
        content = _read(file) if file.name != MANIFEST else None
        if content is not None and content.get("settings") == settings:
            rows[file.stem] = {
                name: to_valid_utf8(value) if isinstance(value, str) else value
                for name, value in content.items()
                if not isinstance(value, dict | list)
            }
    for name, reason in unusable.items():
        rows[name] = {"name": name, "verdict": summary.verdicts[-1], "reasons": to_valid_utf8(reason)}
    ordered = [rows[name] for name in sorted(rows)]
    columns = list(dict.fromkeys(column for row in ordered for column in row))
    write_file(output / f"{summary.table}.csv", _encode_csv(ordered, columns))
    if form == "parquet":
        _write_parquet(output / f"{summary.table}.parquet", ordered, columns)
    thumbnails = {name: file.read_bytes() for name in rows if (file := output / f"{name}.png").is_file()}
    write_file(output / "index.html", summary.render(ordered, thumbnails).encode())
    return {verdict: sum(row["verdict"] == verdict for row in ordered) for verdict in summary.verdicts}


def _read(file: Path) -> dict[str, Any] | None:
    """Content of the JSON file of a lens; None if the file is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return unseal(content) if "sha256" in content else None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _encode_csv(rows: list[dict[str, Any]], columns: list[str]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(columns)
    writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
    return stream.getvalue().encode()


def _cell(value: Any) -> str:
    """A value as text that a spreadsheet does not interpret as a formula."""
    if isinstance(value, float):
        return f"{value:.9g}"
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _write_parquet(file: Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    import pyarrow
    from pyarrow import parquet

    complete = [{column: row.get(column) for column in columns} for row in rows]
    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(complete), stream)
    write_file(file, stream.getbuffer())
