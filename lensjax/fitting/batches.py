"""Fits any number of images in batches of a fixed size."""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from lensjax.errors import UserError
from lensjax.fitting.inputs import convert_inputs
from lensjax.fitting.least_squares import fit_lens
from lensjax.fitting.model import SmoothModel
from lensjax.fitting.noise import Noise
from lensjax.fitting.presets import COMMON_TEST
from lensjax.fitting.result import LensFit

# On a CPU, the working set of a batch should fit in the cache; accelerators need many images at once. All
# images of a batch take as many steps as the slowest, and the number of steps varies most for fits with many
# parameters.
_CPU_BATCH_SIZE, _ACCELERATOR_BATCH_SIZE = 8, 256
_MANY_PARAMETERS = 10


def fit_in_batches(
    images: Float[np.ndarray, "n height width 1"],
    model: SmoothModel = COMMON_TEST,
    *,
    noise: Noise | None = None,
    mask: np.ndarray | None = None,
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    report: Callable[[int], object] | None = None,
) -> LensFit:
    """Fits a smooth lens to any number of images with `fit_lens`, compiled for a single batch shape.

    Args:
      images: images to fit; see `fit_lens`.
      model: smooth model to fit.
      noise: known properties of the noise; see `fit_lens`.
      mask: 1 or True for valid pixels, with the shape of the images; if None, all pixels are valid.
      batch_size: images per device and batch; if None, 256 on an accelerator; on a CPU, 8 for models with at
        most ten nonlinear parameters and 1 for others.
      devices: devices that share the images equally; if None, all accelerators of this process, or
        one CPU device.
      report: called with the number of images completed since the last call.

    Returns:
      The fits, as NumPy arrays.

    Raises:
      UserError: for the input that `fit_lens` rejects, and for a batch size below 1.
    """
    if devices is None:
        devices = jax.local_devices()
        devices = devices[:1] if devices[0].platform == "cpu" else devices
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected at least 1")
    default_size = _ACCELERATOR_BATCH_SIZE
    if devices[0].platform == "cpu":
        default_size = 1 if len(model.nonlinear) > _MANY_PARAMETERS else _CPU_BATCH_SIZE
    size = (batch_size or default_size) * len(devices)
    inputs = jax.tree.map(np.asarray, convert_inputs(images, noise, mask))
    number = len(inputs[0])
    if not number:
        return jax.tree.map(np.asarray, fit_lens(inputs[0], model))
    parts = []
    for first in range(0, number, size):
        # The last batch is padded with copies of its first image, to avoid a second compilation.
        rows = np.arange(first, first + size)
        rows[rows >= number] = first
        batch, batch_noise, batch_mask = jax.tree.map(lambda leaf, rows=rows: leaf[rows], inputs)
        fit = _sharded_fit(tuple(devices), model)(batch, batch_noise, batch_mask)
        done = min(size, number - first)
        parts.append(jax.tree.map(lambda leaf, done=done: np.asarray(leaf)[:done], fit))
        if report is not None:
            report(done)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


@functools.lru_cache(maxsize=8)
def _sharded_fit(devices: tuple[jax.Device, ...], model: SmoothModel) -> Callable[..., LensFit]:
    """`fit_lens` with the images sharded over devices; each device finishes its loops independently."""

    def fit(images: Array, noise: Noise, mask: Array) -> LensFit:
        return fit_lens(images, model, noise=noise, mask=mask)

    if len(devices) == 1:
        return fit
    shards = PartitionSpec("batch")
    mesh = Mesh(np.asarray(devices), ("batch",))
    return jax.jit(jax.shard_map(fit, mesh=mesh, in_specs=shards, out_specs=shards, check_vma=False))
