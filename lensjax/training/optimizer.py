"""The optimizer and learning-rate schedule of a config."""

import optax
from ml_collections import ConfigDict


def build_optimizer(config: ConfigDict, num_steps: int) -> optax.GradientTransformation:
    """AdamW with weight decay on every parameter, as in PyTorch, and a learning-rate schedule.

    If `accumulate_steps` is above 1, gradients are averaged over that number of steps before each update of
    the parameters. The schedule counts updates. If `clip_norm` is not 0, gradients with a larger global norm
    are scaled down to it.

    Args:
      config: the `optimizer` section of a config.
      num_steps: number of steps in the whole run.
    """
    steps_per_update = config.accumulate_steps
    adamw = optax.adamw(
        learning_rate(config, num_steps // steps_per_update),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
    )
    if config.clip_norm:
        adamw = optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)
    if steps_per_update == 1:
        return adamw
    return optax.MultiSteps(adamw, every_k_schedule=steps_per_update).gradient_transformation()


def learning_rate(config: ConfigDict, num_steps: int) -> optax.Schedule:
    """Learning rate as a function of the number of updates.

    It rises linearly over `warmup_steps`. Then it is constant ("constant"), or follows half a cosine down to
    0 at the end of the run ("cosine").

    Args:
      config: the `optimizer` section of a config.
      num_steps: number of updates in the whole run.
    """
    peak, warmup = config.learning_rate, min(config.warmup_steps, num_steps)
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(num_steps - warmup, 1))
    else:
        after = optax.constant_schedule(peak)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, max(warmup, 1)), after], [warmup])
