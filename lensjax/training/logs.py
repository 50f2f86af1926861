"""Metrics of each epoch: metrics.jsonl, TensorBoard events, and a table in the terminal."""

import contextlib
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from lensjax.data.images import CLASSES
from lensjax.errors import naming
from lensjax.json_text import encode_json
from lensjax.runtime.progress import format_duration, log
from lensjax.training.checkpoint_files import Progress
from lensjax.training.losses import term_names
from lensjax.workdir import METRICS, write_atomically

Record = dict[str, Any]

SHORT_NAMES = {"cross_entropy": "x-ent.", "physics": "phys."}


class EpochLog:
    """The metrics files of a run.

    Args:
      workdir: the run's folder; None in processes that do not write.
      history: records of the completed epochs; later records in the files are discarded.
    """

    def __init__(self, workdir: Path | None, history: Sequence[Record]) -> None:
        self._path = None
        if workdir is None:
            return
        lines = [encode_json(record) + "\n" for record in history]
        self._path = workdir / METRICS
        write_atomically(self._path, "".join(lines))
        self._workdir, self._first = workdir, len(history) + 1

    def __enter__(self) -> "EpochLog":
        return self

    def __exit__(self, *exception: object) -> None:
        if "_events" in self.__dict__:
            with contextlib.suppress(OSError):  # every record is flushed when it is written
                self._events.close()

    @functools.cached_property
    def _events(self) -> Any:
        # Imported at the first record: the import takes a second if PyTorch is installed. SummaryWriter is
        # not used: its writer thread stops at the first error, and closing the writer then blocks forever.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        events = EventsWriter(str(self._workdir / "events"))
        events.write_event(Event(step=self._first, file_version="brain.Event:2"))
        # Hides the records of an interrupted process from this epoch on.
        events.write_event(Event(step=self._first, session_log=SessionLog(status=SessionLog.START)))
        return events

    def write(self, record: Record) -> None:
        """Appends the record of an epoch to all files.

        Args:
          record: the epoch's metrics, with its number as `epoch`.

        Raises:
          OSError: if the record cannot be written.
        """
        if self._path is None:
            return
        with naming(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(encode_json(record) + "\n")
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        now = time.time()
        for name, value in record.items():
            if name != "epoch":
                summary = scalar(name.replace("_", "/", 1), value)
                self._events.write_event(Event(wall_time=now, step=record["epoch"], summary=summary))
        self._events.flush()


def log_start(config: ConfigDict, progress: Sequence[Progress]) -> None:
    """Logs the position from which runs resume, and the table of their completed epochs.

    Args:
      config: the full config of the first run.
      progress: the progress of each run.
    """
    done = progress[0]
    if 0 < done.epoch < config.num_epochs or done.steps_in_epoch:
        log.info("resuming after epoch %d, step %d", done.epoch, done.steps_in_epoch)
    if len(progress) > 1:
        log.info("means of the seeds:")
    log.info(header(term_names(config.model.name)))
    for records in zip(*(each.history for each in progress), strict=False):
        log.info(row(mean(records), config, 0))


def mean(records: Sequence[Record]) -> Record:
    """Mean of each metric over runs.

    Args:
      records: the record of each run at the same epoch.
    """
    if len(records) == 1:
        return records[0]
    means = {name: float(np.mean([each[name] for each in records])) for name in records[0]}
    return means | {name: records[0][name] for name in ("epoch",) if name in means}


def header(terms: Sequence[str]) -> str:
    """Header of the table of epochs, two lines of at most 80 columns.

    Args:
      terms: names of the loss terms.
    """
    losses = ["loss", *(SHORT_NAMES.get(term, term) for term in _term_columns(terms))]
    columns = [*losses, *CLASSES, "mean", "accur."]
    groups = "training".rjust(7 * len(losses)) + "validation AUC".rjust(7 * (len(CLASSES) + 1))
    return f"{'':7}{groups}\n{'epoch':>7}{''.join(f'{name:>7}' for name in columns)}  img/s   left"


def row(record: Record, config: ConfigDict, seconds_left: float) -> str:
    """Row of the table of epochs: training losses, then validation AUC and accuracy.

    Args:
      record: the epoch's metrics.
      config: the full config.
      seconds_left: estimated time to the end of the run, seconds.
    """
    terms = term_names(config.model.name)
    values = [record["train_loss"], *(record[f"train_{term}"] for term in _term_columns(terms))]
    values += [record[f"validation_auc_{name}"] for name in CLASSES]
    values += [record["validation_auc"], record["validation_accuracy"]]
    numbers = "".join(f"{value:7.4f}" for value in values)
    epoch = f"{record['epoch']}/{config.num_epochs}"
    return f"{epoch:>7}{numbers}{record['images_per_second']:7.0f}{format_duration(seconds_left):>7}"


def _term_columns(terms: Sequence[str]) -> Sequence[str]:
    """Loss terms that have a column: none if the loss has only one term."""
    return terms if len(terms) > 1 else ()
