"""Damaged files: a one-line error or, if the format has checksums, the content of the undamaged file."""

import functools
import json
import logging
import random
import time

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import lensjax
from lensjax import weights, workdir
from lensjax.config import default_config, flatten
from lensjax.errors import UserError
from lensjax.prediction import export
from lensjax.runtime import user_cache
from lensjax.weights import store

LONGEST = 2.0  # seconds of CPU time for one file
SHAPES = {"pixels": (3, 8, 8), "scale": (3,)}


def damage(content, generator):
    """A copy with flipped bits, and bytes that are changed, inserted, removed or cut off."""
    changed = bytearray(content)
    for _ in range(generator.choice([1, 1, 1, 2, 5])):
        position = generator.randrange(len(changed) or 1)
        kind = generator.choice(["flip", "flip", "change", "insert", "remove", "cut"])
        if kind == "cut":
            del changed[position:]
        elif kind == "insert":
            changed[position:position] = generator.randbytes(generator.choice([1, 2, 8]))
        elif kind == "remove":
            del changed[position : position + generator.choice([1, 4, 50])]
        elif changed:
            byte = changed[position]
            changed[position] = byte ^ 1 << generator.randrange(8) if kind == "flip" else 255 - byte
    return bytes(changed)


def damage_header(content, generator):
    """A safetensors file with another value at a random place in its header."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    entry = header[generator.choice(sorted(header))]
    field = generator.choice(sorted(entry))
    values = [None, "", "F8_E4M3", "9" * 30, 0, -1, 2**63, [0, 2**62], [-1, 3], [], {}, "\ud800", "[" * 5000]
    entry[field] = generator.choice(values)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def fingerprint(content):
    """Everything in the content of a file, for an exact comparison."""
    leaves, structure = jax.tree.flatten(content)
    return str(structure), [
        (leaf.dtype.str, leaf.shape, leaf.tobytes()) if isinstance(leaf, np.ndarray) else leaf
        for leaf in leaves
    ]


def checkpoint(path, **options):
    torch = pytest.importorskip("torch")
    state = {"a.weight": torch.arange(20.0).reshape(4, 5), "a.bias": torch.ones(6), "n": torch.tensor(3)}
    torch.save({"model": state, "best": np.float64(0.5), "args": [1, "x", {"lr": 0.1}]}, path, **options)


def model_file(path, run):
    export.write_safetensors(export.load_model_function(run), path)


def weight_file(path):
    variables = {"params": {"a": np.arange(20, dtype=np.float32), "b": np.float32(3)}}
    weights.save(path, variables, {"architecture": "resnet18", "sizes": "{}"})


def config_file(path):
    workdir.claim(path.parent, default_config())


def read_config(path):
    """The fields that the checksum covers."""
    fields = flatten(workdir.read_config(path.parent).to_dict())
    return {name: value for name, value in fields.items() if name not in ("data.source", "data.residence")}


def cache_file(path):
    user_cache.save(path, {"pixels": np.arange(192).reshape(3, 8, 8), "scale": np.ones(3, np.float32)})


def read_arrays(path):
    return weights.read_torch(path).arrays


def load_classifier(path):
    """Everything that determines the predictions of a classifier."""
    trained = lensjax.load(path).trained
    return trained.variables, trained.config.to_json(), trained.best_epoch, trained.temperature


# Name, function that writes the file, function that reads it, number of damaged files, whether its format
# has checksums. Without them, a reader cannot notice that a number was changed.
KINDS = [
    ("config.json", config_file, read_config, 500, True),
    ("weights.safetensors", weight_file, weights.load, 500, True),
    ("model.safetensors", model_file, load_classifier, 80, True),
    ("zip.pth", checkpoint, read_arrays, 200, True),
    ("old.pt", functools.partial(checkpoint, _use_new_zipfile_serialization=False), read_arrays, 300, False),
    ("other.safetensors", lambda path: save_file({"a": np.ones(3)}, path), read_arrays, 300, False),
    ("cache.npz", cache_file, lambda path: user_cache.load(path, SHAPES), 300, True),
]


@pytest.mark.parametrize(("name", "write", "read", "number", "exact"), KINDS, ids=[kind[0] for kind in KINDS])
def test_damaged_files_give_error_or_original_content(
    request, tmp_path, name, write, read, number, exact, caplog
):
    caplog.set_level(logging.CRITICAL)
    file = tmp_path / name
    write(file, *([request.getfixturevalue("run")] if write is model_file else []))
    whole, expected = file.read_bytes(), fingerprint(read(file))
    refused = 0
    for seed in range(number):
        generator = random.Random(seed)
        change = damage_header if file.suffix == ".safetensors" and seed % 4 == 0 else damage
        file.write_bytes(change(whole, generator))
        started = time.process_time()
        try:
            content = read(file)
        except UserError as error:
            message = str(error)
            content = None
        else:
            message = ""
        assert time.process_time() - started < LONGEST, f"seed {seed}"
        assert "\n" not in message, f"seed {seed}"
        if content is None:
            refused += 1
        elif exact:
            assert fingerprint(content) == expected, f"seed {seed}"
    assert refused > number / 2


@pytest.mark.parametrize("field", ["temperature", "best_epoch", "classes"])
def test_hostile_metadata_gives_one_line_error_or_classifier(run, tmp_path, field):
    """The checksum of the model file is valid."""
    file = tmp_path / "model.safetensors"
    model_file(file, run)
    variables, metadata = store.load(file)
    deep = ["{" * 5000, "[" * 100_000]
    for text in ["", "null", "[]", '"x"', "-1", "1e999", "NaN", "9" * 5000, "\x00", "{}", *deep]:
        weights.save(file, variables, metadata | {field: text}, overwrite=True)
        try:
            lensjax.load(file)
        except UserError as error:
            message = str(error)
        else:
            message = ""
        assert "\n" not in message
        assert len(message) < 1000
