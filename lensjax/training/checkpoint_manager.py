"""Orbax's checkpoint manager, which writes checkpoints and chooses those that are kept.

It keeps the two newest and the two best checkpoints. The previous checkpoint and the best earlier epoch
therefore remain available while a checkpoint is being written, and if it is damaged later.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from lensjax.training import checkpoint_files as files
from lensjax.training.history import METRIC


class CheckpointManager(ocp.CheckpointManager):
    """Writes the checkpoints of a run and deletes outdated ones, in the first process.

    Args:
      folder: an existing folder.
    """

    def __init__(self, folder: Path) -> None:
        processes = ocp.options.MultiprocessingOptions()
        if jax.process_count() > 1:  # only the first process writes
            processes = ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
            )
        handlers: dict[str, Any] = {
            name: ocp.StandardCheckpointHandler(multiprocessing_options=processes)
            for name in files.ARRAY_ITEMS
        }
        handlers["progress"] = ocp.JsonCheckpointHandler(multiprocessing_options=processes)
        best = BestN(
            get_metric_fn=lambda metrics: metrics[METRIC], n=2, keep_checkpoints_without_metrics=False
        )
        super().__init__(
            folder.absolute(),
            item_handlers=handlers,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy([LatestN(2), best]),
                # Renamed before they are deleted: a killed process leaves no checkpoint with missing files.
                todelete_subdir=files.OUTDATED,
                create=False,
                multiprocessing_options=processes,
            ),
        )

    def metrics(self, step: int) -> dict[str, Any] | None:
        """The metrics that rank a checkpoint, from its progress: Orbax's own record has no checksum."""
        try:
            return ranking_metrics(files.read(Path(self.directory), step, ()).progress)
        except files.DamagedError:  # it is not the best epoch, which is checked before training resumes
            return None


def ranking_metrics(progress: files.Progress) -> dict[str, Any] | None:
    """The metrics that rank a checkpoint; None before the end of an epoch."""
    return progress.history[-1] if progress.history and progress.steps_in_epoch == 0 else None
