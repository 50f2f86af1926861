"""The two reference models compared with torch modules: outputs, losses, gradients and training steps."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.model_pairs import apply, as_jax, as_torch, flax_loss, images, pair, precision, torch_loss

from lensjax.models import ResNet, ViT
from lensjax.models.vit import bicubic_matrix, resize_position_embeddings
from lensjax.physics import reference
from lensjax.training.losses import loss_terms
from lensjax.weights import to_state_dict

torch = pytest.importorskip("torch")

LABELS = np.array([2, 0, 1])
# Precisions and sizes of images: float32 only at the usual size, float64, which is more accurate, at all.
CASES = [("float32", 150), ("float64", 64), ("float64", 150)]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_baseline_cnn_logits_and_loss_match_torch(name, size, kernel_form):
    with precision(name) as (dtype, tolerance):
        oracle, module, variables, _ = pair("baseline", size, dtype)
        x = images(size)
        expected = oracle.eval()(as_torch(x, dtype)).detach()
        outputs, _ = apply(module, variables, as_jax(x, dtype), train=False)
        np.testing.assert_allclose(outputs.logits, expected.numpy(), rtol=0, atol=tolerance)
        terms = loss_terms(outputs, jnp.asarray(LABELS), physics_weight=0.01)
        assert terms.keys() == {"cross_entropy", "loss"}
        cross_entropy = torch.nn.functional.cross_entropy(expected, torch.tensor(LABELS)).item()
        for term in terms.values():
            np.testing.assert_allclose(term.mean(), cross_entropy, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("name", "size"), [*CASES, ("float64", 97)])
def test_vit_features_match_torch_at_any_size(name, size, kernel_form):
    with precision(name) as (dtype, tolerance):
        oracle, module, variables, _ = pair("vit", size, dtype)
        x = images(size)
        expected = oracle.eval()(as_torch(x, dtype)).detach().numpy()
        found, _ = apply(module, variables, as_jax(x, dtype))
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("name", "size"), CASES)
def test_lens_vit_pinn_outputs_and_losses_match_torch(name, size, kernel_form):
    with precision(name) as (dtype, tolerance):
        oracle, module, variables, _ = pair("pinn", size, dtype)
        x = images(size)
        tensor = as_torch(x, dtype)
        alpha = oracle.eval().alpha(oracle.vit(tensor))
        outputs, captured = apply(module, variables, as_jax(x, dtype), train=False, with_physics_loss=True)
        terms = loss_terms(outputs, jnp.asarray(LABELS), physics_weight=0.01)
        logits, physics = oracle(tensor), oracle.physics_loss(tensor)
        cross_entropy = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS))
        layer = variables["params"]["alpha_proj"]
        expected = {
            # lensjax computes only means of alpha; alpha is computed here from features and weights.
            "alpha": (
                (captured["features"] @ layer["kernel"] + layer["bias"][None]).reshape(alpha.shape),
                alpha,
            ),
            "mean of alpha": (captured["alpha_mean"][..., 0], alpha.mean(-1)),
            "theta_E": (outputs.theta_E, alpha.mean((1, 2, 3))),
            "theta_I": (captured["channels"][..., 0], tensor[:, 0]),
            "theta_S": (captured["channels"][..., 1], oracle.source(tensor, alpha)[:, 0]),
            "logits": (outputs.logits, logits),
            "cross-entropy": (terms["cross_entropy"].mean(), cross_entropy),
            "physics loss": (terms["physics"].mean(), physics),
            "loss": (terms["loss"].mean(), cross_entropy + 0.01 * physics),
        }
        for quantity, (found, from_torch) in expected.items():
            np.testing.assert_allclose(
                found, from_torch.detach().numpy(), rtol=0, atol=tolerance, err_msg=quantity
            )
        # Some pixels are at the lower bound and some are not, so the bound is tested as well.
        assert 0 < (captured["channels"][..., 1] == 0).mean() < 1


def test_inference_avoids_the_full_deflection_product():
    """Tests the width of ViT-S/16 at 150 pixels: alpha_proj has 384 x 45,000 = 17 million weights."""
    with precision("float32") as (dtype, _):
        vit = {"dim": 384, "depth": 1, "num_heads": 6}
        _, module, variables, _ = pair("pinn", 150, dtype, stages=(1,), vit=vit)
        x = as_jax(images(150), dtype)
        outputs, captured = apply(module, variables, x, train=False)
        assert captured["alpha_mean"] is None

        layer = variables["params"]["alpha_proj"]
        assert layer["kernel"].size == 17_280_000
        theta_E = (captured["features"] @ layer["kernel"] + layer["bias"][None]).mean(1)
        theta_S = reference.intensity_lens_equation(x, theta_E)
        cnn = {kind: tree["cnn"] for kind, tree in variables.items()}
        channels = jnp.concatenate([x, theta_S], -1)
        logits, _ = apply(ResNet(width=8, stage_sizes=(1,)), cnn, channels, train=False)
        np.testing.assert_allclose(outputs.theta_E, theta_E, rtol=0, atol=1e-6)
        np.testing.assert_allclose(outputs.logits, logits, rtol=0, atol=1e-5)

        def products_over_pixels(with_physics_loss):
            """Matrix products over all pixels in the lowered program."""
            call = functools.partial(module.apply, train=False, with_physics_loss=with_physics_loss)
            lines = jax.jit(call).lower(variables, x).as_text().splitlines()
            return [line for line in lines if "dot_general" in line and re.search("22500|45000", line)]

        assert not products_over_pixels(with_physics_loss=False)
        assert products_over_pixels(with_physics_loss=True)


@pytest.mark.parametrize(("name", "tolerance"), [("float32", 1e-3), ("float64", 1e-7)])
def test_gradients_and_running_statistics_match_torch(name, tolerance, kernel_form):
    """The ResNet of the PINN is that of the baseline."""
    with precision(name) as (dtype, _):
        oracle, module, variables, architecture = pair("pinn", 64, dtype, stages=(1, 1, 1))
        x, labels = images(64, batch=6), np.array([0, 1, 2, 0, 1, 2])
        torch_loss(oracle.train(), as_torch(x, dtype), labels).backward()

        def loss(params):
            return flax_loss(module, params, variables["batch_stats"], x, labels, dtype)

        gradients, batch_stats = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
        found = to_state_dict({"params": gradients, "batch_stats": batch_stats}, architecture)
        largest = max(parameter.grad.abs().max().item() for parameter in oracle.parameters())
        for key, parameter in oracle.named_parameters():
            expected = parameter.grad.numpy()
            if parameter.ndim == 1 and key.endswith("conv1.bias"):
                # Before batch normalization, the exact gradient is 0; that of torch is rounding error.
                np.testing.assert_array_equal(found[key], 0)
                assert np.abs(expected).max() < tolerance * largest
                continue
            scale = np.abs(expected).max()
            np.testing.assert_allclose(found[key], expected, rtol=0, atol=tolerance * scale, err_msg=key)
        for key, buffer in oracle.named_buffers():
            if not key.endswith("num_batches_tracked"):
                expected = buffer.numpy()
                np.testing.assert_allclose(
                    found[key], expected, atol=tolerance * np.abs(expected).max(), err_msg=key
                )


def test_ten_adamw_steps_match_torch():
    """The ResNet of the PINN is that of the baseline."""
    with precision("float64") as (dtype, _):
        oracle, module, variables, architecture = pair("pinn", 32, dtype, stages=(1, 1), vit={"depth": 1})
        adamw = torch.optim.AdamW(oracle.parameters(), lr=1e-3)
        optimizer = optax.adamw(1e-3, weight_decay=0.01)
        params, batch_stats = variables["params"], variables["batch_stats"]
        opt_state = optimizer.init(params)

        @jax.jit
        def step(params, batch_stats, opt_state, x, labels):
            def loss(params):
                return flax_loss(module, params, batch_stats, x, labels, dtype)

            gradients, batch_stats_ = jax.grad(loss, has_aux=True)(params)
            updates, opt_state_ = optimizer.update(gradients, opt_state, params)
            return optax.apply_updates(params, updates), batch_stats_, opt_state_

        oracle.train()
        for index in range(10):
            x, labels = images(32, seed=index, batch=6), np.array([0, 1, 2, 2, 1, 0])
            adamw.zero_grad()
            torch_loss(oracle, as_torch(x, dtype), labels).backward()
            adamw.step()
            params, batch_stats, opt_state = step(params, batch_stats, opt_state, x, labels)
        found = to_state_dict({"params": params, "batch_stats": batch_stats}, architecture)
        for key, tensor in oracle.state_dict().items():
            if key.endswith(("num_batches_tracked", "conv1.bias")):
                continue  # in torch, rounding errors change the bias before batch normalization
            np.testing.assert_allclose(found[key], tensor.numpy(), rtol=1e-5, atol=1e-8, err_msg=key)


@pytest.mark.parametrize("kind", ["baseline", "pinn"])
def test_logits_match_torch_for_other_stage_sizes(kind):
    with precision("float64") as (dtype, tolerance):
        oracle, module, variables, _ = pair(kind, 64, dtype, stages=(3, 1, 2))
        x = images(64)
        expected = oracle.eval()(as_torch(x, dtype)).detach().numpy()
        outputs, _ = apply(module, variables, as_jax(x, dtype), train=False)
        np.testing.assert_allclose(outputs.logits, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("grid", "patches"), [(14, 9), (14, 4), (14, 20), (6, 9), (14, 6)])
def test_bicubic_matrix_matches_torch_with_scale_factor(grid, patches):
    square = np.random.default_rng(0).normal(size=(grid, grid))
    matrix = bicubic_matrix(grid, patches, (patches + 0.1) / grid)
    expected = torch.nn.functional.interpolate(
        torch.tensor(square)[None, None], scale_factor=(patches + 0.1) / grid, mode="bicubic"
    )[0, 0]
    np.testing.assert_allclose(matrix @ square @ matrix.T, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "shape", [(150, 150), (64, 64), (97, 97), (224, 224), (150, 64)], ids=lambda shape: str(shape)
)
def test_position_embeddings_match_torch(shape):
    with precision("float32") as (dtype, _):
        oracle, _, variables, _ = pair("vit", 224, dtype)
        expected = oracle.positions(*shape).detach().numpy()
        rows, columns = (side // 16 for side in shape)
        positions = as_jax(variables["params"]["pos_embed"], dtype)
        found = resize_position_embeddings(positions, rows, columns)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_default_models_have_published_numbers_of_parameters():
    def count(module, channels, **call):
        x = jnp.zeros((1, 224, 224, channels))
        params = jax.eval_shape(lambda key: module.init(key, x, **call), jax.random.key(0))["params"]
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    # torchvision's ResNet18 has 11,689,512 with 1000 classes and a stem without bias.
    assert count(ResNet(num_classes=1000), 3, train=False) == 11_689_512 + 64
    assert count(ViT(), 3) == 21_665_664  # DINO's ViT-S/16 without a head
