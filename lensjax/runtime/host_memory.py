"""Memory that a step on a CPU has freed is kept for the next step."""

import ctypes
import os
import platform
from collections.abc import Callable
from pathlib import Path

# Numbers of the GNU C library's <malloc.h>.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = -1
_GROWTH = 1.25  # of the memory that is in use, before gaps are given back


def keep_freed_memory() -> bool:
    """From here on the C library keeps what is freed, in one pool for all threads.

    Otherwise it gives the large arrays of a step back to the system, which then has to find as many pages for
    the next step, and to fill them with zeros: a tenth of the time of a step of 32 images, a third with 256.
    To be called before there are threads.

    Returns:
      Whether it does: not without the GNU C library, nor where the user's own MALLOC_ARENA_MAX and the like,
      or GLIBC_TUNABLES, say how memory is to be kept.
    """
    said = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if said or not _has_gnu_library():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER))
    done = [mallopt(setting, value) == 1 for setting, value in settings]
    return all(done)


def watch() -> Callable[[], None]:
    """What keeps the gaps that nothing fits in from adding up, if it is called after every step.

    Once the process takes up a quarter more than it did, what is free at that moment is given back.
    """
    resident = Path("/proc/self/statm")
    if not (_has_gnu_library() and resident.exists()):
        return lambda: None
    trim = ctypes.CDLL(None).malloc_trim
    usual = 0

    def look() -> None:
        nonlocal usual
        pages = int(resident.read_text("ascii").split()[1])
        if usual and pages > _GROWTH * usual:
            trim(0)
            pages = int(resident.read_text("ascii").split()[1])
            usual = max(usual, pages)
        usual = usual or pages

    return look


def _has_gnu_library() -> bool:
    return platform.libc_ver()[0] == "glibc"
