"""Attribution maps: Grad-CAM for ResNets, attention rollout for transformers.

Both work on the unmodified model; no parameters or layers are added.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from lensjax.data.file_tree import natural_key

PyTree = Any
Path = tuple[str, ...]
STEM = "bn1"  # last module of the stem of a ResNet


@functools.partial(jax.jit, static_argnames=("model", "layer"))
def grad_cam(
    model: nn.Module,
    variables: PyTree,
    images: Float[Array, "batch height width channels"],
    classes: Int[Array, " batch"],
    *,
    layer: Path,
) -> Float[Array, "batch rows columns"]:
    """Grad-CAM maps of a layer for given classes.

    Each feature map of the layer is weighted by the gradient of the class logit, averaged over the pixels of
    the map. The weighted maps are summed, and negative values of the sum are set to 0.

    Args:
      model: classifier that returns `models.Outputs`.
      variables: parameters and running statistics.
      images: model input.
      classes: class index for each image.
      layer: path of the module whose output is used, such as an element of `resnet_layers(variables)`.

    Returns:
      One map per image, in units of the logit; `upsample_to_pixels` interpolates it to the image's pixels.

    Raises:
      ValueError: if the model does not call the layer exactly once.

    Reference: Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization".
    """

    def sum_of_logits(shift: Array | None) -> tuple[Array, Array]:
        features = []

        def add_shift(call: Any, arguments: Any, options: Any, context: Any) -> Any:
            result = call(*arguments, **options)
            if context.module.path == layer and context.method_name == "__call__":
                result = result if shift is None else result + shift
                features.append(result)
            return result

        with nn.intercept_methods(add_shift):
            outputs: Any = model.apply(variables, images, train=False)
        if len(features) != 1:
            raise ValueError(
                f"{type(model).__name__} must call layer {'/'.join(layer)} once, but calls it "
                f"{len(features)} times"
            )
        # Images are independent, so the gradient of the sum is the gradient of each image's logit.
        return outputs.logits[jnp.arange(len(images)), classes].sum(), features[0]

    shape = jax.eval_shape(lambda: sum_of_logits(None)[1])
    zeros = jnp.zeros(shape.shape, shape.dtype)
    gradients, maps = jax.grad(sum_of_logits, has_aux=True)(zeros)
    return jax.nn.relu(jnp.einsum("bijk,bk->bij", maps, gradients.mean((1, 2))))


def resnet_layers(variables: PyTree) -> tuple[Path, ...]:
    """Paths of the last block in each stage of the classifier's ResNet, or of its stem if it has no stages.

    Args:
      variables: variables of a classifier from `lensjax.models`.
    """
    params = variables["params"]
    name = "cnn" if "cnn" in params else "resnet"
    blocks = sorted((key for key in params[name] if key.startswith("layer")), key=natural_key)
    last = {block.split("_")[0]: block for block in blocks}
    return tuple((name, block) for block in last.values()) or ((name, STEM),)


def upsample_to_pixels(maps: Float[np.ndarray, "n rows columns"], size: int) -> Float[np.ndarray, "n s s"]:
    """Interpolates maps of a ResNet layer to the pixels of the images, linearly along each axis.

    With the strides and padding of the ResNet, cell i of a map is centered on pixel `stride * i`. Stretching
    the map over the whole image would misplace it by up to half a stride.

    Args:
      maps: square maps. The stride of their layer must be the smallest power of two >= `size / rows`.
      size: height and width of the images, pixels.
    """
    cells = maps.shape[1]
    stride = 2 ** int(np.ceil(np.log2(size / cells)))
    position = np.minimum(np.arange(size) / stride, cells - 1)
    matrix = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(cells)))
    return np.einsum("ri,nij,cj->nrc", matrix, maps, matrix)


def attention_weights(
    model: nn.Module, variables: PyTree, images: Float[Array, "batch height width channels"], **options: Any
) -> Float[Array, "layers batch heads tokens tokens"]:
    """Attention weights of every transformer block: rows are queries, columns are keys.

    Args:
      model: a ViT, or a classifier that contains one.
      variables: parameters and running statistics.
      images: model input.
      **options: additional arguments of the model, such as `train`.

    Raises:
      ValueError: if the model has no transformer.
    """
    apply = functools.partial(model.apply, mutable=["intermediates"], **options)
    _, state = jax.jit(apply)(variables, images)
    intermediates = state.get("intermediates", {})
    blocks = intermediates.get("vit", intermediates)
    if "blocks_0" not in blocks:
        raise ValueError(f"{type(model).__name__} has no transformer")
    names = [f"blocks_{index}" for index in range(len(blocks))]
    return jnp.stack([blocks[name]["attn"]["attention"][0] for name in names])


def attention_rollout(
    attention: Float[Array, "layers batch heads tokens tokens"],
) -> Float[Array, "batch tokens-1"]:
    """Attention flow from each patch to the class token through all blocks.

    For each block, the attention averaged over the heads is averaged with the identity, which represents the
    residual connection. The matrices of all blocks are then multiplied.

    Args:
      attention: attention weights of each block, first block first; token 0 is the class token.

    Returns:
      Weight of each patch in the class token. These weights and that of the class token itself sum to 1.

    Reference: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers".
    """
    tokens = attention.shape[-1]
    identity = jnp.eye(tokens, dtype=attention.dtype)[None, None]
    mixed = (attention.mean(2) + identity) / 2
    mixed = mixed / mixed.sum(-1, keepdims=True)
    rollout = functools.reduce(lambda before, block: block @ before, mixed)
    return rollout[:, 0, 1:]
