"""Host memory: the peak of this process, and reuse of freed memory between training steps on a CPU."""

import contextlib
import ctypes
import os
import platform
import re
import sys
from pathlib import Path

# Constants of the GNU C library's <malloc.h>.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = -1


def keep_freed_memory() -> bool:
    """Makes the C library keep freed memory for reuse, in one pool for all threads.

    By default it returns the large arrays of a step to the system, which must allocate as many pages for the
    next step and fill them with zeros. This takes up to a third of the time of a step
    (docs/performance.md). Call this function before any threads are started.

    Returns:
      Whether the settings were changed. They are not changed without the GNU C library, or if the user has
      set GLIBC_TUNABLES or a MALLOC_ variable such as MALLOC_ARENA_MAX.
    """
    user_settings = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if user_settings or not _has_gnu_library():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER))
    done = [mallopt(setting, value) == 1 for setting, value in settings]
    return all(done)


def peak_memory() -> int:
    """Peak resident memory of this process, bytes."""
    import resource  # absent on Windows

    # On Linux, ru_maxrss can be the peak of the process that started this one.
    with contextlib.suppress(OSError):
        if found := re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text()):
            return 1024 * int(found[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _has_gnu_library() -> bool:
    return platform.libc_ver()[0] == "glibc"
