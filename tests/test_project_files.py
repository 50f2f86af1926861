"""The version, the lower bounds and CONTRIBUTING.md agree with the code."""

import ast
import pathlib
import re
import runpy
import tomllib

import lensjax

ROOT = pathlib.Path(__file__).parent.parent
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def test_citation_has_the_version_of_the_package():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE).group(1) == lensjax.__version__


def test_every_dependency_has_a_lower_bound_to_test():
    project = ROOT / "pyproject.toml"
    script = runpy.run_path(str(ROOT / "tools" / "test_lowest_versions.py"))
    lowest = script["lowest_requirements"](project)
    dependencies = tomllib.loads(project.read_text())["project"]["dependencies"]
    assert len(lowest) > len(dependencies)
    assert "jax==" in "\n".join(lowest)


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
