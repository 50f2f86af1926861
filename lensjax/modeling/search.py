"""Search for the Einstein radius with templates: lensed Gaussian sources at many positions."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lensjax import physics
from lensjax.modeling.foreground import Foreground
from lensjax.modeling.frame import Data, Frame, convolve_columns, margin, pixel_positions
from lensjax.physics.precision import full_precision

RADII = 26  # number of Einstein radii
SIZES = (0.06, 0.14, 0.3)  # standard deviations of the source, arcsec
RINGS = (0.08, 0.18, 0.3, 0.45, 0.65)  # distances of the source from the lens in Einstein radii
ANGLES = 12  # positions per ring
SHORTLIST = 6  # templates per size that are convolved
SEPARATION = 0.11  # smallest difference of the logarithms of the radii of two starting points


class Start(NamedTuple):
    """A starting point.

    Attributes:
      gain: decrease in chi-square due to the best template.
      theta_E: Einstein radius, arcsec.
      e1, e2: ellipticity of the lens.
      source_x, source_y: position of the source, arcsec.
    """

    gain: float
    theta_E: float
    e1: float
    e2: float
    source_x: float
    source_y: float


def find_starts(
    frame: Frame,
    data: Data,
    foreground: Foreground,
    radii: tuple[float, float],
    ellipticity: tuple[float, float],
    number: int,
) -> list[Start]:
    """Finds the most promising starting points, at different Einstein radii.

    Args:
      frame, data: geometry and values of the pixels.
      foreground: the foreground light; its amplitudes are fitted together with each template.
      radii: smallest and largest Einstein radius, arcsec.
      ellipticity: e1 and e2 of the lens.
      number: number of starting points.

    Returns:
      At most `number` starting points, the best first.
    """
    weight = data.weight.reshape(-1)
    light = foreground.columns * weight
    _, sizes, directions = np.linalg.svd(light, full_matrices=False)
    basis = directions[sizes > 1e-6 * sizes[0]] if len(sizes) else directions
    target = (data.image.reshape(-1) * weight).astype(np.float64)
    target = target - basis.T @ (basis @ target)
    grid = np.geomspace(*radii, RADII)
    positions = _source_offsets() * grid[:, None, None] + np.array(foreground.center)
    lenses = np.array([(theta_E, *ellipticity, *foreground.center) for theta_E in grid])
    arrays = (jnp.asarray(each, jnp.float32) for each in (lenses, positions, basis, target))
    gains, best = (np.asarray(each) for each in _best_positions(frame, data, *arrays))
    candidates = [
        Start(float(gain), float(theta_E), *ellipticity, *map(float, places[index]))
        for gain, theta_E, places, index in zip(gains, grid, positions, best, strict=True)
    ]
    starts: list[Start] = []
    for start in sorted(candidates, reverse=True):
        if all(abs(np.log(start.theta_E / other.theta_E)) > SEPARATION for other in starts):
            starts.append(start)
    return starts[:number]


def _source_offsets() -> np.ndarray:
    """Positions of the source relative to the lens in Einstein radii, [n, 2]."""
    positions = [(0.0, 0.0)]
    for ring, radius in enumerate(RINGS):
        angles = 2 * np.pi * (np.arange(ANGLES) + (ring % 2) / 2) / ANGLES
        positions += list(zip(radius * np.cos(angles), radius * np.sin(angles), strict=True))
    return np.array(positions)


@partial(jax.jit, static_argnums=(0,))
@full_precision
def _best_positions(
    frame: Frame,
    data: Data,
    lenses: Float[Array, "radii 5"],
    positions: Float[Array, "radii positions 2"],
    basis: Float[Array, "light pixels"],
    target: Float[Array, "pixels"],
) -> tuple[Float[Array, "radii"], Int[Array, "radii"]]:
    """Decrease in chi-square due to a source of positive amplitude, and the position with the largest one.

    The scalar product of a blurred template and the data is that of the template and the data blurred by the
    transposed convolution. Therefore only the most promising templates are convolved.
    """
    x, y = (jnp.asarray(each, jnp.float32) for each in pixel_positions(frame, margin(frame)))
    spreads = jnp.asarray(SIZES, jnp.float32)[:, None, None]

    def blur(images: Float[Array, "n rows columns"]) -> Float[Array, "n pixels"]:
        blurred = convolve_columns(images, jnp.asarray(data.psf), frame)
        return blurred.reshape(len(images), -1) * data.weight.reshape(1, -1)

    wanted = jnp.concatenate([target[None], basis])
    (seen,) = jax.linear_transpose(blur, jax.ShapeDtypeStruct((len(wanted), *x.shape), x.dtype))(wanted)
    seen = seen.reshape(len(wanted), -1).T
    square_weight = jnp.pad(data.weight, margin(frame)).ravel() ** 2

    def best(lens_and_places: tuple[Array, Array]) -> tuple[Array, Array]:
        (theta_E, e1, e2, center_x, center_y), places = lens_and_places
        alpha = physics.sie_deflection(x, y, theta_E, e1=e1, e2=e2, center_x=center_x, center_y=center_y)
        beta_x, beta_y = (each.ravel() for each in physics.lens_equation(x, y, *alpha))
        square = (beta_x[None] - places[:, 0, None]) ** 2 + (beta_y[None] - places[:, 1, None]) ** 2
        images = jnp.exp(-jnp.minimum(square[None] / (2 * spreads**2), 80.0))
        products = images @ seen
        signal, explained = jnp.maximum(products[..., 0], 0), jnp.sum(products[..., 1:] ** 2, axis=-1)
        total = images**2 @ square_weight
        promise = signal**2 / jnp.maximum(total - explained, 1e-2 * total + 1e-30)
        _, chosen = jax.lax.top_k(promise, SHORTLIST)
        templates = blur(jnp.take_along_axis(images, chosen[..., None], axis=1).reshape(-1, *x.shape))
        unexplained = templates - (templates @ basis.T) @ basis
        signal = jnp.maximum(unexplained @ target, 0.0)
        power = jnp.sum(unexplained**2, 1) + 1e-6 * jnp.sum(templates**2, 1)
        gains = signal**2 / power
        return jnp.max(gains), chosen.reshape(-1)[jnp.argmax(gains)]

    return jax.lax.map(best, (lenses, positions))
