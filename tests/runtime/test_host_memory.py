"""Reuse of freed memory, measured by page faults."""

import json
import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of the GNU C library")

PROGRAM = """
import json, resource, sys
import numpy as np
from lensjax.runtime import host_memory

changed = host_memory.keep_freed_memory() if "keep" in sys.argv else False

def count_faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(size, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

count_faults(10**8)
again = count_faults(10**8)
print(json.dumps([changed, again]))
"""


def run_program(*words, **environment):
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))
    }
    command = [sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_freed_memory_is_reused():
    changed, again = run_program("keep")
    assert changed
    assert again < 100


def test_memory_is_returned_without_the_setting():
    assert run_program()[1] > 100


def test_user_settings_take_precedence():
    assert run_program("keep", MALLOC_ARENA_MAX="2")[0] is False
