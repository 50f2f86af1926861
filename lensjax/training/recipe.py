"""Settings of training and evaluation steps: preparation, augmentation, loss and precision."""

import dataclasses

import jax
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from lensjax.data.preparation import prepare
from lensjax.training.augmentation import random_dihedral, random_rotation, random_shift


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of training and evaluation steps; each has the name of its field in the config.

    Attributes:
      crop, stretch: see `data.preparation.prepare`.
      max_rotation, dihedral, max_shift: see `random_rotation`, `random_dihedral` and `random_shift`.
      physics_weight, label_smoothing: see `losses.loss_terms`.
      ema_decay: decay rate of the moving average of the parameters, see `state.update_ema`.
      precision: precision of products, see `jax.default_matmul_precision`. With "bfloat16" the model also
        computes in that dtype.
    """

    crop: int = 0
    stretch: str = "none"
    max_rotation: float = 0.0
    dihedral: bool = False
    max_shift: int = 0
    physics_weight: float = 0.0
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    precision: str = "float32"

    @classmethod
    def from_config(cls, config: ConfigDict) -> "Recipe":
        """Recipe of a full config."""
        return cls(
            **config.preparation,
            **config.augmentation,
            **config.loss,
            ema_decay=config.optimizer.ema_decay,
            precision=config.precision,
        )

    def prepare(
        self, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch new_height new_width channels"]:
        """Crops and stretches images."""
        return prepare(images, crop=self.crop, stretch=self.stretch)

    def augment(
        self, images: Float[Array, "batch height width channels"], keys: Key[Array, " batch"]
    ) -> Float[Array, "batch height width channels"]:
        """Applies the random augmentation, with one key per image."""
        fold_in = jax.vmap(jax.random.fold_in, (0, None))
        if self.dihedral:
            images = random_dihedral(images, fold_in(keys, 1))
        images = random_rotation(images, keys, self.max_rotation)
        return random_shift(images, fold_in(keys, 2), self.max_shift)
