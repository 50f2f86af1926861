"""Table of the config fields: name, default, allowed values and help text.

Validation, the command-line help and docs/config.md are generated from `FIELDS`.
"""

import dataclasses
import difflib
import math
import operator
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from lensjax.errors import UserError
from lensjax.seeds import LARGEST_SEED

MODELS = ("baseline_cnn", "lens_vit_pinn", "lens_fit_net", "lens_encoder_net")
STRETCHES = ("none", "sqrt", "band_pass")
FIT_CHOICES = ("none", "common_test", "general", "varied", "model_1", "model_2", "model_3")
GRADIENT_INPUTS = ("gradient_product", "mixed_derivative")
RESIDUAL_INPUTS = ("residual", "image_and_residual")
FIT_NET_INPUTS = (*RESIDUAL_INPUTS, "image_and_reference_source")
INPUTS = ("image", *GRADIENT_INPUTS, *FIT_NET_INPUTS)


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a config.

    Attributes:
      default: default value; its type is the type of the field.
      help: description of the field.
      low, high: smallest and largest allowed value; None if there is no limit.
      choices: allowed values of a text field; empty if any text is allowed.
    """

    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """Description of the allowed values; empty if there is no limit."""
        if self.choices:
            return ", ".join(self.choices)
        if self.low is None:
            return ""
        return f"at least {self.low}" if self.high is None else f"{self.low} to {self.high}"


BELOW_1 = 0.999999

# Fields of earlier versions that are ignored when the config of a run is read: group, name, and the ignored
# value, or None for any value. They only determined where images were stored.
EARLIER_FIELDS = (("data", "device_share", None), ("data", "residence", "device"))

FIELDS: dict[str, Field] = {
    "seed": Field(
        0, "Seed of initial parameters, order of images, augmentation and dropout.", 0, LARGEST_SEED
    ),
    "seeds": Field(1, "Number of runs on the same data, with the seeds seed, seed + 1, ...", 1, 10_000),
    "seeds_at_once": Field(
        0,
        "Number of runs trained side by side in one program. 0: all on accelerators, one at a time on CPUs.",
        0,
        10_000,
    ),
    "data.source": Field(
        "simulated:common_test",
        "Source of images: a dataset.zip or a folder with train/ and val/, tfds:FOLDER for a prepared data "
        "set, simulated:PRESET, or simulated:PRESET?fresh for training images that never repeat.",
    ),
    "data.selection": Field(
        "held_out",
        "held_out: validation images select the best epoch, and test images give the final metrics. "
        "reference: the same images are used for both, as in the published results.",
        choices=("held_out", "reference"),
    ),
    "data.image_size": Field(150, "Height and width of an image, pixels.", 1, 8192),
    "data.validation_fraction": Field(
        0.1, "Fraction of train/ held out for validation if the source has no test/.", 0.0001, 0.99
    ),
    "data.num_train": Field(30_000, "Simulated sources: number of training images.", 1, 10**9),
    "data.num_validation": Field(7_500, "Simulated sources: number of validation images.", 1, 10**9),
    "data.num_test": Field(7_500, "Simulated sources: number of test images.", 1, 10**9),
    "data.seed": Field(
        0, "Seed of simulated scenes and of the choice of validation images from train/.", 0, LARGEST_SEED
    ),
    "data.fit": Field(
        "none",
        "Model of the smooth lens fitted to each image, for classifiers that use the residual. common_test "
        "and model_1 to model_3 fix the parameters that are known for the images of these presets; general "
        "fits them; varied also fits the light of the lens (docs/fitting.md).",
        choices=FIT_CHOICES,
    ),
    "data.residence": Field(
        "auto",
        "Location of the training images. host: in memory. disk: on disk (prepared data sets only). auto: on "
        "disk if a prepared data set needs more than half of the memory, and in memory otherwise.",
        choices=("auto", "host", "disk"),
    ),
    "preparation.crop": Field(
        0, "Side of the central square passed to the model, pixels. 0: the whole image.", 0, 8192
    ),
    "preparation.stretch": Field(
        "none",
        "Transformation of the brightness. sqrt equalizes the photon noise; band_pass also removes the "
        "smooth arcs (lensjax.data.preparation).",
        choices=STRETCHES,
    ),
    "model.name": Field("baseline_cnn", "Classifier.", choices=MODELS),
    "model.width": Field(
        64, "Channels after the ResNet's stem; later stages have 2, 4 and 8 times as many.", 1, 8192
    ),
    "model.stage_sizes": Field(
        (2, 2, 2, 2),
        "Numbers of blocks in the stages of the ResNet of baseline_cnn and lens_vit_pinn. The default is a "
        "ResNet18; 3,4,6,3 is a ResNet34.",
    ),
    "model.num_blocks": Field(
        1,
        "Number of blocks in each of the four stages of the ResNet of lens_fit_net and lens_encoder_net. 0: "
        "only the stem.",
        0,
        1000,
    ),
    "model.gauss_newton_steps": Field(
        0, "Maximum number of Gauss-Newton steps that refine the lens predicted by lens_encoder_net.", 0, 1000
    ),
    "model.patch_size": Field(16, "ViT: side of a patch, pixels.", 1, 8192),
    "model.embedding_size": Field(384, "ViT: size of the embeddings.", 1, 65_536),
    "model.depth": Field(12, "ViT: number of blocks.", 1, 1000),
    "model.num_heads": Field(6, "ViT: number of attention heads; must divide embedding_size.", 1, 65_536),
    "model.position_grid": Field(
        14,
        "ViT: side of the grid of position embeddings, before it is resized to the image; 14 in DINO.",
        1,
        1000,
    ),
    "model.dropout_rate": Field(
        0.3, "Dropout rate of the ViT's features before the projection to the deflection.", 0, 0.99
    ),
    "model.input": Field(
        "image",
        "Input of the model. lens_vit_pinn also accepts gradient_product and mixed_derivative "
        "(physics.reference.gradient_input); lens_fit_net also accepts residual and image_and_residual, "
        "which require data.fit, and image_and_reference_source.",
        choices=INPUTS,
    ),
    "model.pretrained": Field(
        "",
        "File of initial weights, written by lensjax convert-weights: those of the whole model, of resnet18 "
        "for baseline_cnn, or of dino_vits16 for lens_vit_pinn.",
    ),
    "model.pretrained_cnn": Field(
        "", "File of initial weights for the ResNet in lens_vit_pinn: those of resnet18."
    ),
    "loss.physics_weight": Field(
        0.01, "Weight of the physics loss of lens_vit_pinn and lens_encoder_net.", 0
    ),
    "loss.label_smoothing": Field(
        0.0, "Fraction of each training label that is spread evenly over all classes.", 0, 0.99
    ),
    "augmentation.max_rotation": Field(10.0, "Largest random rotation of training images, degrees.", 0),
    "augmentation.dihedral": Field(
        False, "Apply one of the eight symmetries of the square, chosen at random, to each training image."
    ),
    "augmentation.max_shift": Field(
        0, "Largest random shift of training images along each axis, whole pixels.", 0, 8192
    ),
    "optimizer.learning_rate": Field(1e-4, "Learning rate of AdamW.", 0),
    "optimizer.schedule": Field(
        "constant",
        "cosine: the learning rate falls to 0 at the end of the run.",
        choices=("constant", "cosine"),
    ),
    "optimizer.warmup_steps": Field(
        0, "Number of updates at the start over which the learning rate rises linearly from 0.", 0, 10**9
    ),
    "optimizer.b1": Field(0.9, "Decay rate of AdamW's first moment.", 0, BELOW_1),
    "optimizer.b2": Field(0.999, "Decay rate of AdamW's second moment.", 0, BELOW_1),
    "optimizer.eps": Field(1e-8, "Constant that AdamW adds to the square root of the second moment.", 0),
    "optimizer.weight_decay": Field(0.01, "Weight decay of AdamW, applied to every parameter.", 0),
    "optimizer.clip_norm": Field(
        0.0, "Largest global norm of the gradients; larger gradients are scaled down. 0: no limit.", 0
    ),
    "optimizer.accumulate_steps": Field(
        1, "Number of steps whose gradients are averaged for one update of the parameters.", 1, 10**6
    ),
    "optimizer.ema_decay": Field(
        0.0,
        "Decay rate of the exponential moving average of the parameters, such as 0.999. The average is "
        "evaluated and saved. 0: no average.",
        0,
        BELOW_1,
    ),
    "batch_size": Field(32, "Number of images per training step, over all devices.", 1, 65_536),
    "eval_batch_size": Field(64, "Number of images per evaluation step, over all devices.", 1, 65_536),
    "num_epochs": Field(
        50,
        "Number of epochs. 0: evaluate the initial model without training, for pretrained models.",
        0,
        10**6,
    ),
    "checkpoint_minutes": Field(
        10.0, "Minutes between checkpoints within an epoch. 0: save only after each epoch.", 0
    ),
    "precision": Field(
        "float32",
        "Precision of matrix products and convolutions; parameters, statistics, loss and optimizer are "
        "always float32. tensorfloat32 rounds the inputs of products to 10 mantissa bits on GPUs that "
        "support it. bfloat16 also rounds feature maps and halves their memory; it is slower on CPUs.",
        choices=("float32", "tensorfloat32", "bfloat16"),
    ),
}


def default_config() -> ConfigDict:
    """Returns a new config with the default value of every field.

    Values can be replaced only by values of the same type.
    """
    config = ConfigDict()
    for name, field in FIELDS.items():
        group, _, last = name.rpartition(".")
        if group and group not in config:
            config[group] = ConfigDict()
        (config[group] if group else config)[last] = field.default
    return config


def complete_config(fields: Mapping[str, Any]) -> ConfigDict:
    """Returns a new config with the given values, and the default values of all other fields.

    Args:
      fields: values by dotted name.

    Raises:
      UserError: if a field does not exist, or a value has the wrong type.
    """
    check_fields(fields, partial=True)
    config = default_config()
    config.update_from_flattened_dict(fields)
    return config


def variant(argument: str | None, **variants: dict[str, object]) -> dict[str, object]:
    """Returns the overrides of the variant selected by `--config FILE:VARIANT`.

    Args:
      argument: the text after the colon; empty or None for the config without overrides.
      **variants: overrides of each variant, by dotted field name.

    Raises:
      UserError: if there is no such variant.
    """
    if not argument:
        return {}
    if argument not in variants:
        raise UserError(f"unknown config variant {argument!r}; known variants: {', '.join(sorted(variants))}")
    return variants[argument]


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Checks that a value is one of the choices.

    Raises:
      UserError: if it is not; the message suggests the most similar choice.
    """
    choices = list(choices)
    if value not in choices:
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{name}={value!r}: not one of {', '.join(choices)}{hint}")


