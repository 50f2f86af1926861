"""Checkpoints in a run's folder: the newest, to go on from, and the best, to use.

Each holds three items: `model` (parameters and running statistics, all that prediction needs), `rest`
(what else training needs) and `progress` (where in the run it was, and the metrics of every epoch).
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
    """Where in a run a checkpoint was taken.

    Attributes:
      epoch: whole epochs done.
      steps_in_epoch: steps done of the epoch after those.
      history: the metrics of each whole epoch.
    """

    epoch: int = 0
    steps_in_epoch: int = 0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: where they lie; made if it is not there.
      devices: of all processes that train together; the first one alone reads and writes the folder.
    """

    def __init__(self, folder: Path, devices: Sequence[jax.Device] = ()) -> None:
        self.folder = folder
        self._devices = devices
        # None in the other processes, of which `restore_newest` is all that is asked.
        self._manager: Any = _manager(folder) if processes.is_first() else None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._manager is not None:
            self._manager.close()

    def save(self, state: TrainState, progress: Progress, metrics: dict[str, float] | None) -> None:
        """Saves in the background; returns once the state has been copied.

        Args:
          state: what is saved.
          progress: where in the run it is.
          metrics: what the checkpoint is ranked by; None for one between two epochs.
        """
        if self._manager is None:
            return
        host_state = jax.device_get(state)
        self._manager.save(
            # An epoch's last step may be saved twice: before its evaluation, where that was stopped.
            2 * int(host_state.step) + (metrics is not None),
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(host_state.evaluated),
                rest=ocp.args.StandardSave(_rest(host_state)),
                progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
            ),
            metrics=metrics,
        )

    def wait(self) -> None:
        """Returns when what was saved lies safely on disk."""
        if self._manager is not None:
            self._manager.wait_until_finished()

    def restore_newest(self, like: TrainState) -> tuple[TrainState, Progress] | None:
        """The state and progress to go on from, or None where nothing was saved yet.

        Args:
          like: a state of the same model and optimiser.

        Raises:
          UserError: the checkpoint is of another model.
        """
        step = None if self._manager is None else self._manager.latest_step()
        step = processes.text_from_first(step, self._devices)
        if step is None:
            return None
        if self._manager is None:
            state, where = like, None
        else:
            model = self._restore(step, "model", like.evaluated)
            rest = self._restore(step, "rest", _rest(like))
            # Where a running mean is kept, it is the model, and what is trained on lies with the rest.
            trained = rest.pop("trained", None)
            state = TrainState(**(trained or model), **rest, ema=model if trained else {})
            where = dataclasses.asdict(self._progress(step))
        where = processes.text_from_first(where, self._devices)
        return processes.from_first(state, self._devices), Progress(**where)

    def restore_best(self, like: PyTree) -> tuple[PyTree, int]:
        """Parameters and running statistics of the best epoch, and the epoch's number from 1.

        Args:
          like: variables of the same model.

        Raises:
          UserError: there is no whole epoch yet, or the checkpoint is of another model.
        """
        step = self._manager.best_step()
        if step is None or self._manager.metrics(step) is None:
            raise UserError(f"{self.folder} has no checkpoint of a whole epoch yet; train further")
        return self._restore(step, "model", like), self._progress(step).epoch

    def newest_place(self) -> tuple[int, int] | None:
        """Whole epochs done and steps of the one after, at the newest checkpoint; None before the first.

        The same in all processes.
        """
        found = None
        if self._manager is not None and (step := self._manager.latest_step()) is not None:
            progress = self._progress(step)
            found = progress.epoch, progress.steps_in_epoch
        found = processes.text_from_first(found, self._devices)
        return None if found is None else (found[0], found[1])

    def newest_history(self) -> list[dict[str, Any]]:
        """The metrics of each epoch up to the newest checkpoint."""
        step = self._manager.latest_step()
        if step is None:
            return []
        return self._progress(step).history

    def _progress(self, step: int) -> Progress:
        saved = self._manager.restore(
            step, args=ocp.args.Composite(progress=ocp.args.JsonRestore())
        )
        return Progress(**saved["progress"])

    def _restore(self, step: int, item: str, like: PyTree) -> PyTree:
        """One item of a checkpoint, after a look at whether it fits."""
        found = self._manager.item_metadata(step)[item]
        found_shapes = _shapes(found.tree if hasattr(found, "tree") else found)
        wanted_shapes = _shapes(like)
        for name in sorted({*found_shapes, *wanted_shapes}):
            one, other = found_shapes.get(name), wanted_shapes.get(name)
            if one != other:
                raise UserError(
                    f"{self.folder}/{step} is of another model: {name} is {one or 'not there'} in the "
                    f"checkpoint and {other or 'not there'} in the config's model"
                )
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, jax.device_get(like))
        restored = self._manager.restore(
            step, args=ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract)})
        )
        return restored[item]


def _manager(folder: Path) -> ocp.CheckpointManager:
    policies = [
        LatestN(1),
        BestN(get_metric_fn=_metric, n=1, keep_checkpoints_without_metrics=False),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    alone = ocp.options.MultiprocessingOptions(
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
            **({"multiprocessing_options": alone} if jax.process_count() > 1 else {}),
        ),
    )


def _metric(metrics: dict[str, float]) -> float:
    return metrics[METRIC]


def _rest(state: TrainState) -> dict[str, PyTree]:
    """What training needs beyond the model itself."""
    rest = {"step": state.step, "opt_state": state.opt_state, "totals": state.totals}
    return rest | ({"trained": state.variables} if state.ema else {})


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """The shape of every array in a tree, by its path."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }
