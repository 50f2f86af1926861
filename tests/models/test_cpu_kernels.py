"""Convolution and max-pooling for CPUs and accelerators, compared with PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lensjax import models
from lensjax.models import cpu_kernels

torch = pytest.importorskip("torch")

CASES = {  # side of the kernel, stride, side of the image, input channels, output channels, batch size
    "stem": (7, 2, 70, 2, 3, 8),
    "parts": (3, 1, 40, 3, 4, 8),
    "uneven parts": (3, 1, 16, 2, 64, 6),
    "stride": (3, 2, 20, 4, 3, 8),
    "even stride": (3, 2, 9, 3, 4, 8),
    "few pixels": (3, 1, 5, 4, 4, 8),
    "one-pixel kernel": (1, 2, 19, 3, 4, 8),
    "smaller than the kernel": (3, 1, 2, 3, 4, 8),
    "stride and small": (3, 2, 4, 4, 3, 8),
    "a single pixel": (3, 1, 1, 3, 4, 8),
    "large batch": (3, 1, 16, 2, 64, 130),
    "patches": (8, 8, 30, 2, 5, 4),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_convolution_and_gradients_match_torch(case, kernel_form):
    side, stride, size, channels, features, batch = case
    padding = side // 2 if side % 2 else 0
    generator = np.random.default_rng(0)
    x = generator.normal(size=(batch, size, size, channels))
    kernel = generator.normal(size=(side, side, channels, features))
    torch_x = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    torch_kernel = torch.tensor(kernel.transpose(3, 2, 0, 1), requires_grad=True)
    y = torch.nn.functional.conv2d(torch_x, torch_kernel, stride=stride, padding=padding)
    cotangent = generator.normal(size=y.shape)
    y.backward(torch.tensor(cotangent))
    convolution = nn.Conv(
        features,
        (side, side),
        strides=stride,
        padding=padding,
        use_bias=False,
        conv_general_dilated=cpu_kernels.conv_general_dilated,
    )
    with jax.enable_x64(True):
        found, vjp = jax.vjp(
            jax.jit(lambda kernel, x: convolution.apply({"params": {"kernel": kernel}}, x)),
            jnp.asarray(kernel),
            jnp.asarray(x),
        )
        kernel_gradient, x_gradient = vjp(jnp.asarray(cotangent.transpose(0, 2, 3, 1)))
    for result, expected in (
        (found, y.detach().numpy().transpose(0, 2, 3, 1)),
        (kernel_gradient, torch_kernel.grad.numpy().transpose(2, 3, 1, 0)),
        (x_gradient, torch_x.grad.numpy().transpose(0, 2, 3, 1)),
    ):
        np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [(75, 75), (8, 8), (7, 8), (1, 1), (2, 3)])
@pytest.mark.parametrize("ties", [False, True])
def test_max_pool_and_gradient_match_torch(shape, ties, kernel_form):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, *shape, 3)).astype(np.float32)
    x = np.round(x) if ties else x
    tensor = torch.tensor(np.moveaxis(x, -1, 1), requires_grad=True)
    expected = torch.nn.functional.max_pool2d(tensor, 3, 2, 1)
    weights = generator.normal(size=expected.shape).astype(np.float32)
    (expected * torch.tensor(weights)).sum().backward()

    found, vjp = jax.vjp(cpu_kernels.max_pool, jnp.asarray(x))
    (gradient,) = vjp(jnp.asarray(np.moveaxis(weights, 1, -1)))
    np.testing.assert_array_equal(np.moveaxis(found, -1, 1), expected.detach())
    np.testing.assert_allclose(np.moveaxis(gradient, -1, 1), tensor.grad, rtol=1e-6, atol=1e-6)


SMALL = {
    "pinn": models.LensViTPINN(  # its ResNet is that of the baseline
        width=2, stage_sizes=(1, 1), patch_size=12, embedding_size=8, depth=1, num_heads=2
    ),
    "lens_fit": models.LensFitNet(width=2, num_blocks=0),
}


@pytest.mark.parametrize("name", SMALL)
def test_every_mode_of_differentiation_matches_finite_differences(name, kernel_form):
    """First and second derivatives of a training loss along a line in parameter space, in float64."""
    model, channels = SMALL[name], 2 if name == "lens_fit" else 1
    generator = np.random.default_rng(0)
    with jax.enable_x64(True):
        images = jnp.asarray(generator.uniform(0.1, 1, (2, 24, 24, channels)))
        like = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)
        variables, direction = (
            jax.tree.map(lambda leaf: jnp.asarray(generator.normal(size=leaf.shape)), tree)
            for tree in (like["params"], like["params"])
        )
        statistics = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), like["batch_stats"])

        def loss(at):
            params = jax.tree.map(lambda p, d: 0.3 * (p + at * d), variables, direction)
            outputs, _ = model.apply(
                {"params": params, "batch_stats": statistics},
                images,
                train=True,
                keys=jax.random.split(jax.random.key(1), 2),
                with_physics_loss=True,
                mutable=["batch_stats"],
            )
            loss = (outputs.logits**2).sum()
            return loss if outputs.physics_loss is None else loss + outputs.physics_loss.sum()

        @jax.jit
        def derivatives(at):
            one = jnp.ones_like(at)
            value, linear = jax.linearize(loss, at)
            slopes = {
                "jvp": jax.jvp(loss, (at,), (one,))[1],
                "linearize": linear(one),
                "grad": jax.grad(loss)(at),
            }
            return value, slopes, jax.hessian(loss)(at)

        at, step = jnp.asarray(0.02), 1e-6
        (low, low_slopes, _), (high, high_slopes, _) = (derivatives(at - step), derivatives(at + step))
        _, slopes, curvature = derivatives(at)
        for mode, slope in slopes.items():
            by_difference = (high - low) / (2 * step)
            np.testing.assert_allclose(slope, by_difference, rtol=1e-5, err_msg=mode)
        by_difference = (high_slopes["grad"] - low_slopes["grad"]) / (2 * step)
        np.testing.assert_allclose(curvature, by_difference, rtol=1e-4)
