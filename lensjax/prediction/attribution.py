"""Where a classifier looks: Grad-CAM for its ResNet, attention rollout for its transformer.

Both are read off a forward pass of the model as it is; no parameter and no layer is added for them.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

PyTree = Any
Path = tuple[str, ...]


@functools.partial(jax.jit, static_argnames=("model", "layer"))
def grad_cam(
    model: nn.Module,
    variables: PyTree,
    images: Float[Array, "batch height width channels"],
    classes: Int[Array, " batch"],
    *,
    layer: Path,
) -> Float[Array, "batch rows columns"]:
    """What of a layer's feature maps speaks for a class.

    The maps are added up, each with the mean over its pixels of the derivative of the class's logit as
    weight, and what is negative in the sum is set to 0.

    Args:
      model: a classifier that gives `models.Outputs`.
      variables: its parameters and running statistics.
      images: what the model is given.
      classes: index of the class that is asked about, for each image.
      layer: path of the module whose output is looked at, such as one of `resnet_layers`.

    Returns:
      One map an image, in logits per unit of feature; `at_pixels` brings it to the image's pixels.

    Raises:
      ValueError: the model has no such layer.

    Reference: Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization".
    """

    def look(shift: Array | None) -> tuple[Array, Array]:
        seen = []

        def watch(call: Any, arguments: Any, options: Any, context: Any) -> Any:
            result = call(*arguments, **options)
            if context.module.path == layer and context.method_name == "__call__":
                result = result if shift is None else result + shift
                seen.append(result)
            return result

        with nn.intercept_methods(watch):
            outputs: Any = model.apply(variables, images, train=False)
        if len(seen) != 1:
            raise ValueError(f"{type(model).__name__} runs no layer {'/'.join(layer)} once")
        # An image's logits depend on no other image, so the sum's derivative is that of each.
        return outputs.logits[jnp.arange(len(images)), classes].sum(), seen[0]

    shape = jax.eval_shape(lambda: look(None)[1])
    slopes, maps = jax.grad(look, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    return jax.nn.relu(jnp.einsum("bijk,bk->bij", maps, slopes.mean((1, 2))))


def resnet_layers(variables: PyTree) -> tuple[Path, ...]:
    """The last block of each stage of the ResNet that classifies, or its stem where it has no stages.

    Args:
      variables: of a classifier of `lensjax.models`.
    """
    params = variables["params"]
    name = "cnn" if "cnn" in params else "resnet"
    blocks = sorted(key for key in params[name] if key.startswith("layer"))
    last = {block.split("_")[0]: block for block in blocks}
    return tuple((name, block) for block in last.values()) or ((name, "bn1"),)


def at_pixels(maps: Float[np.ndarray, "n rows columns"], size: int) -> Float[np.ndarray, "n s s"]:
    """Maps of a ResNet's layer at each pixel of its image, by linear interpolation.

    With the ResNet's strides and paddings, place i of a map lies over pixel `stride * i`: a map that was
    stretched over the whole image would be off by up to half a stride.

    Args:
      maps: square, of a layer whose stride is the power of two that fits their size.
      size: side of the image, pixels.
    """
    places = maps.shape[1]
    stride = 2 ** int(np.ceil(np.log2(size / places)))
    position = np.minimum(np.arange(size) / stride, places - 1)
    matrix = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(places)))
    return np.einsum("ri,nij,cj->nrc", matrix, maps, matrix)


def attentions(
    model: nn.Module,
    variables: PyTree,
    images: Float[Array, "batch height width channels"],
    **options: Any,
) -> Float[Array, "layers batch heads tokens tokens"]:
    """The attention of every block of a model's transformer: how much each token (row) takes of each.

    Args:
      model: a ViT, or a classifier that has one.
      variables: its parameters and running statistics.
      images: what the model is given.
      **options: what else the model is to be called with, such as `train`.

    Raises:
      ValueError: the model has no transformer.
    """
    apply = functools.partial(model.apply, mutable=["intermediates"], **options)
    _, state = jax.jit(apply)(variables, images)
    kept = state.get("intermediates", {})
    blocks = kept.get("vit", kept)
    if "blocks_0" not in blocks:
        raise ValueError(f"{type(model).__name__} has no transformer")
    names = [f"blocks_{index}" for index in range(len(blocks))]
    return jnp.stack([blocks[name]["attn"]["attention"][0] for name in names])


def attention_rollout(
    attentions: Float[Array, "layers batch heads tokens tokens"],
) -> Float[Array, "batch tokens-1"]:
    """How much of each patch reaches the class token through all blocks.

    In each block half of a token is taken to be its own, by the path around the attention, and half the
    mean of the heads' attention; the blocks' matrices are multiplied.

    Args:
      attentions: of each block, the first one first; token 0 is the class token.

    Returns:
      The class token's share of each patch; what is missing to a sum of 1 is its share of itself.

    Reference: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers".
    """
    tokens = attentions.shape[-1]
    own = jnp.eye(tokens, dtype=attentions.dtype)[None, None]
    mixed = (attentions.mean(2) + own) / 2
    mixed = mixed / mixed.sum(-1, keepdims=True)
    rolled = functools.reduce(lambda before, block: block @ before, mixed)
    return rolled[:, 0, 1:]
