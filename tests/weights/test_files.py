"""Files of weights: what is read, what is refused and not run, what is written and never overwritten."""

import argparse
import os
import pickle
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from lensjax import weights
from lensjax.errors import UserError
from lensjax.weights.writing import write_whole

torch = pytest.importorskip("torch")
from helpers.weight_sources import assert_same  # noqa: E402 (needs torch)

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}
ARRAYS = {name: tensor.numpy() for name, tensor in STATE.items()}


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def save(path, content, **options):
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {"state_dict": state}, "epoch": 3},
        lambda state: state | {"epoch": 3},
    ],
    ids=["bare", "state_dict", "twice", "among numbers"],
)
def test_a_checkpoint_is_read_through_its_wrappers(tmp_path, wrap, zipped):
    content = wrap(STATE)
    file = save(tmp_path / "x.pth", content, _use_new_zipfile_serialization=zipped)
    read = weights.read_torch(file)
    assert_same(read.arrays, ARRAYS)
    assert read.left_out == (("epoch",) if "epoch" in content else ())


def test_of_a_full_dino_checkpoint_the_teacher_is_read(tmp_path):
    content = {
        "student": {"module.backbone.cls_token": torch.zeros(2)},
        "teacher": STATE,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "epoch": 800,
        "args": argparse.Namespace(arch="vit_small", patch_size=16),
    }
    read = weights.read_torch(save(tmp_path / "full.pth", content))
    assert_same(read.arrays, ARRAYS)
    assert read.left_out == ("student", "optimizer", "epoch", "args")


def test_safetensors_are_read_and_written_without_torch(tmp_path, monkeypatch):
    checkpoint = save(tmp_path / "x.pth", STATE)
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    file = tmp_path / "x.safetensors"
    weights.write_torch(file, ARRAYS, overwrite=False)
    assert_same(weights.read_torch(file).arrays, ARRAYS)
    with pytest.raises(UserError, match=r"torch is not installed: pip install 'lensjax\[torch\]'"):
        weights.read_torch(checkpoint)
    with pytest.raises(UserError, match="torch is not installed"):
        weights.write_torch(tmp_path / "y.pth", ARRAYS, overwrite=False)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_becomes_the_float32_of_the_same_value(tmp_path, half):
    values = torch.tensor([1.0, -0.333, 6e-5, 1e-7, 3e4]).to(half)
    expected = [float(value) for value in values]
    by_torch = weights.read_torch(save(tmp_path / "x.pth", {"a": values}))
    from safetensors.torch import save_file as save_tensors

    save_tensors({"a": values}, tmp_path / "x.safetensors")
    by_numpy = weights.read_torch(tmp_path / "x.safetensors")
    for read in (by_torch, by_numpy):
        assert read.arrays["a"].dtype == np.float32
        assert read.arrays["a"].tolist() == expected
        name = str(half).removeprefix("torch.")
        assert read.notes == (f"1 arrays were {name} and are float32 now",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_a_pickle_that_is_more_than_tensors_is_refused_and_not_run(tmp_path, zipped):
    marker = tmp_path / "was run"
    content = STATE | {"more": Malicious(marker)}
    file = save(tmp_path / "x.pth", content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        UserError, match=r"more than tensors \(it names \w+\.mkdir\); nothing in it was run"
    ):
        weights.read_torch(file)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Malicious(marker)))
    assert marker.exists()  # it would have been


def test_a_bare_pickle_and_a_whole_module_are_refused_and_not_run(tmp_path):
    marker = tmp_path / "was run"
    file = tmp_path / "x.pth"
    file.write_bytes(pickle.dumps(Malicious(marker)))
    with pytest.raises(UserError, match="more than tensors"):
        weights.read_torch(file)
    assert not marker.exists()
    with pytest.raises(UserError, match=r"names torch\.nn\.modules\.linear\.Linear"):
        weights.read_torch(save(tmp_path / "y.pth", torch.nn.Linear(2, 2)))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_a_truncated_checkpoint_is_said_to_be_damaged(tmp_path, zipped):
    content = save(tmp_path / "x.pth", STATE, _use_new_zipfile_serialization=zipped).read_bytes()
    for length in (*range(20, len(content), 29), len(content) - 1):
        part = tmp_path / "part.pth"
        part.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"part\.pth is damaged or no PyTorch checkpoint"):
            weights.read_torch(part)


