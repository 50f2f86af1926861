"""The example in docs/reference.md prints the output shown on the page."""

import pathlib
import re
import subprocess
import sys

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "reference.md"


def test_example_output_matches_page():
    ((code, shown),) = re.findall(
        r"^```python\n(.*?)^```\n+```text\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == shown
