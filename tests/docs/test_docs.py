"""The pages under docs/ tell the truth: their code runs and their pictures are there."""

import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs"
TOURS = ["physics.md"]  # whose Python blocks run one after another


@pytest.mark.parametrize("name", TOURS)
def test_the_code_of_a_tour_runs_and_its_assertions_hold(name):
    page = (DOCS / name).read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    assert blocks
    namespace = {}
    for block in blocks:
        # Empty lines before it give an error the line number of the page.
        code = "\n" * page[: block.start(1)].count("\n") + block.group(1)
        exec(compile(code, DOCS / name, "exec"), namespace)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
