"""Reuse of freed memory, measured by page faults, and the peak memory."""

import json
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from helpers.memory import memory_growth

from lensjax.runtime.host_memory import peak_memory

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


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak cannot be reset")
@pytest.mark.parametrize("size", [10**8, 5 * 10**7])
def test_growth_is_measured_below_an_earlier_peak(size):
    np.ones(10**8, np.uint8)  # an earlier peak of the process
    assert memory_growth(lambda: np.ones(size, np.uint8)) == pytest.approx(size, rel=0.1)


def test_peak_memory_is_that_of_the_process_itself():
    """It is not that of the process that started it."""
    large = np.ones(10**8, np.uint8)
    program = "from lensjax.runtime.host_memory import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 10**6 < int(done.stdout) < 10**8 == large.nbytes
    assert peak_memory() > large.nbytes
