"""Export of a trained classifier to other formats.

Each format in `FORMATS` has functions that write a file and read it back. `lensjax export` compares the
logits of the file with those of the run.
"""

import dataclasses
import functools
import importlib
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import export as jax_export
from jaxtyping import Array, Float

import lensjax
from lensjax import weights
from lensjax.data.images import CLASSES
from lensjax.data.preparation import num_channels
from lensjax.errors import UserError, naming
from lensjax.json_text import encode_json
from lensjax.prediction.domain import Domain
from lensjax.prediction.trained_model import load_trained_model
from lensjax.training.recipe import Recipe
from lensjax.weights.tables import TABLES

PLATFORMS = ("cpu", "cuda", "tpu")
ONNX_OPSET = 20

LogitsFunction = Callable[[Float[np.ndarray, "batch height width channels"]], Any]


@dataclasses.dataclass(frozen=True)
class ModelFunction:
    """The best epoch of a run as a function of images.

    Attributes:
      name: name of the model.
      best_epoch: number of the epoch, from 1.
      config: config of the run, JSON.
      temperature: divisor of the logits that calibrates the probabilities; None if it was not fitted.
      image_shape: height, width and channels of an image.
      variables: parameters and running statistics.
      domain: record of the validation images (`prediction.domain`); None if the run has none.
      logits: logits as a function of variables and images, including the preparation of the images.
    """

    name: str
    best_epoch: int
    config: str
    temperature: float | None
    image_shape: tuple[int, int, int]
    variables: dict[str, Any]
    domain: Domain | None
    logits: Callable[[Any, Array], Array]

    def logits_and_probabilities(
        self, images: Float[Array, "batch height width channels"]
    ) -> tuple[Array, Array]:
        """Logits and class probabilities, `[batch, 3]` each.

        Args:
          images: brightness from 0 to 1. If the model uses the lens fit, the second channel is its residual,
            in standard deviations.
        """
        logits = self.logits(self.variables, images)
        return logits, jax.nn.softmax(logits)


def load_model_function(workdir: Path) -> ModelFunction:
    """Loads the best epoch of a run.

    Args:
      workdir: the run's folder.

    Raises:
      UserError: if there is no run or no complete epoch.
    """
    trained = load_trained_model(workdir, devices=jax.devices()[:1])
    config = trained.config
    recipe = Recipe.from_config(config)

    def logits(variables: Any, images: Array) -> Array:
        with jax.default_matmul_precision("float32"):
            return trained.model.apply(variables, recipe.prepare(images), train=False).logits

    return ModelFunction(
        name=config.model.name,
        best_epoch=trained.best_epoch,
        config=config.to_json(sort_keys=False),
        temperature=trained.temperature,
        image_shape=(*2 * (config.data.image_size,), num_channels(config.data.fit)),
        variables=jax.device_get(trained.variables),
        domain=trained.domain,
        logits=logits,
    )


def example_images(
    shape: tuple[int, int, int], number: int
) -> Float[np.ndarray, "number height width channels"]:
    """Noisy arcs of several radii, scaled to [0, 1], with white noise as residuals.

    Args:
      shape: height, width and channels of an image.
      number: number of images.
    """
    random = np.random.default_rng(0)
    height, width, channels = shape
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    radii = np.linspace(0.2, 0.6, number)[:, None, None]
    rings = np.exp(-(((np.hypot(x, y) - radii) / 0.15) ** 2)) * (1 + np.tanh(3 * x))
    counts = random.poisson(200 * rings + 10).astype(np.float64)
    counts -= counts.min((1, 2), keepdims=True)
    images = (counts / counts.max((1, 2), keepdims=True))[..., None]
    residuals = random.normal(size=(number, height, width, channels - 1))
    return np.concatenate([images, residuals], -1).astype(np.float32)


def largest_difference(
    function: ModelFunction, logits: LogitsFunction, images: Float[np.ndarray, "batch height width channels"]
) -> float:
    """Largest absolute difference between the logits of an exported file and those of the run.

    Args:
      function: the model of the run.
      logits: function of the file, from one of the readers in `FORMATS`.
      images: images to compare on.

    Returns:
      The difference; NaN if either contains NaN.
    """
    own = jax.jit(function.logits)(function.variables, images)
    return float(np.abs(np.asarray(logits(images)) - np.asarray(own)).max())


def write_stablehlo(function: ModelFunction, path: Path) -> None:
    """Writes a program that contains the parameters, for any batch size and all `PLATFORMS`."""
    (batch,) = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *function.image_shape), np.float32)
    exported = jax_export.export(jax.jit(function.logits_and_probabilities), platforms=PLATFORMS)(images)
    with naming(path):
        path.write_bytes(exported.serialize())


def read_stablehlo(function: ModelFunction, path: Path) -> LogitsFunction:
    """A function that computes logits with the exported program."""
    del function
    exported = jax_export.deserialize(bytearray(path.read_bytes()))
    return lambda images: exported.call(images)[0]


