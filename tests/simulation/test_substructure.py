"""Fast deflection of many point masses, compared with the plain sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import physics
from lensjax.simulation.substructure import BLOCK_SIZE, masses_deflection


@pytest.mark.parametrize("transform", [lambda f: f, jax.jacrev, jax.jacfwd])
def test_deflection_and_derivatives_match_plain_sum(transform):
    number = 2 * BLOCK_SIZE + 1  # the last block is padded
    with jax.enable_x64(True):
        generator = np.random.default_rng(number)
        x, y = (jnp.asarray(generator.normal(size=(6, 7))) for _ in range(2))
        masses = jnp.asarray(generator.normal(size=(number, 3))).at[0, 0].set(0.0)

        def weighted(function, masses):
            alpha_x, alpha_y = function(x, y, masses)
            return jnp.stack([alpha_x, 2 * alpha_y])

        found, expected = (
            jax.jit(transform(lambda m, f=f: weighted(f, m)))(masses)
            for f in (masses_deflection, physics.point_masses_deflection)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
