"""LensViTPINN on products of brightness gradients, compared with torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.model_pairs import apply, as_jax, as_torch, flax_loss, images, pair, precision, torch_loss

from lensjax import models
from lensjax.config import check, default_config
from lensjax.errors import UserError
from lensjax.training.losses import loss_terms
from lensjax.weights import to_state_dict

torch = pytest.importorskip("torch")

SIZE = 64


def images_with_dark_pixels(seed=0, batch=3):
    """Images with a minimum of 0, like the published images."""
    x = images(SIZE, seed, batch)
    return x - x.min((1, 2), keepdims=True)


@pytest.mark.parametrize(
    ("form", "name"),
    [("gradient_product", "float32"), ("gradient_product", "float64"), ("mixed_derivative", "float64")],
)
def test_outputs_and_losses_match_torch(form, name):
    with precision(name) as (dtype, tolerance):
        oracle, module, variables, _ = pair("pinn", SIZE, dtype, form=form, stages=(1,))
        x, labels = images_with_dark_pixels(), np.array([2, 0, 1])
        tensor = as_torch(x, dtype)
        outputs, captured = apply(module, variables, as_jax(x, dtype), train=False, with_physics_loss=True)
        terms = loss_terms(outputs, jnp.asarray(labels), physics_weight=0.01)
        logits = oracle.eval()(tensor)
        theta_E = oracle.alpha(oracle.vit(oracle.channel(tensor))).mean((1, 2, 3))
        cross_entropy = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
        expected = {
            "input": (captured["channels"][..., 0], oracle.channel(tensor)[:, 0]),
            "logits": (outputs.logits, logits),
            "theta_E": (outputs.theta_E, theta_E),
            "cross-entropy": (terms["cross_entropy"].mean(), cross_entropy),
            "physics loss": (terms["physics"].mean(), oracle.physics_loss(tensor)),
        }
        for quantity, (found, from_torch) in expected.items():
            np.testing.assert_allclose(
                found, from_torch.detach().numpy(), rtol=0, atol=tolerance, err_msg=quantity
            )

        # The physics loss of the model input would differ from that of the image.
        input_loss = oracle.physics_loss(oracle.channel(tensor))
        assert abs(input_loss - oracle.physics_loss(tensor)) > 2 * tolerance


def test_gradients_match_torch_even_for_constant_images():
    with precision("float64") as (dtype, _):
        small = {"stages": (1,), "vit": {"depth": 1}}
        oracle, module, variables, architecture = pair("pinn", SIZE, dtype, form="gradient_product", **small)
        x, labels = images_with_dark_pixels(batch=5), np.array([0, 1, 2, 0, 1])
        x[0], x[1] = 0, 0.3
        torch_loss(oracle.train(), as_torch(x, dtype), labels).backward()

        def loss(params):
            return flax_loss(module, params, variables["batch_stats"], x, labels, dtype)

        gradients, batch_stats = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
        found = to_state_dict({"params": gradients, "batch_stats": batch_stats}, architecture)
        for key, parameter in oracle.named_parameters():
            expected = parameter.grad.numpy()
            assert np.isfinite(expected).all()
            assert np.isfinite(found[key]).all()
            if key != "cnn.conv1.bias":  # before batch normalization: 0 here, rounding error in torch
                tolerance = 1e-7 * np.abs(expected).max()
                np.testing.assert_allclose(found[key], expected, rtol=0, atol=tolerance, err_msg=key)


def test_config_selects_model_input():
    config = default_config()
    config.model.name = "lens_vit_pinn"
    assert models.build(config).input == "image"
    config.model.input = "mixed_derivative"
    check(config)
    assert models.build(config).input == "mixed_derivative"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model.name": "lens_vit_pinn", "model.input": "gradient_products"},
            "config.model.input='gradient_products': not one of image, .*did you mean 'gradient_product'",
        ),
        ({"model.input": "gradient_product"}, "baseline_cnn uses only the image"),
        (
            {
                "model.name": "lens_vit_pinn",
                "model.input": "gradient_product",
                "preparation.stretch": "band_pass",
            },
            "takes the logarithm of the brightness.*use 'none'",
        ),
    ],
    ids=["unknown", "baseline", "negative values"],
)
def test_invalid_input_raises_an_error(fields, message):
    config = default_config()
    config.update_from_flattened_dict(fields)
    with pytest.raises(UserError, match=message):
        check(config)