def check(config: ConfigDict) -> None:
    """Checks the names, types and values of all fields and the consistency of related fields.

    Raises:
      UserError: if a field is missing or unknown, or a value is not allowed.
    """
    check_fields(flatten(config.to_dict()))
    for name, field in FIELDS.items():
        value = operator.attrgetter(name)(config)
        if field.choices:
            check_choice(f"config.{name}", value, field.choices)
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"config.{name}={value}: must be finite")
        too_low = field.low is not None and not value >= field.low  # also true for NaN
        if too_low or (field.high is not None and not value <= field.high):
            raise UserError(f"config.{name}={value}: must be {field.allowed}")
    _check_sizes(config)
    _check_input(config)


def check_name(name: str, prefix: str = "config.") -> None:
    """Checks that a field exists.

    Args:
      name: dotted name of the field.
      prefix: text before the name in the message.

    Raises:
      UserError: if it does not exist. The message suggests the most similar field.
    """
    if name not in FIELDS:
        near = difflib.get_close_matches(name, FIELDS, n=1)
        hint = f"did you mean {prefix}{near[0]}?" if near else "lensjax train --help lists all fields"
        raise UserError(f"{prefix}{name}: this version of lensjax has no such field; {hint}")


def check_fields(fields: Mapping[str, Any], *, partial: bool = False) -> None:
    """Checks the names and types of fields.

    Args:
      fields: values by dotted name.
      partial: whether fields may be missing.

    Raises:
      UserError: if a field does not exist or is missing, or the type of a value differs from that of the
        default; integers are also accepted as floats, and lists as tuples.
    """
    for name, value in fields.items():
        check_name(name)
        kind = type(FIELDS[name].default)
        kinds = {float: (float, int), tuple: (tuple, list)}.get(kind, (kind,))
        if type(value) not in kinds:
            words = {bool: "true or false", int: "an integer", float: "a number", str: "text"}
            raise UserError(f"config.{name}={value!r}: must be {words.get(kind, 'a list of integers')}")
        if kind is float and type(value) is int and abs(value) > sys.float_info.max:
            raise UserError(f"config.{name}={value}: must be finite")
    missing = [name for name in FIELDS if name not in fields]
    if missing and not partial:
        raise UserError(
            f"config.{missing[0]}: this field is missing; start from lensjax.config.default_config"
        )


