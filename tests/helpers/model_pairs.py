"""Pairs of equivalent models: a PyTorch module and a lensjax module with the same random weights."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lensjax.models import BaselineCNN, LensViTPINN, ResNet, ViT
from lensjax.training.losses import loss_terms
from lensjax.weights import load_state_dict

torch = pytest.importorskip("torch")
from oracles import torch_models  # noqa: E402 (needs torch)

SMALL_VIT = {"dim": 48, "depth": 2, "num_heads": 3}
PRECISIONS = {"float32": (torch.float32, 1e-4), "float64": (torch.float64, 1e-9)}


@contextlib.contextmanager
def precision(name):
    """Sets the precision of JAX; yields the dtype for PyTorch and the tolerance."""
    with jax.enable_x64(name == "float64"):
        yield PRECISIONS[name]


def images(size, seed=0, batch=3):
    return np.random.default_rng(seed).uniform(0, 1, (batch, size, size, 1))


def as_torch(array, dtype):
    return torch.tensor(np.moveaxis(array, -1, 1)).to(dtype)


def as_jax(array, dtype):
    return jnp.asarray(array, str(dtype).removeprefix("torch."))


def pair(kind, size, dtype, seed=0, *, width=8, stages=(2, 2, 2, 2), vit=None, form=None):
    """Creates a PyTorch model, and the equivalent lensjax module with its variables.

    Args:
      kind: "baseline", "pinn", "vit" or "resnet" (with two channels).
      size: side of an image, pixels.
      dtype: dtype of the PyTorch model.
      seed: seed of the weights.
      width, stages: sizes of the ResNet.
      vit: changes to `SMALL_VIT`, the sizes of the ViT.
      form: form of `gradient_input`, for "pinn".

    Returns:
      The PyTorch model, the module, its variables and the name of the architecture.
    """
    vit = {**SMALL_VIT, **(vit or {})}
    flax_vit = {"embedding_size": vit["dim"], "depth": vit["depth"], "num_heads": vit["num_heads"]}
    oracle, module, architecture = {
        "baseline": lambda: (
            torch_models.BaselineCNN(width, stages),
            BaselineCNN(width=width, stage_sizes=stages),
            "baseline_cnn",
        ),
        "pinn": lambda: (
            torch_models.LensVITPINN(size, width, 0.0, form, stages, **vit),
            LensViTPINN(width=width, stage_sizes=stages, dropout_rate=0.0, input=form or "image", **flax_vit),
            "lens_vit_pinn",
        ),
        "vit": lambda: (torch_models.VisionTransformer(**vit), ViT(**flax_vit), "dino_vits16"),
        "resnet": lambda: (torch_models.ResNet(2, width), ResNet(width=width), "resnet18"),
    }[kind]()
    oracle = torch_models.randomize(oracle.to(dtype), seed)
    channels = 2 if kind == "resnet" else 1
    call = {} if kind == "vit" else {"train": False}
    with jax.enable_x64(False):
        x = jnp.zeros((1, size, size, channels))
        like = jax.eval_shape(lambda key: module.init(key, x, **call), jax.random.key(0))
    state = {name: tensor.numpy().copy() for name, tensor in oracle.state_dict().items()}
    return oracle, module, load_state_dict(state, architecture, like), architecture


def apply(module, variables, x, **options):
    """Outputs of a module, and intermediate values of a LensViTPINN."""

    @jax.jit
    def call(variables, x):
        captured = {}

        def capture(call, arguments, options, context):
            result = call(*arguments, **options)
            if context.module.name == "alpha_proj":
                captured["features"], (_, captured["alpha_mean"]) = arguments[0], result
            if context.module.name == "cnn":
                captured["channels"] = arguments[0]
            return result

        with nn.intercept_methods(capture):
            return module.apply(variables, x, **options), captured

    return call(variables, x)


def torch_loss(oracle, tensor, labels):
    loss = torch.nn.functional.cross_entropy(oracle(tensor), torch.tensor(labels))
    if hasattr(oracle, "physics_loss"):
        loss = loss + 0.01 * oracle.physics_loss(tensor)
    return loss


def flax_loss(module, params, batch_stats, x, labels, dtype):
    """Mean loss of a training batch, and the running statistics after it."""
    outputs, updates = module.apply(
        {"params": params, "batch_stats": batch_stats},
        as_jax(x, dtype),
        train=True,
        with_physics_loss=True,
        mutable=["batch_stats"],
    )
    terms = loss_terms(outputs, jnp.asarray(labels), physics_weight=0.01)
    return terms["loss"].mean(), updates["batch_stats"]
