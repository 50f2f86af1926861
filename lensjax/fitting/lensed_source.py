"""Brightness of the lensed source along rays, and its derivatives."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lensjax import physics
from lensjax.fitting.model import LENS, SOURCE, SmoothModel

Positions = tuple[Array, Array]  # x and y


def parameter_values(model: SmoothModel, free: Float[Array, " nonlinear"]) -> dict[str, Array]:
    """Values of all fixed and fitted parameters by name."""
    fitted = {name: free[index] for index, name in enumerate(model.nonlinear)}
    return {
        name: fitted[name] if name in fitted else jnp.asarray(getattr(model, name).value, free.dtype)
        for name in LENS + SOURCE
    }


def source_brightness(values: dict[str, Array], beta_x: Array, beta_y: Array) -> Array:
    """Brightness of the source of amplitude 1 at points of the source plane."""
    return physics.sersic(
        beta_x,
        beta_y,
        1.0,
        R_sersic=values["R_sersic"],
        n_sersic=values["n_sersic"],
        e1=values["source_e1"],
        e2=values["source_e2"],
        center_x=values["source_x"],
        center_y=values["source_y"],
    )


def shoot_rays(model: SmoothModel, values: dict[str, Array], x: Array, y: Array) -> tuple[Array, Array]:
    """Source-plane position of the rays through x and y."""
    dx, dy = x - values["lens_x"], y - values["lens_y"]
    theta_E, e1, e2 = values["theta_E"], values["lens_e1"], values["lens_e2"]
    match model.main_lens:
        case "sis":
            lens = physics.sis_deflection(dx, dy, theta_E)
        case "sie":
            lens = physics.sie_deflection(dx, dy, theta_E, e1=e1, e2=e2)
        case "epl":
            lens = physics.epl_deflection(dx, dy, theta_E, gamma=values["gamma"], e1=e1, e2=e2)
    shear = physics.external_shear_deflection(x, y, values["gamma1"], values["gamma2"])
    return x - lens[0] - shear[0], y - lens[1] - shear[1]


def lensed_brightness(
    model: SmoothModel, free: Float[Array, " nonlinear"], rays: Positions, deflection: Positions | None = None
) -> Array:
    """Brightness of each ray through the smooth lens, for a source of amplitude 1 and without the sky.

    Args:
      model: smooth model.
      free: values of the parameters `model.nonlinear`.
      rays: image-plane positions of the rays, arcsec.
      deflection: additional deflection of each ray, arcsec; none by default.
    """
    values = parameter_values(model, free)
    return source_brightness(values, *_deflect(shoot_rays(model, values, *rays), deflection))


def lensed_derivatives(
    model: SmoothModel, free: Float[Array, " nonlinear"], rays: Positions, deflection: Positions | None = None
) -> tuple[Array, list[Array], Positions]:
    """Brightness of each ray and its derivatives; arguments as for `lensed_brightness`.

    Lens parameters only move rays, so they all share the gradient of the source.

    Returns:
      The brightness, its derivative with respect to each of `model.nonlinear`, and its gradient with respect
      to the source-plane position, per arcsec.
    """
    values = parameter_values(model, free)
    beta, trace_jvp = jax.linearize(
        lambda free: shoot_rays(model, parameter_values(model, free), *rays), free
    )
    beta = _deflect(beta, deflection)
    brightness, light_jvp = jax.linearize(source_brightness, values, *beta)
    ones, zeros = jnp.ones_like(beta[0]), jnp.zeros_like(beta[0])
    no_change = jax.tree.map(jnp.zeros_like, values)
    # Without the barrier, XLA would recompute the exponentials of a ray for each derivative.
    by_x, by_y = jax.lax.optimization_barrier(
        (light_jvp(no_change, ones, zeros), light_jvp(no_change, zeros, ones))
    )
    by_free = []
    for index, name in enumerate(model.nonlinear):
        if name in LENS:
            shift_x, shift_y = trace_jvp(jnp.zeros_like(free).at[index].set(1))
            by_free.append(by_x * shift_x + by_y * shift_y)
        elif name == "source_x":
            by_free.append(-by_x)
        elif name == "source_y":
            by_free.append(-by_y)
        else:
            change = {**no_change, name: jnp.ones_like(values[name])}
            by_free.append(light_jvp(change, zeros, zeros))
    return brightness, by_free, (by_x, by_y)


def _deflect(beta: Positions, deflection: Positions | None) -> Positions:
    return beta if deflection is None else (beta[0] - deflection[0], beta[1] - deflection[1])
