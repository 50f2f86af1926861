"""Settings of all tests: four CPU devices, strict shapes, and a separate cache."""

import atexit
import importlib.metadata
import os

# Must be set before jax is imported. XLA's CPU client deadlocks with more devices than threads; NPROC is the
# number of threads.
os.environ["NPROC"] = "16"
os.environ["JAX_PLATFORMS"] = "cpu"
# Prevents lensjax/runtime/host_memory.py from changing this process; 128 kB is the default.
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "131072")
# The NumPy matrices are small; with several threads, their products took up to 30 times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Compilation takes most of the time of the tests. With these flags and the older fusion emitter, which JAX
# 0.11 no longer has, it is up to four times as fast.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    + " --xla_cpu_use_fusion_emitters=false" * importlib.metadata.version("jax").startswith("0.10."),
)

import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import jax
import pytest
from helpers.random_runs import make_run

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")


# Caches of compiled programs, simulated images and lens fits, shared by all test processes.
if "LENSJAX_TEST_SHARED" not in os.environ:
    os.environ["LENSJAX_TEST_SHARED"] = tempfile.mkdtemp(prefix="lensjax-tests-")
    atexit.register(shutil.rmtree, os.environ["LENSJAX_TEST_SHARED"], ignore_errors=True)
SHARED = pathlib.Path(os.environ["LENSJAX_TEST_SHARED"])
os.environ["LENSJAX_CACHE"] = str(SHARED / "cache")  # instead of the user's
for name, value in (
    ("JAX_COMPILATION_CACHE_DIR", str(SHARED / "compiled")),
    ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", 0.2),
    ("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", 0),
):
    os.environ[name] = str(value)  # for commands in subprocesses
    jax.config.update(name.lower(), value)


@pytest.fixture(scope="module", autouse=True)
def _release_programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Releases compiled programs around modules that use monkeypatch, and if there are many.

    The other modules share them. A process with many programs exceeds Linux's limit of 65,530 memory maps and
    crashes. 1,000 maps are about 0.3 GB of memory. If the maps cannot be counted, every module releases its
    programs.
    """
    tests = [item for item in request.session.items if item.module is request.module]
    replaced = any("monkeypatch" in item.fixturenames for item in tests)
    if replaced:
        jax.clear_caches()
    yield
    maps = pathlib.Path("/proc/self/maps")
    if replaced or not maps.exists() or maps.read_bytes().count(b"\n") > 8_000:
        jax.clear_caches()


def _samples_folder(variable: str, content: str) -> pathlib.Path:
    """Folder named by an environment variable; the test is skipped if the variable is not set."""
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} is not set to a folder of {content}")
    return pathlib.Path(folder)


@pytest.fixture(scope="session")
def published_samples() -> pathlib.Path:
    """Folder of published images, with no/, sphere/ and vort/."""
    return _samples_folder("LENSJAX_PUBLISHED_SAMPLES", "published images")


@pytest.fixture(scope="session")
def deeplensesim_samples() -> pathlib.Path:
    """Folder of images made by DeepLenseSim, with model_1/, model_2/ and model_3/."""
    return _samples_folder("LENSJAX_DEEPLENSESIM_SAMPLES", "images made by DeepLenseSim")


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes empty figures; drawing them takes most of the time of a report."""

    def write_nothing(figure, target, **_options):
        if isinstance(target, str | os.PathLike):
            pathlib.Path(target).touch()

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", write_nothing)


@pytest.fixture(params=["cpu", "default"])
def kernel_form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test with the implementations for CPUs, and with those for accelerators."""
    form = request.param

    def select(*operands, **forms):
        return forms[form](*operands)

    monkeypatch.setattr("jax.lax.platform_dependent", select)
    return form


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run with random parameters on images of 32 x 32 pixels; its config has dihedral augmentation."""
    return make_run(tmp_path_factory.mktemp("runs") / "run")
