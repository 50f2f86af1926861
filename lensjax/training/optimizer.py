"""The optimiser that a config describes."""

import optax
from ml_collections import ConfigDict


def build(config: ConfigDict, num_steps: int) -> optax.GradientTransformation:
    """AdamW with weight decay on every parameter, as PyTorch's default, and a learning rate by schedule.

    Where `accumulate_steps` is above 1, the parameters change in every so manyth step alone, by the mean
    of the gradients since the last change; the schedule then runs over these changes.

    Args:
      config: the `optimizer` part of a config.
      num_steps: steps of the whole run.
    """
    together = config.accumulate_steps
    adamw = optax.adamw(
        learning_rate(config, num_steps // together),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )
    if config.clip_norm:
        adamw = optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)
    if together == 1:
        return adamw
    return optax.MultiSteps(adamw, every_k_schedule=together).gradient_transformation()


def learning_rate(config: ConfigDict, num_steps: int) -> optax.Schedule:
    """The learning rate as a function of the step.

    It rises in a straight line over `warmup_steps`, then stays ("constant") or falls to 0 at the end
    of the run along half a cosine ("cosine").

    Args:
      config: the `optimizer` part of a config.
      num_steps: steps of the whole run.
    """
    peak, warmup = config.learning_rate, min(config.warmup_steps, num_steps)
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(num_steps - warmup, 1))
    else:
        after = optax.constant_schedule(peak)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, max(warmup, 1)), after], [warmup])
