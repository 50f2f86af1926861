"""The version, the lower bounds, the documented packages and CONTRIBUTING.md agree with the code."""

import ast
import pathlib
import re
import runpy
import tomllib

import pytest
from packaging.requirements import Requirement

import lensjax

ROOT = pathlib.Path(__file__).parent.parent
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def test_citation_has_the_version_of_the_package():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE).group(1) == lensjax.__version__


def test_lower_bound_of_every_dependency_is_tested(tmp_path):
    project = ROOT / "pyproject.toml"
    script = runpy.run_path(str(ROOT / "tools" / "test_lowest_versions.py"))
    lowest = {each.name: each for each in map(Requirement, script["lowest_requirements"](project))}
    metadata = tomllib.loads(project.read_text())["project"]
    for entry in map(Requirement, metadata["dependencies"] + metadata["optional-dependencies"]["formats"]):
        (bound,) = (each.version for each in entry.specifier if each.operator == ">=")
        assert str(lowest[entry.name].specifier) == f"=={bound}"
        assert lowest[entry.name].marker == entry.marker
    (tmp_path / "pyproject.toml").write_text(project.read_text().replace('"scipy>=', '"scipy<'))
    with pytest.raises(ValueError, match=r"'scipy<.*' has no lower bound"):
        script["lowest_requirements"](tmp_path / "pyproject.toml")


def test_documented_packages_are_attributes_of_lensjax():
    documented = {page.stem for page in (ROOT / "docs" / "api").glob("*.md")}
    assert documented == set(lensjax.__all__) - {"__version__", "load"}
    tree = ast.parse(pathlib.Path(lensjax.__file__).read_text())
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen_by_type_checkers = {
        alias.name for node in imported if node.module == "lensjax" for alias in node.names
    }
    assert documented == seen_by_type_checkers
    for name in documented:
        assert getattr(lensjax, name).__name__ == f"lensjax.{name}"


def test_contributing_guide_names_existing_files():
    named = re.findall(r"(?<![\w/.])(?:lensjax|tests|tools|docs|configs|\.github)/[\w./*-]*", CONTRIBUTING)
    written = [name.rstrip(".") for name in named if "NAME" not in name]
    assert len(written) > 20
    missing = [name for name in written if not any(ROOT.glob(name.rstrip("/")))]
    assert not missing


def test_contributing_guide_lists_the_tests_of_every_package():
    packages = {folder.parent.name for folder in (ROOT / "lensjax").glob("*/__init__.py")}
    missing = [name for name in packages if f"tests/{name}" not in CONTRIBUTING]
    assert not missing
