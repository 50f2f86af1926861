"""Rows of predictions as text: CSV, JSON lines, and from these Parquet."""

import csv
import io
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from lensjax.data.images import CLASSES
from lensjax.errors import UserError
from lensjax.prediction.classifier import FIT_VALUES, Answers

SUFFIXES = (".csv", ".jsonl", ".parquet")
_AT_A_TIME = 20_000  # rows of a Parquet file's row group

Row = dict[str, str | float | bool | None]


def check_output(output: Path) -> None:
    """Refuses a file whose suffix says nothing, or that cannot be written here.

    Raises:
      UserError: so it is.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise UserError(f"--output={output}: its suffix has to be {', '.join(SUFFIXES)}")
    if not output.absolute().parent.is_dir():
        raise UserError(f"{output} cannot be written: there is no folder {output.parent}")
    if output.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise UserError(
                f'{output}: .parquet needs pyarrow: pip install "lensjax[formats]"'
            ) from None


def columns(fits: bool) -> list[str]:
    """The names of the columns.

    Args:
      fits: whether the classifier fits lenses.
    """
    numbers = [*(f"probability_{name}" for name in CLASSES), "entropy"]
    return ["file", "class", *numbers, *(FIT_VALUES if fits else ()), "error"]


def rows(names: Iterable[str], answers: Answers) -> list[Row]:
    """A row an image: the columns' values, None where there is none."""
    result: list[Row] = []
    for index, (name, error) in enumerate(zip(names, answers.errors, strict=True)):
        row: Row = {"file": printable(name), "class": str(answers.classes[index]) or None}
        for place, label in enumerate(CLASSES):
            row[f"probability_{label}"] = _finite(answers.probabilities[index, place])
        row["entropy"] = _finite(answers.entropy[index])
        for value in FIT_VALUES:
            if (found := getattr(answers, value)) is not None:
                row[value] = None if error else _finite(found[index])
        if row.get("fit_converged") is not None:
            row["fit_converged"] = bool(row["fit_converged"])
        result.append(row | {"error": printable(error) or None})
    return result


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def printable(text: str) -> str:
    """Text as UTF-8 can hold it: bytes of a file's name that are no letters are written as numbers."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def encode(table: Iterable[Mapping[str, object]], names: list[str], suffix: str) -> bytes:
    """Rows as lines of CSV for ".csv", else of JSON.

    Args:
      table: the rows.
      names: of the columns.
      suffix: what the finished file's name ends in.
    """
    if suffix != ".csv":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table).encode()
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_cell(name, row[name]) for name in names] for row in table)
    return text.getvalue().encode()


def header(names: list[str], suffix: str) -> bytes:
    """The first line of a CSV file; nothing for others."""
    return encode([{name: name for name in names}], names, suffix) if suffix == ".csv" else b""


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if not isinstance(value, float):
        return str(value)
    return f"{value:.6g}" if name in FIT_VALUES else f"{value:.6f}"


def to_parquet(lines: Path, output: Path, names: list[str]) -> None:
    """Writes rows of JSON as a Parquet file, some thousands at a time.

    Args:
      lines: file of what `encode` made.
      output: the file to write.
      names: of the columns.
    """
    import pyarrow as arrow
    from pyarrow import parquet

    types = dict.fromkeys(names, arrow.float64())
    types |= dict.fromkeys(("file", "class", "error"), arrow.string())
    if "fit_converged" in types:
        types["fit_converged"] = arrow.bool_()
    schema = arrow.schema(list(types.items()))
    with lines.open(encoding="utf-8") as stream, parquet.ParquetWriter(output, schema) as writer:
        while block := list(itertools.islice(stream, _AT_A_TIME)):
            writer.write_table(arrow.Table.from_pylist(list(map(json.loads, block)), schema))
