"""Times the gradient of ResNet18's convolutions with respect to the kernel in different forms.

  python tools/benchmarks/convolutions.py

  --batch N     images (32 if not given)
  --rounds N    rounds; the shortest time of each form counts (5 if not given)

On 150-pixel images, in milliseconds: XLA's own gradient, summed over parts of 2, 4 ... images; that of a
product of matrices; and that of `lensjax.models.cpu_kernels`.
Exit codes: 0 done; 2 something in the command is wrong.
"""

import functools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax import lax

from lensjax.cli import runner
from lensjax.models import cpu_kernels
from lensjax.runtime.progress import log

# Channels in and out, side of the kernel, stride, side of the image, and how often it occurs.
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
    """Runs the comparison.

    Raises:
      UserError: a flag is wrong.
    """
    values = flags.FlagValues()
    flags.DEFINE_integer("batch", 32, "", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("rounds", 5, "", lower_bound=1, flag_values=values)
    runner.read_flags(values, arguments)
    generator = np.random.default_rng(0)
    sizes = [size for size in (2, 4, 8, 16, 32) if size <= values.batch]
    heading = "".join(f"{f'XLA {size}':>10}" for size in sizes)
    log.info("%-28s%s%10s%10s", "", heading, "product", "lensjax")
    for channels, features, side, stride, size, times in CONVOLUTIONS:
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
        chosen = functools.partial(cpu_kernels.conv_general_dilated, **options)
        given = jnp.asarray(generator.normal(size=plain(x, kernel).shape), jnp.float32)
        forms = [(plain, part) for part in sizes] + [(product, len(x)), (chosen, len(x))]
        taken = [
            milliseconds(in_parts(form, part), values.rounds, kernel, x, given)
            for form, part in forms
        ]
        name = f"{times} x {side}x{side}, {channels} to {features}, {size} px"
        log.info("%-28s%s", name, "".join(f"{each:10.1f}" for each in taken))


def in_parts(form: Convolution, part: int) -> Callable[..., Any]:
    """The gradient with respect to the kernel, as a sum over parts of the batch."""

    def gradient(kernel: Any, x: Any, given: Any) -> Any:
        def of_some(start: int) -> Any:
            rows, wanted = x[start : start + part], given[start : start + part]
            return jax.vjp(lambda kernel: form(rows, kernel), kernel)[1](wanted)[0]

        return sum(of_some(start) for start in range(0, len(x), part))

    return gradient


def milliseconds(function: Callable[..., Any], rounds: int, *arguments: Any) -> float:
    """The shortest time of several rounds."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arguments))
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        taken.append(time.perf_counter() - started)
    return 1e3 * min(taken)


def run() -> int:
    """Runs the command and gives its exit code."""
    return runner.run(main, __doc__, name="benchmark_convolutions")


if __name__ == "__main__":
    sys.exit(run())
