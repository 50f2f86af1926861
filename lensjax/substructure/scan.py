"""Responses of the image to perturbers on a grid of positions and masses.

The image with a perturber is rendered exactly, at parameters of the lens that compensate for the smooth
part of its deflection. The rest of the re-optimization is linear (`nuisances.linearize`).
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Array, Float

from lensjax.modeling.frame import Frame, convolve_columns, margin, ray_positions
from lensjax.modeling.model import LensModel
from lensjax.modeling.result import LensModelFit
from lensjax.physics.precision import full_precision
from lensjax.substructure.halos import Halo
from lensjax.substructure.nuisances import LinearModel

CHUNK = 64  # perturbers that are rendered by one call
_BRIGHT = 0.5  # standard deviations of the noise; the arcs are brighter
_SIDE_STEP = 16  # pixels; limits the number of sizes that are compiled


class Responses(NamedTuple):
    """Results of `measure_responses`.

    Attributes:
      gain: d^T r for the change d of the image that the nuisances cannot make, and the residual r [number].
      square: d^T d [number].
      variance: d^T C d for the covariance C of the noise, divided by d^T d [number].
    """

    gain: np.ndarray
    square: np.ndarray
    variance: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Renderer:
    """Inputs for rendering perturbers.

    Attributes:
      linear: the first-order model.
      halo: kind of perturber.
      model: the fitted model without lens light, with the perturber as its last mass component.
      free: values of its fitted parameters; those of the perturber are replaced.
      source: amplitudes of the source, in units of the data.
      rows, columns: pixels of the frame around the arcs, as slices of the fitted frame.
      frame: the frame around the arcs.
      compensation: change of the compensating parameters for the deflection on the rays [number, 2 rays].
      targets: change of `free` for the compensating parameters [fitted, number].
      base: source without a perturber on the frame around the arcs [rows, columns].
    """

    linear: LinearModel
    halo: Halo
    model: LensModel
    free: np.ndarray
    source: np.ndarray
    rows: slice
    columns: slice
    frame: Frame
    compensation: np.ndarray
    targets: np.ndarray
    base: np.ndarray

    def parameters(self, x: np.ndarray, y: np.ndarray, mass: np.ndarray) -> np.ndarray:
        """Parameters of perturbers in the order of the component's fields.

        Args:
          x, y: positions, arcsec [number].
          mass: masses, solar masses [number].
        """
        values = self.halo.parameters(mass, self.linear.wide.theta_E) | {"center_x": x, "center_y": y}
        names = [field.name for field in dataclasses.fields(self.model.mass[-1])]
        return np.stack([np.broadcast_to(values[name], np.shape(x)) for name in names], axis=1)


def make_renderer(linear: LinearModel, halo: Halo, fit: LensModelFit) -> Renderer:
    """Prepares the rendering of perturbers.

    Args:
      linear: the first-order model of the fit.
      halo: kind of perturber.
      fit: the fit.
    """
    wide, model = linear.wide, dataclasses.replace(fit.model, lens_light=(), priors=())
    number = len(model.mass)
    perturbed = dataclasses.replace(model, mass=(*model.mass, halo.component()))
    free = np.array(
        [0.1 if name.startswith(f"mass.{number}.") else wide.values[name] for name in perturbed.fitted]
    )
    rows, columns, frame = _frame_around_arcs(fit)
    source = np.asarray(fit.amplitudes[-model.amplitudes["source"] :] / wide.unit, np.float32)
    base = np.asarray(
        _source_image(
            perturbed, frame, wide.data.psf, _float32(_without(perturbed, free, number, halo)), source
        )
    )
    compensation, targets = _compensation(linear, model, perturbed, free, frame, source, rows, columns)
    return Renderer(linear, halo, perturbed, free, source, rows, columns, frame, compensation, targets, base)


def measure_responses(
    renderer: Renderer, perturbers: np.ndarray, progress: Callable[[int], Any] = lambda number: None
) -> Responses:
    """Renders perturbers and projects the changes of the image.

    Args:
      renderer: see `make_renderer`.
      perturbers: their parameters [number, parameters], see `Renderer.parameters`.
      progress: called with the number of perturbers after each chunk.
    """
    linear, wide = renderer.linear, renderer.linear.wide
    total = wide.frame.rows * wide.frame.columns
    pixels = np.arange(total).reshape(wide.frame.rows, wide.frame.columns)
    index = pixels[renderer.rows, renderer.columns].ravel()
    fixed = tuple(
        map(
            _float32,
            (
                wide.data.psf,
                renderer.free,
                renderer.compensation,
                renderer.targets,
                wide.data.weight[renderer.rows, renderer.columns],
                renderer.base,
                linear.basis[index],
                linear.correlated[index],
                linear.residual[index],
                linear.correlation.scatter**2 * linear.correlation.kernel,
            ),
        )
    )
    found = []
    for start in range(0, len(perturbers), CHUNK):
        part = perturbers[start : start + CHUNK]
        padded = np.pad(part, ((0, CHUNK - len(part)), (0, 0)), mode="edge")
        results = _project(
            renderer.model, renderer.frame, _float32(renderer.source), _float32(padded), *fixed
        )
        found.append([np.asarray(each, np.float64)[: len(part)] for each in results])
        progress(len(part))
    changes, gain, square, on_basis, on_correlated, correlated = map(np.concatenate, zip(*found, strict=True))
    # Rows of the priors: the compensating parameters move them.
    names = renderer.model.fitted
    position = {name: number for number, name in enumerate(wide.model.fitted)}
    move = np.zeros((len(changes), len(position)))
    for number, name in enumerate(names):
        if name in position:
            move[:, position[name]] = changes @ renderer.targets[number]
    of_priors = move @ linear.prior_rows.T
    below = slice(total, total + of_priors.shape[1])
    gain += of_priors @ linear.residual[below]
    square += np.sum(of_priors**2, axis=1)
    on_basis += of_priors @ linear.basis[below]
    on_correlated += of_priors @ linear.correlated[below]
    scale = linear.correlation.variance_factor  # variance of the rows of the priors
    variance = (
        correlated + scale * np.sum(of_priors**2, axis=1) - 2 * np.sum(on_basis * on_correlated, axis=1)
    )
    variance += np.einsum("ni,ij,nj->n", on_basis, linear.covariance, on_basis)
    square = np.maximum(square - np.sum(on_basis**2, axis=1), 1e-12)
    return Responses(gain, square, np.maximum(variance / square, 1e-3))


def _frame_around_arcs(fit: LensModelFit) -> tuple[slice, slice, Frame]:
    """A frame with the same center that contains the arcs."""
    frame, bright = fit.frame, np.abs(fit.lensed_source) > _BRIGHT * fit.noise
    reach = max(
        np.abs(np.flatnonzero(bright.any(axis)) - (length - 1) / 2).max(initial=0)
        for axis, length in ((1, frame.rows), (0, frame.columns))
    )
    side = _SIDE_STEP * math.ceil(2 * (reach + 2) / _SIDE_STEP)
    cuts = [max(0, (length - side) // 2) for length in (frame.rows, frame.columns)]
    rows, columns = slice(cuts[0], frame.rows - cuts[0]), slice(cuts[1], frame.columns - cuts[1])
    return rows, columns, frame._replace(rows=rows.stop - rows.start, columns=columns.stop - columns.start)


def _compensation(
    linear: LinearModel,
    model: LensModel,
    perturbed: LensModel,
    free: np.ndarray,
    frame: Frame,
    source: np.ndarray,
    rows: slice,
    columns: slice,
) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares response of the lens and of the position of the source to a deflection.

    The deflection on each ray is weighted with the gradient of the source over the noise.
    """
    names = [name for name in model.fitted if not model.parameters[name].held]
    of_mass = [name for name in names if name.startswith("mass.")]
    centers = [
        [f"source.{number}.center_{axis}" for number in range(len(model.source))] for axis in ("x", "y")
    ]
    shifted = [all(name in names for name in group) for group in centers]
    targets = np.zeros((len(free), len(of_mass) + sum(shifted)))
    place = {name: number for number, name in enumerate(perturbed.fitted)}
    for number, name in enumerate(of_mass):
        targets[place[name], number] = 1
    moves = [group for group, possible in zip(centers, shifted, strict=True) if possible]
    for number, group in enumerate(moves, len(of_mass)):
        for name in group:
            targets[place[name], number] = 1
    slopes, gradient = _deflection_slopes(
        model, frame, _float32([linear.wide.values[name] for name in model.fitted]), source
    )
    slopes = np.asarray(slopes, np.float64)  # [2 rays, fitted]
    own = [model.fitted.index(name) for name in of_mass]
    shift = np.repeat(np.eye(2), len(slopes) // 2, axis=0)[:, np.array(shifted)]
    design = np.concatenate([slopes[:, own], shift], axis=1)
    around, fine = margin(frame), frame.subpixels
    weight = np.pad(linear.wide.data.weight[rows, columns], around)
    weight = np.kron(weight, np.ones((fine, fine))) / fine
    weight = np.tile((np.asarray(gradient, np.float64) * weight).ravel(), 2)
    weighted = design * weight[:, None]
    wide = linear.wide.model.fitted
    priors = np.zeros((len(linear.prior_rows), design.shape[1]))
    for number, name in enumerate(of_mass):
        priors[:, number] = linear.prior_rows[:, wide.index(name)]
    normal = weighted.T @ weighted + priors.T @ priors
    normal += 1e-9 * np.diag(np.diag(normal)) + 1e-30 * np.eye(len(normal))
    return -np.linalg.solve(normal, (weighted * weight[:, None]).T), targets


def _without(model: LensModel, free: np.ndarray, number: int, halo: Halo) -> np.ndarray:
    """The parameters with a perturber of strength 0."""
    changed = free.copy()
    changed[model.fitted.index(f"mass.{number}.{halo.strength}")] = 0
    return changed


def _float32(values: Any) -> Array:
    return jnp.asarray(values, jnp.float32)


def _lensed(model: LensModel, x: Array, y: Array, free: Array, source: Array) -> Array:
    """Lensed source of a model without lens light on rays."""
    amplitudes = jnp.concatenate([jnp.zeros(model.amplitudes["sky"], source.dtype), source])
    return model.image(x, y, model.values(free), amplitudes)


@partial(jax.jit, static_argnums=(0, 1))
@full_precision
def _source_image(
    model: LensModel, frame: Frame, psf: Array, free: Array, source: Array
) -> Float[Array, "rows columns"]:
    x, y = ray_positions(frame)
    return convolve_columns(_lensed(model, x, y, free, source)[None], psf, frame)[0]


@partial(jax.jit, static_argnums=(0, 1))
@full_precision
def _deflection_slopes(
    model: LensModel, frame: Frame, free: Array, source: Array
) -> tuple[Float[Array, "components fitted"], Array]:
    """Derivatives of the deflection with respect to parameters, and modulus of the gradient of the source."""
    x, y = ray_positions(frame)
    values = model.values(free)

    def deflection(free: Array) -> Array:
        return jnp.stack(model.deflection(x, y, model.values(free))).ravel()

    alpha = model.deflection(x, y, values)

    def light(beta_x: Array, beta_y: Array) -> Array:
        return jnp.tensordot(source, model.unlensed_columns(beta_x, beta_y, values), 1)

    beta = x - alpha[0], y - alpha[1]
    one, none = jnp.ones_like(x), jnp.zeros_like(x)
    along_x = jax.jvp(light, beta, (one, none))[1]
    along_y = jax.jvp(light, beta, (none, one))[1]
    return jax.jacfwd(deflection)(free), jnp.hypot(along_x, along_y)


@partial(jax.jit, static_argnums=(0, 1))
@full_precision
def _project(
    model: LensModel,
    frame: Frame,
    source: Array,
    perturbers: Array,
    psf: Array,
    free: Array,
    compensation: Array,
    targets: Array,
    weight: Array,
    base: Array,
    basis: Array,
    correlated: Array,
    residual: Array,
    kernel: Array,
) -> tuple[Array, ...]:
    x, y = ray_positions(frame)
    number = len(model.mass) - 1
    names = [field.name for field in dataclasses.fields(model.mass[-1])]
    own = np.array([model.fitted.index(f"mass.{number}.{name}") for name in names])

    def render(perturber: Array) -> tuple[Array, Array]:
        values = dict(zip(names, perturber, strict=True))
        alpha = jnp.stack(model.mass[-1].deflection(x, y, values))
        change = compensation @ alpha.ravel()
        moved = free.at[own].set(perturber) + targets @ change
        return change, _lensed(model, x, y, moved, source)

    changes, images = jax.lax.map(render, perturbers, batch_size=16)
    difference = (convolve_columns(images, psf, frame) - base[None]) * weight[None]
    flat = difference.reshape(len(difference), -1)
    return (
        changes,
        flat @ residual,
        jnp.sum(flat**2, axis=1),
        flat @ basis,
        flat @ correlated,
        jnp.sum(flat * _correlate(difference, kernel).reshape(flat.shape), axis=1),
    )


def _correlate(images: Array, kernel: Array) -> Array:
    """Images times the covariance of the noise, whose kernel is symmetric."""
    size = tuple(
        scipy.fft.next_fast_len(length + side // 2, real=True)
        for length, side in zip(images.shape[1:], kernel.shape, strict=True)
    )
    middle = tuple(-(side // 2) for side in kernel.shape)
    padded = jnp.zeros(size, kernel.dtype).at[: kernel.shape[0], : kernel.shape[1]].set(kernel)
    transfer = jnp.fft.rfft2(jnp.roll(padded, middle, (0, 1)))
    product = jnp.fft.irfft2(jnp.fft.rfft2(images, s=size) * transfer[None], s=size)
    return product[:, : images.shape[1], : images.shape[2]]
