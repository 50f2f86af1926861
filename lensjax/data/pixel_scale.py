"""Pixel scale of the images that a classifier was trained on."""

from ml_collections import ConfigDict

from lensjax import fitting, simulation
from lensjax.data.simulated import FRESH
from lensjax.errors import UserError

COMMON_TEST_SIZE, COMMON_TEST_SCALE = 150, 0.05  # pixels; arcsec


def run_pixel_scale(data_config: ConfigDict) -> float:
    """Pixel scale of the images that a run was trained on, arcsec.

    Args:
      data_config: the `data` section of the run's config.

    Raises:
      UserError: if the pixel scale is unknown.
    """
    if data_config.fit != "none":
        return fitting.smooth_model(data_config.fit).pixel_scale
    source = data_config.source
    if source.startswith("simulated:"):
        preset = source.removeprefix("simulated:").removesuffix(FRESH)
        return simulation.preset(preset).instrument.pixel_scale
    if data_config.image_size == COMMON_TEST_SIZE:
        return COMMON_TEST_SCALE
    raise UserError(
        f"--pixel-scale: the run was trained on {source!r}, and the pixel scale of these images is unknown; "
        "resample the input images yourself, without --pixel-scale"
    )
