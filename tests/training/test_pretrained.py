"""Initial weights from files of published networks: copied, adapted and new arrays, and errors."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import models, weights
from lensjax.config import default_config
from lensjax.errors import UserError
from lensjax.models import ResNet, ViT
from lensjax.models.vit import bicubic_matrix
from lensjax.training.pretrained import load_pretrained


def random_variables(module, channels, seed, **call):
    """Random variables of a module, without compiling it."""
    images = jnp.zeros((1, 224, 224, channels))
    shapes = jax.eval_shape(lambda key: module.init(key, images, **call), jax.random.key(0))
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: generator.random(leaf.shape, np.float32), shapes)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weight files of the two published networks, with random values."""
    folder = tmp_path_factory.mktemp("weights")
    resnet = random_variables(ResNet(num_classes=1000), 3, 1, train=False)
    del resnet["params"]["conv1"]["bias"]
    vit = random_variables(ViT(), 3, 2)
    weights.save(folder / "resnet18.safetensors", resnet, {"architecture": "resnet18"})
    weights.save(folder / "dino.safetensors", vit, {"architecture": "dino_vits16"})
    return {
        "resnet18": (str(folder / "resnet18.safetensors"), resnet),
        "dino_vits16": (str(folder / "dino.safetensors"), vit),
    }


def model_config_and_variables(name, **fields):
    whole = default_config()
    config = whole.model
    config.update(name=name, **fields)
    images = jnp.zeros((1, 64, 64, 1))
    module = models.build(whole)
    shapes = jax.eval_shape(lambda key: module.init(key, images, train=False), jax.random.key(0))
    return config, jax.tree.map(lambda leaf: jnp.full(leaf.shape, -1, leaf.dtype), dict(shapes))


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_baseline_loads_resnet18_without_stem_and_classifier(files, caplog):
    path, source = files["resnet18"]
    config, variables = model_config_and_variables("baseline_cnn", pretrained=path)
    with caplog.at_level(logging.INFO, logger="lensjax"):
        found = load_pretrained(variables, config)
    resnet = found["params"]["resnet"]
    for layer in ("conv1", "fc"):
        assert_equal(resnet[layer], variables["params"]["resnet"][layer])
    for layer in set(resnet) - {"conv1", "fc"}:
        assert_equal(resnet[layer], source["params"][layer])
    assert_equal(found["batch_stats"]["resnet"], source["batch_stats"])
    assert "new: resnet/conv1/bias, resnet/conv1/kernel, resnet/fc" in caplog.text


def test_pinn_loads_dino_and_resnet18(files, caplog):
    (dino, vit), (cnn, resnet) = files["dino_vits16"], files["resnet18"]
    config, variables = model_config_and_variables("lens_vit_pinn", pretrained=dino, pretrained_cnn=cnn)
    with caplog.at_level(logging.INFO, logger="lensjax"):
        found = load_pretrained(variables, config)["params"]
    expected = vit["params"]["patch_embed"]["kernel"].mean(2, keepdims=True)
    np.testing.assert_array_equal(found["vit"]["patch_embed"]["kernel"], expected)
    for name in set(vit["params"]) - {"patch_embed"}:
        assert_equal(found["vit"][name], vit["params"][name])
    assert_equal(found["vit"]["patch_embed"]["bias"], vit["params"]["patch_embed"]["bias"])
    assert_equal(found["cnn"]["layer4_1"], resnet["params"]["layer4_1"])
    assert_equal(found["alpha_proj"], variables["params"]["alpha_proj"])
    assert "adapted: vit/patch_embed/kernel (mean over 3 channels)" in caplog.text


def test_position_embeddings_are_resized_to_the_models_grid(files):
    path, vit = files["dino_vits16"]
    config, variables = model_config_and_variables("lens_vit_pinn", pretrained=path, position_grid=5)
    found = load_pretrained(variables, config)["params"]["vit"]["pos_embed"]
    matrix = bicubic_matrix(14, 5, 5.1 / 14)
    square = vit["params"]["pos_embed"][0, 1:].reshape(14, 14, -1)
    expected = np.einsum("ri,cj,ijw->rcw", matrix, matrix, square).reshape(25, -1)
    np.testing.assert_allclose(found[0, 1:], expected, atol=1e-5)
    np.testing.assert_array_equal(found[0, 0], vit["params"]["pos_embed"][0, 0])


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("baseline_cnn", {"pretrained": "no/such.safetensors"}, "no/such.safetensors: no such file"),
        ("baseline_cnn", {"pretrained": "dino_vits16"}, "dino_vits16; baseline_cnn needs weights"),
        ("baseline_cnn", {"pretrained_cnn": "resnet18"}, "pretrained_cnn=.* not use this field"),
        ("lens_vit_pinn", {"pretrained": "resnet18"}, "of lens_vit_pinn or dino_vits16"),
        (
            "baseline_cnn",
            {"pretrained": "resnet18", "width": 32},
            r"has shape \(64,\) in the file and \(32,\) in the model",
        ),
        (
            "lens_vit_pinn",
            {"pretrained": "dino_vits16", "depth": 13},
            "blocks_12/.* is missing from the file",
        ),
        ("lens_vit_pinn", {"pretrained": "dino_vits16", "depth": 11}, "blocks_11/.* is not in the model"),
    ],
)
def test_weights_that_do_not_fit_are_rejected(files, name, fields, message):
    fields = {field: files[value][0] if value in files else value for field, value in fields.items()}
    config, variables = model_config_and_variables(name, **fields)
    with pytest.raises(UserError, match=message):
        load_pretrained(variables, config)
