"""The optimiser that a config describes."""

import optax
from ml_collections import ConfigDict


def build(config: ConfigDict) -> optax.GradientTransformation:
    """AdamW with a constant rate and weight decay on every parameter, as PyTorch's default.

    Args:
      config: the `optimizer` part of a config.
    """
    return optax.adamw(
        config.learning_rate,
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )
