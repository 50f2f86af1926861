"""The command convert-weights: from PyTorch to lensjax and back, runs to PyTorch, and errors."""

import functools
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import workdir
from lensjax.cli import convert_weights
from lensjax.config import default_config
from lensjax.main import run
from lensjax.models import LensViTPINN, build
from lensjax.training.checkpoint_files import Progress
from lensjax.training.checkpoints import Checkpoints
from lensjax.training.state import TrainState
from lensjax.weights import download, load

torch = pytest.importorskip("torch")
from helpers.weight_sources import (  # noqa: E402
    add_prefix,
    assert_same,
    to_hugging_face,
    to_numpy,
    torchvision_resnet18,
    vit_module,
)
from oracles import torch_models  # noqa: E402 (needs torch)

TINY = {"patch_size": 8, "dim": 16, "depth": 1, "num_heads": 2, "grid": 3}
FLAX_TINY = {"patch_size": 8, "embedding_size": 16, "depth": 1, "num_heads": 2, "position_grid": 3}


@pytest.fixture
def tool(capsys):
    """Runs the command; returns its exit code and its output on both streams."""

    def run_tool(*words):
        code = run(["convert-weights", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run_tool


def pinn():
    oracle = torch_models.LensVITPINN(32, 4, dropout=0.0, **TINY)
    torch_models.randomize(oracle, 0)
    for name, tensor in oracle.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(1200)
    return oracle.eval()


@pytest.fixture
def checkpoint(tmp_path):
    file = tmp_path / "pinn.pth"
    torch.save({"state_dict": add_prefix("module.", pinn().state_dict())}, file)
    return file


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_round_trip_loads_strictly_and_bitwise_equal(tool, checkpoint, tmp_path, suffix):
    middle, back = tmp_path / "pinn.safetensors", tmp_path / f"back{suffix}"
    assert tool("--input", checkpoint, "--output", middle)[0] == 0
    code, output = tool("--to-torch", "--input", middle, "--output", back)
    assert code == 0
    assert "width 4" in output
    if suffix == ".pth":
        state = torch.load(back, weights_only=True)
    else:
        from safetensors.torch import load_file

        state = load_file(back)
    module = torch_models.LensVITPINN(32, 4, **TINY)
    module.load_state_dict(state, strict=True)
    assert_same(to_numpy(module.state_dict()), to_numpy(pinn().state_dict()))


def test_converted_checkpoint_gives_logits_of_torch(tool, checkpoint, tmp_path):
    file = tmp_path / "pinn.safetensors"
    assert tool("--input", checkpoint, "--output", file)[0] == 0
    variables, metadata = load(file)
    x = np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 1)).astype(np.float32)
    expected = pinn()(torch.tensor(np.moveaxis(x, -1, 1))).detach().numpy()
    model = LensViTPINN(width=4, dropout_rate=0.0, **FLAX_TINY)
    found = jax.jit(functools.partial(model.apply, train=False))(variables, jnp.asarray(x)).logits
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert metadata["architecture"] == "lens_vit_pinn"
    assert metadata["source_file"] == "pinn.pth"
    assert metadata["source_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert json.loads(metadata["sizes"]) == {
        "embedding_size": 16,
        "depth": 1,
        "patch_size": 8,
        "position_grid": 3,
        "image_size": 32,
        "width": 4,
        "stage_sizes": [2, 2, 2, 2],
    }


def test_best_epoch_converts_for_reference_module(tool, tmp_path):
    run, file = tmp_path / "run", tmp_path / "run.pth"
    config = default_config()
    config.model.width = 4
    config.data.image_size = 48
    config.preparation.crop = 32
    workdir.claim(run, config)
    model, image = build(config), jnp.zeros((1, 32, 32, 1))
    shapes = jax.eval_shape(lambda key: model.init(key, image, train=False), jax.random.key(0))
    generator = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype("f"), shapes)
    state = TrainState(step=jnp.zeros((), int), opt_state={}, totals={}, **variables)
    with Checkpoints(run / workdir.CHECKPOINTS) as checkpoints:
        checkpoints.save(state, Progress(epoch=7))
        checkpoints.wait()
    code, output = tool("--to-torch", "--input", run, "--output", file)
    assert code == 0, output
    assert "best epoch 7" in output
    assert "not in the state dict: the preparation of the images (crop 32, stretch none)" in output
    module = torch_models.BaselineCNN(4)
    module.load_state_dict(torch.load(file, weights_only=True), strict=True)
    kernel = state.params["resnet"]["layer2_0"]["downsample_conv"]["kernel"]
    found = module.resnet.layer2[0].downsample[0].weight.detach().numpy()
    np.testing.assert_array_equal(found, np.transpose(kernel, (3, 2, 0, 1)))
    code, output = tool("--input", run, "--output", tmp_path / "x.safetensors")
    assert code == 2
    assert "is a folder; --to-torch converts the folder of a run to a checkpoint" in output


def test_unused_arrays_and_changes_are_reported(tool, tmp_path):
    state = {
        name: torch.zeros(tensor.shape, dtype=torch.float16)
        for name, tensor in vit_module().state_dict().items()
    }
    state = add_prefix("vit.", to_hugging_face(state)) | {"classifier.weight": torch.zeros(2, 384)}
    source = tmp_path / "hf.pth"
    torch.save({"model": state, "epoch": 3}, source)
    code, output = tool("--input", source, "--output", tmp_path / "x.safetensors")
    assert code == 0, output
    assert "dino_vits16, names of Hugging Face: 150 arrays, 21.7 million numbers" in output
    assert "removed from the names: vit." in output
    assert "not used: classifier.weight (a classifier head)" in output
    assert "not read from the file: epoch" in output
    assert "arrays converted from float16 to float32: 198" in output


