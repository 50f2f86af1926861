"""The example of docs/reference.md prints what the page says."""

import pathlib
import re
import subprocess
import sys

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "reference.md"


def test_the_example_prints_what_the_page_shows():
    ((code, shown),) = re.findall(
        r"^```python\n(.*?)^```\n+```text\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == shown
