"""Recognizes well-known networks that lensjax does not have, for error messages."""

import re
from collections.abc import Mapping

import numpy as np

NAMES = {
    "resnet18": {
        r"layer1\.0\.conv3\.weight": "a ResNet with bottleneck blocks, such as ResNet50",
        r"layer1\.2\.conv1\.weight": "a deeper ResNet, such as ResNet34",
    },
    "dino_vits16": {
        r"blocks\.\d+\.ls1\.gamma|blocks\.\d+\.\d+\.ls1\.gamma|encoder\.layer\.\d+\.layer_scale1\.lambda1": (
            "DINOv2 or another ViT with layer scale"
        ),
        r"dist(illation)?_token|embeddings\.distillation_token": "a distilled DeiT",
        r"decoder_blocks\.0\..*|decoder\.decoder_layers\..*": "a masked autoencoder",
    },
}


def recognize(architecture: str, arrays: Mapping[str, np.ndarray]) -> str | None:
    """Describes the network in a state dict if it is a known relative of an architecture, but not the same.

    Args:
      architecture: one of `tables.TABLES`.
      arrays: arrays by name without prefixes, in any naming scheme.

    Returns:
      The description; None if there is none.
    """
    for pattern, description in NAMES.get(architecture, {}).items():
        if any(re.fullmatch(pattern, name) for name in arrays):
            return description
    if architecture != "dino_vits16":
        return None
    shapes = {name: array.shape for name, array in arrays.items()}
    token = shapes.get("cls_token", shapes.get("embeddings.cls_token", ()))
    kernel = shapes.get(
        "patch_embed.proj.weight", shapes.get("embeddings.patch_embeddings.projection.weight", ())
    )
    size, patch = (token or (384,))[-1], (kernel or (16,))[-1]
    blocks = {found[1] for name in shapes if (found := re.match(r"(?:blocks|encoder\.layer)\.(\d+)\.", name))}
    if (size, patch) == (384, 16) and len(blocks) <= 12:
        return None
    return f"a ViT with embedding size {size}, patch size {patch} and {len(blocks)} blocks"
