"""Persistent compilation cache, so that later runs of a config start faster."""

import hashlib
import os
import platform
import tempfile
from pathlib import Path

import jax

from lensjax.runtime import user_cache
from lensjax.runtime.progress import log

VARIABLE = "JAX_COMPILATION_CACHE_DIR"  # JAX's own variable; "" disables the cache
_MIN_COMPILE_SECONDS = 0.5  # programs that compile faster are not stored


def enable_compilation_cache() -> None:
    """Stores compiled programs in the user's cache folder and loads them from there.

    Does nothing if JAX's cache folder is already set, by its variable or its config. Programs for a CPU run
    only on CPUs with the same instruction set, which JAX does not check. Each instruction set therefore has
    its own folder, so that machines can share a home folder.
    """
    if VARIABLE in os.environ or getattr(jax.config, "jax_compilation_cache_dir", None):
        return
    folder = user_cache.folder(user_cache.COMPILED) / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        log.warning(
            "%s: cannot write compiled programs (%s), so each run compiles them again; set %s to a writable "
            "folder",
            folder,
            error.strerror or error,
            user_cache.CACHE_VARIABLE,
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _processor() -> str:
    """Identifier of the processor's instruction set."""
    description = f"{platform.machine()} {platform.processor()}"
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
        description += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(description.encode()).hexdigest()[:8]}"
