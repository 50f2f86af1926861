"""Attribution maps compared with PyTorch hooks and plain NumPy."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.model_pairs import as_jax, as_torch, images, pair, precision

from lensjax.config import default_config
from lensjax.data.images import ImageSet
from lensjax.models import BaselineCNN, LensFitNet
from lensjax.prediction.attribution import (
    attention_rollout,
    attention_weights,
    grad_cam,
    resnet_layers,
    upsample_to_pixels,
)
from lensjax.report.explanations import attribution_view

torch = pytest.importorskip("torch")


def torch_grad_cam(oracle, layer, tensor, classes):
    """Grad-CAM as published, one image at a time; a hook records the output of the layer."""
    result = []
    for row, label in enumerate(classes):
        recorded = {}
        handle = layer.register_forward_hook(lambda *call, recorded=recorded: recorded.update(maps=call[2]))
        logits = oracle(tensor[row : row + 1])
        handle.remove()
        recorded["maps"].retain_grad()
        logits[0, label].backward()
        weights = recorded["maps"].grad.mean((2, 3), keepdim=True)
        result.append(torch.relu((weights * recorded["maps"]).sum(1))[0].detach().numpy())
    return np.stack(result)


def test_grad_cam_matches_torch_hooks():
    with precision("float64") as (dtype, tolerance):
        oracle, module, variables, _ = pair("baseline", 48, dtype, width=4, stages=(1, 1, 2))
        oracle.eval()
        pictures, classes = images(48), [2, 0, 1]
        layers = resnet_layers(variables)
        assert layers == tuple(("resnet", name) for name in ("layer1_0", "layer2_0", "layer3_1"))
        expected = torch_grad_cam(oracle, oracle.resnet.layer3[-1], as_torch(pictures, dtype), classes)
        x = as_jax(pictures, dtype)
        found = grad_cam(module, variables, x, jnp.asarray(classes), layer=layers[2])
        assert expected.shape == (3, 3, 3)
        assert expected.max() > 0
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * expected.max())


def test_stem_only_model_has_grad_cam_without_attention():
    model = LensFitNet(width=4, num_blocks=0, input="image")
    x = jnp.ones((2, 16, 16, 1))
    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), x)
    (layer,) = resnet_layers(variables)
    classes = jnp.zeros(2, int)
    assert grad_cam(model, variables, x, classes, layer=layer).shape == (2, 8, 8)
    with pytest.raises(ValueError, match="must call layer resnet/layer9_0 once"):
        grad_cam(model, variables, x, classes, layer=("resnet", "layer9_0"))
    with pytest.raises(ValueError, match="LensFitNet has no transformer"):
        attention_weights(model, variables, x, train=False)


def test_last_block_of_stage_is_found_by_number():
    params = {f"layer{stage}_{block}": {} for stage in (2, 1) for block in (10, 2, 11, 1, 0)}
    layers = resnet_layers({"params": {"resnet": {"fc": {}, "conv1": {}, **params}}})
    assert layers == (("resnet", "layer1_11"), ("resnet", "layer2_11"))


@pytest.mark.parametrize(
    ("stages", "names"),
    [
        ((), ["stem, 8 x 8"]),
        ((1,), ["last stage, 4 x 4"]),
        ((1, 1, 1), ["second stage, 2 x 2", "last stage, 1 x 1"]),
        ((1,) * 5, ["second stage, 2 x 2", "last stage, 1 x 1"]),
    ],
)
def test_maps_are_named_after_their_stage(stages, names):
    model, x = BaselineCNN(width=2, stage_sizes=stages), jnp.ones((1, 16, 16, 1))
    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), x)
    images = ImageSet(np.asarray(x[..., 0]), np.ones(1, np.float32), np.zeros(1, np.int32), ("",))
    trained = types.SimpleNamespace(model=model, variables=variables, config=default_config())
    view = attribution_view(trained, images, np.zeros(1, int))
    assert [column.title for column in view.columns[1:]] == [f"Grad-CAM\n{name}" for name in names]


@pytest.mark.parametrize(("size", "stages"), [(100, 5), (150, 5), (150, 3), (80, 4)])
def test_upsampled_map_is_centered_on_receptive_fields(size, stages):
    """The receptive field of cell i, from the product of the stages' matrices, is centered on stride * i."""
    field = np.eye(size)
    for _ in range(stages):
        padded = np.pad(field, ((1, 1), (0, 0)))
        field = np.stack([padded[i : i + 3].sum(0) for i in range(0, len(field), 2)])
    maps = upsample_to_pixels(np.eye(len(field))[:, :, None] * np.ones(len(field)), size)
    for cell in range(1, len(field) - 1):
        center = (field[cell] * np.arange(size)).sum() / field[cell].sum()
        if field[cell].sum() == field[1].sum():  # not truncated by the edge
            assert maps[cell, :, 0].argmax() == center
    assert np.allclose(maps.sum(0), 1)


def test_rollout_is_product_of_attention_averaged_with_identity():
    generator = np.random.default_rng(0)
    given = generator.gamma(0.5, size=(3, 2, 4, 6, 6))
    given /= given.sum(-1, keepdims=True)
    expected = np.zeros((2, 5))
    for image in range(2):
        flow = np.eye(6)
        for block in given[:, image]:
            flow = (0.5 * np.mean(block, axis=0) + 0.5 * np.eye(6)) @ flow
        expected[image] = flow[0, 1:]
    with jax.enable_x64(True):
        found = attention_rollout(jnp.asarray(given))
        assert np.allclose(found, expected, rtol=1e-12, atol=0)
        # With identity attention, nothing flows from the patches to the class token.
        identity = jnp.broadcast_to(jnp.eye(6), (3, 2, 4, 6, 6))
        assert not attention_rollout(identity).any()


def test_attention_weights_match_torch_blocks():
    with precision("float64") as (dtype, tolerance):
        oracle, module, variables, _ = pair("pinn", 48, dtype, width=4, stages=(1,))
        recorded = []
        for block in oracle.vit.blocks:
            block.attn.qkv.register_forward_hook(lambda *call: recorded.append(call[2].detach()))
        pictures = images(48)
        oracle.eval()
        oracle(as_torch(pictures, dtype))
        expected = []
        for qkv in recorded:
            query, key = qkv.reshape(3, 10, 3, 3, 16).permute(2, 0, 3, 1, 4)[:2]
            expected.append(((query @ key.mT) / 4).softmax(-1).numpy())
        found = attention_weights(module, variables, as_jax(pictures, dtype), train=False)
        np.testing.assert_allclose(found, np.stack(expected), rtol=0, atol=tolerance)
        assert resnet_layers(variables)[-1] == ("cnn", "layer1_0")
