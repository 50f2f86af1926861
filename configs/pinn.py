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
depends on rounding.

    python -m lensjax.main --config configs/pinn.py:quick

The variant `fast` is the full model for one large GPU, trained like the variant `fast` of
configs/baseline.py. It has not been measured on a GPU:

    python -m lensjax.main --config configs/pinn.py:fast
"""

from ml_collections import ConfigDict

from lensjax.cli.configs import load_config

QUICK: dict[str, object] = {
    "model.embedding_size": 64,
    "model.depth": 2,
    "model.num_heads": 4,
    "model.position_grid": 5,
    "num_epochs": 6,
}


def get_config(name: str = "") -> ConfigDict:
    """Returns the config, or its variant `name`."""
    config = load_config(f"baseline:{name}")
    config.model.name = "lens_vit_pinn"
    if not name:
        config.optimizer.learning_rate = 2e-4
    if name == "quick":
        config.update_from_flattened_dict(QUICK)
    return config
