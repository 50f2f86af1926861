"""Exports the best epoch of a run for use without lensjax, and checks what it wrote.

  lensjax export --workdir runs/pinn --format stablehlo --output pinn.stablehlo
  lensjax export --workdir runs/pinn --format onnx --output pinn.onnx

  --workdir FOLDER  the folder of a run
  --format NAME     stablehlo: a program for jax.export, on CPUs, NVIDIA GPUs and
                    TPUs; onnx: a model for ONNX Runtime; safetensors: lensjax's own
                    weight file; torch: a state dict with the names of the reference
                    implementation (baseline_cnn and lens_vit_pinn only)
  --output FILE     what is written; ends in .stablehlo, .onnx, .safetensors, or for
                    torch .pth or .pt
  --overwrite       replaces an output that is there already

stablehlo and onnx hold the parameters and all that is done to an image. They take
any number of images [batch, size, size, 1] from 0 to 1, or [batch, size, size, 2]
with the residual of the lens fit, in standard deviations, where the run has one, and
give logits and probabilities of no, sphere and vort.
The file is read back and given twelve images. The largest difference of its logits
from the run's own is said; above 1e-4 no file is left.
onnx needs jax2onnx and onnxruntime, torch needs PyTorch (pip install
'lensjax[torch]'). docs/export.md tells how to use what is written.
Exit codes: 0 done; 1 the logits differ; 2 something in the command or the run is
wrong, and the message says what.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lensjax.cli import runner
from lensjax.errors import UserError
from lensjax.runtime.progress import log
from lensjax.weights.writing import check_new

TOLERANCE = 1e-4  # largest difference of logits
NUM_IMAGES = 12
NAMES = ("stablehlo", "onnx", "safetensors", "torch")


def main(arguments: Sequence[str]) -> int:
    """Exports what the words after the program's name ask for.

    Returns:
      The exit code.

    Raises:
      UserError: something in the command or the run is wrong.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_enum("format", None, NAMES, "", flag_values=values)
    flags.DEFINE_string("output", None, "", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "", flag_values=values)
    runner.read_flags(values, arguments)
    if not (values.workdir and values.format and values.output):
        raise UserError("--workdir, --format and --output are all needed; see --help")
    from lensjax.prediction import export  # after the flags: loading it takes a moment

    output, form = Path(values.output).expanduser(), export.FORMATS[values.format]
    if output.suffix not in form.suffixes:
        raise UserError(f"--output {output}: has to end in {' or '.join(form.suffixes)}")
    check_new(output, overwrite=values.overwrite)
    function = export.read_run(Path(values.workdir).expanduser())
    log.info("%s: %s, epoch %d, the best", values.workdir, function.name, function.best_epoch)
    images = export.example_images(function.image_shape, NUM_IMAGES)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # The output gets its name when it has been found right.
        with tempfile.TemporaryDirectory(prefix=".export-", dir=output.parent) as folder:
            candidate = Path(folder) / output.name
            form.write(function, candidate)
            logits = form.read(function, candidate)
            difference = export.largest_difference(function, logits, images)
            if not difference <= TOLERANCE:  # NaN is not
                sys.stderr.write(
                    f"export: read back, the logits of {output.name} differ from the run's by "
                    f"{difference:.1e}, which is above {TOLERANCE:.0e}; it was not kept\n"
                )
                return 1
            check_new(output, overwrite=values.overwrite)
            candidate.replace(output)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror or error}") from None
    shape = " x ".join(map(str, images.shape))
    log.info("read back, its logits of %s images differ by %.1e at most", shape, difference)
    log.info("wrote %s (%.1f MB)", output, output.stat().st_size / 1e6)
    return 0


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code.

    Args:
      arguments: the words after the command; those of this process if None.
    """
    return runner.run(main, __doc__, name="lensjax export", arguments=arguments)
