"""The reference implementation's "lens equation", which acts on brightness and does not deflect light.

It uses the image brightness as the angle theta, and its absolute value as the distance from the lens. The
deflection of an isothermal sphere then becomes a shift of all brightness by theta_E. It is kept separate from
the lens physics of this package, because published models were trained with it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MAX_SOURCE = 149.0  # index of the last pixel of a 150-pixel image, which the reference uses as a brightness
GRADIENT_FORMS = ("gradient_product", "mixed_derivative")


@jax.jit
def intensity_lens_equation(
    theta_I: Float[Array, "batch height width 1"], theta_E: Float[Array, " batch"]
) -> Float[Array, "batch height width 1"]:
    """The reference's theta_S = clip(theta_I - theta_E theta_I / (|theta_I| + 1e-6), 0, 149).

    Args:
      theta_I: brightness of the images.
      theta_E: one value per image, in the unit of brightness, of either sign.

    Returns:
      The reference's "source", brightness.
    """
    # The reference takes the norm over channels, which is the absolute value for a single channel.
    theta = jnp.abs(theta_I)
    alpha = theta_E[:, None, None, None] * theta_I / (theta + 1e-6)
    theta_S = theta_I - alpha
    # At the bounds, the gradient passes unchanged, as in torch.clamp; jnp.clip would halve it.
    below, above = theta_S < 0, theta_S > MAX_SOURCE
    return jnp.where(below, 0.0, jnp.where(above, MAX_SOURCE, theta_S))


@jax.jit(static_argnames="form")
def gradient_input(
    images: Float[Array, "batch height width 1"], *, form: str = "gradient_product"
) -> Float[Array, "batch height width 1"]:
    """Model input of the reference's first attempt, which replaces the image.

    It is derived from L = log((max I + 1e-6) / (I + 1e-6))^2, with max I the largest pixel value of each
    image. Derivatives are central differences over 2 pixels, and one-sided differences over 1 pixel at the
    edges.

    Args:
      images: nonnegative brightness; at least 2 pixels along each axis.
      form: "gradient_product" for tanh(dL/dx dL/dy), the reference's code, or "mixed_derivative" for
        |tanh(d/dx dL/dy)|, the published formula.

    Returns:
      Values from -1 to 1, or from 0 to 1 for "mixed_derivative"; 0 where the image is constant.

    Raises:
      ValueError: if the form is unknown.
    """
    if form not in GRADIENT_FORMS:
        raise ValueError(f"form {form!r} is not one of {', '.join(GRADIENT_FORMS)}")
    largest = images.max((1, 2), keepdims=True) + 1e-6
    log_squared = jnp.square(jnp.log(largest / (images + 1e-6)))
    by_y = _derivative(log_squared, 1)
    if form == "mixed_derivative":
        return jnp.abs(jnp.tanh(_derivative(by_y, 2)))
    return jnp.tanh(_derivative(log_squared, 2) * by_y)


def _derivative(images: Array, axis: int) -> Array:
    return jnp.asarray(jnp.gradient(images, axis=axis))


@jax.jit
def physics_loss(
    theta_I: Float[Array, "batch height width 1"],
    theta_S: Float[Array, "batch height width 1"],
    alpha_mean: Float[Array, "batch height width 1"],
) -> Float[Array, " batch"]:
    """The reference's physics loss: mean square of theta_S - (theta_I - alpha) over each image.

    Args:
      theta_I: brightness of the images.
      theta_S: result of `intensity_lens_equation` for these images.
      alpha_mean: mean of the two components of the predicted deflection, in the unit of brightness.

    Returns:
      One value per image.
    """
    return jnp.square(theta_S - (theta_I - alpha_mean)).mean((1, 2, 3))
