"""Exported classifiers reproduce the logits of their runs; files that do not are removed."""

import dataclasses
import functools
import re
import sys

import jax
import numpy as np
import pytest
from helpers.random_runs import SIZE, make_run
from scipy.special import softmax

from lensjax import weights
from lensjax.main import run
from lensjax.prediction import export
from lensjax.prediction.trained_model import load_trained_model

TINY_VIT = {"patch_size": 8, "embedding_size": 16, "depth": 1, "num_heads": 2, "position_grid": 3}
PINN = {"model.name": "lens_vit_pinn", "model.stage_sizes": (1, 1)}
PINN |= {f"model.{name}": size for name, size in TINY_VIT.items()}
BAND_PASS = {"preparation.crop": 24, "preparation.stretch": "band_pass"}
LENS_FIT = {"data.fit": "common_test", "model.input": "image_and_residual", **BAND_PASS}


@pytest.fixture
def tool(capsys):
    """Runs the command; returns its exit code and its output on both streams."""

    def run_tool(*words):
        return run(["export", *map(str, words)]), "".join(capsys.readouterr())

    return run_tool


@pytest.fixture(scope="module")
def pinn(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("pinn") / "run", seed=1, **PINN)


@pytest.fixture(scope="module")
def lens_fit(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("lens_fit") / "run", **LENS_FIT)


def own_logits(workdir, images):
    """Logits of the run, computed without `export`, for images that need no preparation."""
    trained = load_trained_model(workdir, devices=jax.devices()[:1])
    apply = jax.jit(functools.partial(trained.model.apply, train=False))
    return np.asarray(apply(trained.variables, images).logits)


