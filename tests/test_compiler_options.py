"""Options for XLA: taken where they are known, and never a change of what is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax.compiler_options import LESS_OPTIMISED, compiled_with, if_known

KNOWN = dict([LESS_OPTIMISED])


def test_an_option_that_this_xla_does_not_know_is_left_out():
    assert if_known(("xla_cpu_no_such_option", True)) == {}
    assert if_known(LESS_OPTIMISED) == KNOWN


def test_a_function_compiled_with_options_is_the_same_function_for_every_shape_and_layout():
    function = jax.pmap(lambda x, y: {"sum": (x + y).sum(), "x": x * 2}, in_axes=(None, 0))
    compiled = compiled_with(function, KNOWN)
    draw = np.random.default_rng(0)
    for shape in ((3, 4), (5,), (3, 4)):
        x = draw.normal(size=shape).astype(np.float32)
        y = draw.normal(size=(len(jax.devices()), *shape)).astype(np.float32)
        for first in (x, jnp.asarray(x), function(x, y)["x"][0]):
            expected, found = function(first, y), compiled(first, y)
            jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_nan_is_looked_for_in_a_function_compiled_with_options():
    compiled = compiled_with(jax.jit(lambda x: jnp.log(x) + 1), KNOWN)
    assert np.isnan(compiled(jnp.float32(-1)))
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="log"):
        compiled(jnp.float32(-1))


def test_without_options_the_function_is_left_as_it_is():
    function = jax.jit(jnp.sin)
    assert compiled_with(function, {}) is function
