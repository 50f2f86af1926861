"""Naming schemes of PyTorch state dicts, and their translation to the names of `tables`.

Known schemes are those of torchvision, DINO and timm, Hugging Face's ViTModel, and the reference's two
models. The network may be a module of a larger one, with any prefix, and may be inside wrapper modules.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np

from lensjax.errors import UserError
from lensjax.weights.other_networks import recognize
from lensjax.weights.tables import TABLES, check_architecture, translate

# Modules that PyTorch's wrappers (DataParallel, torch.compile, FSDP) insert anywhere in a name.
WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
# A name inside a network of any scheme, after the prefix of the network.
NETWORK = (
    r"(?P<prefix>(?:[^.]+\.)*?)(?:(?:vit|cnn|resnet)\.)?"
    r"(?:layer\d+\.\d+\.|blocks\.\d+\.|encoder\.layer\.\d+\.|(?:embeddings|patch_embed|alpha_proj)\.|"
    r"(?:cls_token|pos_embed)$)"
)
HUGGING_FACE_PREFIX = "vit."

# Patterns of the names of each architecture. The two architectures that contain the others come first.
PATTERNS = {
    "lens_vit_pinn": r"alpha_proj\..*|cnn\.(conv1|bn1|layer\d|fc)\..*",
    "baseline_cnn": r"resnet\.(conv1|bn1|layer\d|fc)\..*",
    "dino_vits16": r"(vit\.)?(cls_token|pos_embed|blocks\..*|embeddings\..*|encoder\.layer\..*)",
    "resnet18": r"(conv1|bn1|layer\d)\..*",
}

# Known arrays in the files of an architecture that do not belong to it, with a description.
AVERAGED = {"n_averaged": "the counter of AveragedModel"}
UNUSED_PATTERNS: dict[str, dict[str, str]] = {
    "resnet18": AVERAGED,
    "dino_vits16": AVERAGED
    | {
        r"head\..*": "the head that was trained with the network",
        r"(fc|classifier)\..*": "a classifier head",
        r"pooler\..*": "Hugging Face's pooler",
        r"embeddings\.mask_token": "Hugging Face's mask token",
    },
    "baseline_cnn": AVERAGED,
    "lens_vit_pinn": AVERAGED,
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
      prefix: prefix of the network's names in the source, without wrapper modules.
      wrappers: wrapper modules in the names of the source.
      unused: descriptions of the arrays that are not used, by name.
      batch_counts: PyTorch's `num_batches_tracked`, by name.
      problems: missing or mismatched query, key and value arrays, if they are separate.
    """

    architecture: str
    arrays: dict[str, np.ndarray]
    naming_scheme: str
    prefix: str
    wrappers: tuple[str, ...]
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


def rename(
    state_dict: Mapping[str, np.ndarray], architecture: str | None = None, prefix: str | None = None
) -> RenamedStateDict:
    """Renames the arrays of a state dict to the names of `tables`.

    Args:
      state_dict: arrays by PyTorch name.
      architecture: one of `tables.TABLES`; None to detect it from the names.
      prefix: module that contains the network, such as "encoder_q"; "." for the top level. Arrays outside it
        are not used. None to detect it from the names.

    Returns:
      The renamed arrays, with a description of the source.

    Raises:
      UserError: if the architecture is unknown, the names belong to a different one or to a known network
        that lensjax does not have, there are several networks and no prefix is given, no name begins with
        the prefix, or a name occurs both with and without a prefix or a wrapper module.
    """
    wrappers, stripped = _remove_wrappers(state_dict)
    found_prefix, stripped, outside = _select_network(stripped, prefix)
    found = detect_architecture(stripped)
    if architecture is None and found is None:
        some = ", ".join(list(state_dict)[:3])
        raise UserError(f"unknown architecture with the names {some}, ...; expected {' or '.join(TABLES)}")
    if architecture is not None:
        check_architecture(architecture)
    if architecture is not None and found not in (None, architecture):
        raise UserError(f"the names in the file belong to {found}, not to {architecture}")
    known = architecture or found or ""

    naming_scheme = {"resnet18": "torchvision", "dino_vits16": "DINO or timm"}.get(known, "the reference")
    if known == "dino_vits16":
        if any(key.startswith(HUGGING_FACE_PREFIX) for key in stripped):
            stripped = _strip_prefix(stripped, HUGGING_FACE_PREFIX)
            found_prefix += HUGGING_FACE_PREFIX
        if any(key.startswith(("embeddings.", "encoder.layer.")) for key in stripped):
            naming_scheme = "Hugging Face"
    if (other := recognize(known, stripped)) is not None:
        raise UserError(f"the weights are those of {other}, not of {known}, which lensjax needs")
    renamed = RenamedStateDict(known, {}, naming_scheme, found_prefix, wrappers, outside, {}, [])
    for key, array in stripped.items():
        if key.endswith("num_batches_tracked") and array.size == 1 and array.dtype.kind in "iu":
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


def _remove_wrappers(state_dict: Mapping[str, np.ndarray]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Removes wrapper modules anywhere in the names; returns them and the arrays by the remaining names."""
    removed: set[str] = set()
    arrays: dict[str, np.ndarray] = {}
    for name, array in state_dict.items():
        parts = [f"{part}." for part in name.split(".")]
        short = "".join(part for part in parts if part not in WRAPPERS).removesuffix(".")
        removed |= {*WRAPPERS} & {*parts}
        if short in arrays:
            found = " or ".join(sorted(removed))
            raise UserError(f"the file contains {short} both with and without the prefix {found}")
        arrays[short] = array
    return tuple(wrapper for wrapper in WRAPPERS if wrapper in removed), arrays


def _select_network(
    arrays: dict[str, np.ndarray], given: str | None
) -> tuple[str, dict[str, np.ndarray], dict[str, str]]:
    """Selects the network in the module `given`, or the only network if `given` is None.

    Returns:
      The prefix of its names, with a final dot; the arrays by the names after it; and descriptions of the
      arrays outside the given module.
    """
    matches = (re.match(NETWORK, key) for key in arrays)
    prefixes = sorted({match["prefix"] for match in matches if match is not None})
    if given is None:
        if len(prefixes) > 1:
            shown = " and ".join(prefix or "the top-level module (.)" for prefix in prefixes[:4])
            raise UserError(
                f"the file contains {len(prefixes)} networks, in {shown}; choose one, such as "
                f"--prefix {prefixes[-1].removesuffix('.')}"
            )
        prefix = prefixes[0] if prefixes else ""
        return prefix, _strip_prefix(arrays, prefix), {}
    parts = [f"{part}." for part in given.split(".") if part]
    prefix = "".join(part for part in parts if part not in WRAPPERS)
    others = () if prefix else tuple(filter(None, prefixes))
    outside = {key for key in arrays if not key.startswith(prefix) or key.startswith(others)}
    if len(outside) == len(arrays):
        raise UserError(f"no name begins with {prefix}; the names are {', '.join(list(arrays)[:3])}, ...")
    inside = {key.removeprefix(prefix): array for key, array in arrays.items() if key not in outside}
    return prefix, inside, {key: f"outside --prefix {given}" for key in arrays if key in outside}


def _strip_prefix(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Removes a prefix from the names that have it."""
    stripped: dict[str, np.ndarray] = {}
    for key, array in arrays.items():
        short = key.removeprefix(prefix)
        if short in stripped:
            raise UserError(f"the file contains {short} both with and without the prefix {prefix}")
        stripped[short] = array
    return stripped


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