def _check_sizes(config: ConfigDict) -> None:
    stages = config.model.stage_sizes
    if not 1 <= len(stages) <= 8 or not all(type(size) is int and 1 <= size <= 1000 for size in stages):
        raise UserError(
            f"config.model.stage_sizes={stages}: must be 1 to 8 integers from 1 to 1000, such as (2, 2, 2, 2)"
        )
    if config.seed + config.seeds - 1 > LARGEST_SEED:
        raise UserError(f"config.seeds={config.seeds}: the last seed must be at most {LARGEST_SEED}")
    size = config.data.image_size
    for name, largest in (("preparation.crop", size), ("augmentation.max_shift", size // 2)):
        value = operator.attrgetter(name)(config)
        if value > largest:
            raise UserError(
                f"config.{name}={value}: must be at most {largest} for config.data.image_size={size}"
            )
    if config.model.embedding_size % config.model.num_heads:
        raise UserError(
            f"config.model.embedding_size={config.model.embedding_size}: must be a multiple of "
            f"config.model.num_heads={config.model.num_heads}"
        )


def _check_input(config: ConfigDict) -> None:
    name, chosen, fit = config.model.name, config.model.input, config.data.fit
    found = f"config.model.input={chosen!r}"
    if chosen != "image" and name in ("baseline_cnn", "lens_encoder_net"):
        raise UserError(
            f"{found}: {name} uses only the image; set config.model.name="
            f"{'lens_vit_pinn' if chosen in GRADIENT_INPUTS else 'lens_fit_net'!r}"
        )
    if chosen in GRADIENT_INPUTS and name == "lens_fit_net":
        raise UserError(f"{found}: lens_fit_net has no such input; use 'image_and_residual'")
    if chosen in FIT_NET_INPUTS and name == "lens_vit_pinn":
        raise UserError(f"{found}: needs config.model.name='lens_fit_net'")
    if chosen in RESIDUAL_INPUTS and fit == "none":
        raise UserError(f"{found}: requires a lens fit; set config.data.fit='common_test'")
    if fit != "none" and name != "lens_fit_net":
        raise UserError(
            f"config.data.fit={fit!r}: {name} does not use residuals; set "
            "config.model.name='lens_fit_net' or config.data.fit='none'"
        )
    if chosen in GRADIENT_INPUTS and config.preparation.stretch == "band_pass":
        raise UserError(
            f"{found}: takes the logarithm of the brightness, which "
            "config.preparation.stretch='band_pass' makes negative; use 'none'"
        )


def flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values of nested fields by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
