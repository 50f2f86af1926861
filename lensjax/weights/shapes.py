"""Names and shapes of the arrays in a complete PyTorch state dict of each architecture."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Shape = tuple[int, ...]
Sizes = dict[str, Any]  # integers, or a tuple with one integer per stage of a ResNet

# Sizes of the published weights and of the reference, by the names of lensjax's config.
PUBLISHED_SIZES: dict[str, Sizes] = {
    "resnet18": {"width": 64, "stage_sizes": (2, 2, 2, 2)},
    "dino_vits16": {"embedding_size": 384, "depth": 12, "patch_size": 16, "position_grid": 14},
    "baseline_cnn": {"width": 64, "stage_sizes": (2, 2, 2, 2)},
    "lens_vit_pinn": {
        "embedding_size": 384,
        "depth": 12,
        "patch_size": 16,
        "position_grid": 14,
        "image_size": 150,
        "width": 64,
        "stage_sizes": (2, 2, 2, 2),
    },
}
FIXED_SIZE = ("resnet18", "dino_vits16")


def infer_sizes(architecture: str, arrays: Mapping[str, np.ndarray]) -> Sizes:
    """Infers the sizes of the network in a state dict.

    The architectures in `FIXED_SIZE` have only one size. The others may differ from the reference, as in the
    configs' quick variants; the numbers of blocks are read from the names of the arrays, and each other size
    from the shape of one array.

    Args:
      architecture: one of `PUBLISHED_SIZES`.
      arrays: the state dict.

    Returns:
      The sizes, by the names of lensjax's config; the published size if its arrays are missing.
    """
    published = PUBLISHED_SIZES[architecture]
    if architecture in FIXED_SIZE:
        return published
    shapes = {key: array.shape for key, array in arrays.items()}
    blocks = [int(found[1]) for key in shapes if (found := re.match(r"vit\.blocks\.(\d+)\.", key))]
    inferred: Sizes = {
        "width": _last_dimension(shapes, "resnet.bn1.weight") or _last_dimension(shapes, "cnn.bn1.weight"),
        "stage_sizes": _stage_sizes(shapes),
        "embedding_size": _last_dimension(shapes, "vit.norm.weight"),
        "depth": max(blocks) + 1 if blocks else None,
        "patch_size": _last_dimension(shapes, "vit.patch_embed.proj.weight"),
        "position_grid": _square_root((shapes.get("vit.pos_embed", ())[1:2] or (0,))[0] - 1),
        "image_size": _square_root((_last_dimension(shapes, "alpha_proj.bias") or 0) // 2),
    }
    return {name: inferred[name] or size for name, size in published.items()}


def torch_shapes(
    architecture: str, sizes: Mapping[str, Any], *, with_classifier: bool = True
) -> dict[str, Shape]:
    """Shapes of all arrays of a state dict, by PyTorch name, without `num_batches_tracked`.

    Args:
      architecture: one of `PUBLISHED_SIZES`.
      sizes: the sizes, see `infer_sizes`.
      with_classifier: whether a resnet18 includes its `fc`. Ignored for other architectures.
    """
    if architecture == "resnet18":
        num_classes = 1000 if with_classifier else 0
        return _resnet(sizes, channels=3, num_classes=num_classes, stem_bias=False)
    if architecture == "dino_vits16":
        return _vit(sizes, channels=3)
    if architecture == "baseline_cnn":
        return _add_prefix("resnet", _resnet(sizes, channels=1))
    numbers = 2 * sizes["image_size"] ** 2
    return {
        **_add_prefix("vit", _vit(sizes, channels=1)),
        "alpha_proj.weight": (numbers, sizes["embedding_size"]),
        "alpha_proj.bias": (numbers,),
        **_add_prefix("cnn", _resnet(sizes, channels=2)),
    }


def _resnet(
    sizes: Mapping[str, Any], *, channels: int, num_classes: int = 3, stem_bias: bool = True
) -> dict[str, Shape]:
    width = sizes["width"]
    shapes: dict[str, Shape] = {"conv1.weight": (width, channels, 7, 7)}
    if stem_bias:
        shapes["conv1.bias"] = (width,)
    shapes |= _batch_norm("bn1", width)
    before = width
    for stage, num_blocks in enumerate(sizes["stage_sizes"]):
        features = width * 2**stage
        for block in range(num_blocks):
            name = f"layer{stage + 1}.{block}"
            shapes[f"{name}.conv1.weight"] = (features, before, 3, 3)
            shapes |= _batch_norm(f"{name}.bn1", features)
            shapes[f"{name}.conv2.weight"] = (features, features, 3, 3)
            shapes |= _batch_norm(f"{name}.bn2", features)
            if before != features:
                shapes[f"{name}.downsample.0.weight"] = (features, before, 1, 1)
                shapes |= _batch_norm(f"{name}.downsample.1", features)
            before = features
    return shapes | (_layer("fc", num_classes, before) if num_classes else {})


def _vit(sizes: Mapping[str, Any], *, channels: int) -> dict[str, Shape]:
    size, patch = sizes["embedding_size"], sizes["patch_size"]
    shapes: dict[str, Shape] = {
        "cls_token": (1, 1, size),
        "pos_embed": (1, 1 + sizes["position_grid"] ** 2, size),
        "patch_embed.proj.weight": (size, channels, patch, patch),
        "patch_embed.proj.bias": (size,),
    }
    for block in range(sizes["depth"]):
        name = f"blocks.{block}"
        shapes |= _layer_norm(f"{name}.norm1", size)
        shapes |= _layer(f"{name}.attn.qkv", 3 * size, size)
        shapes |= _layer(f"{name}.attn.proj", size, size)
        shapes |= _layer_norm(f"{name}.norm2", size)
        shapes |= _layer(f"{name}.mlp.fc1", 4 * size, size)
        shapes |= _layer(f"{name}.mlp.fc2", size, 4 * size)
    return shapes | _layer_norm("norm", size)


def _layer(name: str, outputs: int, inputs: int) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _layer_norm(name: str, size: int) -> dict[str, Shape]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def _batch_norm(name: str, size: int) -> dict[str, Shape]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (size,) for part in parts}


def _add_prefix(module: str, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    return {f"{module}.{name}": shape for name, shape in shapes.items()}


def _last_dimension(shapes: Mapping[str, Shape], key: str) -> int | None:
    """Last dimension of an array; None if it is missing or a scalar."""
    return (shapes.get(key) or (None,))[-1]


def _stage_sizes(keys: Iterable[str]) -> tuple[int, ...] | None:
    """Number of blocks in each stage of the ResNet, up to the first gap in their indices."""
    named = (re.match(r"(?:resnet|cnn)\.layer(\d+)\.(\d+)\.", key) for key in keys)
    blocks = {(int(found[1]), int(found[2])) for found in named if found}
    stages: list[int] = []
    while (len(stages) + 1, 0) in blocks:
        stage = len(stages) + 1
        stages.append(next(n for n in itertools.count(1) if (stage, n) not in blocks))
    return tuple(stages) or None


def _square_root(number: int) -> int | None:
    return math.isqrt(number) if number > 0 else None
