"""Weight files: reading, writing, and rejection of unsafe or damaged files."""

import argparse
import json
import os
import pathlib
import pickle
import sys
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from lensjax import weights
from lensjax.errors import UserError
from lensjax.weights.writing import write_file

torch = pytest.importorskip("torch")
from helpers.weight_sources import assert_same  # noqa: E402 (needs torch)

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}
ARRAYS = {name: tensor.numpy() for name, tensor in STATE.items()}


class Malicious:
    """Creates a folder when it is unpickled."""

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
def test_state_dict_is_found_inside_wrappers(tmp_path, wrap, zipped):
    content = wrap(STATE)
    file = save(tmp_path / "x.pth", content, _use_new_zipfile_serialization=zipped)
    read = weights.read_torch(file)
    assert_same(read.arrays, ARRAYS)
    assert read.skipped == (("epoch",) if "epoch" in content else ())


def test_teacher_of_full_dino_checkpoint_is_read(tmp_path):
    content = {
        "student": {"module.backbone.cls_token": torch.zeros(2)},
        "teacher": STATE,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "epoch": 800,
        "args": argparse.Namespace(arch="vit_small", patch_size=16),
    }
    read = weights.read_torch(save(tmp_path / "full.pth", content))
    assert_same(read.arrays, ARRAYS)
    assert read.skipped == ("student", "optimizer", "epoch", "args")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.5),
        np.int64(3),
        np.random.RandomState(0).get_state(),
        np.array([{"a": 1}], object),
        pathlib.Path("x"),
    ],
    ids=["float64", "int64", "random state", "objects", "path"],
)
def test_numpy_values_beside_tensors_are_not_created(tmp_path, monkeypatch, value, zipped):
    content = {"state_dict": STATE, "best": value, "more": [value]}
    file = save(tmp_path / "x.pth", content, _use_new_zipfile_serialization=zipped)

    def refuse(*arguments):
        raise AssertionError("NumPy was called")

    for name in ("scalar", "_reconstruct"):
        monkeypatch.setattr(f"numpy._core.multiarray.{name}", refuse)
    read = weights.read_torch(file)
    assert_same(read.arrays, ARRAYS)
    assert read.skipped == ("best", "more")


def test_averaged_weights_beside_others_must_be_chosen(tmp_path):
    doubled = {name: 2 * tensor for name, tensor in STATE.items()}
    file = save(tmp_path / "x.pth", {"model": STATE, "model_ema": doubled, "student": STATE, "epoch": 3})
    with pytest.raises(
        UserError, match=r"weights in model and model_ema; choose one, such as --entry model$"
    ):
        weights.read_torch(file)
    assert_same(weights.read_torch(file, entry="model").arrays, ARRAYS)
    found = weights.read_torch(file, entry="model_ema")
    assert found.arrays["a.weight"].tolist() == (2 * ARRAYS["a.weight"]).tolist()
    assert found.skipped == ("model", "student", "epoch")
    assert weights.read_torch(file, entry="student").arrays.keys() == STATE.keys()
    with pytest.raises(UserError, match=r"no state dict 'epoch'; its entries are 'model', 'model_ema',"):
        weights.read_torch(file, entry="epoch")


def test_part_of_sharded_checkpoint_is_named(tmp_path):
    file = tmp_path / "model-00002-of-00003.safetensors"
    save_file(ARRAYS, file)
    with pytest.raises(UserError, match="is part 2 of 3 of a sharded checkpoint; save all weights in one"):
        weights.read_torch(file)
    assert weights.read_torch(file.rename(tmp_path / "model-00001-of-00001.safetensors")).arrays


def test_safetensors_do_not_need_torch(tmp_path, monkeypatch):
    checkpoint = save(tmp_path / "x.pth", STATE)
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    file = tmp_path / "x.safetensors"
    weights.write_torch(file, ARRAYS, overwrite=False)
    assert_same(weights.read_torch(file).arrays, ARRAYS)
    with pytest.raises(UserError, match=r"torch is not installed; run pip install 'lensjax\[torch\]'"):
        weights.read_torch(checkpoint)
    with pytest.raises(UserError, match="torch is not installed"):
        weights.write_torch(tmp_path / "y.pth", ARRAYS, overwrite=False)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_becomes_float32_exactly(tmp_path, half):
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
        assert read.notes == (f"arrays converted from {name} to float32: 1",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_pickled_code_is_rejected_and_not_run(tmp_path, zipped):
    marker = tmp_path / "was run"
    content = STATE | {"more": Malicious(marker)}
    file = save(tmp_path / "x.pth", content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"more than tensors \(found \w+\.mkdir\); none of its code was run"):
        weights.read_torch(file)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Malicious(marker)))
    assert marker.exists()  # loading the pickle would have run it


