"""Brightness of the lensed source and the lens light along rays, and its derivatives."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lensjax import physics
from lensjax.fitting.model import SmoothModel
from lensjax.fitting.types import Free

Positions = tuple[Array, Array]  # x and y


def parameter_values(model: SmoothModel, free: Free) -> dict[str, Array]:
    """Values of all fixed and fitted parameters by name."""
    return {name: jnp.asarray(value, free.dtype) for name, value in model.lens.values(free).items()}


def shoot_rays(model: SmoothModel, values: dict[str, Array], x: Array, y: Array) -> Positions:
    """Source-plane position of the rays through x and y."""
    return physics.lens_equation(x, y, *model.lens.deflection(x, y, values))


def lensed_brightness(
    model: SmoothModel, free: Free, rays: Positions, deflection: Positions | None = None
) -> Array:
    """Brightness of the lensed source along each ray, for an amplitude of 1.

    Args:
      model: smooth model.
      free: values of the parameters `model.nonlinear`.
      rays: image-plane positions of the rays, arcsec.
      deflection: additional deflection of each ray, arcsec; none by default.
    """
    values = parameter_values(model, free)
    beta = _deflect(shoot_rays(model, values, *rays), deflection)
    return model.lens.unlensed_columns(*beta, values)[0]


def lensed_derivatives(
    model: SmoothModel, free: Free, rays: Positions, deflection: Positions | None = None
) -> tuple[Array, dict[str, Array], Positions]:
    """Brightness along each ray and its derivatives; arguments as for `lensed_brightness`.

    Mass parameters only move rays, so they all share the gradient of the source.

    Returns:
      The brightness, its derivatives with respect to the fitted parameters of mass and source by name, and
      its gradient with respect to the source-plane position, per arcsec.
    """
    values = parameter_values(model, free)
    beta, trace_jvp = jax.linearize(
        lambda free: shoot_rays(model, parameter_values(model, free), *rays), free
    )
    beta = _deflect(beta, deflection)
    fitted = {name: values[name] for name in model.nonlinear if name.startswith("source.")}
    brightness, light_jvp = jax.linearize(
        lambda fitted, x, y: model.lens.unlensed_columns(x, y, values | fitted)[0], fitted, *beta
    )
    ones, zeros = jnp.ones_like(beta[0]), jnp.zeros_like(beta[0])
    no_change = jax.tree.map(jnp.zeros_like, fitted)
    # Without the barrier, XLA would recompute the exponentials of a ray for each derivative.
    by_x, by_y = jax.lax.optimization_barrier(
        (light_jvp(no_change, ones, zeros), light_jvp(no_change, zeros, ones))
    )
    by_name = {}
    for index, name in enumerate(model.nonlinear):
        if name.startswith("mass."):
            shift_x, shift_y = trace_jvp(jnp.zeros_like(free).at[index].set(1))
            by_name[name] = by_x * shift_x + by_y * shift_y
        elif name == "source.0.center_x":
            by_name[name] = -by_x
        elif name == "source.0.center_y":
            by_name[name] = -by_y
        elif name in fitted:
            change = {**no_change, name: jnp.ones_like(values[name])}
            by_name[name] = light_jvp(change, zeros, zeros)
    return brightness, by_name, (by_x, by_y)


def light_brightness(model: SmoothModel, free: Free, rays: Positions) -> list[Array]:
    """Brightness of each component of the lens light along each ray, for amplitudes of 1."""
    return list(model.lens.light_columns(*rays, parameter_values(model, free)))


def light_derivatives(
    model: SmoothModel, free: Free, rays: Positions
) -> tuple[list[Array], dict[str, Array]]:
    """Result of `light_brightness`, and its derivatives by name."""
    values = parameter_values(model, free)
    fitted = {name: values[name] for name in model.nonlinear if name.startswith("lens_light.")}
    columns, light_jvp = jax.linearize(
        lambda fitted: tuple(model.lens.light_columns(*rays, values | fitted)), fitted
    )
    by_name = {}
    for name in fitted:
        change = {other: jnp.full_like(value, other == name) for other, value in fitted.items()}
        by_name[name] = light_jvp(change)[int(name.split(".")[1])]
    return list(columns), by_name


def _deflect(beta: Positions, deflection: Positions | None) -> Positions:
    return beta if deflection is None else (beta[0] - deflection[0], beta[1] - deflection[1])
