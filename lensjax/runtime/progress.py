"""The log of lensjax, and progress bars."""

import logging

from tqdm import tqdm

log = logging.getLogger("lensjax")


def progress_bar(total: int, description: str, *, unit: str = "images", initial: int = 0) -> tqdm:
    """A progress bar with rate and time left; silent if standard error is not a terminal.

    Args:
      total: how many units the whole work has.
      description: what is being done, a word or two.
      unit: what is counted.
      initial: how many units were done before.

    Returns:
      A bar to be used as a context manager; call `update(n)` on it as work gets done.
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


def duration(seconds: float) -> str:
    """A length of time in at most six characters: `45s`, `3m20s`, `2h05m`, `3d04h`."""
    whole = round(seconds)
    for big, small, size, part in (
        ("d", "h", 86_400, 3_600),
        ("h", "m", 3_600, 60),
        ("m", "s", 60, 1),
    ):
        if whole >= size:
            return f"{whole // size}{big}{whole % size // part:02d}{small}"
    return f"{whole}s"
