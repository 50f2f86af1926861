"""The checkpoints of a run: the newest one, to resume from, and the best one, to predict with.

The best epoch is the one with the highest validation AUC in the history of the newest checkpoint; the last
one if several are equal. A checkpoint whose content has changed is never used (`checkpoint_files`).
"""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from lensjax.errors import UserError
from lensjax.runtime.progress import log
from lensjax.training import checkpoint_files as files
from lensjax.training import processes
from lensjax.training.checkpoint_files import Arrays, DamagedError, Progress, PyTree
from lensjax.training.state import TrainState
from lensjax.workdir import METRICS, sync_folder

METRIC = "validation_auc"
ADVICE = "restore it from a copy, or delete the folder {} and train again"


@dataclasses.dataclass(frozen=True)
class _Newest:
    """The newest whole checkpoint, and the damaged ones after it with the reasons."""

    step: int
    progress: Progress
    arrays: dict[str, Arrays]
    damaged: dict[int, str]


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: folder of the checkpoints; created by the first `save` if it does not exist.
      devices: devices of all processes of the run. Only the first process reads and writes the folder.
    """

    def __init__(self, folder: Path, devices: Sequence[jax.Device] = ()) -> None:
        self.folder = folder
        self._devices = devices
        self._writer: Any = None
        self._saving: tuple[int, Progress] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.wait()
        finally:
            if self._writer is not None:
                with contextlib.suppress(Exception):  # the same error that `wait` has raised
                    self._writer.close()

    def save(self, state: TrainState, progress: Progress) -> None:
        """Saves a checkpoint in the background; returns once the state has been copied.

        Args:
          state: the training state.
          progress: the position in the run.

        Raises:
          UserError: if this or the previous checkpoint cannot be written.
        """
        if not processes.is_first():
            return
        self.wait()
        host_state = jax.device_get(state)
        items = {"model": host_state.evaluation_variables, "rest": _rest(host_state)}
        # The last step of an epoch is saved twice if its evaluation is interrupted.
        step = 2 * int(host_state.step) + (progress.steps_in_epoch == 0)
        if (self.folder / str(step)).exists():
            return
        try:
            if self._writer is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._writer = _create_writer()
            self._writer.save(
                self.folder.absolute() / str(step),
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(tree) for name, tree in items.items()},
                    progress=ocp.args.JsonSave(files.progress_item(progress, items)),
                ),
            )
        except Exception as error:  # a full disk raises OSError, ValueError or an error of XLA
            raise self._cannot_write(error) from None
        self._saving = step, progress

    def wait(self) -> None:
        """Waits until all checkpoints are on disk, and deletes those that are neither newest nor best.

        Raises:
          UserError: if a checkpoint cannot be written.
        """
        if self._saving is None:
            return
        (step, progress), self._saving = self._saving, None
        try:
            self._writer.wait_until_finished()
            sync_folder(self.folder / str(step))
            sync_folder(self.folder, deep=False)
            self._delete_outdated(step, self._find_best(progress))
        except Exception as error:  # see `save`
            raise self._cannot_write(error) from None

    def restore_newest(self, like: TrainState) -> tuple[TrainState, Progress] | None:
        """Restores the newest whole checkpoint, to resume training.

        Damaged checkpoints after it are renamed to NUMBER.damaged, with a warning. What killed processes left
        unfinished is deleted.

        Args:
          like: a state of the same model and optimizer.

        Returns:
          State and progress; None if there is no checkpoint.

        Raises:
          UserError: if no checkpoint is whole, the best epoch is missing or damaged, or the checkpoint is of
            a different model.
        """
        newest = self._read_newest() if processes.is_first() else None
        if newest is not None:
            self._check_best(newest)
        if processes.is_first():
            self._tidy(newest)
        state, progress = like, None
        if newest is not None:
            model = self._build(newest.step, newest.arrays["model"], like.evaluation_variables)
            rest = self._build(newest.step, newest.arrays["rest"], _rest(like))
            # With a moving average of the parameters, `model` is the average and `rest` has the parameters.
            trained = rest.pop("trained", None)
            state = TrainState(**(trained or model), **rest, ema=model if trained else {})
            progress = dataclasses.asdict(newest.progress)
        progress = processes.broadcast_json(progress, self._devices)
        if progress is None:
            return None
        return processes.broadcast(state, self._devices), Progress(**progress)

    def restore_best(self, like: PyTree) -> tuple[PyTree, int]:
        """Restores the model of the best epoch.

        Args:
          like: variables of the same model.

        Returns:
          Parameters and running statistics, and the number of the epoch, from 1.

        Raises:
          UserError: if no epoch is complete, the best epoch is missing or damaged, or the checkpoint is of a
            different model.
        """
        progress, unreadable = self._newest_progress()
        if progress is None and unreadable:
            raise self._unusable(*unreadable.popitem())
        if progress is None or (step := self._find_best(progress)) is None:
            if progress is None or not progress.history:
                raise UserError(f"{self.folder} has no checkpoint of a completed epoch; train longer")
            raise self._best_is_missing(progress.history)
        self._check_history(progress, bool(unreadable))
        for other, reason in unreadable.items():
            log.warning("%s/%d is damaged (%s) and not used", self.folder, other, reason)
        variables = self._build(step, self._read_model(step), like)
        return variables, files.read_progress(self.folder / str(step))[0].epoch

    def newest_position(self) -> tuple[int, int] | None:
        """Completed epochs, and completed steps of the current epoch, at the newest whole checkpoint.

        Returns:
          The same value in all processes; None if there is no checkpoint.

        Raises:
          UserError: if no checkpoint is whole.
        """
        newest = self._read_newest() if processes.is_first() else None
        position = None if newest is None else (newest.progress.epoch, newest.progress.steps_in_epoch)
        position = processes.broadcast_json(position, self._devices)
        return None if position is None else (position[0], position[1])

    def newest_history(self) -> list[dict[str, Any]]:
        """Metrics of each epoch up to the newest checkpoint."""
        progress, _ = self._newest_progress()
        return [] if progress is None else progress.history

    def _read_newest(self) -> _Newest | None:
        """The newest whole checkpoint; None if there is no checkpoint."""
        damaged: dict[int, str] = {}
        for step in reversed(files.list_steps(self.folder)):
            checkpoint = self.folder / str(step)
            try:
                progress, digests = files.read_progress(checkpoint)
                arrays = {item: files.read_arrays(checkpoint, item, digests) for item in files.ARRAY_ITEMS}
            except DamagedError as error:
                damaged[step] = str(error)
                continue
            return _Newest(step, progress, arrays, damaged)
        if damaged:
            raise self._unusable(*next(iter(damaged.items())))
        return None

    def _newest_progress(self) -> tuple[Progress | None, dict[int, str]]:
        """The progress of the newest checkpoint whose progress is whole, and why later ones are not."""
        damaged: dict[int, str] = {}
        for step in reversed(files.list_steps(self.folder)):
            try:
                return files.read_progress(self.folder / str(step))[0], damaged
            except DamagedError as error:
                damaged[step] = str(error)
        return None, damaged

    def _find_best(self, progress: Progress) -> int | None:
        """Number of the checkpoint of the best epoch; None if it is missing."""
        best = best_epoch(progress.history)
        for step in reversed(files.list_steps(self.folder)):
            try:
                found, _ = files.read_progress(self.folder / str(step))
            except DamagedError:
                continue
            if found.steps_in_epoch == 0 and best in (None, found.epoch):
                return step
        return None

    def _check_best(self, newest: _Newest) -> None:
        """Checks that the best epoch before the newest checkpoint is whole."""
        if not newest.progress.history:
            return
        step = self._find_best(newest.progress)
        if step is None:
            raise self._best_is_missing(newest.progress.history)
        if step != newest.step:
            self._read_model(step)

    def _check_history(self, progress: Progress, some_unreadable: bool) -> None:
        """Compares the best epoch with that in the metrics file, which can have later epochs."""
        logged = read_history(self.folder.parent / METRICS)
        if len(logged) <= len(progress.history) or (best := best_epoch(logged)) is None:
            return
        if best <= len(progress.history):
            return
        # The record of an epoch is written while its checkpoint is saved: a killed process can leave one.
        if some_unreadable or len(logged) > len(progress.history) + 1:
            raise self._best_is_missing(logged)
        log.warning(
            "%s has no checkpoint of epoch %d, the best in %s; rerun the training. Using epoch %d",
            *(self.folder, best, METRICS, best_epoch(progress.history)),
        )

    def _read_model(self, step: int) -> Arrays:
        checkpoint = self.folder / str(step)
        try:
            return files.read_arrays(checkpoint, "model", files.read_progress(checkpoint)[1])
        except DamagedError as error:
            raise self._unusable(step, str(error)) from None

    def _build(self, step: int, arrays: Arrays, like: PyTree) -> PyTree:
        """The tree with the structure and types of `like`, whose shapes must equal those of the arrays."""
        expected = files.named_arrays(jax.tree.map(_empty, like))
        for name in sorted({*arrays, *expected}):
            shapes = [each[name].shape if name in each else None for each in (arrays, expected)]
            if shapes[0] != shapes[1]:
                raise UserError(
                    f"{self.folder}/{step} is of a different model: {name} is {_describe(shapes[0])} in the "
                    f"checkpoint and {_describe(shapes[1])} in the config's model"
                )
        leaves = [arrays[name].astype(leaf.dtype, copy=False) for name, leaf in expected.items()]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def _delete_outdated(self, newest: int, best: int | None) -> None:
        for step in files.list_steps(self.folder):
            if step not in (newest, best):
                # Renamed first: a process that is killed here leaves no checkpoint with missing files.
                shutil.rmtree((self.folder / str(step)).rename(self.folder / f"{step}.outdated"))

    def _tidy(self, newest: _Newest | None) -> None:
        """Deletes what killed processes left, renames damaged checkpoints, and reports lost epochs."""
        for path in files.leftovers(self.folder):
            shutil.rmtree(path, ignore_errors=True)
        for step, reason in ({} if newest is None else newest.damaged).items():
            names = (f"{step}.damaged{number}" for number in ("", *range(2, 1000)))
            moved = next(self.folder / name for name in names if not (self.folder / name).exists())
            (self.folder / str(step)).rename(moved)
            log.warning("%s/%d is damaged (%s); renamed to %s", self.folder, step, reason, moved.name)
        if newest is not None:
            self._delete_outdated(newest.step, self._find_best(newest.progress))
        logged = len(read_history(self.folder.parent / METRICS))
        completed = 0 if newest is None else newest.progress.epoch
        if logged > completed + 1:
            log.warning(
                "%s has %d epochs, but the newest whole checkpoint has %d; the others are trained again",
                *(self.folder.parent / METRICS, logged, completed),
            )

    def _unusable(self, step: int, reason: str) -> UserError:
        return UserError(f"{self.folder}/{step} is damaged ({reason}); {ADVICE.format(self.folder)}")

    def _best_is_missing(self, history: Sequence[Mapping[str, Any]]) -> UserError:
        epoch = best_epoch(history)
        return UserError(
            f"{self.folder}: the checkpoint of the best epoch, {epoch}, is missing or damaged; "
            + ADVICE.format(self.folder)
        )

    def _cannot_write(self, error: Exception) -> UserError:
        full = "No space left on device"
        reason = full if full in str(error) else (str(error).splitlines() or [type(error).__name__])[0][:200]
        return UserError(
            f"{self.folder}: a checkpoint cannot be written: {reason}; earlier checkpoints are kept, and the "
            "same command resumes from them"
        )


def best_epoch(history: Sequence[Mapping[str, Any]]) -> int | None:
    """Number of the epoch with the highest validation AUC, the last one if several are equal.

    Args:
      history: the metrics of each epoch.

    Returns:
      The number, from 1; None if no epoch is complete.
    """
    if not history:
        return None
    return max(range(len(history)), key=lambda index: (history[index][METRIC], index)) + 1


def read_history(path: Path) -> list[dict[str, Any]]:
    """Reads the metrics of each epoch up to the first line that is not whole; empty if there is no file.

    Args:
      path: the metrics file of a run.
    """
    records: list[dict[str, Any]] = []
    try:
        for line in path.read_text().splitlines():
            record = json.loads(line)
            float(record[METRIC])
            records.append(record)
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return records


def _create_writer() -> ocp.AsyncCheckpointer:
    options = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:  # only the first process writes
        options = ocp.options.MultiprocessingOptions(
            primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
        )
    handlers: dict[str, Any] = {
        name: ocp.StandardCheckpointHandler(multiprocessing_options=options) for name in files.ARRAY_ITEMS
    }
    handlers["progress"] = ocp.JsonCheckpointHandler(multiprocessing_options=options)
    composite = ocp.CompositeOptions(multiprocessing_options=options)
    handler = ocp.CompositeCheckpointHandler(composite_options=composite, **handlers)
    return ocp.AsyncCheckpointer(handler, multiprocessing_options=options)


def _rest(state: TrainState) -> dict[str, PyTree]:
    """The training state without the evaluated model."""
    rest = {"step": state.step, "opt_state": state.opt_state, "totals": state.totals}
    return rest | ({"trained": state.variables} if state.ema else {})


def _empty(leaf: Any) -> np.ndarray:
    """An array of the same type and shape that takes no memory."""
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def _describe(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {shape}"