def write_onnx(function: ModelFunction, path: Path) -> None:
    """Writes an ONNX model with the input "images" and the outputs "logits" and "probabilities".

    Raises:
      UserError: if jax2onnx or ONNX Runtime is not installed, or if jax2onnx cannot convert the model.
    """
    try:
        jax2onnx = importlib.import_module("jax2onnx")
        importlib.import_module("onnxruntime")
    except ImportError as error:
        raise UserError(f"ONNX needs {error.name}: pip install jax2onnx onnxruntime") from None
    onnx = importlib.import_module("onnx")
    for name in ("jax2onnx", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = jax2onnx.to_onnx(
                functools.partial(_with_supported_operations, function.logits_and_probabilities),
                [("batch", *function.image_shape)],
                model_name=function.name,
                opset=ONNX_OPSET,
                input_names=["images"],
                output_names=["logits", "probabilities"],
            )
    except Exception as error:  # jax2onnx can raise any exception for an unsupported model
        raise _conversion_error(function, error) from None
    onnx.helper.set_model_props(model, _metadata(function))
    onnx.save(model, str(path))


def _conversion_error(function: ModelFunction, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [""])[0][:200]
    return UserError(
        f"jax2onnx cannot convert {function.name} ({type(error).__name__}: {reason}); use another "
        "format, such as stablehlo"
    )


def _with_supported_operations(function: Callable[[Array], Any], images: Array) -> Any:
    """Evaluates a function with operations that jax2onnx converts correctly.

    jax2onnx does not support `platform_dependent`. Its max-pooling ignores padding, and its padding of an
    axis by zero pixels repeats the edge.
    """
    max_pool, pad = nn.max_pool, jnp.pad  # patched by jax2onnx during tracing

    def padded_max_pool(
        x: Array, window_shape: Sequence[int], *, strides: Sequence[int], padding: Sequence[tuple[int, int]]
    ) -> Array:
        x = pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
        return max_pool(x, window_shape=window_shape, strides=strides, padding="VALID")

    def pad_each(x: Array, widths: Sequence[tuple[int, int]], *, mode: str) -> Array:
        return jax.vmap(lambda row: pad(row, widths[1:], mode=mode))(x)

    def default_form(*operands: Any, cpu: Any, default: Callable[..., Any]) -> Any:
        return default(*operands)

    with (
        mock.patch.object(jax.lax, "platform_dependent", default_form),
        mock.patch.object(nn, "max_pool", padded_max_pool),
        mock.patch.object(jnp, "pad", pad_each),
    ):
        return function(images)


def read_onnx(function: ModelFunction, path: Path) -> LogitsFunction:
    """A function that computes logits with ONNX Runtime; it raises `UserError` if the file cannot be run."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # errors are also raised as exceptions

    def logits(images: np.ndarray) -> Any:
        try:
            session = runtime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
            return session.run(["logits"], {"images": images})[0]
        except Exception as error:
            raise _conversion_error(function, error) from None

    return logits


def write_safetensors(function: ModelFunction, path: Path) -> None:
    """Writes a model file, which `lensjax.load` and `lensjax predict` read."""
    own = {"config": function.config, "temperature": encode_json(function.temperature)}
    stored = {} if function.domain is None else {"domain": dataclasses.asdict(function.domain)}
    weights.save(path, function.variables | stored, _metadata(function) | own)


def read_safetensors(function: ModelFunction, path: Path) -> LogitsFunction:
    """A function that computes logits with the variables from the file."""
    variables, _ = weights.load(path)
    variables.pop("domain", None)
    return functools.partial(jax.jit(function.logits), variables)


def write_torch(function: ModelFunction, path: Path) -> None:
    """Writes a PyTorch state dict with the names of the reference implementation.

    Raises:
      UserError: if the reference implementation has no such model.
    """
    if function.name not in TABLES:
        raise UserError(f"{function.name} has no PyTorch counterpart; use stablehlo, onnx or safetensors")
    state_dict = weights.to_state_dict(function.variables, function.name)
    weights.write_torch(path, state_dict, overwrite=False)


def read_torch(function: ModelFunction, path: Path) -> LogitsFunction:
    """A function that computes logits with the arrays from the state dict."""
    arrays = weights.read_torch(path).arrays
    variables = weights.load_state_dict(arrays, function.name, function.variables)
    return functools.partial(jax.jit(function.logits), variables)


def _metadata(function: ModelFunction) -> dict[str, str]:
    return {
        "architecture": function.name,
        "best_epoch": str(function.best_epoch),
        "classes": encode_json(CLASSES),
        "image_shape": encode_json(function.image_shape),
        "lensjax": lensjax.__version__,
    }


@dataclasses.dataclass(frozen=True)
class Format:
    """An export format.

    Attributes:
      suffixes: allowed file suffixes.
      write: writes a classifier to a path.
      read: reads the file and returns a function from images to logits.
    """

    suffixes: tuple[str, ...]
    write: Callable[[ModelFunction, Path], None]
    read: Callable[[ModelFunction, Path], LogitsFunction]


FORMATS = {
    "stablehlo": Format((".stablehlo",), write_stablehlo, read_stablehlo),
    "onnx": Format((".onnx",), write_onnx, read_onnx),
    "safetensors": Format((".safetensors",), write_safetensors, read_safetensors),
    "torch": Format((".pth", ".pt"), write_torch, read_torch),
}
