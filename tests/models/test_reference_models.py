"""The two reference models against plain torch modules: outputs, losses, gradients, training steps."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lensjax.models import BaselineCNN, LensViTPINN, ResNet, ViT
from lensjax.models.vit import bicubic_matrix
from lensjax.training.losses import loss_terms
from lensjax.weights import from_torch, to_torch

torch = pytest.importorskip("torch")
from oracles import torch_models  # noqa: E402 (needs torch)

SMALL_VIT = {"dim": 48, "depth": 2, "num_heads": 3}
PRECISIONS = {"float32": (torch.float32, 1e-4), "float64": (torch.float64, 1e-9)}


@contextlib.contextmanager
def precision(name):
    """Runs JAX in that precision, and gives torch's type and the tolerance that goes with it."""
    with jax.enable_x64(name == "float64"):
        yield PRECISIONS[name]


def images(size, seed=0, batch=3):
    return np.random.default_rng(seed).uniform(0, 1, (batch, size, size, 1))


def as_torch(array, dtype):
    return torch.tensor(np.moveaxis(array, -1, 1)).to(dtype)


def pair(kind, size, dtype, seed=0, **sizes):
    """A torch model and the same as a lensjax module with its variables."""
    width = sizes.get("width", 8)
    vit = {**SMALL_VIT, **sizes.get("vit", {})}
    flax_vit = {
        "embedding_size": vit["dim"],
        "depth": vit["depth"],
        "num_heads": vit["num_heads"],
    }
    oracle, module, architecture = {
        "baseline": lambda: (
            torch_models.BaselineCNN(width),
            BaselineCNN(width=width),
            "baseline_cnn",
        ),
        "pinn": lambda: (
            torch_models.LensVITPINN(size, width, dropout=0.0, **vit),
            LensViTPINN(width=width, dropout_rate=0.0, **flax_vit),
            "lens_vit_pinn",
        ),
        "vit": lambda: (torch_models.VisionTransformer(**vit), ViT(**flax_vit), "dino_vits16"),
        "resnet": lambda: (torch_models.ResNet18(2, width), ResNet(width=width), "resnet18"),
    }[kind]()
    oracle = torch_models.randomize(oracle.to(dtype), seed)
    channels = 2 if kind == "resnet" else 1
    x = jnp.zeros((1, size, size, channels))
    call = {} if kind == "vit" else {"train": False}
    like = jax.eval_shape(lambda key: module.init(key, x, **call), jax.random.key(0))
    state = {name: tensor.numpy().copy() for name, tensor in oracle.state_dict().items()}
    return oracle, module, from_torch(state, architecture, like), architecture


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("size", [64, 150])
def test_baseline_cnn_gives_torch_s_logits(name, size):
    with precision(name) as (dtype, tolerance):
        oracle, module, variables, _ = pair("baseline", size, dtype)
        x = images(size)
        expected = oracle.eval()(as_torch(x, dtype)).detach().numpy()
        found = module.apply(variables, jnp.asarray(x, expected.dtype), train=False).logits
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("size", [64, 97, 150, 224])
def test_vit_gives_torch_s_features_at_any_image_size(name, size):
    with precision(name) as (dtype, tolerance):
        oracle, module, variables, _ = pair("vit", size, dtype)
        x = images(size)
        expected = oracle.eval()(as_torch(x, dtype)).detach().numpy()
        found = module.apply(variables, jnp.asarray(x, expected.dtype))
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("size", [64, 150])
def test_lens_vit_pinn_gives_torch_s_logits_theta_E_and_physics_loss(name, size):
    with precision(name) as (dtype, tolerance):
        oracle, module, variables, _ = pair("pinn", size, dtype)
        x = images(size)
        tensor = as_torch(x, dtype)
        oracle.eval()
        theta_E = oracle.alpha(oracle.vit(tensor)).mean((1, 2, 3)).detach().numpy()
        outputs = module.apply(
            variables, jnp.asarray(x, theta_E.dtype), train=False, with_physics_loss=True
        )
        logits = oracle(tensor).detach().numpy()
        np.testing.assert_allclose(outputs.logits, logits, rtol=0, atol=tolerance)
        np.testing.assert_allclose(outputs.theta_E, theta_E, rtol=0, atol=tolerance)
        physics = oracle.physics_loss(tensor).item()
        np.testing.assert_allclose(outputs.physics_loss.mean(), physics, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", ["baseline", "pinn"])
@pytest.mark.parametrize(("name", "tolerance"), [("float32", 1e-3), ("float64", 1e-7)])
def test_every_gradient_and_running_statistic_of_a_training_step_is_torch_s(kind, name, tolerance):
    with precision(name) as (dtype, _):
        oracle, module, variables, architecture = pair(kind, 64, dtype)
        x, labels = images(64, batch=6), np.array([0, 1, 2, 0, 1, 2])
        torch_loss(oracle.train(), as_torch(x, dtype), labels).backward()

        def loss(params):
            return flax_loss(module, params, variables["batch_stats"], x, labels, dtype)

        gradients, batch_stats = jax.grad(loss, has_aux=True)(variables["params"])
        found = to_torch({"params": gradients, "batch_stats": batch_stats}, architecture)
        for key, parameter in oracle.named_parameters():
            expected = parameter.grad.numpy()
            if parameter.ndim == 1 and key.endswith("conv1.bias"):
                continue  # batch norm follows: the true gradient is 0, both sides hold rounding
            scale = np.abs(expected).max()
            np.testing.assert_allclose(
                found[key], expected, rtol=0, atol=tolerance * scale, err_msg=key
            )
        for key, buffer in oracle.named_buffers():
            if not key.endswith("num_batches_tracked"):
                expected = buffer.numpy()
                np.testing.assert_allclose(
                    found[key], expected, atol=tolerance * np.abs(expected).max(), err_msg=key
                )


@pytest.mark.parametrize("kind", ["baseline", "pinn"])
def test_ten_adamw_steps_end_where_torch_s_end(kind):
    with precision("float64") as (dtype, _):
        oracle, module, variables, architecture = pair(kind, 32, dtype)
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
        found = to_torch({"params": params, "batch_stats": batch_stats}, architecture)
        for key, tensor in oracle.state_dict().items():
            if key.endswith(("num_batches_tracked", "conv1.bias")):
                continue  # the bias before a batch norm follows the sign of rounding errors
            np.testing.assert_allclose(
                found[key], tensor.numpy(), rtol=1e-5, atol=1e-8, err_msg=key
            )


def torch_loss(oracle, tensor, labels):
    loss = torch.nn.functional.cross_entropy(oracle(tensor), torch.tensor(labels))
    if hasattr(oracle, "physics_loss"):
        loss = loss + 0.01 * oracle.physics_loss(tensor)
    return loss


def flax_loss(module, params, batch_stats, x, labels, dtype):
    outputs, updates = module.apply(
        {"params": params, "batch_stats": batch_stats},
        jnp.asarray(x, str(dtype).removeprefix("torch.")),
        train=True,
        with_physics_loss=True,
        mutable=["batch_stats"],
    )
    terms = loss_terms(outputs, jnp.asarray(labels), physics_weight=0.01)
    return terms["loss"].mean(), updates["batch_stats"]


@pytest.mark.parametrize(("grid", "patches"), [(14, 9), (14, 4), (14, 20), (6, 9), (14, 6)])
def test_position_embeddings_are_resized_as_torch_s_bicubic_with_a_scale_factor(grid, patches):
    square = np.random.default_rng(0).normal(size=(grid, grid))
    matrix = bicubic_matrix(grid, patches, (patches + 0.1) / grid)
    expected = torch.nn.functional.interpolate(
        torch.tensor(square)[None, None], scale_factor=(patches + 0.1) / grid, mode="bicubic"
    )[0, 0]
    np.testing.assert_allclose(matrix @ square @ matrix.T, expected, rtol=0, atol=1e-12)


def test_resnet18_and_vit_s16_have_the_published_numbers_of_parameters():
    def count(module, channels, **call):
        x = jnp.zeros((1, 224, 224, channels))
        params = jax.eval_shape(lambda key: module.init(key, x, **call), jax.random.key(0))[
            "params"
        ]
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    # torchvision's ResNet18 has 11,689,512 with 1000 classes and a stem without bias.
    assert count(ResNet(num_classes=1000), 3, train=False) == 11_689_512 + 64
    assert count(ViT(), 3) == 21_665_664  # DINO's ViT-S/16 without a head
