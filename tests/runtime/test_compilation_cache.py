"""In a process of its own: the cache of compiled programs is a setting of the whole process."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import jax
from lensjax.runtime.compilation_cache import keep_compiled_programs
before = jax.config.jax_compilation_cache_dir
keep_compiled_programs()
print(before, jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.parametrize("told", [None, "", "elsewhere"])
def test_programs_are_kept_in_the_user_s_cache_folder_unless_jax_was_told_of_another(
    tmp_path, told
):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("JAX_PERSISTENT")
    }
    environment |= {"LENSJAX_CACHE": str(tmp_path), "JAX_COMPILATION_CACHE_DIR": told or ""}
    if told is None:
        del environment["JAX_COMPILATION_CACHE_DIR"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    before, after = done.stdout.split(" ", 1)
    if told is None:
        assert before == "None"
        assert after.strip().startswith(str(tmp_path / "compiled"))
    else:
        assert after.strip() == before == (told or "")
