"""Rules for imports and for forbidden calls, checked in the source."""

import ast
import pathlib
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "lensjax"
COMMON = {"config", "errors", "json_text", "runtime", "seeds", "workdir"}
FILES = {"decoding", "fits_units"}
MAY_IMPORT = {
    "physics": set(),
    "simulation": {"physics", "errors", "seeds"},
    "fitting": {"physics", "modeling", "errors"},
    "models": {"physics", "fitting", "config"},
    "data": {"simulation", "fitting", *COMMON},
    "weights": {"errors"},
    "training": {"models", "data", "weights", *COMMON},
    "evaluation": {"data", "errors", "json_text", "workdir"},
    "prediction": {
        "models",
        "fitting",
        "modeling",
        "data",
        "training",
        "evaluation",
        "weights",
        *FILES,
        *COMMON,
    },
    "modeling": {"physics", "errors", "json_text", *FILES},
    "substructure": {"physics", "modeling", "errors", "json_text"},
    "report": {
        "prediction",
        "evaluation",
        "modeling",
        "substructure",
        "models",
        "data",
        "fitting",
        "physics",
        *COMMON,
    },
    "runtime": set(),
}
ONLY_IN = {
    "torch": ["weights/"],
    "matplotlib": ["report/", "cli/"],
    "tensorflow_datasets": ["data/deep_lense.py"],
}


def imports(file):
    """Dotted names of all imports in a file, including those inside functions and those by attributes."""
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                assert not node.level, f"{file.name}: relative import"
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            case ast.Attribute(ast.Name("lensjax"), name) if not name.startswith("__"):
                yield f"lensjax.{name}"


def test_imports_of_every_form_are_found(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("import lensjax\ndef f():\n from lensjax.data import npy\n lensjax.report.page.x()\n")
    assert set(imports(file)) == {"lensjax", "lensjax.data.npy", "lensjax.report"}
    file.write_text("from . import page\n")
    with pytest.raises(AssertionError, match="relative import"):
        list(imports(file))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_packages_below_them(package):
    for file in (PACKAGE / package).rglob("*.py"):
        for name in imports(file):
            if name.startswith("lensjax."):
                other = name.split(".")[1]
                assert other in {package, *MAY_IMPORT[package]}, f"{file.name} imports {name}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_libraries_are_imported_only_in_their_place(library):
    for file in PACKAGE.rglob("*.py"):
        if any(name.split(".")[0] == library for name in imports(file)):
            place = file.relative_to(PACKAGE).as_posix()
            assert place.startswith(tuple(ONLY_IN[library])), f"{place} imports {library}"


def test_physics_imports_only_jax_numpy_and_jaxtyping():
    allowed = {"jax", "jaxtyping", "numpy", "lensjax", *sys.stdlib_module_names}
    for file in (PACKAGE / "physics").rglob("*.py"):
        found = {name.split(".")[0] for name in imports(file)}
        assert found <= allowed, f"{file.relative_to(PACKAGE)}: {found - allowed}"


def test_only_cache_keys_use_the_default_backend():
    users = [file.name for file in PACKAGE.rglob("*.py") if "default_backend" in file.read_text()]
    assert users == ["user_cache.py"]  # cached results depend on the backend


def test_pmap_is_called_in_one_file():
    users = [file.name for file in PACKAGE.rglob("*.py") if "jax.pmap" in file.read_text()]
    assert users == ["parallel.py"]


def test_only_digests_and_messages_may_contain_nan():
    users = set()
    for file in PACKAGE.rglob("*.py"):
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef) and "json.dump" in ast.unparse(function):
                users.add(function.name)
    assert users == {"encode_json", "seal", "checksum", "_json_digest", "broadcast_json"}


def test_library_neither_prints_nor_sets_global_precision():
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", file.name
        assert "jax_enable_x64" not in file.read_text(), file.name
