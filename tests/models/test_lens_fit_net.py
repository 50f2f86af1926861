"""LensFitNet: input channels and size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import models
from lensjax.cli.options import parse
from lensjax.models import LensFitNet, ResNet


@pytest.fixture(scope="module")
def channels():
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 2)), jnp.float32)


@pytest.mark.parametrize(
    ("chosen", "uses_image", "uses_residual"),
    [("image", True, False), ("residual", False, True), ("image_and_residual", True, True)],
)
def test_logits_depend_only_on_the_chosen_channels(channels, chosen, uses_image, uses_residual):
    model = LensFitNet(width=4, num_blocks=0, input=chosen)

    @jax.jit
    def logits(channels):
        variables = model.init(jax.random.key(0), channels, train=False)
        return model.apply(variables, channels, train=False).logits

    for channel, uses in enumerate((uses_image, uses_residual)):
        changed = channels.at[..., channel].add(1.0)
        assert bool(jnp.any(logits(channels) != logits(changed))) == uses


def test_reference_source_channel_matches_numpy(channels):
    model = LensFitNet(width=4, num_blocks=0, input="image_and_reference_source")
    image = channels[..., :1]
    variables = model.init(jax.random.key(0), image, train=False)
    encoder = {name: part["encoder"] for name, part in variables.items()}
    rest = {name: part["resnet"] for name, part in variables.items()}
    theta_E = ResNet(1, 4, (0,) * 4).apply(encoder, image, train=False)[:, 0]
    shifted = np.asarray(image) - np.asarray(theta_E)[:, None, None, None] * np.sign(image)
    both = jnp.concatenate([image, jnp.asarray(np.clip(shifted, 0, 149))], -1)
    expected = ResNet(3, 4, (0,) * 4).apply(rest, both, train=False)
    outputs = model.apply(variables, image, train=False)
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-3, atol=1e-4)


def test_missing_residual_raises_an_error(channels):
    with pytest.raises(ValueError, match="needs two channels, image and residual; got 1"):
        LensFitNet(width=4, num_blocks=0).init(jax.random.key(0), channels[..., :1], train=False)


@pytest.mark.parametrize("variant", ["", ":quick"])
def test_model_of_lens_fit_config_is_small(pytestconfig, variant):
    file = pytestconfig.rootpath / "configs" / "lens_fit.py"
    model = models.build(parse(["--config", f"{file}{variant}"]).config)
    images = jnp.zeros((1, 150, 150, 2))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) < 1_000_000
