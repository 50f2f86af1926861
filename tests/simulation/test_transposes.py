"""Explicit transposes, compared with JAX's own derivatives."""

import jax
import jax.numpy as jnp
import numpy as np

from lensjax.simulation.transposes import apply_linear, apply_pointwise


def function(parameters, x, y):
    a, b, c = parameters
    return jnp.sin(a * x) + b * y**2, c * x * y


def test_apply_pointwise_derivatives_match_those_of_function():
    with jax.enable_x64(True):
        generator = np.random.default_rng(0)
        arguments = tuple(map(jnp.asarray, (generator.normal(size=3), *generator.normal(size=(2, 6, 5)))))

        def total(call, parameters, x, y):
            one, other = call(parameters, x, y)
            return jnp.sum(jnp.cos(one) * other)

        def explicit(*arguments):
            return total(lambda *each: apply_pointwise(function, *each), *arguments)

        def plain(*arguments):
            return total(function, *arguments)

        def derivatives(call):
            parameters, x, y = arguments
            many = jnp.stack([parameters, 2 * parameters])
            return (
                jax.grad(call, (0, 1, 2))(*arguments),
                jax.grad(call, 1)(*arguments),
                jax.jacfwd(call)(*arguments),
                jax.hessian(call)(*arguments),
                jax.vmap(jax.grad(call), (0, None, None))(many, x, y),
            )

        found, expected = (jax.jit(lambda call=call: derivatives(call))() for call in (explicit, plain))
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12), found, expected
        )


def test_apply_linear_uses_given_transpose():
    matrix = jnp.arange(6.0).reshape(2, 3)
    found = jax.jit(jax.grad(lambda v: apply_linear(lambda v: matrix @ v, lambda w: 2 * w @ matrix, v)[1]))
    np.testing.assert_allclose(found(jnp.ones(3)), 2 * matrix[1])
