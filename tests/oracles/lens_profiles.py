"""Everything about a mass profile at once: values, first and second derivatives, compiled once."""

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
NUMBER = 200  # rows of each table, always, so that each profile is compiled once a precision


def columns(profile):
    return tool["names"](MASS[profile][1], profile)


def draws(profile, seed):
    return tool["draws"](MASS[profile][1], profile, NUMBER, seed)


def functions(profile):
    kinds = ("potential", "deflection", "convergence")
    return [getattr(physics, f"{profile}_{kind}") for kind in kinds]


def at(profile, row):
    """Potential, deflection and convergence for one row of a table, as an array of four."""
    psi, alpha, kappa = (
        one(*_arguments(profile, row)[0], **_arguments(profile, row)[1])
        for one in functions(profile)
    )
    return jnp.stack([psi, *alpha, kappa])


def _arguments(profile, row):
    x, y, *values = row
    options = {}
    if "center_x" in columns(profile):
        *values, center_x, center_y = values
        options = {"center_x": center_x, "center_y": center_y}
    return (x, y, *values), options


@functools.cache
def _values(profile):
    return jax.jit(jax.vmap(functools.partial(at, profile)))


@functools.cache
def _derivatives(profile):
    def one(row):
        first = jax.jacrev(functools.partial(at, profile))(row)  # by every argument

        def slope(position):
            # Of the potential alone: third derivatives, as of the convergence's, may be out of range.
            def psi(position):
                arguments, options = _arguments(profile, jnp.concatenate([position, row[2:]]))
                return functions(profile)[0](*arguments, **options)

            return jax.grad(psi)(position)

        return first, jax.jacfwd(slope)(row[:2])

    return jax.jit(jax.vmap(one))


def values(profile, table):
    """An array (number, 4): potential, deflection, convergence; in the table's precision."""
    return np.asarray(_values(profile)(table))


def derivatives(profile, table):
    """Of the four values by every column (number, 4, columns), and the potential's Hessian (number, 2, 2)."""
    return tuple(np.asarray(each) for each in _derivatives(profile)(table))
