r"""LensFitNet: fits a smooth lens to each image; a small ResNet classifies the image and the residual.

The network has 309,000 parameters. Its input is the central 100 pixels of the image and of the standardized
residual. Each training image is transformed by a random symmetry of the square. docs/fitting.md describes the
fit.

    python -m lensjax.main --config configs/lens_fit.py

The variant `quick` simulates 4,000 + 600 + 1,500 images, fits a lens to each and trains for 10 epochs. Test
AUC 1.0000 / 0.9890 / 0.9900 (no, sphere, vort), mean 0.9930, accuracy 0.951 (three seeds, 7,500 test images).
With an empty cache it took 10 min of CPU time, including the installation and the report. Images and fits are
cached, so a second run only trains.

    python -m lensjax.main --config configs/lens_fit.py:quick

The variant `few` trains for 36 epochs on 3,000 images and selects the best epoch on 1,500 validation images.
Test AUC 1.0000 / 0.9956 / 0.9959, mean 0.9971, on 7,500 images, after 11 minutes of training.

    python -m lensjax.main --config configs/lens_fit.py:few

The variant `common_test` trains the model `common_test` of the package (`make model`): 8 epochs of 30,000
images, 3,000 validation images. Test AUC 1.0000 / 0.9992 / 0.9992, mean 0.9995, on 7,500 images, and 0.9996
when predictions are averaged over eight views (`--tta d4`), after 16 minutes of training.

    python -m lensjax.main --config configs/lens_fit.py:common_test

The variant `robust` trains the model `robust` of the package on images whose source, lens, lens light and
point-spread function vary (`simulated:varied`). Its fit frees all of these except the point-spread function.
It trains for 12 epochs of 30,000 images. Test AUC 0.9641 / 0.9585 / 0.9145, mean 0.9457, on 3,000 images,
after 10 minutes on an NVIDIA H100. On a CPU, the fits take up to 0.6 s of CPU time per image, at most 6 hours
in all.

    python -m lensjax.main --config configs/lens_fit.py:robust

All variants evaluate an exponential moving average of the parameters. The variants other than `robust` were
measured in November 2026 on two cores of an AMD EPYC (a virtual machine) shared with other programs. The full
config, 50 epochs of 30,000 images, has not been measured.
"""

from ml_collections import ConfigDict

from lensjax.config import default_config, variant


def get_config(name: str = "") -> ConfigDict:
    """Returns the config, or its variant `name`."""
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
    variants = {"quick": QUICK, "few": FEW, "common_test": COMMON_TEST, "robust": ROBUST}
    config.update_from_flattened_dict(variant(name, **variants))
    return config


QUICK: dict[str, object] = {
    "data.num_train": 4_000,
    "data.num_validation": 600,
    "data.num_test": 1_500,
    "num_epochs": 10,
    "optimizer.ema_decay": 0.995,
}

COMMON_TEST: dict[str, object] = {"data.num_validation": 3_000, "num_epochs": 8, "optimizer.ema_decay": 0.999}

FEW: dict[str, object] = {
    "data.num_train": 3_000,
    "data.num_validation": 1_500,
    "num_epochs": 36,
    "optimizer.ema_decay": 0.999,
}

ROBUST: dict[str, object] = {
    "data.source": "simulated:varied",
    "data.fit": "varied",
    "data.num_train": 30_000,
    "data.num_validation": 3_000,
    "data.num_test": 3_000,
    "num_epochs": 12,
    "optimizer.ema_decay": 0.999,
}
