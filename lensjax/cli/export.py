"""The command export: writes a trained classifier to a file for other programs, and checks the file."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lensjax.cli.flags import choice, parse_flags, path_to, switch, usage
from lensjax.errors import UserError
from lensjax.runtime.progress import log
from lensjax.weights.writing import check_output_path

TOLERANCE = 1e-4  # largest accepted difference between logits
NUM_IMAGES = 12
FLAGS = {
    "workdir": path_to("FOLDER", "Folder of a run; its best epoch is exported."),
    "format": choice(
        "NAME",
        "stablehlo: a program for jax.export, on CPUs, NVIDIA GPUs and TPUs. onnx: a model for ONNX Runtime. "
        "safetensors: a model file for lensjax predict and lensjax.load. torch: a state dict with the names "
        "of the reference implementation (baseline_cnn and lens_vit_pinn only).",
        ("stablehlo", "onnx", "safetensors", "torch"),
        None,
    ),
    "output": path_to(
        "FILE",
        "File to write, with the suffix of the format: .stablehlo, .onnx or .safetensors; .pth or .pt for "
        "torch.",
    ),
    "overwrite": switch("Replace an existing output."),
}
USAGE = usage(
    "Exports the best epoch of a run to a file, and checks the file.",
    [
        "lensjax export --workdir runs/pinn --format stablehlo --output pinn.stablehlo",
        "lensjax export --workdir runs/pinn --format onnx --output pinn.onnx",
    ],
    FLAGS,
    "stablehlo and onnx contain the parameters and the preparation of the image. They take any number of "
    "images [batch, size, size, 1] from 0 to 1, or [batch, size, size, 2] with the residual of the lens fit "
    "in standard deviations if the run uses it, and return logits and probabilities of no, sphere and vort.",
    "The file is read back and applied to twelve images. The largest difference from the logits of the run "
    "is reported; if it is above 1e-4, the file is not kept.",
    "onnx requires jax2onnx and onnxruntime; torch requires PyTorch (pip install 'lensjax[torch]'). "
    "docs/export.md describes how to use the files.",
    codes="Exit codes: 0 success; 1 the logits differ; 2 invalid command or run, explained by the message.",
)


def main(arguments: Sequence[str]) -> int:
    """Runs the command export."""
    values = parse_flags(FLAGS, arguments, required=("workdir", "format", "output"))
    workdir, output = values["workdir"], values["output"]
    from lensjax.prediction import export  # slow to import

    form = export.FORMATS[values["format"]]
    if output.suffix not in form.suffixes:
        raise UserError(f"--output {output}: must end in {' or '.join(form.suffixes)}")
    check_output_path(output, overwrite=values["overwrite"])
    function = export.load_model_function(workdir)
    log.info("%s: %s, best epoch %d", workdir, function.name, function.best_epoch)
    images = export.example_images(function.image_shape, NUM_IMAGES)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # The file gets its name only after it has been checked.
        with tempfile.TemporaryDirectory(prefix=".export-", dir=output.parent) as folder:
            candidate = Path(folder) / output.name
            form.write(function, candidate)
            logits = form.read(function, candidate)
            difference = export.largest_difference(function, logits, images)
            if not difference <= TOLERANCE:  # also true for NaN
                sys.stderr.write(
                    f"lensjax export: the logits of {output.name} differ from those of the run by up to "
                    f"{difference:.1e}, more than {TOLERANCE:.0e}; the file was not kept\n"
                )
                return 1
            check_output_path(output, overwrite=values["overwrite"])
            candidate.replace(output)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror or error}") from None
    shape = " x ".join(map(str, images.shape))
    log.info("logits of %s images differ by at most %.1e from those of the run", shape, difference)
    log.info("wrote %s (%.1f MB)", output, output.stat().st_size / 1e6)
    return 0
