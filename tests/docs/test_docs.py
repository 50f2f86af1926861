"""Code, commands and links in README.md and docs/ are valid."""

import importlib
import pathlib
import re
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.fitted_lens import fitted_lens
from helpers.random_runs import make_run
from helpers.small_cutout import write_lens

from lensjax import simulation, weights
from lensjax.cli.help import COMMANDS, command_module
from lensjax.cli.options import MODES, parse
from lensjax.data.images import ImageSet
from lensjax.evaluation.calibration import Calibration, write_calibration

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL_LENS_FIT = {
    "data.fit": "common_test",
    "model.input": "image_and_residual",
    "preparation.crop": 24,
    "preparation.stretch": "band_pass",
}
TINY_CONFIG = """
from lensjax.config import default_config

def get_config(variant):
    config = default_config()
    config.data.update({"num_train": 12, "num_validation": 6, "num_test": 6})
    config.preparation.crop = 32
    config.model.update({"width": 4, "stage_sizes": (1,)})
    config.num_epochs = 1
    return config
"""


def simulated(number, size=150):
    images = simulation.simulate_split("common_test", seed=1, split="test", num_images=number)
    start = (150 - size) // 2
    return (images.pixels / images.scale[:, None, None])[:, start:][:, :size, start:][..., :size]


def export_prerequisites():
    from oracles.torch_models import BaselineCNN  # needs torch

    from lensjax.cli.export import main

    make_run(pathlib.Path("run"), **{"model.name": "baseline_cnn", "model.stage_sizes": (1,)})
    for form, suffix in (("stablehlo", ".stablehlo"), ("torch", ".pth")):
        main(["--workdir=run", f"--format={form}", f"--output=pinn{suffix}"])
    return {"images": jnp.zeros((2, 32, 32, 1)), "module": BaselineCNN(4, stages=(1,))}


def fitting_prerequisites():
    class Bar:
        def update(self, number):
            pass

    images = simulated(2, 60).astype(np.float32)[..., None]
    return {
        "images": images,
        "numpy_images": images,
        "image_set": ImageSet(
            images[..., 0], np.ones(2, np.float32), np.arange(2, dtype=np.int32), ("a", "b")
        ),
        "image": images[0, ..., 0],
        "scale": np.full(2, 800, np.float32),
        "mask": np.ones(images.shape),
        "bar": Bar(),
    }


def predict_prerequisites():
    run = make_run(pathlib.Path("runs/lens_fit-quick"), **SMALL_LENS_FIT)
    write_calibration(run, Calibration(2.0, "validation", 9, 1))
    return {"images": simulated(3, 32)}


def real_images_prerequisites():
    write_lens(pathlib.Path())
    pathlib.Path("image.fits").rename("lens.fits")
    return {}


def report_prerequisites():
    make_run(pathlib.Path("runs/baseline-quick"), **{"model.name": "baseline_cnn", "model.stage_sizes": (1,)})
    return {"images": jnp.asarray(simulated(2, 32)[..., None], jnp.float32)}


def substructure_prerequisites():
    observation, fit = fitted_lens()
    return {"observation": observation, "fit": fit}


def train_prerequisites():
    pathlib.Path("configs").mkdir()
    pathlib.Path("configs/lens_fit.py").write_text(TINY_CONFIG)
    return {}


def weights_prerequisites():
    torch = pytest.importorskip("torch")
    from oracles.torch_models import BaselineCNN

    state = BaselineCNN(4).state_dict()
    torch.save(state, "checkpoint.pth")
    converted = weights.convert_state_dict({name: np.asarray(x) for name, x in state.items()})
    pathlib.Path("weights").mkdir()
    about = {"architecture": converted.source.architecture}
    weights.save(pathlib.Path("weights/resnet18.safetensors"), converted.variables, about)
    return {}


# Setup for the code blocks of a page: creates the files and returns the variables that they use.
PREREQUISITES = {
    "export.md": export_prerequisites,
    "fitting.md": fitting_prerequisites,
    "physics_only.md": fitting_prerequisites,
    "predict.md": predict_prerequisites,
    "real_images.md": real_images_prerequisites,
    "report.md": report_prerequisites,
    "substructure.md": substructure_prerequisites,
    "train.md": train_prerequisites,
    "weights.md": weights_prerequisites,
}


def blocks(page, language):
    """Code blocks of a page, each preceded by empty lines so that line numbers match those of the page."""
    text = page.read_text()
    for block in re.finditer(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield "\n" * text[: block.start(1)].count("\n") + block.group(1)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(blocks(page, "python"))], ids=lambda page: page.stem
)
def test_python_blocks_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = PREREQUISITES.get(page.name, dict)()
    for code in blocks(page, "python"):
        if "import onnxruntime" in code and not importlib.util.find_spec("onnxruntime"):
            continue  # optional, because export to ONNX needs an older Orbax
        with jax.numpy_rank_promotion("allow"):  # as for users
            exec(compile(code, page, "exec"), namespace)


def commands(page):
    """Words of each command of a page; a command may span several lines, but not several blocks."""
    for block in blocks(page, "sh"):
        pending = ""
        for line in block.replace("\\\n", " ").splitlines():
            pending += line + "\n"
            try:
                yield shlex.split(pending, comments=True)
            except ValueError:  # a quotation continues on the next line
                continue
            pending = ""
        assert not pending, f"{page.name}: a quotation is not closed: {pending.strip()}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_have_valid_flags(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in commands(page):
        if words[:3] == ["python", "-m", "lensjax.main"]:
            words = ["lensjax", *words[3:]]
        elif words[:1] == ["python"] and len(words) > 1 and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), f"{page.name}: {words[1]}"
            continue
        if words[:1] != ["lensjax"] or "--help" in words:
            continue
        if words[1] in COMMANDS:
            command = command_module(words[1])
            given = {word.partition("=")[0][2:] for word in words if word.startswith("--")}
            assert given <= command.FLAGS.keys(), f"{page.name}: {shlex.join(words)}"
        else:
            assert words[1] in MODES or words[1].startswith("--"), f"{page.name}: {words}"
            parse(words[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_point_to_existing_files(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