def test_stablehlo_supports_any_batch_size_and_platform(tool, pinn, tmp_path):
    file = tmp_path / "new" / "pinn.stablehlo"
    code, output = tool("--workdir", pinn, "--format", "stablehlo", "--output", file)
    assert code == 0
    assert f"12 x {SIZE} x {SIZE} x 1 images differ by at most" in output
    exported = jax.export.deserialize(bytearray(file.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    products = re.findall(r"stablehlo\.(?:dot_general|convolution)\b.*", exported.mlir_module())
    assert products
    assert all(product.count("HIGHEST") == 2 for product in products)  # float32, not TensorFloat-32
    images = export.example_images((SIZE, SIZE, 1), 5)
    expected = own_logits(pinn, images)
    assert np.ptp(expected[:, 0]) > 1e-3
    logits, probabilities = exported.call(images)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_allclose(probabilities, softmax(expected, 1), atol=1e-6)
    np.testing.assert_allclose(exported.call(images[:1])[0], expected[:1], atol=1e-5)


def test_onnx_includes_preparation_for_any_batch_size(tool, lens_fit, tmp_path):
    pytest.importorskip("jax2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    file = tmp_path / "lens_fit.onnx"
    code, output = tool("--workdir", lens_fit, "--format=onnx", "--output", file)
    assert code == 0, output
    session = onnxruntime.InferenceSession(str(file))
    assert session.get_modelmeta().custom_metadata_map["classes"] == '["no", "sphere", "vort"]'
    function = export.load_model_function(lens_fit)
    images = export.example_images((SIZE, SIZE, 2), 5)
    for some in (images, images[:1]):
        logits, probabilities = session.run(["logits", "probabilities"], {"images": some})
        expected = np.asarray(function.logits(function.variables, jax.numpy.asarray(some)))
        np.testing.assert_allclose(logits, expected, atol=1e-5)
        np.testing.assert_allclose(probabilities, softmax(expected, 1), atol=1e-6)


def test_torch_state_dict_reproduces_logits(tool, pinn, tmp_path):
    torch = pytest.importorskip("torch")
    from oracles import torch_models

    file = tmp_path / "pinn.pth"
    assert tool("--workdir", pinn, "--format=torch", "--output", file)[0] == 0
    sizes = {"patch_size": 8, "dim": 16, "depth": 1, "num_heads": 2, "grid": 3}
    reference = torch_models.LensVITPINN(SIZE, 4, stages=(1, 1), **sizes).eval()
    reference.load_state_dict(torch.load(file, weights_only=True), strict=True)
    images = export.example_images((SIZE, SIZE, 1), 3)
    with torch.no_grad():
        found = reference(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(found.numpy(), own_logits(pinn, images), atol=1e-4)


def test_safetensors_has_variables_of_best_epoch(tool, lens_fit, tmp_path):
    file = tmp_path / "lens_fit.safetensors"
    assert tool("--workdir", lens_fit, "--format=safetensors", "--output", file)[0] == 0
    variables, metadata = weights.load(file)
    assert metadata["architecture"] == "lens_fit_net"
    trained = load_trained_model(lens_fit, devices=jax.devices()[:1])
    jax.tree.map(np.testing.assert_array_equal, variables, dict(trained.variables))


@pytest.mark.parametrize("wrong", [2e-4, np.nan])
def test_file_with_wrong_logits_is_removed(tool, lens_fit, tmp_path, monkeypatch, wrong):
    def write(function, path):
        bias = function.variables["params"]["resnet"]["fc"]["bias"]
        bias = bias + np.float32([0, wrong, 0])
        resnet = function.variables["params"]["resnet"] | {"fc": {}}
        fc = function.variables["params"]["resnet"]["fc"] | {"bias": bias}
        variables = function.variables | {"params": {"resnet": resnet | {"fc": fc}}}
        export.write_safetensors(dataclasses.replace(function, variables=variables), path)

    form = dataclasses.replace(export.FORMATS["safetensors"], write=write)
    monkeypatch.setitem(export.FORMATS, "safetensors", form)
    file = tmp_path / "lens_fit.safetensors"
    words = ("--workdir", lens_fit, "--format=safetensors", "--output", file)
    code, output = tool(*words)
    is_number = np.isfinite(wrong)
    assert code == (1 if is_number else 2)
    assert ("more than 1e-04" if is_number else "contains NaN") in output.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
    file.write_text("older")
    assert tool(*words, "--overwrite")[0] == code
    assert file.read_text() == "older"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("form", "name", "message"),
    [
        ("torch", "a.pth", "lens_fit_net has no PyTorch counterpart"),
        ("torch", "a.onnx", "must end in .pth or .pt"),
        ("safetensors", "there.safetensors", "already exists"),
        ("tflite", "a.tflite", "--format"),
    ],
)
def test_invalid_requests_give_one_line_error(tool, lens_fit, tmp_path, form, name, message):
    (tmp_path / "there.safetensors").write_text("mine")
    code, output = tool(f"--workdir={lens_fit}", f"--format={form}", f"--output={tmp_path / name}")
    assert code == 2
    assert message in output.splitlines()[-1]
    assert [file.name for file in tmp_path.iterdir()] == ["there.safetensors"]
    assert (tmp_path / "there.safetensors").read_text() == "mine"


def test_failed_conversion_gives_one_line_error(tool, lens_fit, tmp_path, monkeypatch):
    class Converter:
        """Replacement for jax2onnx that does not support the model."""

        def to_onnx(self, *args, **options):
            raise NotImplementedError("No plugins registered for primitive 'eigh'\nand more")

    for name in ("jax2onnx", "onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, Converter())
    file = tmp_path / "a.onnx"
    code, output = tool("--workdir", lens_fit, "--format=onnx", "--output", file)
    assert code == 2
    last = output.splitlines()[-1]
    assert "jax2onnx cannot convert lens_fit_net" in last
    assert "primitive 'eigh'" in last
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_flag_and_format(tool):
    code, output = tool("--help")
    assert code == 0
    for word in ("--workdir", "--format", "--output", "--overwrite", *export.FORMATS):
        assert word in output
    assert max(map(len, output.splitlines())) <= 90
