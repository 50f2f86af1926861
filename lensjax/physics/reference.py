"""The reference implementation's "lens equation", which acts on brightness and bends no rays.

It takes the image itself for the angle theta and its absolute value for the distance from the lens, so
that the deflection of an isothermal sphere becomes a shift of all brightness by theta_E. It is kept, apart
from the lens physics of this package, because published models were trained with it.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LARGEST_SOURCE = 149.0  # the last pixel of an image of 150, taken for a brightness
GRADIENT_FORMS = ("gradient_product", "mixed_derivative")


@jax.jit
def intensity_lens_equation(
    theta_I: Float[Array, "batch height width 1"], theta_E: Float[Array, " batch"]
) -> Float[Array, "batch height width 1"]:
    """The reference's theta_S = clip(theta_I - theta_E theta_I / (|theta_I| + 1e-6), 0, 149).

    Args:
      theta_I: images, brightness.
      theta_E: one number an image, in units of brightness and of either sign.

    Returns:
      What the reference calls the source, brightness.
    """
    # The reference takes the norm over the channels; of one channel it is the absolute value.
    theta = jnp.abs(theta_I)
    alpha = theta_E[:, None, None, None] * theta_I / (theta + 1e-6)
    theta_S = theta_I - alpha
    # On the bounds the gradient passes, as through torch's clamp; through jnp.clip half of it would.
    below, above = theta_S < 0, theta_S > LARGEST_SOURCE
    return jnp.where(below, 0.0, jnp.where(above, LARGEST_SOURCE, theta_S))


@jax.jit(static_argnames="form")
def gradient_input(
    images: Float[Array, "batch height width 1"], *, form: str = "gradient_product"
) -> Float[Array, "batch height width 1"]:
    """What the reference's first attempt gave its model in place of the image.

    It is made from L = log((max I + 1e-6) / (I + 1e-6))^2, where max I is each image's own largest pixel.
    Derivatives are central differences over 2 pixels, one-sided over 1 pixel at the edge.

    Args:
      images: brightness, not negative; at least 2 pixels on either side.
      form: "gradient_product": tanh(dL/dx dL/dy), the reference's code; or "mixed_derivative":
        |tanh(d/dx dL/dy)|, the form in print.

    Returns:
      Numbers from -1 to 1, or from 0 to 1 for "mixed_derivative"; 0 where the image is constant.

    Raises:
      ValueError: the form is not known.
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
      theta_I: images, brightness.
      theta_S: what `intensity_lens_equation` gives for them.
      alpha_mean: the predicted deflection, the mean of its two components.

    Returns:
      One number an image.
    """
    return jnp.square(theta_S - (theta_I - alpha_mean)).mean((1, 2, 3))