def test_one_of_several_networks_is_chosen_by_flags(tool, tmp_path):
    own, other = pinn().state_dict(), {name: 0 * tensor for name, tensor in pinn().state_dict().items()}
    both = add_prefix("net.", own) | add_prefix("momentum.", other)
    source, file = tmp_path / "ssl.pth", tmp_path / "x.safetensors"
    torch.save({"model": {}, "model_ema": both, "best": np.float64(0.5)}, source)
    words = ("--input", source, "--output", file, "--entry", "model_ema")
    code, output = tool(*words)
    assert code == 2
    assert output.startswith(
        f"lensjax convert-weights: {source}: the file contains 2 networks, in momentum. and net."
    )
    code, output = tool(*words, "--prefix", "net")
    assert code == 0, output
    assert "removed from the names: net." in output
    assert "more (outside --prefix net)" in output
    assert "not read from the file: model, best" in output
    kernel = load(file)[0]["params"]["cnn"]["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel, np.transpose(own["cnn.conv1.weight"].numpy(), (2, 3, 1, 0)))


def test_existing_file_is_overwritten_only_on_request(tool, checkpoint, tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_text("mine")
    code, output = tool("--input", checkpoint, "--output", file)
    assert code == 2
    assert output.splitlines() == [
        f"lensjax convert-weights: {file} already exists; choose another file, or replace it with --overwrite"
    ]
    assert file.read_text() == "mine"
    assert tool("--input", checkpoint, "--output", file, "--overwrite")[0] == 0
    assert load(file)[1]["architecture"] == "lens_vit_pinn"


def test_given_sha256_is_verified(tool, checkpoint, tmp_path):
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    words = ("--input", checkpoint, "--output", tmp_path / "x.safetensors", "--sha256")
    code, output = tool(*words, "0" * 64)
    assert code == 2
    assert f"has SHA-256 {digest}, expected {'0' * 64}" in output
    assert tool(*words, digest.upper())[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give --input and --output, or --download NAME"),
        (("--inptu", "x"), "Unknown command line flag 'inptu'"),
        (("--arch", "resnet50"), "--arch=resnet50: value should be one of"),
        (("--input", "x.pth", "--output", "x.npz"), "x.npz: must end in .safetensors"),
        (("--to-torch", "--input", "x", "--output", "x.npz"), "end in .pth or .pt or .safetensors"),
        (("--input", "x.safetensors", "--output", "./x.safetensors"), "are the same file"),
        (("--input", "none.pth", "--output", "x.safetensors"), "none.pth: no such file"),
        (("--to-torch", "--input", "none", "--output", "x.pth"), "none: no such file; create one"),
        *(
            (("--download", "resnet18", *words), "--download can be combined only with --output")
            for words in (("--input", "x"), ("--entry", "x"), ("--prefix", "x"), ("--to-torch",))
        ),
        (("--to-torch", "--prefix", "net", "--input", "x", "--output", "x.pth"), "not for --to-torch"),
        (("--download", "resnet18", "--sha256", "12"), "12: a SHA-256 has 64 hexadecimal digits"),
    ],
)
def test_invalid_command_gives_one_line_and_code_2(tool, words, message):
    code, output = tool(*words)
    assert code == 2
    assert message in output
    assert len(output.splitlines()) == 1


def test_conversion_in_wrong_direction_is_rejected(tool, checkpoint, tmp_path):
    middle = tmp_path / "pinn.safetensors"
    assert tool("--input", checkpoint, "--output", middle)[0] == 0
    _, output = tool("--input", middle, "--output", tmp_path / "x.safetensors")
    assert "is already a lensjax file; --to-torch converts it to a checkpoint" in output
    _, output = tool("--to-torch", "--input", checkpoint, "--output", tmp_path / "x.pth")
    assert "is a PyTorch checkpoint; convert it" in output
    _, output = tool("--to-torch", "--arch", "resnet18", "--input", middle, "--output", tmp_path / "x.pth")
    assert "has the architecture lens_vit_pinn, not resnet18" in output


def test_download_is_cached_and_converted(tool, monkeypatch, tmp_path):
    source = tmp_path / "server" / "net.pth"
    source.parent.mkdir()
    torch.save(torchvision_resnet18(), source)
    monkeypatch.setenv("LENSJAX_CACHE", str(tmp_path / "cache"))
    calls = []

    def fetch(official, folder, *, sha256, report):
        calls.append((official, folder, sha256))
        size = source.stat().st_size
        report(0, size)
        report(size, size)
        return source, hashlib.sha256(source.read_bytes()).hexdigest()

    monkeypatch.setattr(convert_weights, "fetch", fetch)
    file = tmp_path / "resnet18.safetensors"
    code, output = tool("--download", "resnet18", "--output", file)
    assert code == 0, output
    assert calls == [(download.OFFICIAL_FILES["resnet18"], tmp_path / "cache" / "weights", "")]
    assert load(file)[0]["params"]["fc"]["kernel"].shape == (512, 1000)
    code, output = tool("--download", "dino_vits16")
    assert code == 0
    assert "its authors do not publish a SHA-256" in output
    assert f"--input {source} --output FILE" in output
