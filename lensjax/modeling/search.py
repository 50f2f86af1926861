"""Search for the Einstein radius with templates: lensed Gaussian sources at many positions."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lensjax import physics
from lensjax.modeling.foreground import Foreground
from lensjax.modeling.frame import Data, Frame, convolve_columns, margin, pixel_positions

RADII = 26  # number of Einstein radii
SIZES = (0.06, 0.14, 0.3)  # standard deviations of the source, arcsec
RINGS = (0.08, 0.18, 0.3, 0.45, 0.65)  # distances of the source from the lens in Einstein radii
ANGLES = 12  # positions per ring
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
    candidates: list[Start] = []
    center = foreground.center
    basis, target = jnp.asarray(basis, jnp.float32), jnp.asarray(target, jnp.float32)
    for theta_E in np.geomspace(*radii, RADII):
        positions = _source_offsets() * theta_E + center
        lens = jnp.asarray([theta_E, *ellipticity, *center], jnp.float32)
        gains = np.asarray(_gains(frame, data, lens, jnp.asarray(positions, jnp.float32), basis, target))
        index = int(np.argmax(gains))
        source = map(float, positions[index])
        candidates.append(Start(float(gains[index]), float(theta_E), *ellipticity, *source))
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
def _gains(
    frame: Frame,
    data: Data,
    lens: Float[Array, "5"],
    positions: Float[Array, "positions 2"],
    basis: Float[Array, "light pixels"],
    target: Float[Array, "pixels"],
) -> Float[Array, "positions"]:
    """Decrease in chi-square due to a source of positive amplitude and the best size, at each position."""
    x, y = (jnp.asarray(each, jnp.float32) for each in pixel_positions(frame, margin(frame)))
    theta_E, e1, e2, center_x, center_y = lens
    alpha = physics.sie_deflection(x, y, theta_E, e1=e1, e2=e2, center_x=center_x, center_y=center_y)
    beta_x, beta_y = physics.lens_equation(x, y, *alpha)
    square = (beta_x[None] - positions[:, 0, None, None]) ** 2 + (
        beta_y[None] - positions[:, 1, None, None]
    ) ** 2
    spreads = jnp.asarray(SIZES)[:, None, None, None]
    images = jnp.exp(-jnp.minimum(square[None] / (2 * spreads**2), 80.0)).reshape(-1, *x.shape)
    templates = convolve_columns(images, jnp.asarray(data.psf), frame).reshape(
        images.shape[0], -1
    ) * data.weight.reshape(1, -1)
    unexplained = templates - (templates @ basis.T) @ basis
    signal = jnp.maximum(unexplained @ target, 0.0)
    power = jnp.sum(unexplained**2, 1) + 1e-6 * jnp.sum(templates**2, 1)
    return jnp.max((signal**2 / power).reshape(len(SIZES), -1), axis=0)
