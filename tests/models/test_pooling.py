import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax.models.pooling import max_pool

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("shape", [(75, 75), (8, 8), (7, 8), (1, 1), (2, 3)])
@pytest.mark.parametrize("ties", [False, True])
def test_max_pool_and_its_gradient_are_torch_s_ties_included(shape, ties):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, *shape, 3)).astype(np.float32)
    x = np.round(x) if ties else x
    tensor = torch.tensor(np.moveaxis(x, -1, 1), requires_grad=True)
    expected = torch.nn.functional.max_pool2d(tensor, 3, 2, 1)
    weights = generator.normal(size=expected.shape).astype(np.float32)
    (expected * torch.tensor(weights)).sum().backward()

    found, pull_back = jax.vjp(max_pool, jnp.asarray(x))
    (gradient,) = pull_back(jnp.asarray(np.moveaxis(weights, 1, -1)))
    np.testing.assert_array_equal(np.moveaxis(found, -1, 1), expected.detach())
    np.testing.assert_allclose(np.moveaxis(gradient, -1, 1), tensor.grad, rtol=1e-6, atol=1e-6)
