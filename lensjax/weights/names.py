"""Naming schemes of PyTorch state dicts, and renaming to the names of `tables`.

Known schemes are those of torchvision, DINO and timm, Hugging Face's ViTModel, and the reference's two
models, with or without the prefixes of wrapper modules.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np

from lensjax.errors import UserError
from lensjax.weights.tables import TABLES, translate

PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.")
HUGGING_FACE_PREFIX = "vit."

# Patterns of the names of each architecture. The two architectures that contain the others come first.
PATTERNS = {
    "lens_vit_pinn": r"alpha_proj\..*|cnn\.(conv1|bn1|layer\d|fc)\..*",
    "baseline_cnn": r"resnet\.(conv1|bn1|layer\d|fc)\..*",
    "dino_vits16": r"(vit\.)?(cls_token|pos_embed|blocks\..*|embeddings\..*|encoder\.layer\..*)",
    "resnet18": r"(conv1|bn1|layer\d)\..*",
}

# Known arrays in the files of an architecture that do not belong to it, with a description.
UNUSED_PATTERNS: dict[str, dict[str, str]] = {
    "resnet18": {},
    "dino_vits16": {
        r"head\..*": "the head that was trained with the network",
        r"(fc|classifier)\..*": "a classifier head",
        r"pooler\..*": "Hugging Face's pooler",
        r"embeddings\.mask_token": "Hugging Face's mask token",
    },
    "baseline_cnn": {},
    "lens_vit_pinn": {},
}

# DINO's names by Hugging Face's. Hugging Face has separate query, key and value; see `_concatenate_qkv`.
HUGGING_FACE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
    **{
        f"encoder.layer.{{block}}.{theirs}.{part}": f"blocks.{{block}}.{dino}.{part}"
        for theirs, dino in {
            "layernorm_before": "norm1",
            "attention.output.dense": "attn.proj",
            "layernorm_after": "norm2",
            "intermediate.dense": "mlp.fc1",
            "output.dense": "mlp.fc2",
        }.items()
        for part in ("weight", "bias")
    },
}
QUERY_KEY_VALUE = ("query", "key", "value")


@dataclasses.dataclass(frozen=True)
class RenamedStateDict:
    """A state dict under the names of `tables`.

    Attributes:
      architecture: one of `tables.TABLES`.
      arrays: arrays by name, without unused arrays and `num_batches_tracked`.
      naming_scheme: naming scheme of the source.
      prefix: prefix of the names in the source.
      unused: descriptions of the known arrays that are not used, by name without prefix.
      batch_counts: PyTorch's `num_batches_tracked`, by name.
      problems: errors in the names.
    """

    architecture: str
    arrays: dict[str, np.ndarray]
    naming_scheme: str
    prefix: str
    unused: dict[str, str]
    batch_counts: dict[str, int]
    problems: list[str]

    def source_name(self, key: str) -> str:
        """Translates a name of `tables` into the naming scheme of the source."""
        if self.naming_scheme != "Hugging Face":
            return self.prefix + key
        for theirs, dino in HUGGING_FACE.items():
            if (name := translate(dino, theirs, key)) is not None:
                return self.prefix + name
        for part in ("weight", "bias"):
            fused = f"encoder.layer.{{block}}.attention.attention.({'|'.join(QUERY_KEY_VALUE)}).{part}"
            if (name := translate(f"blocks.{{block}}.attn.qkv.{part}", fused, key)) is not None:
                return self.prefix + name
        return self.prefix + key


def detect_architecture(keys: Iterable[str]) -> str | None:
    """Detects the architecture from names without prefixes; None if it is unknown."""
    keys = list(keys)
    for architecture, pattern in PATTERNS.items():
        if any(re.fullmatch(pattern, key) for key in keys):
            return architecture
    return None


def rename(state_dict: Mapping[str, np.ndarray], architecture: str | None = None) -> RenamedStateDict:
    """Renames the arrays of a state dict to the names of `tables`.

    Args:
      state_dict: arrays by PyTorch name.
      architecture: one of `tables.TABLES`; None to detect it from the names.

    Raises:
      UserError: if the architecture is unknown, or the names belong to a different one.
    """
    prefix, stripped = _strip_prefixes(state_dict)
    found = detect_architecture(stripped)
    if architecture is None and found is None:
        some = ", ".join(list(state_dict)[:3])
        raise UserError(f"unknown architecture with the names {some}, ...; expected {' or '.join(TABLES)}")
    if architecture is not None and architecture not in TABLES:
        raise UserError(f"unknown architecture {architecture!r}; expected {' or '.join(TABLES)}")
    if architecture is not None and found not in (None, architecture):
        raise UserError(f"the names in the file belong to {found}, not to {architecture}")
    known = architecture or found or ""

    naming_scheme = {"resnet18": "torchvision", "dino_vits16": "DINO or timm"}.get(known, "the reference")
    if known == "dino_vits16":
        vit_prefix, stripped = _strip_prefix(stripped, HUGGING_FACE_PREFIX)
        prefix += vit_prefix
        if any(key.startswith(("embeddings.", "encoder.layer.")) for key in stripped):
            naming_scheme = "Hugging Face"
    renamed = RenamedStateDict(known, {}, naming_scheme, prefix, {}, {}, [])
    for key, array in stripped.items():
        if key.endswith("num_batches_tracked") and array.size == 1:
            renamed.batch_counts[key] = int(array.item())
            continue
        unused = UNUSED_PATTERNS[known].items()
        description = next((text for pattern, text in unused if re.fullmatch(pattern, key)), None)
        if description is not None:
            renamed.unused[key] = description
            continue
        renamed.arrays[key] = array
    if naming_scheme == "Hugging Face":
        return dataclasses.replace(renamed, arrays=_rename_hugging_face(renamed))
    return renamed


def _strip_prefixes(state_dict: Mapping[str, np.ndarray]) -> tuple[str, dict[str, np.ndarray]]:
    """Removes the prefixes of wrapper modules; returns them and the arrays by the remaining names."""
    removed, arrays = "", dict(state_dict)
    while True:
        for prefix in PREFIXES:
            found, arrays = _strip_prefix(arrays, prefix)
            removed += found
            if found:
                break
        else:
            return removed, arrays


def _strip_prefix(arrays: dict[str, np.ndarray], prefix: str) -> tuple[str, dict[str, np.ndarray]]:
    """Removes a prefix; returns it, or "" if no name has it, and the arrays by the remaining names."""
    if not any(key.startswith(prefix) for key in arrays):
        return "", arrays
    stripped: dict[str, np.ndarray] = {}
    for key, array in arrays.items():
        short = key.removeprefix(prefix)
        if short in stripped:
            raise UserError(f"the file contains {short} both with and without the prefix {prefix}")
        stripped[short] = array
    return prefix, stripped


def _rename_hugging_face(source: RenamedStateDict) -> dict[str, np.ndarray]:
    """Hugging Face's arrays under DINO's names; unknown names are kept."""
    renamed: dict[str, np.ndarray] = {}
    separate: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for key, array in source.arrays.items():
        match = re.fullmatch(
            rf"encoder\.layer\.(\d+)\.attention\.attention\.({'|'.join(QUERY_KEY_VALUE)})\.(weight|bias)", key
        )
        if match is not None:
            block, which, part = match.groups()
            separate.setdefault((block, part), {})[which] = array
            continue
        names = (translate(theirs, dino, key) for theirs, dino in HUGGING_FACE.items())
        renamed[next((name for name in names if name is not None), key)] = array
    for (block, part), parts in separate.items():
        name = f"{source.prefix}encoder.layer.{block}.attention.attention.{{}}.{part}"
        renamed[f"blocks.{block}.attn.qkv.{part}"] = _concatenate_qkv(parts, name, source.problems)
    return renamed


def _concatenate_qkv(parts: Mapping[str, np.ndarray], name: str, problems: list[str]) -> np.ndarray:
    """Concatenates query, key and value along the first axis, as in DINO."""
    missing = [name.format(which) for which in QUERY_KEY_VALUE if which not in parts]
    shapes = [array.shape for array in parts.values()]
    problems += [f"{absent} is missing" for absent in missing]
    if len(set(shapes)) > 1 or () in shapes:
        found = ", ".join(f"{which} {array.shape}" for which, array in parts.items())
        problems.append(f"{name.format('(query|key|value)')} differ in shape: {found}")
    elif not missing:
        return np.concatenate([parts[which] for which in QUERY_KEY_VALUE])
    # The problem is recorded; an array of the expected shape prevents a second report.
    rows, *rest = max(shapes) or (0,)
    return np.broadcast_to(np.float32(0), (3 * rows, *rest))
