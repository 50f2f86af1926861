"""Whose names a state dict uses, and the same arrays under the names of `tables`.

Known are torchvision's names, those of DINO and timm, Hugging Face's ViTModel and the reference's own two
models, each perhaps behind prefixes that wrapping modules left.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np

from lensjax.errors import UserError
from lensjax.weights.tables import TABLES, translate

PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.")
HUGGING_FACE_PREFIX = "vit."

# What each architecture's names look like, the two that hold the others first.
SIGNS = {
    "lens_vit_pinn": r"alpha_proj\..*|cnn\.(conv1|bn1|layer\d|fc)\..*",
    "baseline_cnn": r"resnet\.(conv1|bn1|layer\d|fc)\..*",
    "dino_vits16": r"(vit\.)?(cls_token|pos_embed|blocks\..*|embeddings\..*|encoder\.layer\..*)",
    "resnet18": r"(conv1|bn1|layer\d)\..*",
}

# Arrays that files of an architecture may have beyond it, and what they are.
EXTRAS: dict[str, dict[str, str]] = {
    "resnet18": {},
    "dino_vits16": {
        r"head\..*": "the head that was trained on top",
        r"(fc|classifier)\..*": "a classifier on top",
        r"pooler\..*": "Hugging Face's pooler",
        r"embeddings\.mask_token": "Hugging Face's mask token",
    },
    "baseline_cnn": {},
    "lens_vit_pinn": {},
}

# Hugging Face's templates and DINO's; query, key and value are apart there, see `_fuse`.
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
FUSED = ("query", "key", "value")


@dataclasses.dataclass(frozen=True)
class Named:
    """A state dict under the names of `tables`.

    Attributes:
      architecture: one of `tables.TABLES`.
      arrays: by those names, without extras and counts of batches.
      scheme: whose names the source used.
      prefix: what stood before the source's names.
      extras: the name, without prefix, of each array that is known and not used, with what it is.
      batch_counts: PyTorch's `num_batches_tracked`, by name.
      problems: what is wrong with the names.
    """

    architecture: str
    arrays: dict[str, np.ndarray]
    scheme: str
    prefix: str
    extras: dict[str, str]
    batch_counts: dict[str, int]
    problems: list[str]

    def source_name(self, key: str) -> str:
        """What the source calls, or would call, the array of a name of `tables`."""
        if self.scheme != "Hugging Face":
            return self.prefix + key
        for theirs, dino in HUGGING_FACE.items():
            if (name := translate(dino, theirs, key)) is not None:
                return self.prefix + name
        for part in ("weight", "bias"):
            fused = f"encoder.layer.{{block}}.attention.attention.({'|'.join(FUSED)}).{part}"
            if (name := translate(f"blocks.{{block}}.attn.qkv.{part}", fused, key)) is not None:
                return self.prefix + name
        return self.prefix + key


def recognise(keys: Iterable[str]) -> str | None:
    """The architecture that names without their prefixes belong to; None where none does."""
    keys = list(keys)
    for architecture, sign in SIGNS.items():
        if any(re.fullmatch(sign, key) for key in keys):
            return architecture
    return None


def rename(state_dict: Mapping[str, np.ndarray], architecture: str | None = None) -> Named:
    """A state dict's arrays under the names of `tables`.

    Args:
      state_dict: arrays by PyTorch's names.
      architecture: what it is; None to see from the names.

    Raises:
      UserError: the names are of no known architecture, or of another than named.
    """
    prefix, stripped = _without_prefixes(state_dict)
    found = recognise(stripped)
    if architecture is None and found is None:
        some = ", ".join(list(state_dict)[:3])
        raise UserError(
            f"the names ({some}, ...) are of no known architecture; known are {', '.join(TABLES)}"
        )
    if architecture is not None and architecture not in TABLES:
        raise UserError(f"{architecture!r} is no known architecture: {', '.join(TABLES)}")
    if architecture is not None and found not in (None, architecture):
        raise UserError(f"the names in the file are those of {found}, not of {architecture}")
    known = architecture or found or ""

    scheme = {"resnet18": "torchvision", "dino_vits16": "DINO or timm"}.get(known, "the reference")
    if known == "dino_vits16":
        vit_prefix, stripped = _strip(stripped, HUGGING_FACE_PREFIX)
        prefix += vit_prefix
        if any(key.startswith(("embeddings.", "encoder.layer.")) for key in stripped):
            scheme = "Hugging Face"
    named = Named(known, {}, scheme, prefix, {}, {}, [])
    for key, array in stripped.items():
        if key.endswith("num_batches_tracked") and array.size == 1:
            named.batch_counts[key] = int(array.item())
            continue
        reason = next((why for sign, why in EXTRAS[known].items() if re.fullmatch(sign, key)), None)
        if reason is not None:
            named.extras[key] = reason
            continue
        named.arrays[key] = array
    if scheme == "Hugging Face":
        return dataclasses.replace(named, arrays=_from_hugging_face(named))
    return named


def _without_prefixes(
    state_dict: Mapping[str, np.ndarray],
) -> tuple[str, dict[str, np.ndarray]]:
    """What stood before the names, and the arrays without it."""
    taken, arrays = "", dict(state_dict)
    while True:
        for prefix in PREFIXES:
            found, arrays = _strip(arrays, prefix)
            taken += found
            if found:
                break
        else:
            return taken, arrays


def _strip(arrays: dict[str, np.ndarray], prefix: str) -> tuple[str, dict[str, np.ndarray]]:
    """The prefix, if any name has it, and the arrays without it."""
    if not any(key.startswith(prefix) for key in arrays):
        return "", arrays
    stripped: dict[str, np.ndarray] = {}
    for key, array in arrays.items():
        short = key.removeprefix(prefix)
        if short in stripped:
            raise UserError(f"the file has {short} twice, with and without the prefix {prefix}")
        stripped[short] = array
    return prefix, stripped


def _from_hugging_face(named: Named) -> dict[str, np.ndarray]:
    """Hugging Face's arrays under DINO's names; names that are not known stay as they are."""
    renamed: dict[str, np.ndarray] = {}
    apart: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    for key, array in named.arrays.items():
        match = re.fullmatch(
            rf"encoder\.layer\.(\d+)\.attention\.attention\.({'|'.join(FUSED)})\.(weight|bias)", key
        )
        if match is not None:
            block, which, part = match.groups()
            apart.setdefault((block, part), {})[which] = array
            continue
        names = (translate(theirs, dino, key) for theirs, dino in HUGGING_FACE.items())
        renamed[next((name for name in names if name is not None), key)] = array
    for (block, part), parts in apart.items():
        name = f"{named.prefix}encoder.layer.{block}.attention.attention.{{}}.{part}"
        renamed[f"blocks.{block}.attn.qkv.{part}"] = _fuse(parts, name, named.problems)
    return renamed


def _fuse(parts: Mapping[str, np.ndarray], name: str, problems: list[str]) -> np.ndarray:
    """Query, key and value one under the other, as DINO has them."""
    missing = [name.format(which) for which in FUSED if which not in parts]
    shapes = [array.shape for array in parts.values()]
    problems += [f"{absent} is missing" for absent in missing]
    if len(set(shapes)) > 1 or () in shapes:
        said = ", ".join(f"{which} {array.shape}" for which, array in parts.items())
        problems.append(f"{name.format('(query|key|value)')} differ in shape: {said}")
    elif not missing:
        return np.concatenate([parts[which] for which in FUSED])
    # It is said already; an array of the right shape keeps it from being said again.
    rows, *rest = max(shapes) or (0,)
    return np.broadcast_to(np.float32(0), (3 * rows, *rest))
