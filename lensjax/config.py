"""Every field of a config, with its default: the one place where they are all described."""

import difflib
import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from lensjax.errors import UserError

STRETCHES = ("none", "sqrt", "band_pass")
RESIDENCES = ("auto", "host", "disk")
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")
SCHEDULES = ("constant", "cosine")
FITS = ("none", "common_test", "general")
GRADIENT_INPUTS = ("gradient_product", "mixed_derivative")
RESIDUAL_INPUTS = ("residual", "image_and_residual")
FIT_NET_INPUTS = (*RESIDUAL_INPUTS, "image_and_reference_source")
INPUTS = ("image", *GRADIENT_INPUTS, *FIT_NET_INPUTS)


def default_config() -> ConfigDict:
    """The fields that every experiment has; the files in configs/ change some of them.

    Returns:
      A new, unlocked-for-values config: fields can be given other values of the same type, and no
      field can be added.
    """
    config = ConfigDict()

    # Everything random in a run follows from this number: initial parameters, order of the images,
    # augmentation, dropout.
    config.seed = 0
    # How many runs are trained, with the seeds `seed`, `seed + 1` ...; their data are the same. And how many
    # of them side by side, on the same device in one program; 0 for all on accelerators, for one after
    # another on CPUs (lensjax/training/seeds.py).
    config.seeds = 1
    config.seeds_at_once = 0

    config.data = ConfigDict()
    # Where images come from: a dataset.zip or a folder with train/ and val/, "tfds:DIR" for a prepared
    # data set, or "simulated:PRESET".
    config.data.source = "simulated:common_test"
    # "held_out": the best epoch is chosen on validation images and the final figures come from test
    # images that chose nothing. "reference": both from the same images, as published.
    config.data.selection = "held_out"
    # Height and width of an image, pixels.
    config.data.image_size = 150
    # How much of train/ is held out for validation, where the source has no split of its own for it.
    config.data.validation_fraction = 0.1
    # Simulated sources: images in each split, shared equally by the classes, and the seed of the scenes.
    config.data.num_train = 30_000
    config.data.num_validation = 7_500
    config.data.num_test = 7_500
    config.data.seed = 0
    # A smooth lens that is fitted to each image, for models that see the residual: "none", "common_test"
    # (what is known of those images is known to the fit) or "general" (docs/fitting.md).
    config.data.fit = "none"
    # Where training images are stored: on the "host" in memory, on "disk" (prepared data sets only; Grain
    # reads ahead), or "auto": on disk if they take up more than half of the host's memory.
    config.data.residence = "auto"

    config.preparation = ConfigDict()
    # Side of the central square that the model sees, pixels; 0 for the whole image.
    config.preparation.crop = 0
    # "none" gives the model the images as they are, "sqrt" evens out their photon noise, "band_pass"
    # takes the smooth arcs away too (lensjax/data/preparation.py).
    config.preparation.stretch = "none"

    config.model = ConfigDict()
    # "baseline_cnn", "lens_vit_pinn", "lens_fit_net" or "lens_encoder_net".
    config.model.name = "baseline_cnn"
    # ResNet: channels after the stem (64 in ResNet18); the later stages have 2, 4 and 8 times as many.
    config.model.width = 64
    # Blocks in each stage of the ResNet of baseline_cnn and lens_vit_pinn: a ResNet18's; (3, 4, 6, 3) is a
    # ResNet34.
    config.model.stage_sizes = (2, 2, 2, 2)
    # Blocks in each of the four stages of the ResNet of lens_fit_net and lens_encoder_net; 0 leaves its stem
    # alone.
    config.model.num_blocks = 1
    # Steps by which lens_encoder_net refines the lens that it guesses.
    config.model.gauss_newton_steps = 0
    # ViT (lens_vit_pinn): side of a patch in pixels, width, blocks, heads, and the grid side of the
    # position embeddings before they are resized to the image (14 in DINO's, 224 / 16).
    config.model.patch_size = 16
    config.model.embedding_size = 384
    config.model.depth = 12
    config.model.num_heads = 6
    config.model.position_grid = 14
    # Dropout on the ViT's features before the deflection is projected from them.
    config.model.dropout_rate = 0.3
    # What the model sees: "image"; for lens_vit_pinn, in its place, one of the two forms of
    # lensjax/physics/reference.py's gradient_input, "gradient_product" or "mixed_derivative"; for
    # lens_fit_net "residual" or "image_and_residual", which need a config.data.fit, or
    # "image_and_reference_source", the reference's theta_S from a theta_E that a second ResNet finds.
    config.model.input = "image"

    # Files of weights to start from instead of random ones, made by tools/convert_torch_weights.py: of the
    # whole model or, for baseline_cnn, a resnet18, for lens_vit_pinn a dino_vits16; and for the ResNet in
    # lens_vit_pinn a resnet18. "" for none.
    config.model.pretrained = ""
    config.model.pretrained_cnn = ""

    config.loss = ConfigDict()
    # Weight of the physics loss beside the cross-entropy (lens_vit_pinn, lens_encoder_net).
    config.loss.physics_weight = 0.01
    # Share of each label that is spread over all classes in training.
    config.loss.label_smoothing = 0.0

    config.augmentation = ConfigDict()
    # Training images are turned by a random angle up to this, degrees, either way.
    config.augmentation.max_rotation = 10.0
    # Training images are mirrored and turned by quarters at random, each as one of a square's symmetries.
    config.augmentation.dihedral = False
    # Training images are moved by up to this many whole pixels along each axis.
    config.augmentation.max_shift = 0

    config.optimizer = ConfigDict()
    # AdamW; the weight decay acts on every parameter.
    config.optimizer.learning_rate = 1e-4
    # "constant", or "cosine" to let the rate fall to 0 over the run.
    config.optimizer.schedule = "constant"
    # Steps over which the rate rises from 0 at the start.
    config.optimizer.warmup_steps = 0
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.eps = 1e-8
    config.optimizer.weight_decay = 0.01
    # Longest gradient: longer ones are scaled down to this norm; 0 for no limit.
    config.optimizer.clip_norm = 0.0
    # Steps whose gradients are averaged before the parameters change.
    config.optimizer.accumulate_steps = 1
    # Share of the old value in a running mean of the parameters, which is then what is evaluated and
    # kept, such as 0.999; 0 for the parameters themselves.
    config.optimizer.ema_decay = 0.0

    # Images in a training step, over all devices, and in an evaluation step.
    config.batch_size = 32
    config.eval_batch_size = 64
    # 0 evaluates the model as it starts, which is for pretrained ones.
    config.num_epochs = 50
    # Besides each epoch's end the run is saved when so many minutes have passed; 0 for never.
    config.checkpoint_minutes = 10.0
    # What the model's products and convolutions are computed in; parameters, statistics, loss and optimiser
    # are float32 in any case. "float32" is exact to rounding everywhere. "tensorfloat32" rounds the factors
    # to 10 bits on GPUs that have it, which are then several times faster. "bfloat16" rounds feature
    # maps too and halves memory; on CPUs it is slower.
    config.precision = "float32"
    return config


