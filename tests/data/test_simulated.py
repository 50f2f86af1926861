"""Simulated images as a data source: cache, damaged files and fresh batches."""

import dataclasses
import fcntl
import logging
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers.data_files import SIZE

import lensjax
from lensjax import simulation
from lensjax.data.simulated import cache_folder, cache_key, fresh_images, simulated_images
from lensjax.errors import UserError


@dataclasses.dataclass
class FakeImages:
    pixels: np.ndarray
    scale: np.ndarray
    labels: np.ndarray


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Replaces the simulator with random counts; returns the list of its calls."""
    calls = []

    def simulate(preset, *, seed, split, num_images, report=None):
        calls.append((preset, seed, split, num_images))
        generator = np.random.default_rng((seed, len(split)))
        counts = generator.integers(0, 800, (num_images, SIZE, SIZE)).astype(np.uint16)
        if report is not None:
            report(num_images)
        labels = (np.arange(num_images) % 3).astype(np.int32)
        return FakeImages(counts, counts.max((1, 2)).astype(np.float32), labels)

    def small_preset(name):
        return dataclasses.replace(preset(name), instrument=instrument)

    preset = simulation.preset
    instrument = dataclasses.replace(preset("common_test").instrument, image_size=SIZE)
    monkeypatch.setattr(simulation, "simulate_split", simulate)
    monkeypatch.setattr(simulation, "preset", small_preset)
    monkeypatch.setenv("LENSJAX_CACHE", str(tmp_path / "cache"))
    return calls


def images(**changes):
    arguments = {"split": "train", "num_images": 6, "seed": 0, "image_size": SIZE} | changes
    return simulated_images("common_test", **arguments)


def assert_same(one, other):
    for field in ("pixels", "scale", "labels"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
        assert getattr(one, field).dtype == getattr(other, field).dtype
    assert one.names == other.names


def test_second_simulation_is_read_from_cache(calls):
    first, second = images(), images()
    assert calls == [("common_test", 0, "train", 6)]
    assert_same(first, second)
    assert first.pixels.dtype == np.uint16
    assert first.names[:2] == ("train/no/0", "train/sphere/1")


@pytest.mark.parametrize("changes", [{"split": "test"}, {"num_images": 9}, {"seed": 1}])
def test_other_arguments_are_simulated_again(calls, changes):
    images()
    images(**changes)
    assert len(calls) == 2


def test_cache_key_depends_on_everything_relevant(monkeypatch, tmp_path):
    arguments = {"split": "train", "num_images": 6, "seed": 0}
    keys = [cache_key("preset", **arguments), cache_key("preset", **arguments)]
    assert keys[0] == keys[1]
    keys = keys[:1]
    keys.append(cache_key("other preset", **arguments))
    keys += [
        cache_key("preset", **{**arguments, **changes})
        for changes in ({"split": "test"}, {"num_images": 7}, {"seed": 1})
    ]
    with monkeypatch.context() as changed:
        changed.setattr(jax, "__version__", "99")
        keys.append(cache_key("preset", **arguments))
    with monkeypatch.context() as changed:
        changed.setattr(np, "__version__", "99")
        keys.append(cache_key("preset", **arguments))
    with monkeypatch.context() as changed:
        changed.setattr(jax, "default_backend", lambda: "gpu")
        keys.append(cache_key("preset", **arguments))
    package = pathlib.Path(lensjax.__file__).parent
    for folder in ("simulation", "physics"):
        shutil.copytree(package / folder, tmp_path / folder)
    monkeypatch.setattr(lensjax, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "unrelated.py").touch()
    assert cache_key("preset", **arguments) == keys[0]
    for folder in ("simulation", "physics"):
        (tmp_path / folder / "new.py").touch()
        keys.append(cache_key("preset", **arguments))
        (tmp_path / folder / "new.py").unlink()
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("damage", ["truncated", "a byte", "empty", "other arrays", "other shape", "header"])
def test_damaged_cache_file_is_replaced(calls, damage, caplog):
    first = images()
    (file,) = cache_folder().iterdir()
    data = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "a byte":
        data[400] ^= 1
        file.write_bytes(data)
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "header":  # NumPy raises a TokenError for an unfinished dictionary
        data = data.replace(b"'shape': (", b"'shape': ((")
        file.write_bytes(data)
    elif damage == "other arrays":
        np.savez(file, other=np.zeros(3))
    else:
        np.savez(file, pixels=first.pixels[:3], scale=first.scale, labels=first.labels)
    with caplog.at_level(logging.WARNING, "lensjax"):
        assert_same(images(), first)
    assert len(calls) == 2
    assert str(file) in caplog.text
    assert_same(images(), first)
    assert len(calls) == 2


def test_leftovers_of_killed_processes_are_removed(calls):
    cache_folder().mkdir(parents=True)
    (cache_folder() / "killed.npz.0.part").write_bytes(b"half")
    in_use = cache_folder() / "other.npz.1.part"
    with in_use.open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # like another process that is writing it
        images()
    assert {path.name for path in cache_folder().glob("*.part")} == {in_use.name}


def test_unwritable_cache_is_a_warning(calls, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("LENSJAX_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, "lensjax"):
        assert len(images()) == 6
    assert "cannot write cache file" in caplog.text
    assert "LENSJAX_CACHE" in caplog.text


def test_failed_write_leaves_no_file(calls, monkeypatch, caplog):
    def full_disk(stream, **arrays):
        stream.write(b"part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    assert len(images()) == 6
    assert "No space left on device" in caplog.text
    assert list(cache_folder().iterdir()) == []


def test_default_cache_is_in_the_user_cache_folder(monkeypatch):
    monkeypatch.delenv("LENSJAX_CACHE")
    assert "lensjax" in cache_folder().parts
    assert cache_folder().is_absolute()


def test_different_image_size_is_reported_before_simulation(calls):
    with pytest.raises(UserError, match=r"image size 8 pixels, expected 9; set config\.data"):
        images(image_size=9)
    assert calls == []


def test_fewer_images_than_classes_are_rejected(calls):
    with pytest.raises(UserError, match=r"config\.data\.num_validation=2: must be at least 3"):
        images(split="validation", num_images=2)


def test_unknown_preset_is_reported(calls):
    with pytest.raises(UserError, match="unknown simulation preset 'comon_test'"):
        simulated_images("comon_test", split="train", num_images=6, seed=0, image_size=SIZE)


def test_simulated_images_are_counts_and_cached_unchanged():
    made = images(image_size=150)
    assert made.pixels.dtype == np.uint16
    assert made.class_counts() == (2, 2, 2)
    np.testing.assert_array_equal(made.pixels.min((1, 2)), 0)
    np.testing.assert_array_equal(made.pixels.max((1, 2)), made.scale)
    assert_same(images(image_size=150), made)


def test_cache_key_is_equal_in_another_process():
    code = (
        "from lensjax import simulation;from lensjax.data.simulated import cache_key;"
        "definition = repr(simulation.preset('common_test'));"
        "print(cache_key(definition, split='train', num_images=6, seed=0))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    definition = repr(simulation.preset("common_test"))
    assert other.stdout.strip() == cache_key(definition, split="train", num_images=6, seed=0)


def test_fresh_preset_shares_the_cache_for_validation(calls):
    plain = images(split="validation")
    fresh = simulated_images("common_test?fresh", split="validation", num_images=6, seed=0, image_size=SIZE)
    assert_same(plain, fresh)
    assert len(calls) == 1
    with pytest.raises(UserError, match=r"image size 8 pixels, expected 9"):
        fresh_images("common_test?fresh", num_images=6, seed=0, image_size=9)


def test_fresh_batches_depend_on_seed_step_and_index(calls):
    def pixels(**changes):
        arguments = {"step": 3, "batch_size": 4, "first": 0} | changes
        source = fresh_images("common_test?fresh", num_images=9, seed=seed, image_size=SIZE)
        assert len(source) == 9
        return np.asarray(source.batch(**arguments)["pixels"])

    seed = 5
    one, same = pixels(), pixels()
    np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(pixels(batch_size=2, first=2), one[2:])
    others = [pixels(step=4), pixels(first=4)]
    seed = 6
    others.append(pixels())
    assert all((one != other).any((1, 2)).all() for other in others)
