"""Every field of a config, with its default: the one place where they are all described."""

from ml_collections import ConfigDict

from lensjax.errors import UserError


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

    config.model = ConfigDict()
    # "baseline_cnn" or "lens_vit_pinn".
    config.model.name = "baseline_cnn"
    # ResNet: channels after the stem (64 in ResNet18); the later stages have 2, 4 and 8 times as many.
    config.model.width = 64
    # ViT (lens_vit_pinn): side of a patch in pixels, width, blocks, heads, and the grid side of the
    # position embeddings before they are resized to the image (14 in DINO's, 224 / 16).
    config.model.patch_size = 16
    config.model.embedding_size = 384
    config.model.depth = 12
    config.model.num_heads = 6
    config.model.position_grid = 14
    # Dropout on the ViT's features before the deflection is projected from them.
    config.model.dropout_rate = 0.3

    config.loss = ConfigDict()
    # Weight of the physics loss beside the cross-entropy (lens_vit_pinn).
    config.loss.physics_weight = 0.01

    config.augmentation = ConfigDict()
    # Training images are turned by a random angle up to this, degrees, either way.
    config.augmentation.max_rotation = 10.0

    config.optimizer = ConfigDict()
    # AdamW; the weight decay acts on every parameter.
    config.optimizer.learning_rate = 1e-4
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.eps = 1e-8
    config.optimizer.weight_decay = 0.01

    # Images in a training step, over all devices, and in an evaluation step.
    config.batch_size = 32
    config.eval_batch_size = 64
    config.num_epochs = 50
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
