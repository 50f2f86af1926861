"""Logger and progress bars."""

import logging

from tqdm import tqdm

log = logging.getLogger("lensjax")


def progress_bar(total: int, description: str, *, unit: str = "images", initial: int = 0) -> tqdm:
    """Progress bar with rate and remaining time, hidden if standard error is not a terminal.

    Args:
      total: total number of units.
      description: one or two words that describe the task.
      unit: name of the units.
      initial: number of units that are already done.

    Returns:
      A context manager; call its `update(n)` after every n units.
    """
    return tqdm(
        total=total,
        desc=description,
        unit=f" {unit}",
        initial=initial,
        disable=None,
        leave=False,
        dynamic_ncols=True,
    )


def format_duration(seconds: float) -> str:
    """Formats a duration in at most six characters: `45s`, `3m20s`, `2h05m`, `3d04h`."""
    whole = round(seconds)
    for big, small, size, part in (("d", "h", 86_400, 3_600), ("h", "m", 3_600, 60), ("m", "s", 60, 1)):
        if whole >= size:
            return f"{whole // size}{big}{whole % size // part:02d}{small}"
    return f"{whole}s"
