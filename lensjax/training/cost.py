"""Cost of a training step: floating-point operations, communication between devices, peak FLOP/s."""

import re
import time
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lensjax import models
from lensjax.errors import UserError
from lensjax.training import start
from lensjax.training.state import TrainState

# Peak FLOP/s in float32, tensorfloat32 and bfloat16, by words in the device's name. Source: NVIDIA's data
# sheets, without sparsity; the float32 rate is that of the CUDA cores, without the tensor cores.
PEAK_FLOPS = {
    "H100": (67e12, 494e12, 989e12),
    "H200": (67e12, 494e12, 989e12),
    "A100": (19.5e12, 156e12, 312e12),
    "L40S": (91.6e12, 183e12, 362e12),
    "L4": (30.3e12, 60e12, 121e12),
    "V100": (15.7e12, 15.7e12, 15.7e12),
    "T4": (8.1e12, 8.1e12, 8.1e12),
    "RTX 4090": (82.6e12, 82.6e12, 165e12),
    "RTX 3090": (35.6e12, 35.6e12, 71e12),
}
_PRECISIONS = ("float32", "tensorfloat32", "bfloat16")
_SIDE = 1024  # side of the matrices whose product is timed on a CPU


def abstract_state(config: ConfigDict) -> TrainState:
    """Shapes and types of the training state; nothing is computed.

    Args:
      config: the full config of a run.
    """
    return start.abstract_state(config, models.build(config))


def step_flops(config: ConfigDict) -> float:
    """Floating-point operations of one training step, as XLA counts them before optimization.

    A multiplication and an addition count as two. The step is traced, not compiled. The implementation for
    accelerators is counted on every machine: the convolutions for CPUs do some operations more than once.

    Args:
      config: the full config of a run.

    Raises:
      UserError: if JAX has no CPU client.
    """
    size, side = config.batch_size, config.data.image_size
    batch = {
        "pixels": jax.ShapeDtypeStruct((size, side, side), jnp.uint16),
        "scale": jax.ShapeDtypeStruct((size,), jnp.float32),
        "labels": jax.ShapeDtypeStruct((size,), jnp.int32),
        "weights": jax.ShapeDtypeStruct((size,), jnp.float32),
    }
    if config.data.fit != "none":
        batch["residuals"] = jax.ShapeDtypeStruct((size, side, side), jnp.float16)
    step = start.build_step(config, models.build(config), 1)
    # Only XLA's CPU client counts the operations of a program that has not been compiled.
    try:
        processor = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        raise UserError(
            "operations are counted with JAX's CPU client, which JAX_PLATFORMS excludes; add cpu to its end"
        ) from None
    with jax.default_device(processor):
        traced = jax.jit(step).trace(abstract_state(config), batch, jax.random.key(0))
        lowered: Any = traced.lower(lowering_platforms=("tpu",))
        return float(lowered.cost_analysis()["flops"])


def all_reduces(config: ConfigDict) -> tuple[int, int]:
    """Number of all-reduces in a training step, and the bytes that each device contributes to them.

    There is one for all gradients and one for the number of images. The loss terms are summed together with
    the gradients; their few bytes are not counted. Each batch normalization has one all-reduce in the
    forward pass (a count, and the sum and the sum of squares of each channel) and one in the backward pass
    (two values per channel). The arrays of each count as one message, since XLA combines all-reduces that do
    not depend on each other.

    Args:
      config: the full config of a run.
    """
    state = abstract_state(config)
    gradients = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    # Each layer has a running mean and a running variance per channel.
    statistics = jax.tree.leaves(state.batch_stats)
    channels = sum(leaf.size for leaf in statistics) // 2
    layers = len(statistics) // 2
    return 2 + 2 * layers, 4 * (gradients + 4 * channels + layers + 1)


def peak_flops(device: jax.Device, precision: str) -> float | None:
    """Peak FLOP/s of a device.

    For a CPU this is the rate of a product of two 1,024 x 1,024 matrices, which is measured at each call. For
    other devices it is the value in the data sheet.

    Args:
      device: the device.
      precision: precision of products, one of the values of `config.precision`.

    Returns:
      The peak; None if the device is not listed in `PEAK_FLOPS`.
    """
    if device.platform == "cpu":
        return _measure_product_flops()
    for name, peaks in PEAK_FLOPS.items():
        if re.search(rf"\b{name}\b", device.device_kind):
            return peaks[_PRECISIONS.index(precision)]
    return None


def _measure_product_flops() -> float:
    ones = jnp.ones((_SIDE, _SIDE))
    product = jax.jit(jnp.matmul)
    product(ones, ones).block_until_ready()
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        product(ones, ones).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return 2 * _SIDE**3 / min(seconds)
