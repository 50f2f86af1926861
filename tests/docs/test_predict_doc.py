"""docs/predict.md and --help tell of the same flags, columns and figures as the code."""

import pathlib
import re

from lensjax.cli.help import help_text
from lensjax.cli.options import FLAGS, MODES
from lensjax.config import default_config, flatten
from lensjax.evaluation.scores import NAMES
from lensjax.prediction import table_files
from lensjax.prediction.readers import SUFFIXES

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "predict.md").read_text()


def test_every_flag_of_the_page_is_in_the_help_and_the_other_way_round():
    told = set(re.findall(r"--[a-z][a-z-]*", PAGE))
    helped = {
        flag for mode in MODES for flag in re.findall(r"--[a-z][a-z-]*", help_text([mode, "--help"]))
    }
    assert told <= helped
    here = {f"--{name}" for name, flag in FLAGS.items() if flag.modes != ("train",)}
    assert here <= told & helped


def test_the_page_names_each_column_each_figure_and_each_kind_of_file():
    for name in (*table_files.columns(fits=True), *NAMES, *table_files.SUFFIXES):
        assert f"`{name}`" in PAGE, name
    for suffix in SUFFIXES:
        assert f"`{suffix.removesuffix('.gz')}`" in PAGE, suffix
    for field in re.findall(r"config\.([a-z_.]+[a-z_])", PAGE):
        assert field in flatten(default_config().to_dict()), field
