"""A small simulated lens as FITS files."""

import jax.numpy as jnp
import numpy as np
from astropy.io import fits

from lensjax import physics
from lensjax.modeling.psf import gaussian_psf

SCALE = 0.08  # arcsec
THETA_E = 1.1  # arcsec
NOISE = 1.0


def small_lens(size=61, seed=0, centers=((0.0, 0.0),)):
    """Image, noise map and point-spread function of galaxies that each lens a compact source."""
    x, y = map(jnp.asarray, np.meshgrid(*2 * [(np.arange(3 * size) - (3 * size - 1) / 2) * SCALE / 3]))
    light = source = 0.0
    for center_x, center_y in centers:
        dx, dy = x - center_x, y - center_y
        deflection = physics.sie_deflection(dx, dy, THETA_E, e1=0.1, e2=-0.05)
        beta = physics.lens_equation(dx, dy, *deflection)
        light += 60 * jnp.exp(-(dx**2 + 1.3 * dy**2) / (2 * 0.35**2))
        source += 30 * jnp.exp(-((beta[0] - 0.1) ** 2 + (beta[1] + 0.05) ** 2) / (2 * 0.12**2))
    fine = np.asarray(light + source, np.float64).reshape(size, 3, size, 3).mean((1, 3))
    psf = gaussian_psf(0.15, SCALE)
    half = len(psf) // 2
    padded = np.pad(fine, half, mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, psf.shape)
    image = np.einsum("ijkl,kl->ij", views, psf) + 2.0
    return image + np.random.default_rng(seed).normal(0, NOISE, image.shape), np.full(image.shape, NOISE), psf


def write_fits(path, pixels, scale=SCALE):
    """Writes an image with its pixel scale, or without it if `scale` is None."""
    unit = fits.PrimaryHDU(np.asarray(pixels, np.float32))
    if scale is not None:
        unit.header["CDELT1"], unit.header["CDELT2"] = -scale / 3600, scale / 3600
        unit.header["CTYPE1"], unit.header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    unit.writeto(path, overwrite=True)
    return path


def write_lens(folder, **options):
    """Writes image.fits, noise.fits and psf.fits of `small_lens` to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    image, noise, psf = small_lens(**options)
    for name, pixels in (("image", image), ("noise", noise), ("psf", psf)):
        write_fits(folder / f"{name}.fits", pixels)
    return folder
