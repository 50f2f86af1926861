"""Compiled programs are kept between runs, so that the second start of a config is quick."""

import hashlib
import os
import platform
from pathlib import Path

import jax

from lensjax.runtime import user_cache

VARIABLE = "JAX_COMPILATION_CACHE_DIR"  # JAX's own; set to "" it turns the cache off
_LEAST_SECONDS = 0.5  # what compiles faster is not worth a file


def keep_compiled_programs() -> None:
    """From here on XLA's programs are looked for in the user's cache folder, and kept there.

    A folder that JAX was told of, by its variable or its config, stays as it is. Programs for a CPU
    serve only CPUs with the same instructions, which JAX does not look at: each kind has a folder of
    its own, so that machines can share a home.
    """
    if VARIABLE in os.environ or getattr(jax.config, "jax_compilation_cache_dir", None):
        return
    jax.config.update(
        "jax_compilation_cache_dir", str(user_cache.folder("compiled") / _processor())
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _processor() -> str:
    """A name for the kind of processor, by the instructions that it has."""
    known = f"{platform.machine()} {platform.processor()}"
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
        known += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(known.encode()).hexdigest()[:8]}"
