"""Where a classifier looks, against PyTorch's hooks and plain NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.pairs import as_jax, as_torch, images, pair, precision

from lensjax.models import LensFitNet
from lensjax.prediction.attribution import (
    at_pixels,
    attention_rollout,
    attentions,
    grad_cam,
    resnet_layers,
)

torch = pytest.importorskip("torch")


def torch_grad_cam(oracle, layer, tensor, classes):
    """The published recipe: hooks keep a layer's output and its gradient, one image after another."""
    result = []
    for row, label in enumerate(classes):
        kept = {}
        handle = layer.register_forward_hook(lambda *call, kept=kept: kept.update(maps=call[2]))
        logits = oracle(tensor[row : row + 1])
        handle.remove()
        kept["maps"].retain_grad()
        logits[0, label].backward()
        weights = kept["maps"].grad.mean((2, 3), keepdim=True)
        result.append(torch.relu((weights * kept["maps"]).sum(1))[0].detach().numpy())
    return np.stack(result)


def test_grad_cam_is_that_of_torch_s_hooks():
    with precision("float64") as (dtype, tolerance):
        oracle, module, variables, _ = pair("baseline", 48, dtype, width=4)
        oracle.eval()
        pictures, classes = images(48), [2, 0, 1]
        layers = resnet_layers(variables)
        assert layers == tuple(("resnet", f"layer{stage}_1") for stage in range(1, 5))
        expected = torch_grad_cam(
            oracle, oracle.resnet.layer3[-1], as_torch(pictures, dtype), classes
        )
        x = as_jax(pictures, dtype)
        found = grad_cam(module, variables, x, jnp.asarray(classes), layer=layers[2])
        assert expected.shape == (3, 3, 3)
        assert expected.max() > 0
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * expected.max())


def test_a_net_of_a_stem_alone_has_a_map_and_no_attention_and_unknown_layers_are_refused():
    model = LensFitNet(width=4, num_blocks=0, input="image")
    x = jnp.ones((2, 16, 16, 1))
    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), x)
    (layer,) = resnet_layers(variables)
    classes = jnp.zeros(2, int)
    assert grad_cam(model, variables, x, classes, layer=layer).shape == (2, 8, 8)
    with pytest.raises(ValueError, match="runs no layer resnet/layer9_0"):
        grad_cam(model, variables, x, classes, layer=("resnet", "layer9_0"))
    with pytest.raises(ValueError, match="LensFitNet has no transformer"):
        attentions(model, variables, x, train=False)


@pytest.mark.parametrize(("size", "stages"), [(100, 5), (150, 5), (150, 3), (80, 4)])
def test_a_map_lies_over_the_pixels_that_its_places_see(size, stages):
    """Place i of a map sees the pixels around stride * i: rows of the product of the stages' matrices."""
    seen = np.eye(size)
    for _ in range(stages):
        padded = np.pad(seen, ((1, 1), (0, 0)))
        seen = np.stack([padded[i : i + 3].sum(0) for i in range(0, len(seen), 2)])
    at = at_pixels(np.eye(len(seen))[:, :, None] * np.ones(len(seen)), size)
    for place in range(1, len(seen) - 1):
        centre = (seen[place] * np.arange(size)).sum() / seen[place].sum()
        if seen[place].sum() == seen[1].sum():  # not cut off by the edge
            assert at[place, :, 0].argmax() == centre
    assert np.allclose(at.sum(0), 1)


def test_rollout_is_the_product_of_the_blocks_half_attention_half_itself():
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
        # Blocks that keep every token to itself let nothing through.
        alone = jnp.broadcast_to(jnp.eye(6), (3, 2, 4, 6, 6))
        assert not attention_rollout(alone).any()


def test_the_attentions_are_those_of_torch_s_blocks():
    with precision("float64") as (dtype, tolerance):
        oracle, module, variables, _ = pair("pinn", 48, dtype, width=4)
        kept = []
        for block in oracle.vit.blocks:
            block.attn.qkv.register_forward_hook(lambda *call: kept.append(call[2].detach()))
        pictures = images(48)
        oracle.eval()
        oracle(as_torch(pictures, dtype))
        expected = []
        for qkv in kept:
            query, key = qkv.reshape(3, 10, 3, 3, 16).permute(2, 0, 3, 1, 4)[:2]
            expected.append(((query @ key.mT) / 4).softmax(-1).numpy())
        found = attentions(module, variables, as_jax(pictures, dtype), train=False)
        np.testing.assert_allclose(found, np.stack(expected), rtol=0, atol=tolerance)
        assert resnet_layers(variables)[-1] == ("cnn", "layer4_1")
