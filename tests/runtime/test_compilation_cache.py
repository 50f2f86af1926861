"""Tests of the compilation cache in subprocesses, because it is a process-wide setting."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import jax
from lensjax.runtime.compilation_cache import enable_compilation_cache
before = jax.config.jax_compilation_cache_dir
enable_compilation_cache()
print(before, jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.parametrize("given", [None, "", "elsewhere"])
def test_cache_folder_is_set_unless_jax_has_one(tmp_path, given):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_PERSISTENT")}
    environment |= {"LENSJAX_CACHE": str(tmp_path), "JAX_COMPILATION_CACHE_DIR": given or ""}
    if given is None:
        del environment["JAX_COMPILATION_CACHE_DIR"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    before, after = done.stdout.split(" ", 1)
    if given is None:
        assert before == "None"
        assert after.strip().startswith(str(tmp_path / "compiled"))
    else:
        assert after.strip() == before == (given or "")


def test_unwritable_cache_gives_one_warning(tmp_path):
    (tmp_path / "file").write_text("")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"LENSJAX_CACHE": str(tmp_path / "file"), "JAX_PLATFORMS": "cpu"}
    program = PROGRAM + "jax.jit(lambda x: x + 1)(1.0)"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "None None\n")
    assert done.stderr.count("\n") == 1
    assert "set LENSJAX_CACHE to a writable folder" in done.stderr
