"""Tables that map PyTorch's names and array layouts to those of lensjax's modules.

Each entry is valid in both directions: a key of the state dict, a path in the Flax variables, and the layout
of the array in each. Words in braces match any integer, the same on both sides.
"""

import dataclasses
import re
from collections.abc import Callable

import numpy as np

from lensjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Layout:
    """Conversion of an array between the layouts of PyTorch and Flax.

    Attributes:
      to_flax, to_torch: convert an array; inverse to each other.
    """

    to_flax: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda array: array, lambda array: array)
LINEAR = Layout(np.transpose, np.transpose)
CONVOLUTION = Layout(
    lambda array: array.transpose(2, 3, 1, 0),  # out, in, height, width -> height, width, in, out
    lambda array: array.transpose(3, 2, 0, 1),
)


@dataclasses.dataclass(frozen=True)
class ParameterMapping:
    """Mapping of one parameter, or of a family of parameters, between PyTorch and Flax.

    Attributes:
      torch: template of the state dict's keys.
      flax: template of the paths in the variables, including the collection.
      layout: conversion between the array layouts.
    """

    torch: str
    flax: str
    layout: Layout = SAME

    def flax_path(self, torch_key: str) -> str | None:
        """Flax path for a PyTorch key; None if the key does not match."""
        return translate(self.torch, self.flax, torch_key)

    def torch_key(self, flax_path: str) -> str | None:
        """PyTorch key for a Flax path; None if the path does not match."""
        return translate(self.flax, self.torch, flax_path)


def translate(source: str, target: str, name: str) -> str | None:
    """Rewrites a name from the template `source` to `target`; None if it does not match `source`."""
    pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[0-9]+)", re.escape(source))
    match = re.fullmatch(pattern, name)
    return None if match is None else target.format(**match.groupdict())


def _batch_norm(torch: str, flax: str) -> list[ParameterMapping]:
    return [
        ParameterMapping(f"{torch}.weight", f"params/{flax}/scale"),
        ParameterMapping(f"{torch}.bias", f"params/{flax}/bias"),
        ParameterMapping(f"{torch}.running_mean", f"batch_stats/{flax}/mean"),
        ParameterMapping(f"{torch}.running_var", f"batch_stats/{flax}/var"),
    ]


def _layer(torch: str, flax: str, layout: Layout) -> list[ParameterMapping]:
    return [
        ParameterMapping(f"{torch}.weight", f"params/{flax}/kernel", layout),
        ParameterMapping(f"{torch}.bias", f"params/{flax}/bias"),
    ]


def _layer_norm(torch: str, flax: str) -> list[ParameterMapping]:
    return [
        ParameterMapping(f"{torch}.weight", f"params/{flax}/scale"),
        ParameterMapping(f"{torch}.bias", f"params/{flax}/bias"),
    ]


RESNET = [
    *_layer("conv1", "conv1", CONVOLUTION),
    *_batch_norm("bn1", "bn1"),
    ParameterMapping(
        "layer{stage}.{block}.conv{n}.weight", "params/layer{stage}_{block}/conv{n}/kernel", CONVOLUTION
    ),
    *_batch_norm("layer{stage}.{block}.bn{n}", "layer{stage}_{block}/bn{n}"),
    ParameterMapping(
        "layer{stage}.{block}.downsample.0.weight",
        "params/layer{stage}_{block}/downsample_conv/kernel",
        CONVOLUTION,
    ),
    *_batch_norm("layer{stage}.{block}.downsample.1", "layer{stage}_{block}/downsample_bn"),
    *_layer("fc", "fc", LINEAR),
]

VIT = [
    ParameterMapping("cls_token", "params/cls_token"),
    ParameterMapping("pos_embed", "params/pos_embed"),
    *_layer("patch_embed.proj", "patch_embed", CONVOLUTION),
    *_layer_norm("blocks.{block}.norm{n}", "blocks_{block}/norm{n}"),
    *_layer("blocks.{block}.attn.qkv", "blocks_{block}/attn/qkv", LINEAR),
    *_layer("blocks.{block}.attn.proj", "blocks_{block}/attn/proj", LINEAR),
    *_layer("blocks.{block}.mlp.fc{n}", "blocks_{block}/fc{n}", LINEAR),
    *_layer_norm("norm", "norm"),
]


def _add_prefix(module: str, mappings: list[ParameterMapping]) -> list[ParameterMapping]:
    """Mappings of a module for a parent in which it has the name `module`."""
    return [
        ParameterMapping(
            f"{module}.{mapping.torch}", mapping.flax.replace("/", f"/{module}/", 1), mapping.layout
        )
        for mapping in mappings
    ]


TABLES: dict[str, list[ParameterMapping]] = {
    "resnet18": RESNET,
    "dino_vits16": VIT,
    "baseline_cnn": _add_prefix("resnet", RESNET),
    "lens_vit_pinn": [
        *_add_prefix("vit", VIT),
        *_layer("alpha_proj", "alpha_proj", LINEAR),
        *_add_prefix("cnn", RESNET),
    ],
}


def check_architecture(architecture: str) -> None:
    """Checks that `TABLES` has an architecture.

    Raises:
      UserError: if it does not.
    """
    if architecture not in TABLES:
        raise UserError(f"unknown architecture {architecture!r}; expected {' or '.join(TABLES)}")
