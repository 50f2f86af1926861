"""Renders a simulated scene in NumPy, directly from the formulas."""

import numpy as np


def sersic(x, y, *, amp, R_sersic, n_sersic, e1, e2, center_x, center_y):
    """Elliptical Sersic profile, computed from the position angle and the axis ratio."""
    dx, dy = x - center_x, y - center_y
    ellipticity = np.hypot(e1, e2)
    angle = 0.5 * np.arctan2(e2, e1)
    axis_ratio = (1 - ellipticity) / (1 + ellipticity)
    u = np.cos(angle) * dx + np.sin(angle) * dy
    v = -np.sin(angle) * dx + np.cos(angle) * dy
    elliptical = np.sqrt(axis_ratio * u**2 + v**2 / axis_ratio)
    b = 1.9992 * n_sersic - 0.3271
    return amp * np.exp(-b * ((elliptical / R_sersic) ** (1 / n_sersic) - 1))


def render(scene, preset, lens_light=()):
    """Expected counts of a scene whose fields are NumPy arrays or numbers, for a preset of the simulator.

    `lens_light` are arguments of `sersic` for galaxies in front of the lens.
    """
    instrument, source = preset.instrument, preset.source
    size, sub = instrument.image_size, instrument.subpixels
    half = instrument.psf_size // 2
    field = size + 2 * half  # including the margin that is blurred into the image
    axis = (np.arange(field * sub) - (field * sub - 1) / 2) * instrument.pixel_scale / sub
    x, y = axis[None, :], axis[:, None]
    radius = np.hypot(x, y)
    beta_x = x - scene.theta_E * x / radius - scene.gamma1 * x - scene.gamma2 * y
    beta_y = y - scene.theta_E * y / radius - scene.gamma2 * x + scene.gamma1 * y
    for theta_E, mass_x, mass_y in scene.masses:
        square = (x - mass_x) ** 2 + (y - mass_y) ** 2
        beta_x = beta_x - theta_E**2 * (x - mass_x) / square
        beta_y = beta_y - theta_E**2 * (y - mass_y) / square
    light = sersic(
        beta_x,
        beta_y,
        amp=source.amp,
        R_sersic=source.R_sersic,
        n_sersic=source.n_sersic,
        e1=scene.source_e1,
        e2=scene.source_e2,
        center_x=scene.source_x,
        center_y=scene.source_y,
    )
    light = light + sum(sersic(x, y, **galaxy) for galaxy in lens_light)
    image = light.reshape(field, sub, field, sub).mean((1, 3))
    offset = np.arange(-half, half + 1) * instrument.pixel_scale
    kernel = np.exp(-(offset[:, None] ** 2 + offset[None, :] ** 2) / (2 * instrument.psf_sigma**2))
    kernel /= kernel.sum()
    blurred = np.zeros((size, size))
    for row in range(instrument.psf_size):
        for column in range(instrument.psf_size):
            part = image[row : row + size, column : column + size]
            blurred += kernel[row, column] * part
    return blurred + instrument.sky
