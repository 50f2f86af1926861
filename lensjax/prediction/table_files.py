"""Prediction tables as CSV, JSON lines and Parquet."""

import csv
import io
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from lensjax.data.images import CLASSES
from lensjax.data.residuals import FIT_VALUES
from lensjax.errors import UserError
from lensjax.json_text import encode_json
from lensjax.prediction.classifier import Predictions

SUFFIXES = (".csv", ".jsonl", ".parquet")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")  # spreadsheets evaluate cells that start with these
_ROW_GROUP_SIZE = 20_000  # rows per Parquet row group

Row = dict[str, str | float | bool | None]


def check_output(output: Path) -> None:
    """Checks that the table can be written.

    Raises:
      UserError: if the suffix is unknown, the folder does not exist or a package is missing.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise UserError(f"--output={output}: the suffix must be one of {', '.join(SUFFIXES)}")
    if not output.absolute().parent.is_dir():
        raise UserError(f"{output} cannot be written: there is no folder {output.parent}")
    if output.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UserError(f'{output}: .parquet needs pyarrow: pip install "lensjax[formats]"') from None


def column_names(has_fit: bool) -> list[str]:
    """Names of the columns.

    Args:
      has_fit: True if the classifier fits lenses.
    """
    numbers = [*(f"probability_{name}" for name in CLASSES), "entropy"]
    return ["file", "class", *numbers, *(FIT_VALUES if has_fit else ()), "in_domain", "reasons", "error"]


def table_rows(names: Iterable[str], predictions: Predictions) -> list[Row]:
    """One row per image, with None for missing values.

    Args:
      names: names of the images.
      predictions: predictions for the images.
    """
    result: list[Row] = []
    for index, (name, error) in enumerate(zip(names, predictions.errors, strict=True)):
        row: Row = {"file": name, "class": str(predictions.classes[index]) or None}
        for column, label in enumerate(CLASSES):
            row[f"probability_{label}"] = _finite_or_none(predictions.probabilities[index, column])
        row["entropy"] = _finite_or_none(predictions.entropy[index])
        for value in FIT_VALUES:
            if (values := getattr(predictions, value)) is not None:
                row[value] = None if error else _finite_or_none(values[index])
        if row.get("fit_converged") is not None:
            row["fit_converged"] = bool(row["fit_converged"])
        row["in_domain"] = (
            None if error or predictions.in_domain is None else bool(predictions.in_domain[index])
        )
        row["reasons"] = predictions.reasons[index] or None
        result.append(row | {"error": error or None})
    return result


def _finite_or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def to_valid_utf8(text: str) -> str:
    """Replaces undecodable bytes of a file name with escape sequences, so that UTF-8 can encode it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def encode_rows(table: Iterable[Mapping[str, object]], names: list[str], suffix: str) -> bytes:
    """Encodes rows as CSV if the suffix is ".csv", else as JSON lines; see also `to_valid_utf8`.

    Args:
      table: the rows.
      names: names of the columns.
      suffix: suffix of the finished file.
    """
    table = [
        {name: to_valid_utf8(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in table
    ]
    if suffix != ".csv":
        return "".join(encode_json(row, ensure_ascii=False) + "\n" for row in table).encode()
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_csv_cell(name, row[name]) for name in names] for row in table)
    return text.getvalue().encode()


def encode_header(names: list[str], suffix: str) -> bytes:
    """Header line of a CSV file; empty for other formats."""
    return encode_rows([{name: name for name in names}], names, suffix) if suffix == ".csv" else b""


def _csv_cell(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if not isinstance(value, float):
        text = str(value)
        return f"'{text}" if text.startswith(FORMULA_STARTS) else text
    return f"{value:.6g}" if name in FIT_VALUES else f"{value:.6f}"


def write_parquet(lines: Path, output: Path, names: list[str]) -> None:
    """Converts JSON lines to a Parquet file, one row group at a time.

    Args:
      lines: file with rows from `encode_rows`.
      output: file to write.
      names: names of the columns.
    """
    import pyarrow as arrow
    from pyarrow import parquet

    types = dict.fromkeys(names, arrow.float64())
    types |= dict.fromkeys(("file", "class", "reasons", "error"), arrow.string())
    types |= {name: arrow.bool_() for name in ("fit_converged", "in_domain") if name in types}
    schema = arrow.schema(list(types.items()))
    with lines.open(encoding="utf-8") as stream, parquet.ParquetWriter(output, schema) as writer:
        while block := list(itertools.islice(stream, _ROW_GROUP_SIZE)):
            writer.write_table(arrow.Table.from_pylist(list(map(json.loads, block)), schema))
