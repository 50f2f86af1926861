"""Damaged files of every kind: one-line errors, few rows, no hang, bounded memory."""

import itertools
import time

import pytest
from helpers.fuzzed_files import survive, valid_files
from helpers.memory import memory_growth
from helpers.mutations import MUTATIONS, mutate

TRIES = 15  # of each kind of damage to each kind of file
SECONDS = 2.0
GROWTH = 600 * 2**20  # bytes, somewhat more than the largest image


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return valid_files(tmp_path_factory.mktemp("valid"))


def test_undamaged_files_are_read(files):
    for name, content in files.items():
        expected = "rejected" if name in ("photo.png", "pair.pickle") else "read"
        assert survive(name, content) == expected, name


@pytest.mark.parametrize("kind", MUTATIONS)
def test_damaged_files_are_read_or_refused(files, kind):
    def read_all():
        for (name, content), seed in itertools.product(files.items(), range(TRIES)):
            start = time.process_time()
            try:
                survive(name, mutate(content, kind, seed))
            except Exception as error:
                raise AssertionError(f"{name}, {kind}, seed {seed}") from error
            assert time.process_time() - start < SECONDS, (name, kind, seed)

    assert memory_growth(read_all) < GROWTH