def test_bare_pickle_and_module_are_rejected(tmp_path):
    marker = tmp_path / "was run"
    file = tmp_path / "x.pth"
    file.write_bytes(pickle.dumps(Malicious(marker)))
    with pytest.raises(UserError, match="more than tensors"):
        weights.read_torch(file)
    assert not marker.exists()
    with pytest.raises(UserError, match=r"found torch\.nn\.modules\.linear\.Linear"):
        weights.read_torch(save(tmp_path / "y.pth", torch.nn.Linear(2, 2)))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_truncated_checkpoint_is_reported_as_damaged(tmp_path, zipped):
    content = save(tmp_path / "x.pth", STATE, _use_new_zipfile_serialization=zipped).read_bytes()
    for length in (*range(20, len(content), 29), len(content) - 1):
        part = tmp_path / "part.pth"
        part.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"part\.pth: damaged or not a PyTorch checkpoint"):
            weights.read_torch(part)


def test_truncated_safetensors_file_is_reported_as_damaged(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file(ARRAYS, file)
    content = file.read_bytes()
    for length in (9, 40, len(content) - 4):
        file.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"x\.safetensors: damaged or not a safetensors file"):
            weights.read_torch(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", " is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", " is a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", " is a web page"),
        (b"\x93NUMPY\x01\x00", " is neither a PyTorch checkpoint nor a safetensors file"),
        (b"PK\x03\x04 but no archive", ": damaged or not a PyTorch checkpoint"),
    ],
)
def test_other_file_types_are_identified(tmp_path, content, message):
    file = tmp_path / "x.pth"
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.pth{message}"):
        weights.read_torch(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "student": STATE}, "no tensors found .*; the entries are 'epoch', 'student'; choose"),
        (torch.ones(2), "contains a Tensor, not a state dict"),
        ({"model": STATE, "teacher": STATE}, "weights in teacher and model; choose one"),
        ({"a": torch.eye(2).to_sparse()}, r"a is not a dense array \(torch\.sparse_coo"),
    ],
    ids=["no tensors", "a tensor", "two state dicts", "a sparse tensor"],
)
def test_checkpoint_without_state_dict_is_rejected(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        weights.read_torch(save(tmp_path / "x.pth", content))


HEADERS = {
    "overlap": {"a": ("F32", [16], [0, 64]), "b": ("F32", [16], [0, 64])},
    "hole": {"a": ("F32", [4], [0, 16]), "b": ("F32", [4], [48, 64])},
    "unknown type": {"a": ("F8_E4M3", [64], [0, 64])},
    "many axes": {"a": ("F32", [1] * 100 + [16], [0, 64])},
    "endless axis": {"a": ("F32", [0, 2**62], [0, 0]), "b": ("F32", [16], [0, 64])},
    "overflow": {"a": ("F32", [2**62, 2**62], [0, 64])},
    "control characters": {"a\n\x1b[31m": ("F32", [16], [0, 64])},
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_hostile_safetensors_header_gives_one_line(tmp_path, header):
    fields = ("dtype", "shape", "data_offsets")
    text = json.dumps({name: dict(zip(fields, entry, strict=True)) for name, entry in header.items()})
    file = tmp_path / "x.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text.encode() + bytes(64))
    with pytest.raises(UserError) as error:
        weights.read_torch(file)
    assert "\n" not in str(error.value)


def test_hostile_checkpoint_gives_one_line(tmp_path):
    """Tensors larger than the file, a checkpoint that contains itself, and invalid names."""
    endless, loop = torch.zeros(1).expand(10**6, 10**6, 10**6), {}
    loop["model"] = loop
    for content in ({"a": endless}, loop, {"a\n\x1b[31m": torch.ones(2)}, {1: torch.ones(2)}):
        with pytest.raises(UserError) as error:
            weights.read_torch(save(tmp_path / "x.pth", content))
        assert "\n" not in str(error.value)


def test_damaged_values_in_an_archive_are_detected(tmp_path):
    file = save(tmp_path / "x.pth", STATE)
    content = file.read_bytes()
    place = content.index(ARRAYS["a.weight"].tobytes())
    file.write_bytes(content[:place] + b"\1" + content[place + 1 :])
    assert torch.load(file)["a.weight"][0, 0] != 0  # PyTorch does not detect it
    with pytest.raises(UserError, match=r"damaged .* \(the checksum of \S+ is wrong"):
        weights.read_torch(file)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10**6))
    with pytest.raises(UserError, match="claim to be much larger than the file"):
        weights.read_torch(file)


