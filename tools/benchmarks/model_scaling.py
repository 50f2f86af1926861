"""Models how training speeds up from 1 to 256 GPUs, and draws it.

  python tools/benchmarks/model_scaling.py --output docs/images/scaling.png

  --utilisation SHARE    of the peak that one GPU reaches by itself (0.3 if not given)
  --peak TFLOPS          of one GPU (67 if not given: float32 of an H100)
  --node N               GPUs in a node (8 if not given)
  --inside GB/S          bandwidth of a GPU to others in its node (300 if not given)
  --between GB/S         bandwidth of a GPU to other nodes (40 if not given)
  --latency US           of one sum over devices, and again per doubling of their number
                         (15 if not given)
  --output FILE          where the figure goes; none if not given

Operations and messages are those of lensjax's own step; the rest is assumed, and no GPU is
measured. A step takes what its operations take at that share of the peak, and then, since
nothing is taken to overlap, each of its sums over devices: the latency, and 2 (n - 1) / n of
its bytes over the slowest link.
Exit codes: 0 done; 2 something in the command is wrong.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from matplotlib.figure import Figure

from lensjax.cli import options, runner
from lensjax.runtime.progress import log
from lensjax.training import cost

ROOT = Path(__file__).parent.parent.parent
MODELS = {"baseline": "BaselineCNN", "pinn": "LensVIT_PINN"}
NUMBERS = tuple(2**power for power in range(9))
COLORS = {"baseline": "#0072B2", "pinn": "#D55E00"}


def main(arguments: Sequence[str]) -> None:
    """Prints a table and draws it.

    Raises:
      UserError: a flag is wrong.
    """
    values = flags.FlagValues()
    flags.DEFINE_float("utilisation", 0.3, "", lower_bound=1e-6, upper_bound=1, flag_values=values)
    for name, default in (("peak", 67), ("inside", 300), ("between", 40), ("latency", 15)):
        flags.DEFINE_float(name, default, "", lower_bound=1e-6, flag_values=values)
    flags.DEFINE_integer("node", 8, "", lower_bound=1, flag_values=values)
    flags.DEFINE_string("output", None, "", flag_values=values)
    runner.read_flags(values, arguments)
    curves = {}
    for name, title in MODELS.items():
        config = options.load_config(str(ROOT / "configs" / f"{name}.py"))
        config = config.copy_and_resolve_references()
        config.batch_size = 8
        operations = cost.step_flops(config) / config.batch_size
        number, size = cost.all_reduces(config)
        log.info(
            "%s: %.2f billion operations an image; %d sums over devices a step, %.1f MB",
            *(title, operations / 1e9, number, size / 1e6),
        )
        image_seconds = operations / (values.utilisation * values.peak * 1e12)

        def step_seconds(
            devices: int,
            share: float,
            image_seconds: float = image_seconds,
            number: int = number,
            size: int = size,
        ) -> float:
            if devices == 1:
                return share * image_seconds
            link = 1e9 * (values.inside if devices <= values.node else values.between)
            waiting = number * values.latency * 1e-6 * (1 + math.log2(devices))
            return share * image_seconds + waiting + 2 * (devices - 1) / devices * size / link

        for kind, total in (("32 images a GPU", None), ("256 images in all", 256)):
            rates = []
            for devices in NUMBERS:
                share = 32 if total is None else total / devices
                rates.append(share * devices / step_seconds(devices, share))
            curves[name, kind] = rates
            log.info("  %s", kind)
            log.info("    GPUs       %s", "".join(f"{devices:>8}" for devices in NUMBERS))
            log.info("    images/s   %s", "".join(f"{rate:8.0f}" for rate in rates))
            shares = (rate / rates[0] / n for n, rate in zip(NUMBERS, rates, strict=True))
            log.info("    efficiency %s", "".join(f"{100 * share:7.0f}%" for share in shares))
    if values.output:
        draw(curves).savefig(values.output, dpi=144)


def draw(curves: dict[tuple[str, str], list[float]]) -> Figure:
    """Images a second against the number of GPUs."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for (name, kind), rates in curves.items():
        style = "-" if kind == "32 images a GPU" else "--"
        axes.plot(
            NUMBERS, rates, style, color=COLORS[name], marker=".", label=f"{MODELS[name]}, {kind}"
        )
        if style == "-":
            ideal = [rates[0] * number for number in NUMBERS]
            axes.plot(NUMBERS, ideal, color=COLORS[name], linewidth=0.7, alpha=0.5)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(NUMBERS, [str(number) for number in NUMBERS])
    axes.set(xlabel="GPUs", ylabel="training images a second", title="Modelled, not measured")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.2)
    return figure


def run() -> int:
    """Runs the command and gives its exit code."""
    return runner.run(main, __doc__, name="model_scaling")


if __name__ == "__main__":
    sys.exit(run())
