"""Fits of many images, a batch at a time, on the host's side."""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from lensjax.fitting.fit import fit_lens
from lensjax.fitting.model import COMMON_TEST, SmoothModel
from lensjax.fitting.noise import Noise, unknown_noise
from lensjax.fitting.result import LensFit

# What one image needs should stay in a CPU's cache; an accelerator wants many at once.
_CPU_BATCH, _ACCELERATOR_BATCH = 8, 256


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
    """Fits of any number of images by `fit_lens`, with one compiled shape.

    Args:
      images: as for `fit_lens`.
      model: what is fitted.
      noise: what is known of the noise; if not given, it is read off each image.
      mask: which pixels count, of the images' shape; all if not given.
      batch_size: images at once on each device; 8 on a CPU and 256 on an accelerator if not given.
      devices: what to fit on, each an equal share of the images; if not given, all accelerators of this
        process, or one CPU device.
      report: called with the number of images done since the last call.

    Returns:
      The fits, as NumPy arrays.
    """
    if devices is None:
        devices = jax.local_devices()
        devices = devices[:1] if devices[0].platform == "cpu" else devices
    each = _CPU_BATCH if devices[0].platform == "cpu" else _ACCELERATOR_BATCH
    size = (batch_size or each) * len(devices)
    number = len(images)
    if noise is None:
        noise = unknown_noise((number,), images.dtype)
    mask = np.ones(images.shape, bool) if mask is None else np.broadcast_to(mask, images.shape)
    inputs = jax.tree.map(np.asarray, (images, noise, mask))
    parts = []
    for first in range(0, max(number, 1), size):
        # The last batch is filled up with its first image, so that no second shape is compiled.
        rows = np.arange(first, first + size)
        rows[rows >= number] = first
        batch, batch_noise, batch_mask = jax.tree.map(lambda leaf, rows=rows: leaf[rows], inputs)
        fitted = _fit_on(tuple(devices), model)(batch, batch_noise, batch_mask)
        done = min(size, number - first)
        parts.append(jax.tree.map(lambda leaf, done=done: np.asarray(leaf)[:done], fitted))
        if report is not None:
            report(done)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


@functools.lru_cache(maxsize=8)
def _fit_on(devices: tuple[jax.Device, ...], model: SmoothModel) -> Callable[..., LensFit]:
    """`fit_lens` with the images divided over devices, each of which ends its loops by itself."""

    def fit(images: Array, noise: Noise, mask: Array) -> LensFit:
        return fit_lens(images, model, noise=noise, mask=mask)

    if len(devices) == 1:
        return fit
    shares = PartitionSpec("batch")
    mesh = Mesh(np.asarray(devices), ("batch",))
    return jax.jit(
        jax.shard_map(fit, mesh=mesh, in_specs=shares, out_specs=shares, check_vma=False)
    )
