"""Training losses."""

import jax
import optax
from jaxtyping import Array, Float, Int

from lensjax.models import Outputs


def loss_terms(
    outputs: Outputs, labels: Int[Array, " batch"], *, physics_weight: float, label_smoothing: float = 0.0
) -> dict[str, Float[Array, " batch"]]:
    """Loss terms of each image, and their weighted sum.

    Args:
      outputs: a model's outputs.
      labels: class index of each image.
      physics_weight: weight of the physics loss; the cross-entropy has weight 1.
      label_smoothing: fraction of each label that is spread over all classes.

    Returns:
      `cross_entropy`, `physics` if the outputs have a physics loss, and `loss`, the weighted sum.
    """
    if label_smoothing:
        hard = jax.nn.one_hot(labels, outputs.logits.shape[-1], dtype=outputs.logits.dtype)
        soft = optax.smooth_labels(hard, label_smoothing)
        cross_entropy = optax.softmax_cross_entropy(outputs.logits, soft)
    else:
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels)
    if outputs.physics_loss is None:
        return {"cross_entropy": cross_entropy, "loss": cross_entropy}
    return {
        "cross_entropy": cross_entropy,
        "physics": outputs.physics_loss,
        "loss": cross_entropy + physics_weight * outputs.physics_loss,
    }


def term_names(model_name: str) -> tuple[str, ...]:
    """Names of a model's loss terms, without their sum.

    Args:
      model_name: `config.model.name`.
    """
    with_physics = ("lens_vit_pinn", "lens_encoder_net")
    return ("cross_entropy", "physics") if model_name in with_physics else ("cross_entropy",)
