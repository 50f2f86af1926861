"""Settings for every test: four devices on the CPU, strict shapes, a cache of their own."""

import os

# Before jax is imported. XLA's CPU client deadlocks with more devices than threads; NPROC sets those.
os.environ["NPROC"] = "16"
os.environ["JAX_PLATFORMS"] = "cpu"

import pathlib
import tempfile

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")


# Many tests compile the same functions; the second time takes them from here.
COMPILED = tempfile.TemporaryDirectory(prefix="lensjax-compiled-")
jax.config.update("jax_compilation_cache_dir", COMPILED.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated images made by the tests are shared among them and leave the user's cache alone."""
    monkeypatch.setenv("LENSJAX_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def real_samples() -> pathlib.Path:
    """The folder of real images: no/, sphere/ and vort/."""
    folder = os.environ.get("LENSJAX_REAL_SAMPLES")
    if not folder:
        pytest.skip("LENSJAX_REAL_SAMPLES names no folder of real images")
    return pathlib.Path(folder)
