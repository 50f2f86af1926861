"""Runs the core tests with the lowest versions of the direct dependencies that pyproject.toml allows.

  python3.11 tools/test_lowest_versions.py [--venv FOLDER] [-- PYTEST_ARGUMENT ...]

  --venv FOLDER     where to create the virtual environment, which is kept; if not given, the
                    environment is temporary
  PYTEST_ARGUMENT   arguments for pytest instead of the core tests

Use the oldest Python that pyproject.toml allows: some of the lowest versions have no wheels for newer ones.
Each bound `name>=version` of the dependencies, of the extra `formats` and of the test runner is installed
as `name==version`, so that bounds that contradict each other, or versions that were never released, are
errors. Packages that pyproject.toml does not name are the newest that pip finds. Tests that need lenstronomy
or torch are skipped. Warnings are not errors here: old releases warn about each other.
"""

import argparse
import contextlib
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEST_RUNNER = ("beartype", "hypothesis", "pytest")
# Together they use every direct dependency; test_lens_fit.py trains, evaluates and predicts.
CORE_TESTS = (
    "tests/physics",
    "tests/models",
    "tests/training/test_pretrained.py",
    "tests/evaluation",
    "tests/data/test_deep_lense.py",
    "tests/data/test_streamed.py",
    "tests/prediction/test_predict_files.py",
    "tests/prediction/test_readers.py",
    "tests/test_lens_fit.py",
)
BOUND = re.compile(r"(?P<name>[\w.-]+)>=(?P<version>[\d.]+)")


def lowest_requirements(project: Path) -> list[str]:
    """Returns the requirements to test, each `name>=version` as `name==version`.

    Args:
      project: path of a pyproject.toml.

    Raises:
      ValueError: if a requirement has no lower bound.
    """
    metadata = tomllib.loads(project.read_text())["project"]
    extras = metadata["optional-dependencies"]
    runner = [entry for entry in extras["test"] if re.split(r"[>=<]", entry)[0] in TEST_RUNNER]
    lowest = []
    for entry in [*metadata["dependencies"], *extras["formats"], *runner]:
        bound = BOUND.match(entry)
        if bound is None:
            raise ValueError(f"{project}: {entry!r} has no lower bound; write it as name>=version")
        marker = "".join(entry.partition(";")[1:])
        lowest.append(f"{bound['name']}=={bound['version']}{marker}")
    return lowest


def main(arguments: Sequence[str]) -> int:
    """Installs the lowest versions and runs the tests; returns the exit status of pip or pytest."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venv", type=Path)
    options, rest = parser.parse_known_args(arguments)
    if rest and rest[0] != "--":
        sys.stderr.write(f"test_lowest_versions: {rest[0]!r} is not a flag; arguments for pytest follow --\n")
        return 2
    pytest_arguments = rest[1:]
    requirements = lowest_requirements(ROOT / "pyproject.toml")
    with contextlib.ExitStack() as stack:
        folder = options.venv or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        venv.create(folder, with_pip=True)
        python = str((folder / "bin" / "python").absolute())
        pip = [python, "-m", "pip", "install", "--quiet"]
        for command in (
            [*pip, *requirements],
            [*pip, "--no-deps", "--editable", "."],
            [python, "-m", "pip", "list"],
            [python, "-m", "pytest", "-W", "default", *(pytest_arguments or CORE_TESTS)],
        ):
            status = subprocess.run(command, cwd=ROOT, check=False).returncode
            if status:
                return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
