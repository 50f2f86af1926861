"""docs/predict.md lists the flags of --help, and the columns, scores and file formats of the code."""

import pathlib
import re

from lensjax.cli.help import help_text
from lensjax.cli.options import FLAGS, MODES
from lensjax.config import default_config, flatten
from lensjax.evaluation.scores import SCORE_NAMES
from lensjax.prediction import table_files
from lensjax.prediction.readers import SUFFIXES

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "predict.md").read_text()


def test_page_and_help_list_the_same_flags():
    documented = set(re.findall(r"--[a-z][a-z-]*", PAGE)) - {"--config"}
    helped = {flag for mode in MODES for flag in re.findall(r"--[a-z][a-z-]*", help_text([mode, "--help"]))}
    assert documented <= helped
    here = {f"--{name}" for name, flag in FLAGS.items() if flag.modes != ("train",)}
    assert here <= documented & helped


def test_page_lists_columns_scores_and_file_formats():
    for name in (*table_files.column_names(has_fit=True), *SCORE_NAMES, *table_files.SUFFIXES):
        assert f"`{name}`" in PAGE, name
    for suffix in SUFFIXES:
        assert all(f"`.{part}`" in PAGE for part in suffix.split(".")[1:]), suffix
    for field in re.findall(r"config\.([a-z_.]+[a-z_])", PAGE):
        assert field in flatten(default_config().to_dict()), field
