"""Models the speed of training on 1 to 256 GPUs, as a table and a figure."""

import math
import sys
import types
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from lensjax.cli import runner
from lensjax.cli.configs import load_config
from lensjax.cli.flags import Flag, integer, parse_flags, real, usage
from lensjax.runtime.progress import log
from lensjax.training.cost import all_reduces, step_flops

FLAGS = {
    "utilization": real(
        "Fraction of its peak that a single GPU reaches; 0.3 if not given.", 0.3, 1e-6, value="X", high=1.0
    ),
    "peak": real("Peak of a GPU, TFLOP/s; 67 if not given, float32 on an H100.", 67.0, 1e-6, value="TFLOPS"),
    "node": integer("GPUs per node; 8 if not given.", 8, 1),
    "inside": real("Bandwidth of a GPU within its node; 300 if not given.", 300.0, 1e-6, value="GB/S"),
    "between": real("Bandwidth of a GPU between nodes; 40 if not given.", 40.0, 1e-6, value="GB/S"),
    "latency": real(
        "Latency of a sum over devices, microseconds, and its increase with each doubling of their number; "
        "15 if not given.",
        15.0,
        1e-6,
        value="US",
    ),
    "output": Flag("FILE", "File of the figure; no figure if not given."),
}
USAGE = usage(
    "Models the speed of training on 1 to 256 GPUs, as a table and a figure.",
    ["python tools/benchmarks/model_scaling.py --output docs/images/scaling.png"],
    FLAGS,
    "Floating-point operations and all-reduces are those of lensjax's training step. Everything else is "
    "assumed; nothing is measured on a GPU. The time of a step is the time of its operations at the given "
    "fraction of the peak plus, without overlap, the time of each sum over devices: the latency, and "
    "2 (n - 1) / n of its bytes over the slowest link.",
)
ROOT = Path(__file__).parent.parent.parent
MODELS = {"baseline": "BaselineCNN", "pinn": "LensVIT_PINN"}
NUMBERS = tuple(2**power for power in range(9))
COLORS = {"baseline": "#0072B2", "pinn": "#D55E00"}
PER_GPU, IN_TOTAL = "32 images per GPU", "256 images in total"


def main(arguments: Sequence[str]) -> None:
    """Prints the table and draws the figure."""
    values = types.SimpleNamespace(**parse_flags(FLAGS, arguments))
    curves = {}
    for name, title in MODELS.items():
        config = load_config(str(ROOT / "configs" / f"{name}.py"))
        config = config.copy_and_resolve_references()
        config.batch_size = 8
        operations = step_flops(config) / config.batch_size
        number, size = all_reduces(config)
        log.info(
            "%s: %.2f billion operations per image; %d sums over devices per step, %.1f MB",
            *(title, operations / 1e9, number, size / 1e6),
        )
        image_seconds = operations / (values.utilization * values.peak * 1e12)

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
            latency = number * values.latency * 1e-6 * (1 + math.log2(devices))
            return share * image_seconds + latency + 2 * (devices - 1) / devices * size / link

        for kind, total in ((PER_GPU, None), (IN_TOTAL, 256)):
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
    """Figure of images per second against the number of GPUs."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for (name, kind), rates in curves.items():
        style = "-" if kind == PER_GPU else "--"
        axes.plot(NUMBERS, rates, style, color=COLORS[name], marker=".", label=f"{MODELS[name]}, {kind}")
        if style == "-":
            ideal = [rates[0] * number for number in NUMBERS]
            axes.plot(NUMBERS, ideal, color=COLORS[name], linewidth=0.7, alpha=0.5)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(NUMBERS, [str(number) for number in NUMBERS])
    axes.set(xlabel="GPUs", ylabel="training images per second", title="Model, not measured")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.2)
    return figure


if __name__ == "__main__":
    sys.exit(runner.run(main, USAGE, name="model_scaling"))
