"""The forms of a convolution against PyTorch's, forward and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lensjax.models import layers

CASES = [  # kernel, stride, side of the image, channels in and out, batch: each way that `convolve` goes
    (7, 2, 70, 2, 3, 8),
    (3, 1, 40, 3, 4, 8),
    (3, 2, 20, 4, 3, 8),
    (3, 2, 9, 3, 4, 8),
    (3, 1, 5, 4, 4, 8),
    (1, 2, 19, 3, 4, 8),
    (3, 1, 2, 3, 4, 8),
    (3, 2, 4, 4, 3, 8),
    (3, 1, 1, 3, 4, 8),
    (3, 1, 16, 2, 3, 130),
]


@pytest.mark.parametrize("form", ["convolve", "plain_convolution", "product_convolution"])
def test_a_convolution_and_its_gradients_are_torch_s(form):
    generator = np.random.default_rng(0)
    for side, stride, size, channels, features, batch in CASES:
        x = generator.normal(size=(batch, size, size, channels))
        kernel = generator.normal(size=(side, side, channels, features))
        torch_x = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
        torch_kernel = torch.tensor(kernel.transpose(3, 2, 0, 1), requires_grad=True)
        y = torch.nn.functional.conv2d(torch_x, torch_kernel, stride=stride, padding=side // 2)
        given = generator.normal(size=y.shape)
        y.backward(torch.tensor(given))
        with jax.enable_x64(True):
            found, back = jax.vjp(
                jax.jit(lambda k, x, s=stride: getattr(layers, form)(k, x, stride=s)),
                jnp.asarray(kernel),
                jnp.asarray(x),
            )
            by_kernel, by_x = back(jnp.asarray(given.transpose(0, 2, 3, 1)))
        for one, other in (
            (found, y.detach().numpy().transpose(0, 2, 3, 1)),
            (by_kernel, torch_kernel.grad.numpy().transpose(2, 3, 1, 0)),
            (by_x, torch_x.grad.numpy().transpose(0, 2, 3, 1)),
        ):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)
