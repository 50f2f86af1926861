"""A trained classifier in the formats of others, and read back from them.

Each of `FORMATS` has a function that writes a file and one that reads it back; `tools/export.py` compares
their answers.
"""

import dataclasses
import functools
import importlib
import json
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
from lensjax.errors import UserError
from lensjax.prediction.trained import load_trained
from lensjax.training.recipe import Recipe
from lensjax.weights.tables import TABLES

PLATFORMS = ("cpu", "cuda", "tpu")
ONNX_OPSET = 20

Logits = Callable[[Float[np.ndarray, "batch height width channels"]], Any]


@dataclasses.dataclass(frozen=True)
class Function:
    """The best epoch of a run as a function of images.

    Attributes:
      name: of its model.
      best_epoch: its number, from 1.
      image_shape: height, width and channels of an image.
      variables: parameters and running statistics.
      logits: a function of variables and images; the preparation of images is part of it.
    """

    name: str
    best_epoch: int
    image_shape: tuple[int, int, int]
    variables: dict[str, Any]
    logits: Callable[[Any, Array], Array]

    def answers(self, images: Float[Array, "batch height width channels"]) -> tuple[Array, Array]:
        """Logits and probabilities of the classes, `[batch, 3]` each."""
        logits = self.logits(self.variables, images)
        return logits, jax.nn.softmax(logits)


def read_run(workdir: Path) -> Function:
    """The best epoch of the run in `workdir`.

    Raises:
      UserError: there is no run or no whole epoch.
    """
    trained = load_trained(workdir, devices=jax.devices()[:1])
    config = trained.config
    recipe = Recipe.from_config(config)

    def logits(variables: Any, images: Array) -> Array:
        with jax.default_matmul_precision("float32"):
            return trained.model.apply(variables, recipe.prepare(images), train=False).logits

    return Function(
        name=config.model.name,
        best_epoch=trained.best_epoch,
        image_shape=(*2 * (config.data.image_size,), num_channels(config.data.fit)),
        variables=jax.device_get(trained.variables),
        logits=logits,
    )


def example_images(
    shape: tuple[int, int, int], number: int
) -> Float[np.ndarray, "number height width channels"]:
    """Noisy arcs of several radii, from 0 to 1 as lens images are, with white noise for residuals.

    Args:
      shape: height, width and channels of an image.
      number: how many images.
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
    function: Function, logits: Logits, images: Float[np.ndarray, "batch height width channels"]
) -> float:
    """How far other logits are from the run's own, at most; NaN where either has one."""
    own = jax.jit(function.logits)(function.variables, images)
    return float(np.abs(np.asarray(logits(images)) - np.asarray(own)).max())


def write_stablehlo(function: Function, path: Path) -> None:
    """Writes the program, parameters included, for any number of images and all of `PLATFORMS`."""
    (batch,) = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *function.image_shape), np.float32)
    exported = jax_export.export(jax.jit(function.answers), platforms=PLATFORMS)(images)
    path.write_bytes(exported.serialize())


def read_stablehlo(function: Function, path: Path) -> Logits:
    """The logits by the file alone."""
    del function
    exported = jax_export.deserialize(bytearray(path.read_bytes()))
    return lambda images: exported.call(images)[0]


def write_onnx(function: Function, path: Path) -> None:
    """Writes a model with the input "images" and the outputs "logits" and "probabilities".

    Raises:
      UserError: jax2onnx is not there, or cannot convert the model.
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
                functools.partial(_in_known_steps, function.answers),
                [("batch", *function.image_shape)],
                model_name=function.name,
                opset=ONNX_OPSET,
                input_names=["images"],
                output_names=["logits", "probabilities"],
            )
    except Exception as error:  # a converter can fail anywhere in a model that it does not know
        raise _not_converted(function, error) from None
    onnx.helper.set_model_props(model, _metadata(function))
    onnx.save(model, str(path))


def _not_converted(function: Function, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [""])[0][:200]
    return UserError(
        f"jax2onnx cannot convert {function.name} ({type(error).__name__}: {reason}); use another "
        "format, such as stablehlo"
    )


def _in_known_steps(answers: Callable[[Array], Any], images: Array) -> Any:
    """The answers, by steps that jax2onnx converts rightly.

    It does not know programs with a form for each platform. Its max-pool takes no padding, and its padding of
    an axis by nothing repeats the edge.
    """
    max_pool, pad = nn.max_pool, jnp.pad  # jax2onnx's, while it traces

    def padded_max_pool(
        x: Array,
        window_shape: Sequence[int],
        *,
        strides: Sequence[int],
        padding: Sequence[tuple[int, int]],
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
        return answers(images)


def read_onnx(function: Function, path: Path) -> Logits:
    """The logits by the file alone.

    Raises:
      UserError: jax2onnx made something that ONNX Runtime does not run.
    """
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # an error is raised too

    def logits(images: np.ndarray) -> Any:
        try:
            session = runtime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
            return session.run(["logits"], {"images": images})[0]
        except Exception as error:
            raise _not_converted(function, error) from None

    return logits


def write_safetensors(function: Function, path: Path) -> None:
    """Writes the Flax variables in lensjax's own layout."""
    weights.save(path, function.variables, _metadata(function))


def read_safetensors(function: Function, path: Path) -> Logits:
    """The logits of the model with the file's variables."""
    variables, _ = weights.load(path)
    return functools.partial(jax.jit(function.logits), variables)


def write_torch(function: Function, path: Path) -> None:
    """Writes a state dict with the reference implementation's names.

    Raises:
      UserError: it has no such model.
    """
    if function.name not in TABLES:
        raise UserError(
            f"PyTorch has no module of {function.name}; use stablehlo, onnx or safetensors"
        )
    state_dict = weights.to_state_dict(function.variables, function.name)
    weights.write_torch(path, state_dict, overwrite=False)


def read_torch(function: Function, path: Path) -> Logits:
    """The logits of the model with the state dict's arrays, each back in its place."""
    arrays = weights.read_torch(path).arrays
    variables = weights.load_state_dict(arrays, function.name, function.variables)
    return functools.partial(jax.jit(function.logits), variables)


def _metadata(function: Function) -> dict[str, str]:
    return {
        "architecture": function.name,
        "best_epoch": str(function.best_epoch),
        "classes": json.dumps(CLASSES),
        "image_shape": json.dumps(function.image_shape),
        "lensjax": lensjax.__version__,
    }


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
      suffixes: how its files' names end.
      write: writes a classifier to a path.
      read: gives the logits by what is in the file.
    """

    suffixes: tuple[str, ...]
    write: Callable[[Function, Path], None]
    read: Callable[[Function, Path], Logits]


FORMATS = {
    "stablehlo": Format((".stablehlo",), write_stablehlo, read_stablehlo),
    "onnx": Format((".onnx",), write_onnx, read_onnx),
    "safetensors": Format((".safetensors",), write_safetensors, read_safetensors),
    "torch": Format((".pth", ".pt"), write_torch, read_torch),
}
