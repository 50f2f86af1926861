"""Values and derivatives of every mass profile of lensjax, compiled once per precision."""

import functools
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np

from lensjax import physics

ROOT = pathlib.Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "physics" / "golden"
tool = runpy.run_path(str(ROOT / "tests" / "oracles" / "make_golden.py"))
MASS, LIGHT = tool["MASS"], tool["LIGHT"]
NUMBER = 200  # rows in every table; a fixed number avoids recompilation


def columns(profile):
    return tool["columns"](MASS[profile][1], profile)


def draw(profile, seed):
    return tool["draw"](MASS[profile][1], profile, NUMBER, seed)


def functions(profile):
    kinds = ("potential", "deflection", "convergence")
    return [getattr(physics, f"{profile}_{kind}") for kind in kinds]


def evaluate(profile, row):
    """Potential, deflection and convergence for one row of a table, as an array of length 4."""
    arguments = dict(zip(columns(profile), row, strict=True))
    psi, alpha, kappa = (function(**arguments) for function in functions(profile))
    return jnp.stack([psi, *alpha, kappa])


@functools.cache
def _values(profile):
    return jax.jit(jax.vmap(functools.partial(evaluate, profile)))


@functools.cache
def _derivatives(profile):
    def one(row):
        first = jax.jacrev(functools.partial(evaluate, profile))(row)  # with respect to every argument

        def slope(position):
            # Of the potential only: second derivatives of the other values can overflow.
            def psi(position):
                arguments = [*position, *row[2:]]
                named = dict(zip(columns(profile), arguments, strict=True))
                return functions(profile)[0](**named)

            return jax.grad(psi)(position)

        return first, jax.jacfwd(slope)(row[:2])

    return jax.jit(jax.vmap(one))


def values(profile, table):
    """Potential, deflection and convergence, of shape (number, 4), in the precision of the table."""
    return np.asarray(_values(profile)(table))


def derivatives(profile, table):
    """Jacobian of the four values (number, 4, columns) and Hessian of the potential (number, 2, 2)."""
    return tuple(np.asarray(each) for each in _derivatives(profile)(table))
