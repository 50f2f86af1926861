r"""LensFitNet: a smooth lens fitted to each image, and a small ResNet on what the fit leaves over.

The net, of 309,000 parameters, sees the middle 100 pixels of the image and of the standardised residual;
each training image is turned and mirrored as one of a square's eight symmetries. docs/fitting.md describes
the fit.

    python -m lensjax.main --config configs/lens_fit.py

The variant `quick` simulates 3,000 + 600 + 1,500 images, fits a lens to each and trains for 6 epochs. Test
AUC 1.0000 / 0.9952 / 0.9962 (no, sphere, vort), mean 0.9971, accuracy 0.975. From an empty cache it took
2 min 40 s on two CPU cores (November 2026), the report included; `make quickstart` sets up a
.venv before, which takes about a minute more. Images and fits are kept: a second run only trains.

    python -m lensjax.main --config configs/lens_fit.py:quick

The variant `few` takes 36 epochs of as many training images, chooses among them by 1,500 others and
keeps the running mean of the parameters: 1.0000 / 0.9968 / 0.9974, mean 0.9981, on 7,500 test images, and
0.9984 by the mean over eight views (`--mode evaluate --tta d4`). The whole command took 5 min 52 s on two CPU
cores, the training images' fits being cached.

    python -m lensjax.main --config configs/lens_fit.py:few

The same as `quick` with 8 epochs, one seed each: 0.9977; with the residual alone 0.9958, with the middle
80 pixels 0.9975, with the image alone 0.563. The full size, 50 epochs of 30,000 images, has not been
measured; 5 epochs of them reach 0.9991 (docs/physics_helps.md).
"""

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
    config.update_from_flattened_dict(variant(name, quick=QUICK, few=FEW))
    return config


QUICK: dict[str, object] = {
    "data.num_train": 3_000,
    "data.num_validation": 600,
    "data.num_test": 1_500,
    "num_epochs": 6,
}

FEW: dict[str, object] = {
    "data.num_train": 3_000,
    "data.num_validation": 1_500,
    "num_epochs": 36,
    "optimizer.ema_decay": 0.999,
}
