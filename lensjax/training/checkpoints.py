"""Checkpoints of a run: the newest one, to resume from, and the best one, to predict with.

Each has three items: `model` (parameters and running statistics), `rest` (the remaining training state) and
`progress` (position in the run and metrics of every epoch).
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from lensjax.errors import UserError
from lensjax.training import processes
from lensjax.training.state import PyTree, TrainState

METRIC = "validation_auc"


@dataclasses.dataclass
class Progress:
    """Position of a checkpoint in its run.

    Attributes:
      epoch: number of completed epochs.
      steps_in_epoch: number of completed steps of the current epoch.
      history: the metrics of each completed epoch.
    """

    epoch: int = 0
    steps_in_epoch: int = 0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: folder of the checkpoints; created if it does not exist.
      devices: devices of all processes of the run. Only the first process reads and writes the folder.
    """

    def __init__(self, folder: Path, devices: Sequence[jax.Device] = ()) -> None:
        self.folder = folder
        self._devices = devices
        # None in the other processes, which only call `save`, `wait`, `restore_newest` and `newest_position`.
        self._manager: Any = _create_manager(folder) if processes.is_first() else None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._manager is not None:
            self._manager.close()

    def save(self, state: TrainState, progress: Progress, metrics: dict[str, float] | None) -> None:
        """Saves a checkpoint in the background; returns once the state has been copied.

        Args:
          state: the training state.
          progress: the position in the run.
          metrics: metrics that rank the checkpoint; None within an epoch.
        """
        if self._manager is None:
            return
        host_state = jax.device_get(state)
        self._manager.save(
            # The last step of an epoch is saved twice if its evaluation is interrupted.
            2 * int(host_state.step) + (metrics is not None),
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(host_state.evaluation_variables),
                rest=ocp.args.StandardSave(_rest(host_state)),
                progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
            ),
            metrics=metrics,
        )

    def wait(self) -> None:
        """Waits until all checkpoints are on disk."""
        if self._manager is not None:
            self._manager.wait_until_finished()

    def restore_newest(self, like: TrainState) -> tuple[TrainState, Progress] | None:
        """Restores the newest checkpoint.

        Args:
          like: a state of the same model and optimizer.

        Returns:
          State and progress; None if there is no checkpoint.

        Raises:
          UserError: if the checkpoint is of a different model.
        """
        step = None if self._manager is None else self._manager.latest_step()
        step = processes.broadcast_json(step, self._devices)
        if step is None:
            return None
        if self._manager is None:
            state, progress = like, None
        else:
            model = self._restore(step, "model", like.evaluation_variables)
            rest = self._restore(step, "rest", _rest(like))
            # With a moving average of the parameters, `model` is the average and `rest` has the parameters.
            trained = rest.pop("trained", None)
            state = TrainState(**(trained or model), **rest, ema=model if trained else {})
            progress = dataclasses.asdict(self._progress(step))
        progress = processes.broadcast_json(progress, self._devices)
        return processes.broadcast(state, self._devices), Progress(**progress)

    def restore_best(self, like: PyTree) -> tuple[PyTree, int]:
        """Restores the model of the best epoch.

        Args:
          like: variables of the same model.

        Returns:
          Parameters and running statistics, and the number of the epoch, from 1.

        Raises:
          UserError: if no epoch is complete, or the checkpoint is of a different model.
        """
        step = self._manager.best_step()
        if step is None or self._manager.metrics(step) is None:
            raise UserError(f"{self.folder} has no checkpoint of a completed epoch; train longer")
        return self._restore(step, "model", like), self._progress(step).epoch

    def newest_position(self) -> tuple[int, int] | None:
        """Completed epochs, and completed steps of the current epoch, at the newest checkpoint.

        Returns:
          The same value in all processes; None if there is no checkpoint.
        """
        position = None
        if self._manager is not None and (step := self._manager.latest_step()) is not None:
            progress = self._progress(step)
            position = progress.epoch, progress.steps_in_epoch
        position = processes.broadcast_json(position, self._devices)
        return None if position is None else (position[0], position[1])

    def newest_history(self) -> list[dict[str, Any]]:
        """Metrics of each epoch up to the newest checkpoint."""
        step = self._manager.latest_step()
        if step is None:
            return []
        return self._progress(step).history

    def _progress(self, step: int) -> Progress:
        saved = self._manager.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))
        return Progress(**saved["progress"])

    def _restore(self, step: int, item: str, like: PyTree) -> PyTree:
        """Restores one item of a checkpoint, whose shapes must equal those of `like`."""
        found = self._manager.item_metadata(step)[item]
        found_shapes = _shapes(found.tree if hasattr(found, "tree") else found)
        expected_shapes = _shapes(like)
        for name in sorted({*found_shapes, *expected_shapes}):
            shape, expected = found_shapes.get(name), expected_shapes.get(name)
            if shape != expected:
                raise UserError(
                    f"{self.folder}/{step} is of a different model: {name} is {_describe(shape)} in the "
                    f"checkpoint and {_describe(expected)} in the config's model"
                )
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, jax.device_get(like))
        restored = self._manager.restore(
            step, args=ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract)})
        )
        return restored[item]


def _create_manager(folder: Path) -> ocp.CheckpointManager:
    policies = [LatestN(1), BestN(get_metric_fn=_metric, n=1, keep_checkpoints_without_metrics=False)]
    folder.mkdir(parents=True, exist_ok=True)
    first_process_only = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
    )
    return ocp.CheckpointManager(
        folder.absolute(),
        item_handlers={
            "model": ocp.StandardCheckpointHandler(),
            "rest": ocp.StandardCheckpointHandler(),
            "progress": ocp.JsonCheckpointHandler(),
        },
        options=ocp.CheckpointManagerOptions(
            best_fn=_metric,
            best_mode="max",
            preservation_policy=AnyPreservationPolicy(policies),
            create=False,
            **({"multiprocessing_options": first_process_only} if jax.process_count() > 1 else {}),
        ),
    )


def _metric(metrics: dict[str, float]) -> float:
    return metrics[METRIC]


def _rest(state: TrainState) -> dict[str, PyTree]:
    """The training state without the evaluated model."""
    rest = {"step": state.step, "opt_state": state.opt_state, "totals": state.totals}
    return rest | ({"trained": state.variables} if state.ema else {})


def _describe(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {shape}"


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """Shape of each array in a tree, by its path."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves
    }
