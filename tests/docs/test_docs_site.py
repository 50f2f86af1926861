"""The documentation site: it builds without warnings and without a network, and is complete."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

import lensjax.fitting
import lensjax.modeling
import lensjax.physics
import lensjax.simulation
import lensjax.substructure
import lensjax.weights

for library in ("material", "mkdocs_jupyter", "mkdocstrings_handlers.python", "latex2mathml"):
    pytest.importorskip(library)

ROOT = pathlib.Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    offline = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "all_proxy"), NOWHERE)
    offline |= {"NO_PROXY": "", "no_proxy": ""}
    built = subprocess.run(command, cwd=ROOT, env=os.environ | offline, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_pages_load_no_external_resources(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        text = page.read_text()
        fetched = re.findall(r'<(?:script|img|iframe)[^>]*src="([^"]+)"', text)
        fetched += re.findall(r'<link[^>]*rel="(?:stylesheet|preconnect)"[^>]*href="([^"]+)"', text)
        elsewhere = [url for url in fetched if url.startswith(("http", "//"))]
        assert not elsewhere, f"{page.relative_to(site)} fetches {elsewhere}"


@pytest.mark.parametrize(
    "package",
    [
        lensjax.physics,
        lensjax.simulation,
        lensjax.fitting,
        lensjax.modeling,
        lensjax.substructure,
        lensjax.weights,
    ],
    ids=lambda package: package.__name__,
)
def test_api_reference_describes_every_public_function_and_class(site, package):
    name = package.__name__
    text = (site / "api" / name.split(".")[1] / "index.html").read_text()
    public = [what for what in package.__all__ if callable(getattr(package, what))]
    assert public
    described = set(re.findall(rf'id="{name}\.(?:\w+\.)?(\w+)"', text))
    assert not set(public) - described


def test_formulas_are_mathml_without_dollar_signs(site):
    tutorial = (site / "tutorial" / "index.html").read_text()
    assert tutorial.count("<math") >= 4
    shown = re.sub(r"<(script|style|pre).*?</\1>", "", tutorial, flags=re.DOTALL)
    assert "$" not in shown


def test_tutorial_page_contains_its_figures(site):
    tutorial = (site / "tutorial" / "index.html").read_text()
    assert tutorial.count("data:image/png;base64") >= 7
