"""Memory kept between steps, by the page faults that the system counts."""

import json
import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="settings of the GNU C library"
)

PROGRAM = """
import json, resource, sys
import numpy as np
from lensjax.runtime import host_memory

kept = host_memory.keep_freed_memory() if "keep" in sys.argv else False

def faults_of(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(size, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

look = host_memory.watch()
look()
faults_of(10**8)
again = faults_of(10**8)
look()
print(json.dumps([kept, again, faults_of(10**8)]))
"""


def told(*words, **environment):
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))
    }
    command = [sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(
        command, env=inherited | environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_freed_memory_is_used_again_until_there_is_too_much_of_it():
    kept, again, after_giving_back = told("keep")
    assert kept
    assert again < 100 < after_giving_back


def test_without_it_memory_is_given_back_at_once():
    assert told()[1] > 100


def test_a_user_s_own_settings_stand():
    assert told("keep", MALLOC_ARENA_MAX="2")[0] is False
