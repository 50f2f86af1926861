"""Growth of the resident memory while a function runs."""

import contextlib
import ctypes
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lensjax.runtime.host_memory import peak_memory


def memory_growth(function: Callable[[], Any]) -> int:
    """Largest resident memory while a function runs, in excess of that before, bytes.

    On Linux, the system's record of the peak is reset before. On other systems, memory below an earlier peak
    of the process is not seen.

    Args:
      function: function without arguments.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that the C library keeps could be used unseen
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = peak_memory()
    function()
    return peak_memory() - before