def test_paths_may_be_strings(tmp_path):
    file = str(tmp_path / "x.safetensors")
    weights.save(file, {"params": {"a": ARRAYS["a.bias"]}}, {"architecture": "resnet18"})
    assert weights.load(file)[0].keys() == {"params"}
    weights.write_torch(file, ARRAYS, overwrite=True)
    assert weights.read_torch(file).sha256 == weights.file_sha256(file)


def test_path_that_is_not_a_file_is_rejected(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        weights.read_torch(tmp_path / "none.pth")
    with pytest.raises(UserError, match="is a folder"):
        weights.read_torch(tmp_path)


def test_saved_variables_and_metadata_are_loaded(tmp_path):
    kernel = np.arange(6.0, dtype=np.float32).reshape(2, 3).T  # not contiguous
    variables = {"params": {"fc": {"kernel": kernel}}, "batch_stats": {"bn": {"mean": kernel[0]}}}
    file = tmp_path / "new folder" / "x.safetensors"
    weights.save(file, variables, {"architecture": "resnet18"})
    found, metadata = weights.load(file)
    np.testing.assert_array_equal(found["params"]["fc"]["kernel"], kernel)
    np.testing.assert_array_equal(found["batch_stats"]["bn"]["mean"], kernel[0])
    assert metadata["architecture"] == "resnet18"
    assert {"lensjax", "jax", "flax"} <= metadata.keys()


def test_changed_content_is_never_loaded_silently(tmp_path):
    """A flipped bit in any byte of a file gives an error or the same variables and metadata."""
    file = tmp_path / "x.safetensors"
    variables = {"params": {"fc": {"kernel": ARRAYS["a.weight"], "bias": ARRAYS["a.bias"]}}}
    weights.save(file, variables, {"architecture": "resnet18", "best_epoch": "8"})
    content, expected = file.read_bytes(), weights.load(file)
    rejected = 0
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        file.write_bytes(changed)
        try:
            found, metadata = weights.load(file)
        except UserError:
            rejected += 1
            continue
        assert metadata == expected[1]
        assert_same(found["params"]["fc"], expected[0]["params"]["fc"])
    assert rejected > 0.95 * len(content)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_rejected(tmp_path, value):
    file = tmp_path / "x.safetensors"
    weights.save(file, {"params": {"a": np.float32([1, value])}}, {"architecture": "resnet18"})
    with pytest.raises(UserError, match=r"x\.safetensors: params/a contains NaN or infinite values"):
        weights.load(file)


def test_inconsistent_names_and_missing_metadata_are_rejected(tmp_path):
    file = tmp_path / "x.safetensors"
    weights.save(
        file, {"params": {"a": ARRAYS["a.bias"]}, "params/a/b": ARRAYS["a.bias"]}, {"architecture": "x"}
    )
    with pytest.raises(UserError, match="is part of two names"):
        weights.load(file)
    weights.save(file, {"params": {"a": ARRAYS["a.bias"]}}, {}, overwrite=True)
    with pytest.raises(UserError, match="does not name its architecture"):
        weights.load(file)


def test_written_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "plain").touch()
    weights.write_torch(tmp_path / "x.safetensors", ARRAYS)
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_load_error_has_command_for_conversion(tmp_path):
    other = tmp_path / "other.safetensors"
    save_file(ARRAYS, other, metadata={"format": "pt"})
    for file in (save(tmp_path / "x.pth", STATE), other):
        with pytest.raises(UserError, match=rf"lensjax convert-weights --input {file} --output"):
            weights.load(file)
    save_file(ARRAYS, other, metadata={"format": "lensjax weights", "format_version": "9"})
    with pytest.raises(UserError, match="has format version '9'"):
        weights.load(other)
    with pytest.raises(UserError, match="no such file"):
        weights.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_existing_file_is_overwritten_only_on_request(tmp_path, name):
    file = tmp_path / name
    file.write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        weights.write_torch(file, ARRAYS, overwrite=False)
    assert file.read_text() == "mine"
    weights.write_torch(file, ARRAYS, overwrite=True)
    assert_same(weights.read_torch(file).arrays, ARRAYS)
    assert list(tmp_path.iterdir()) == [file]


def test_failed_write_keeps_the_old_file(tmp_path):
    file = tmp_path / "x.pth"
    file.write_text("mine")

    def fail(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="cannot write: No space left on device"):
        write_file(file, fail, overwrite=True)
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(UserError, match=r"y\.safetensors: cannot write"):
        weights.write_torch(file / "y.safetensors", ARRAYS, overwrite=False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_named_pipe_does_not_block(tmp_path, name):
    os.mkfifo(tmp_path / name)
    for read in (weights.read_torch, weights.load):
        with pytest.raises(UserError, match="not a regular file"):
            read(tmp_path / name)
