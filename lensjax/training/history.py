"""The metrics of each epoch of a run, and the best epoch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

METRIC = "validation_auc"


def best_epoch(history: Sequence[Mapping[str, Any]]) -> int | None:
    """Number of the epoch with the highest validation AUC; if several epochs tie, of the last of them.

    Args:
      history: the metrics of each epoch.

    Returns:
      The number, from 1; None if no epoch is complete.
    """
    if not history:
        return None
    return max(range(len(history)), key=lambda index: (history[index][METRIC], index)) + 1


def read_history(path: Path) -> list[dict[str, Any]]:
    """Reads the metrics of each epoch up to the first incomplete or damaged line.

    Args:
      path: the metrics file of a run.

    Returns:
      The metrics of each epoch; empty if the file cannot be read.
    """
    records: list[dict[str, Any]] = []
    if not path.is_file():  # reading a pipe would block
        return records
    try:
        for line in path.read_text().splitlines():
            record = json.loads(line)
            float(record[METRIC])
            records.append(record)
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        pass
    return records
