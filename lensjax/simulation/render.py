"""From a scene to the counts that a camera expects."""

from jaxtyping import Array, Float

from lensjax import physics
from lensjax.simulation.blur import blur, gaussian_kernel
from lensjax.simulation.presets import Preset
from lensjax.simulation.scene import Scene


def expected_counts(scene: Scene, preset: Preset) -> Float[Array, "height width"]:
    """The image without noise: lensed source, point-spread function, sky.

    Args:
      scene: one scene.
      preset: what the scene was drawn from.

    Returns:
      Expected photon counts in each pixel.
    """
    instrument, source = preset.instrument, preset.source
    # The margin's light is blurred into the image. Published images have it: strong shear sends arcs
    # past the edge, and the outermost pixels are no darker for it.
    margin = instrument.psf_size // 2
    x, y = physics.pixel_grid(
        instrument.image_size + 2 * margin, instrument.pixel_scale, subpixels=instrument.subpixels
    )
    beta_x, beta_y = physics.lens_equation(x, y, *deflection(scene, x, y))
    brightness = physics.sersic(
        beta_x,
        beta_y,
        source.amp,
        source.R_sersic,
        source.n_sersic,
        e1=scene.source_e1,
        e2=scene.source_e2,
        center_x=scene.source_x,
        center_y=scene.source_y,
    )
    image = physics.bin_mean(brightness, instrument.subpixels)
    kernel = gaussian_kernel(instrument.psf_sigma / instrument.pixel_scale, instrument.psf_size)
    return blur(image, kernel) + instrument.sky


def deflection(
    scene: Scene, x: Float[Array, "*grid"], y: Float[Array, "*grid"]
) -> tuple[Float[Array, "*grid"], Float[Array, "*grid"]]:
    """Deflection of a scene's main lens, shear and substructure together, arcsec."""
    lens_x, lens_y = physics.sis_deflection(x, y, scene.theta_E)
    shear_x, shear_y = physics.shear_deflection(x, y, scene.gamma1, scene.gamma2)
    masses_x, masses_y = physics.point_masses_deflection(x, y, scene.masses)
    return lens_x + shear_x + masses_x, lens_y + shear_y + masses_y
