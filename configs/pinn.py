r"""LensViTPINN: a deflection from a ViT, a lens equation on intensities, and a two-channel ResNet18.

Published result: validation AUC 0.9902 / 0.9804 / 0.9932 (no, sphere, vort), mean 0.9879, with DINO and
ImageNet weights on the Common Test images. The published protocol selects the best epoch and reports the
metrics on the same images (docs/weights.md describes how to get the weights):

    python -m lensjax.main --config configs/pinn.py \
        --config.data.source=dataset.zip --config.data.selection=reference \
        --config.model.pretrained=weights/dino_vits16.safetensors \
        --config.model.pretrained_cnn=weights/resnet18.safetensors

The variant `quick` runs from simulation to report in minutes on two CPU cores: an eighth of the width, a
transformer of two small blocks, the central 80 pixels after a band-pass filter, 6 epochs of 9,000 simulated
images. Test AUC 0.857 / 0.809 / 0.642, mean 0.769, after 12 minutes of CPU time including compilation
(November 2026, two cores of an AMD EPYC shared with other programs). After such short training the result
depends on rounding:

    python -m lensjax.main --config configs/pinn.py:quick

The variant `fast` is the full model for one large GPU: bfloat16, batches of 256, 16 epochs with a warm-up and
a cosine schedule, an exponential moving average of the parameters, and augmentation by the symmetries of the
square. It has not been measured on a GPU:

    python -m lensjax.main --config configs/pinn.py:fast
"""

from ml_collections import ConfigDict

from lensjax.config import default_config, variant


def get_config(name: str = "") -> ConfigDict:
    """Returns the config, or its variant `name`."""
    config = default_config()
    config.model.name = "lens_vit_pinn"
    config.optimizer.learning_rate = 2e-4
    config.update_from_flattened_dict(variant(name, quick=QUICK, fast=FAST))
    return config


QUICK: dict[str, object] = {
    "data.num_train": 9_000,
    "data.num_validation": 900,
    "data.num_test": 1_500,
    "preparation.crop": 80,
    "preparation.stretch": "band_pass",
    "model.width": 8,
    "model.embedding_size": 64,
    "model.depth": 2,
    "model.num_heads": 4,
    "model.position_grid": 5,
    "augmentation.max_rotation": 0.0,
    "optimizer.learning_rate": 3e-3,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_steps": 100,
    "num_epochs": 6,
}

FAST: dict[str, object] = {
    "precision": "bfloat16",
    "batch_size": 256,
    "eval_batch_size": 512,
    "num_epochs": 16,
    "augmentation.dihedral": True,
    "optimizer.learning_rate": 1e-3,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_steps": 200,
    "optimizer.clip_norm": 1.0,
    "optimizer.ema_decay": 0.99,
}
