r"""LensViTPINN on products of brightness gradients, the first attempt of the reference implementation.

The model's input is tanh(dL/dx dL/dy), with L = log((max I + 1e-6) / (I + 1e-6))^2, instead of the image.
There is no dropout, and the physics loss is computed from the image (lensjax/physics/reference.py,
docs/reference.md). Everything else is as in configs/pinn.py.

Published result: validation AUC 0.9146 / 0.8478 / 0.8734 (no, sphere, vort), mean 0.8786, with DINO and
ImageNet weights on the Common Test images, 0.11 below the result with the image. The published protocol
selects the best epoch and reports the metrics on the same images:

    python -m lensjax.main --config configs/pinn_gradient_input.py \
        --config.data.source=dataset.zip --config.data.selection=reference \
        --config.model.pretrained=weights/dino_vits16.safetensors \
        --config.model.pretrained_cnn=weights/resnet18.safetensors

--config.model.input=mixed_derivative selects the published form, |tanh(d/dx dL/dy)|.

The variant `quick` is that of configs/pinn.py with 7 epochs and without the band-pass filter, whose negative
values have no logarithm. It only shows that the pipeline runs: with so few images the AUC stays near chance
(test 0.535 / 0.554 / 0.582, mean 0.557, November 2026). The reference needed ten epochs of all images to
reach 0.79.

    python -m lensjax.main --config configs/pinn_gradient_input.py:quick
"""

from ml_collections import ConfigDict

from lensjax.cli.configs import load_config


def get_config(name: str = "") -> ConfigDict:
    """Returns the config, or its variant `name`."""
    config = load_config(f"pinn:{name}")
    config.model.input = "gradient_product"
    config.model.dropout_rate = 0.0
    if name == "quick":
        config.preparation.stretch = "none"
        config.num_epochs = 7
    return config
