"""Times implementations of the gradient of ResNet18's convolutions with respect to the kernel."""

import functools
import sys
import time
import types
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lensjax.cli import runner
from lensjax.cli.flags import integer, parse_flags, usage
from lensjax.models import cpu_kernels
from lensjax.runtime.progress import log

FLAGS = {
    "batch": integer("Number of images; 32 if not given.", 32, 1),
    "rounds": integer("Number of rounds; the shortest time is reported. 5 if not given.", 5, 1),
}
USAGE = usage(
    "Times implementations of the gradient of ResNet18's convolutions with respect to the kernel.",
    ["python tools/benchmarks/convolutions.py"],
    FLAGS,
    "The images have 150 pixels on a side; times are in milliseconds. The implementations are XLA's gradient "
    "summed over parts of 2, 4 ... images, a matrix product, and lensjax.models.cpu_kernels.",
)
# Channels in and out, side of the kernel, stride, side of the feature map, number of such convolutions.
CONVOLUTIONS = (
    (1, 64, 7, 2, 150, 1),
    (64, 64, 3, 1, 38, 4),
    (64, 128, 3, 2, 38, 1),
    (64, 128, 1, 2, 38, 1),
    (128, 128, 3, 1, 19, 3),
    (128, 256, 3, 2, 19, 1),
    (128, 256, 1, 2, 19, 1),
    (256, 256, 3, 1, 10, 3),
    (256, 512, 3, 2, 10, 1),
    (256, 512, 1, 2, 10, 1),
    (512, 512, 3, 1, 5, 3),
)
LAYOUT = ("NHWC", "HWIO", "NHWC")
Convolution = Callable[[Any, Any], Any]


def main(arguments: Sequence[str]) -> None:
    """Runs the benchmark."""
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments))
    generator = np.random.default_rng(0)
    part_sizes = [size for size in (2, 4, 8, 16, 32) if size <= values.batch]
    header = "".join(f"{f'XLA {size}':>10}" for size in part_sizes)
    log.info("%-28s%s%10s%10s", "", header, "product", "lensjax")
    for channels, features, side, stride, size, number in CONVOLUTIONS:
        x = jnp.asarray(generator.normal(size=(values.batch, size, size, channels)), jnp.float32)
        kernel = jnp.asarray(generator.normal(size=(side, side, channels, features)), jnp.float32)
        options: dict[str, Any] = {"window_strides": (stride, stride)}
        options |= {"padding": [(side // 2, side // 2)] * 2}
        options |= {"dimension_numbers": lax.conv_dimension_numbers(x.shape, kernel.shape, LAYOUT)}
        plain: Convolution = functools.partial(lax.conv_general_dilated, **options)
        product = functools.partial(
            cpu_kernels.product_convolution,
            window_strides=options["window_strides"],
            padding=options["padding"],
        )
        selected = functools.partial(cpu_kernels.conv_general_dilated, **options)
        cotangent = jnp.asarray(generator.normal(size=plain(x, kernel).shape), jnp.float32)
        cases = [(plain, part) for part in part_sizes] + [(product, len(x)), (selected, len(x))]
        times = [
            time_milliseconds(sum_gradient_over_parts(convolution, part), values.rounds, kernel, x, cotangent)
            for convolution, part in cases
        ]
        name = f"{number} x {side}x{side}, {channels} to {features}, {size} px"
        log.info("%-28s%s", name, "".join(f"{each:10.1f}" for each in times))


def sum_gradient_over_parts(convolution: Convolution, part: int) -> Callable[..., Any]:
    """The gradient with respect to the kernel as a function, summed over parts of the batch."""

    def gradient(kernel: Any, x: Any, cotangent: Any) -> Any:
        def part_gradient(start: int) -> Any:
            rows = slice(start, start + part)
            _, vjp = jax.vjp(lambda kernel: convolution(x[rows], kernel), kernel)
            return vjp(cotangent[rows])[0]

        return sum(part_gradient(start) for start in range(0, len(x), part))

    return gradient


def time_milliseconds(function: Callable[..., Any], rounds: int, *arguments: Any) -> float:
    """Shortest time of a compiled function over several rounds, milliseconds."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arguments))
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - started)
    return 1e3 * min(seconds)


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="benchmark_convolutions"))
