"""What training makes small."""

import jax
import optax
from jaxtyping import Array, Float, Int

from lensjax.models import Outputs


def loss_terms(
    outputs: Outputs,
    labels: Int[Array, " batch"],
    *,
    physics_weight: float,
    label_smoothing: float = 0.0,
) -> dict[str, Float[Array, " batch"]]:
    """The loss of each image and the terms that it is the weighted sum of.

    Args:
      outputs: a model's answer.
      labels: index of each image's class.
      physics_weight: weight of the physics loss; the cross-entropy has 1.
      label_smoothing: share of each label that is spread over all classes.

    Returns:
      `cross_entropy`, `physics` where the model has it, and `loss`, the sum.
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
    """Names of the loss terms that a model has, without their sum."""
    with_physics = ("lens_vit_pinn", "lens_encoder_net")
    return ("cross_entropy", "physics") if model_name in with_physics else ("cross_entropy",)
