"""Settings for every test: four devices on the CPU, strict shapes, a cache of their own."""

import atexit
import os

# Before jax is imported. XLA's CPU client deadlocks with more devices than threads; NPROC sets those.
os.environ["NPROC"] = "16"
os.environ["JAX_PLATFORMS"] = "cpu"
# Keeps lensjax/runtime/host_memory.py from changing this process; 128 kB is the default.
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "131072")
# What tests do is mostly to compile: fully optimised, as with XLA_FLAGS=" ", they take 1.7 times as long.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

import pathlib
import shutil
import tempfile

import jax
import pytest
from helpers.random_runs import make_run

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")


# Many tests compile the same functions and simulate the same images. The second time, in whichever of the
# processes that share the tests, takes them from here.
if "LENSJAX_TEST_SHARED" not in os.environ:
    os.environ["LENSJAX_TEST_SHARED"] = tempfile.mkdtemp(prefix="lensjax-tests-")
    atexit.register(shutil.rmtree, os.environ["LENSJAX_TEST_SHARED"], ignore_errors=True)
SHARED = pathlib.Path(os.environ["LENSJAX_TEST_SHARED"])
for name, value in (
    ("JAX_COMPILATION_CACHE_DIR", str(SHARED / "compiled")),
    ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", 0.2),
    ("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", 0),
):
    os.environ[name] = str(value)  # for the commands that tests start
    jax.config.update(name.lower(), value)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated images made by the tests are shared among them and leave the user's cache alone."""
    monkeypatch.setenv("LENSJAX_CACHE", str(SHARED / "cache"))


@pytest.fixture(scope="session")
def real_samples() -> pathlib.Path:
    """The folder of real images: no/, sphere/ and vort/."""
    folder = os.environ.get("LENSJAX_REAL_SAMPLES")
    if not folder:
        pytest.skip("LENSJAX_REAL_SAMPLES names no folder of real images")
    return pathlib.Path(folder)


@pytest.fixture(params=["cpu", "default"])
def kernel_form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test with the CPU forms of convolution and pooling, and with those of accelerators."""
    form = request.param

    def select(*operands, **forms):
        return forms[form](*operands)

    monkeypatch.setattr("jax.lax.platform_dependent", select)
    return form


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run on images of 32 x 32 pixels, which was trained on rotated images according to its config."""
    return make_run(tmp_path_factory.mktemp("runs") / "run")
