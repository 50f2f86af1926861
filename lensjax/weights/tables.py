"""How PyTorch's names and layouts correspond to those of lensjax's modules.

One row holds both ways: a state dict's key, the path in the Flax variables, and how the array is laid
out in each. Words in braces stand for any whole number, the same on both sides.
"""

import dataclasses
import re
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one array is laid out on the two sides.

    Attributes:
      to_flax, to_torch: give the other side's array; inverse to each other.
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
class Row:
    """One correspondence.

    Attributes:
      torch: template of the state dict's keys.
      flax: template of the paths in the variables, from the collection on.
      layout: how the arrays correspond.
    """

    torch: str
    flax: str
    layout: Layout = SAME

    def flax_path(self, torch_key: str) -> str | None:
        """The path that belongs to a key; None where the row is not about it."""
        return translate(self.torch, self.flax, torch_key)

    def torch_key(self, flax_path: str) -> str | None:
        """The key that belongs to a path; None where the row is not about it."""
        return translate(self.flax, self.torch, flax_path)


def translate(source: str, target: str, name: str) -> str | None:
    """A name that fits the template `source`, rewritten as `target`; None where it does not fit."""
    pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[0-9]+)", re.escape(source))
    match = re.fullmatch(pattern, name)
    return None if match is None else target.format(**match.groupdict())


def _batch_norm(torch: str, flax: str) -> list[Row]:
    return [
        Row(f"{torch}.weight", f"params/{flax}/scale"),
        Row(f"{torch}.bias", f"params/{flax}/bias"),
        Row(f"{torch}.running_mean", f"batch_stats/{flax}/mean"),
        Row(f"{torch}.running_var", f"batch_stats/{flax}/var"),
    ]


def _layer(torch: str, flax: str, layout: Layout) -> list[Row]:
    return [
        Row(f"{torch}.weight", f"params/{flax}/kernel", layout),
        Row(f"{torch}.bias", f"params/{flax}/bias"),
    ]


def _layer_norm(torch: str, flax: str) -> list[Row]:
    return [
        Row(f"{torch}.weight", f"params/{flax}/scale"),
        Row(f"{torch}.bias", f"params/{flax}/bias"),
    ]


RESNET = [
    *_layer("conv1", "conv1", CONVOLUTION),
    *_batch_norm("bn1", "bn1"),
    Row(
        "layer{stage}.{block}.conv{n}.weight",
        "params/layer{stage}_{block}/conv{n}/kernel",
        CONVOLUTION,
    ),
    *_batch_norm("layer{stage}.{block}.bn{n}", "layer{stage}_{block}/bn{n}"),
    Row(
        "layer{stage}.{block}.downsample.0.weight",
        "params/layer{stage}_{block}/downsample_conv/kernel",
        CONVOLUTION,
    ),
    *_batch_norm("layer{stage}.{block}.downsample.1", "layer{stage}_{block}/downsample_bn"),
    *_layer("fc", "fc", LINEAR),
]

VIT = [
    Row("cls_token", "params/cls_token"),
    Row("pos_embed", "params/pos_embed"),
    *_layer("patch_embed.proj", "patch_embed", CONVOLUTION),
    *_layer_norm("blocks.{block}.norm{n}", "blocks_{block}/norm{n}"),
    *_layer("blocks.{block}.attn.qkv", "blocks_{block}/attn/qkv", LINEAR),
    *_layer("blocks.{block}.attn.proj", "blocks_{block}/attn/proj", LINEAR),
    *_layer("blocks.{block}.mlp.fc{n}", "blocks_{block}/fc{n}", LINEAR),
    *_layer_norm("norm", "norm"),
]


def _inside(module: str, rows: list[Row]) -> list[Row]:
    """The rows of a module, for one that holds it under a name."""
    return [
        Row(f"{module}.{row.torch}", row.flax.replace("/", f"/{module}/", 1), row.layout)
        for row in rows
    ]


TABLES: dict[str, list[Row]] = {
    "resnet18": RESNET,
    "dino_vits16": VIT,
    "baseline_cnn": _inside("resnet", RESNET),
    "lens_vit_pinn": [
        *_inside("vit", VIT),
        *_layer("alpha_proj", "alpha_proj", LINEAR),
        *_inside("cnn", RESNET),
    ],
}