def test_a_truncated_safetensors_file_is_said_to_be_damaged(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file(ARRAYS, file)
    content = file.read_bytes()
    for length in (9, 40, len(content) - 4):
        file.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"x\.safetensors is damaged or no safetensors file"):
            weights.read_torch(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"\x93NUMPY\x01\x00", "is neither a PyTorch checkpoint nor a safetensors file"),
        (b"PK\x03\x04 but no archive", "is damaged or no PyTorch checkpoint"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_called_what_it_is(tmp_path, content, said):
    file = tmp_path / "x.pth"
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.pth {said}"):
        weights.read_torch(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "student": STATE}, "no tensors found; its entries are 'epoch', 'student'"),
        (torch.ones(2), "holds a Tensor, not a state dict"),
        ({"model": STATE, "teacher": STATE}, "weights under teacher and model"),
        ({"a": torch.eye(2).to_sparse()}, r"a is no plain array \(torch\.sparse_coo"),
    ],
    ids=["no tensors", "a tensor", "two state dicts", "a sparse tensor"],
)
def test_a_checkpoint_without_a_state_dict_is_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        weights.read_torch(save(tmp_path / "x.pth", content))


def test_a_path_that_is_no_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        weights.read_torch(tmp_path / "none.pth")
    with pytest.raises(UserError, match="is a folder"):
        weights.read_torch(tmp_path)


def test_lensjax_s_own_file_gives_back_variables_and_metadata(tmp_path):
    kernel = np.arange(6.0, dtype=np.float32).reshape(2, 3).T  # not laid out row by row
    variables = {"params": {"fc": {"kernel": kernel}}, "batch_stats": {"bn": {"mean": kernel[0]}}}
    file = tmp_path / "new folder" / "x.safetensors"
    weights.save(file, variables, {"architecture": "resnet18"})
    found, metadata = weights.load(file)
    np.testing.assert_array_equal(found["params"]["fc"]["kernel"], kernel)
    np.testing.assert_array_equal(found["batch_stats"]["bn"]["mean"], kernel[0])
    assert metadata["architecture"] == "resnet18"
    assert {"lensjax", "jax", "flax"} <= metadata.keys()


def test_load_says_how_to_convert_what_is_not_lensjax_s(tmp_path):
    other = tmp_path / "other.safetensors"
    save_file(ARRAYS, other, metadata={"format": "pt"})
    for file in (save(tmp_path / "x.pth", STATE), other):
        with pytest.raises(UserError, match=rf"convert_torch_weights\.py --input {file} --output"):
            weights.load(file)
    save_file(ARRAYS, other, metadata={"format": "lensjax weights", "format_version": "9"})
    with pytest.raises(UserError, match="has version 9 of the format"):
        weights.load(other)
    with pytest.raises(UserError, match="there is no such file"):
        weights.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_what_is_there_is_not_overwritten_unless_asked(tmp_path, name):
    file = tmp_path / name
    file.write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        weights.write_torch(file, ARRAYS, overwrite=False)
    assert file.read_text() == "mine"
    weights.write_torch(file, ARRAYS, overwrite=True)
    assert_same(weights.read_torch(file).arrays, ARRAYS)
    assert list(tmp_path.iterdir()) == [file]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "x.pth"
    file.write_text("mine")

    def fail(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        write_whole(file, fail, overwrite=True)
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(UserError, match=r"y\.safetensors cannot be written"):
        weights.write_torch(file / "y.safetensors", ARRAYS, overwrite=False)
