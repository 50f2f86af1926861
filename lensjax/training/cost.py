"""What a training step costs: operations, messages between devices, and the peak of a device.

Source of the peaks: the makers' data sheets, without sparsity; float32 is that of the ordinary units.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from lensjax import models
from lensjax.training import start
from lensjax.training.state import TrainState

# Operations a second in "float32", "tensorfloat32" and "bfloat16", by a part of the device's name.
PEAKS = {
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
_SIDE = 1024  # of the matrices whose product measures a CPU


def abstract_state(config: ConfigDict) -> TrainState:
    """The shapes of all that training changes; nothing is computed."""
    return start.abstract_state(config, models.build(config))


def step_operations(config: ConfigDict) -> float:
    """Floating-point operations of one training step, as XLA counts them before it optimises.

    A multiplication and an addition are two. It takes as long as tracing the step does.

    Args:
      config: the whole config of a run.
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
    lowered: Any = jax.jit(step).lower(abstract_state(config), batch, jax.random.key(0))
    return float(lowered.cost_analysis()["flops"])


def messages(config: ConfigDict) -> tuple[int, int]:
    """How many sums over devices a training step has, and the bytes that each device puts into them.

    One is of all gradients and one of the number of images. Each batch normalization has one in the forward
    pass (a count, and of each channel the sum and the sum of squares) and one in the backward pass (two
    values per channel). The arrays of each are one message, since XLA joins sums that do not wait for each
    other.

    Args:
      config: the whole config of a run.
    """
    state = abstract_state(config)
    gradients = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    # Each has a running mean and a running variance of as many channels.
    statistics = jax.tree.leaves(state.batch_stats)
    channels = sum(leaf.size for leaf in statistics) // 2
    layers = len(statistics) // 2
    return 2 + 2 * layers, 4 * (gradients + 4 * channels + layers + 1)


def peak_operations(device: jax.Device, precision: str) -> float | None:
    """The most operations a second that a device is said to do, or a CPU was seen to do.

    Of a CPU it is what a product of two matrices of 1,024 x 1,024 reaches just now.

    Args:
      device: any.
      precision: of products, as `config.precision`.

    Returns:
      None for a device that is not known.
    """
    if device.platform == "cpu":
        return _product_rate()
    for name, peaks in PEAKS.items():
        if name in device.device_kind:
            return peaks[_PRECISIONS.index(precision)]
    return None


def _product_rate() -> float:
    ones = jnp.ones((_SIDE, _SIDE))
    product = jax.jit(jnp.matmul)
    product(ones, ones).block_until_ready()
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        product(ones, ones).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return 2 * _SIDE**3 / min(seconds)
