"""The checkpoints of a run: the newest ones, to resume from, and the best ones, to predict with.

The best epoch is the one with the highest validation AUC in the history of the newest checkpoint; if several
epochs tie, the last of them. A checkpoint whose content has changed is never used (`checkpoint_files`).
"""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from lensjax.errors import UserError
from lensjax.runtime.progress import log
from lensjax.training import checkpoint_files as files
from lensjax.training import processes
from lensjax.training.checkpoint_files import Arrays, DamagedError, Progress, PyTree
from lensjax.training.checkpoint_manager import CheckpointManager, ranking_metrics
from lensjax.training.history import best_epoch, read_history
from lensjax.training.state import TrainState
from lensjax.workdir import METRICS, sync_folder

ADVICE = "restore it from a copy, or delete the folder {} and train again"


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: folder of the checkpoints; created by the first `save` if it does not exist.
      devices: devices of all processes of the run. In training, only the first process uses the folder.
    """

    def __init__(self, folder: Path, devices: Sequence[jax.Device] = ()) -> None:
        self.folder = folder
        self._devices = devices
        self._manager: CheckpointManager | None = None  # created by the first `save`
        self._is_saving = False

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.wait()
        finally:
            if self._manager is not None:
                with contextlib.suppress(Exception):  # the same error that `wait` has raised
                    self._manager.close()

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
        try:
            if self._manager is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._manager = CheckpointManager(self.folder)
            self._is_saving = self._manager.save(
                # The last step of an epoch is saved twice if its evaluation is interrupted.
                2 * int(host_state.step) + (progress.steps_in_epoch == 0),
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(tree) for name, tree in items.items()},
                    progress=ocp.args.JsonSave(files.progress_item(progress, items)),
                ),
                metrics=ranking_metrics(progress),
            )
        except Exception as error:  # a full disk raises OSError, ValueError or an error of XLA
            raise self._cannot_write(error) from None

    def wait(self) -> None:
        """Waits until all checkpoints are on disk.

        Raises:
          UserError: if a checkpoint cannot be written.
        """
        if self._manager is None or not self._is_saving:
            return
        self._is_saving = False
        try:
            self._manager.wait_until_finished()
            files.delete_leftovers(self.folder)
            sync_folder(self.folder)
        except Exception as error:  # see `save`
            raise self._cannot_write(error) from None

    def restore_newest(self, like: TrainState) -> tuple[TrainState, Progress] | None:
        """Restores the newest intact checkpoint, to resume training.

        Newer checkpoints that are damaged are renamed to NUMBER.damaged, with a warning. Unfinished
        checkpoints of killed processes are deleted.

        Args:
          like: a state of the same model and optimizer.

        Returns:
          State and progress; None if there is no checkpoint.

        Raises:
          UserError: if no checkpoint is intact, the best epoch is missing or damaged, or the checkpoint
            belongs to a different model.
        """
        state, progress = like, None
        if processes.is_first():
            newest, damaged = self._read_newest(files.ARRAY_ITEMS)
            if newest is not None and newest.progress.history:
                self._read_best(newest.progress)  # raises an error if it is missing or damaged
            self._tidy(newest, damaged)
            if newest is not None:
                model = self._build(newest.step, newest.arrays["model"], like.evaluation_variables)
                rest = self._build(newest.step, newest.arrays["rest"], _rest(like))
                # With a moving average of the parameters, `model` contains the average, and `rest` the
                # parameters.
                trained = rest.pop("trained", None)
                state = TrainState(**(trained or model), **rest, ema=model if trained else {})
                progress = dataclasses.asdict(newest.progress)
        progress = processes.broadcast_json(progress, self._devices)
        if progress is None:
            return None
        return processes.broadcast(state, self._devices), Progress(**progress)

    def restore_best(self, like: PyTree) -> tuple[PyTree, int, list[dict[str, Any]]]:
        """Restores the model of the best epoch.

        Args:
          like: variables of the same model.

        Returns:
          Parameters and running statistics; the number of the epoch, from 1; and the metrics of each epoch up
          to the newest checkpoint.

        Raises:
          UserError: if no epoch is complete, the best epoch is missing or damaged, or the checkpoint belongs
            to a different model.
        """
        steps = files.list_steps(self.folder)
        try:
            return self._restore_best(like)
        except UserError:
            if files.list_steps(self.folder) == steps:
                raise
        return self._restore_best(like)  # meanwhile, training has replaced a checkpoint

    def newest_position(self) -> tuple[int, int] | None:
        """Completed epochs, and completed steps of the current epoch, at the newest intact checkpoint.

        Returns:
          The same value in all processes; None if there is no checkpoint.

        Raises:
          UserError: if no checkpoint is intact.
        """
        newest = self._read_newest(files.ARRAY_ITEMS)[0] if processes.is_first() else None
        position = None if newest is None else (newest.progress.epoch, newest.progress.steps_in_epoch)
        position = processes.broadcast_json(position, self._devices)
        return None if position is None else (position[0], position[1])

    def _restore_best(self, like: PyTree) -> tuple[PyTree, int, list[dict[str, Any]]]:
        newest, damaged = self._read_newest(())
        if newest is None:
            raise self._no_epoch()
        best = self._read_best(newest.progress)
        self._check_history(newest.progress, bool(damaged))
        for step, reason in damaged.items():
            log.warning("%s/%d is damaged (%s) and not used", self.folder, step, reason)
        variables = self._build(best.step, best.arrays["model"], like)
        return variables, best.progress.epoch, newest.progress.history

    def _read_newest(self, items: Sequence[str]) -> tuple[files.Checkpoint | None, dict[int, str]]:
        """The newest checkpoint whose progress and given items are intact, and why later ones are damaged."""
        damaged: dict[int, str] = {}
        for step in reversed(files.list_steps(self.folder)):
            try:
                return files.read(self.folder, step, items), damaged
            except DamagedError as error:
                damaged[step] = str(error)
        if damaged:
            raise self._unusable(*next(iter(damaged.items())))
        return None, damaged

    def _read_best(self, progress: Progress) -> files.Checkpoint:
        """Progress and model of the best epoch in a history."""
        best = best_epoch(progress.history)
        for step in reversed(files.list_steps(self.folder)):
            try:
                found = files.read(self.folder, step, ())
            except DamagedError:
                continue
            if found.progress.steps_in_epoch == 0 and best in (None, found.progress.epoch):
                try:
                    return files.read(self.folder, step, ("model",))
                except DamagedError as error:
                    raise self._unusable(step, str(error)) from None
        raise self._no_epoch() if best is None else self._best_is_missing(best)

    def _check_history(self, progress: Progress, some_damaged: bool) -> None:
        """Compares the best epoch with that in the metrics file, which can contain later epochs."""
        logged = read_history(self.folder.parent / METRICS)
        best = best_epoch(logged)
        if best is None or best <= len(progress.history):
            return
        # The metrics of an epoch are written while its checkpoint is saved. A killed process can leave them
        # without a checkpoint.
        if some_damaged or len(logged) > len(progress.history) + 1:
            raise self._best_is_missing(best)
        log.warning(
            "%s has no checkpoint of epoch %d, the best in %s; using epoch %d. Rerun the training command to "
            "resume",
            *(self.folder, best, METRICS, best_epoch(progress.history)),
        )

    def _build(self, step: int, arrays: Arrays, like: PyTree) -> PyTree:
        """The tree with the structure and types of `like`."""
        try:
            return files.build(arrays, like)
        except ValueError as error:
            raise UserError(f"{self.folder}/{step} belongs to a different model: {error}") from None

    def _tidy(self, newest: files.Checkpoint | None, damaged: Mapping[int, str]) -> None:
        """Deletes unfinished checkpoints, renames damaged ones, and reports lost epochs."""
        files.delete_leftovers(self.folder)
        for step, reason in damaged.items():
            moved = files.rename_damaged(self.folder, step)
            log.warning("%s/%d is damaged (%s); renamed to %s", self.folder, step, reason, moved.name)
        logged = len(read_history(self.folder.parent / METRICS))
        completed = 0 if newest is None else newest.progress.epoch
        if logged > completed + 1:
            log.warning(
                "%s has %d epochs, but the newest intact checkpoint has %d; the others are trained again",
                *(self.folder.parent / METRICS, logged, completed),
            )

    def _no_epoch(self) -> UserError:
        return UserError(f"{self.folder} has no checkpoint of a completed epoch; train longer")

    def _unusable(self, step: int, reason: str) -> UserError:
        return UserError(f"{self.folder}/{step} is damaged ({reason}); {ADVICE.format(self.folder)}")

    def _best_is_missing(self, epoch: int) -> UserError:
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


def _rest(state: TrainState) -> dict[str, PyTree]:
    """The training state without the evaluated model."""
    rest = {"step": state.step, "opt_state": state.opt_state, "totals": state.totals}
    return rest | ({"trained": state.variables} if state.ema else {})
