"""A fit of the small lens, optionally with a dark perturber in the image that the model does not include."""

import numpy as np

from helpers.made_fits import fit_result
from helpers.small_cutout import write_fits
from helpers.small_lens import FRAME, FREE, MODEL, PSF, observe
from lensjax.modeling import Observation
from lensjax.modeling.covariance import parameter_covariance
from lensjax.modeling.variable_projection import Settings, fit_model, model_images
from lensjax.substructure import Halo

HALO = Halo(z_lens=0.3, z_source=0.8)
POSITION, LOG10_MASS = (0.75, 0.75), 9.6
SETTINGS = Settings(steps=30, tolerance=1e-3, prior_weight=1.0)


def perturber():
    """Arguments of lenstronomy's PJAFFE profile for the perturber."""
    values = {name: float(value) for name, value in HALO.parameters(10**LOG10_MASS, 1.05).items()}
    return values | {"center_x": POSITION[0], "center_y": POSITION[1]}


def fitted_lens(seed=1, *, perturbed=True):
    """The observation and its fit, without the search for starting values."""
    data = observe(seed, perturber() if perturbed else None)
    return observation(data), fit_data(data)


def observation(data):
    """The data as an observation."""
    noise = np.where(data.weight > 0, 1.0, np.inf)
    return Observation(data.image, noise, PSF, pixel_scale=FRAME.pixel_scale)


def fit_data(data):
    """Result of a fit of the model that starts at the truth."""
    fit = fit_model(MODEL, FRAME, data, FREE, SETTINGS)
    images = model_images(MODEL, FRAME, data, fit.free, fit.amplitudes)
    covariance = parameter_covariance(
        MODEL, FRAME, data, fit, prior_weight=1.0, correlate=lambda columns: columns
    )
    return fit_result(
        MODEL,
        fit.free,
        FRAME,
        np.asarray(data.image, np.float64),
        covariance=covariance,
        amplitudes=fit.amplitudes,
        noise=np.where(data.weight > 0, 1.0, np.inf),
        lens_light=images["lens_light"],
        sky=images["sky"],
        lensed_source=images["source"],
        chi_square=fit.chi_square,
        degrees_of_freedom=int((data.weight > 0).sum()) - 14,
        detection=100.0,
    )


def write_observation(folder, data):
    """Writes image.fits, noise.fits and psf.fits to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    seen = observation(data)
    for name, pixels in (("image", seen.image), ("noise", np.ones(seen.image.shape)), ("psf", seen.psf)):
        write_fits(folder / f"{name}.fits", pixels, FRAME.pixel_scale)
    return folder
