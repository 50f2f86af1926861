"""A run for the tests of this folder."""

import pathlib

import pytest
from random_runs import make_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run on images of 32 x 32 pixels, trained on turned images by its config's word."""
    return make_run(tmp_path_factory.mktemp("runs") / "run")
