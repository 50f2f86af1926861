"""The built wheel works in an empty folder, without a checkout."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
TINY = [
    "--config.preparation.crop=32",
    "--config.model.width=4",
    "--config.model.stage_sizes=1,",
    "--config.num_epochs=1",
    *(f"--config.data.num_{split}=12" for split in ("train", "validation", "test")),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that contains only the installed wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    files = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    for name in files:
        if name.startswith(("lensjax/", "configs/", "pyproject", "README", "LICENSE")):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, source], check=True)
    (wheel,) = folder.glob("lensjax-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True)
    return folder / "site"


@pytest.fixture(scope="module")
def lensjax(site, tmp_path_factory):
    """Runs a command of the installed package in an empty folder."""
    folder = tmp_path_factory.mktemp("empty")
    environment = os.environ | {"PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}

    def run(*words):
        command = [sys.executable, site / "bin" / "lensjax", *words]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.folder, run.environment = folder, environment
    return run


def test_wheel_is_importable_with_version_and_types(lensjax, site):
    code = "import lensjax; print(lensjax.__file__, lensjax.__version__, lensjax.physics.sis_deflection)"
    words = [sys.executable, "-c", code]
    shown = subprocess.check_output(words, cwd=lensjax.folder, env=lensjax.environment, text=True).split()
    assert pathlib.Path(shown[0]) == site / "lensjax" / "__init__.py"
    (metadata,) = site.glob("lensjax-*.dist-info/METADATA")
    assert f"\nVersion: {shown[1]}\n" in metadata.read_text()
    assert (site / "lensjax" / "py.typed").is_file()


def test_wheel_trains_predicts_and_exports(lensjax):
    lensjax("train", "--config", "baseline:quick", *TINY)
    run = lensjax.folder / "runs" / "baseline-quick"
    assert json.loads((run / "report" / "metrics.json").read_text())["images"]["no"] == 4
    commands = [
        ["simulate", "--preset=common_test", "--train=3", "--val=3", "--output=images"],
        ["predict", "--workdir", str(run), "--input", "images/val"],
        ["export", "--workdir", str(run), "--format=safetensors", "--output=own.safetensors"],
    ]
    code = f"from lensjax.main import run; print(*map(run, {commands}))"  # faster than three processes
    words = [sys.executable, "-c", code]
    shown = subprocess.check_output(words, cwd=lensjax.folder, env=lensjax.environment, text=True)
    assert shown.splitlines()[-1] == "0 0 0"
    assert len((lensjax.folder / "predictions.csv").read_text().splitlines()) == 4
    assert (lensjax.folder / "own.safetensors").is_file()
