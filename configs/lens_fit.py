r"""LensFitNet: a smooth lens fitted to each image, and a small ResNet on what the fit leaves over."""

from ml_collections import ConfigDict

from lensjax.config import default_config, variant


def get_config(name: str = "") -> ConfigDict:
    """The config, or its variant of that name."""
    config = default_config()
    config.data.fit = "common_test"
    config.preparation.crop = 100
    config.model.name = "lens_fit_net"
    config.model.input = "image_and_residual"
    config.model.width = 16
    config.augmentation.max_rotation = 0.0
    config.augmentation.dihedral = True
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 100
    config.optimizer.weight_decay = 0.05
    config.update_from_flattened_dict(variant(name, quick=QUICK))
    return config


QUICK: dict[str, object] = {
    "data.num_train": 3_000,
    "data.num_validation": 600,
    "data.num_test": 1_500,
    "num_epochs": 6,
}