def variant(argument: str | None, **variants: dict[str, object]) -> dict[str, object]:
    """The overrides of the variant named after the colon in `--config file.py:variant`.

    Args:
      argument: what stood after the colon; empty or None for the config as it is.
      **variants: for each known variant, dotted field names and their values.

    Raises:
      UserError: the variant is not among those known.
    """
    if not argument:
        return {}
    if argument not in variants:
        raise UserError(
            f"config variant {argument!r} is not known; known variants: {', '.join(sorted(variants))}"
        )
    return variants[argument]


def check_choice(field: str, value: str, choices: Iterable[str]) -> None:
    """Refuses a value that is not among those known, and names the nearest one that is.

    Args:
      field: what to call the value in the message.
      value: what was given.
      choices: what is known.

    Raises:
      UserError: `value` is not one of `choices`.
    """
    choices = list(choices)
    if value not in choices:
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{field}={value!r}: not one of {', '.join(choices)}{hint}")


def check(config: ConfigDict) -> None:
    """Refuses numbers that no run can have.

    Args:
      config: a whole config.

    Raises:
      UserError: a field's value is out of its range.
    """
    at_least_one = [
        *("batch_size", "eval_batch_size", "data.image_size", "optimizer.accumulate_steps"),
        *("data.num_train", "data.num_validation", "data.num_test", "model.width"),
        *("model.patch_size", "model.embedding_size", "model.depth", "model.num_heads"),
        *("model.position_grid", "seeds"),
    ]
    not_negative = [
        *("seed", "num_epochs", "data.seed", "loss.physics_weight", "augmentation.max_rotation"),
        *("model.num_blocks", "model.gauss_newton_steps"),
        *("optimizer.learning_rate", "optimizer.weight_decay", "optimizer.warmup_steps"),
        *("optimizer.clip_norm", "checkpoint_minutes", "seeds_at_once"),
    ]
    ranges = {
        **dict.fromkeys(at_least_one, (1, math.inf)),
        **dict.fromkeys(not_negative, (0, math.inf)),
        "model.dropout_rate": (0, 0.99),
        "data.validation_fraction": (0.0001, 0.99),
        "preparation.crop": (0, config.data.image_size),
        "augmentation.max_shift": (0, config.data.image_size // 2),
        "loss.label_smoothing": (0, 0.99),
        "optimizer.ema_decay": (0, 0.999999),
        "optimizer.b1": (0, 0.999999),
        "optimizer.b2": (0, 0.999999),
    }
    for field, (low, high) in ranges.items():
        value = operator.attrgetter(field)(config)
        if not low <= value <= high:
            limit = f"at least {low}" if high == math.inf else f"from {low} to {high}"
            raise UserError(f"config.{field}={value}: has to be {limit}")
    stages = config.model.stage_sizes
    if not stages or not all(isinstance(size, int) and size > 0 for size in stages):
        raise UserError(
            f"config.model.stage_sizes={stages}: has to be whole numbers of at least 1, as (2, 2, 2, 2)"
        )
    check_choice("config.preparation.stretch", config.preparation.stretch, STRETCHES)
    check_choice("config.data.residence", config.data.residence, RESIDENCES)
    check_choice("config.precision", config.precision, PRECISIONS)
    check_choice("config.optimizer.schedule", config.optimizer.schedule, SCHEDULES)
    check_choice("config.model.input", config.model.input, INPUTS)
    check_choice("config.data.fit", config.data.fit, FITS)
    _check_input(config)
    if config.model.embedding_size % config.model.num_heads:
        raise UserError(
            f"config.model.embedding_size={config.model.embedding_size}: has to be a multiple of "
            f"config.model.num_heads={config.model.num_heads}"
        )


def _check_input(config: ConfigDict) -> None:
    """Refuses what the model cannot see, or what is not made for it."""
    name, seen, fit = config.model.name, config.model.input, config.data.fit
    found = f"config.model.input={seen!r}"
    if seen != "image" and name in ("baseline_cnn", "lens_encoder_net"):
        raise UserError(
            f"{found}: {name} sees the image alone; use config.model.name="
            f"{'lens_vit_pinn' if seen in GRADIENT_INPUTS else 'lens_fit_net'!r}"
        )
    if seen in GRADIENT_INPUTS and name == "lens_fit_net":
        raise UserError(f"{found}: lens_fit_net has no such input; use 'image_and_residual'")
    if seen in FIT_NET_INPUTS and name == "lens_vit_pinn":
        raise UserError(f"{found}: needs config.model.name='lens_fit_net'")
    if seen in RESIDUAL_INPUTS and fit == "none":
        raise UserError(f"{found}: there are no residuals; set config.data.fit='common_test'")
    if fit != "none" and name != "lens_fit_net":
        raise UserError(
            f"config.data.fit={fit!r}: {name} does not see residuals; use "
            "config.model.name='lens_fit_net' or config.data.fit='none'"
        )
    if seen in GRADIENT_INPUTS and config.preparation.stretch == "band_pass":
        raise UserError(
            f"{found}: takes the logarithm of brightness, which "
            "config.preparation.stretch='band_pass' makes negative; use 'none'"
        )


def flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested fields by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
