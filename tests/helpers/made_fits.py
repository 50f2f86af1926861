"""Fit results that are constructed without fitting; their images agree with their models."""

import jax.numpy as jnp
import numpy as np

from lensjax.modeling import LensModel, LensModelFit, MultiGaussian, Observation, Sersic, Shear, gaussian_psf
from lensjax.modeling.frame import prepare
from lensjax.modeling.variable_projection import model_images
from lensjax.modeling.verdict import Verdict

SCALE = 0.05


def lens_model(main, source):
    return LensModel(mass=(main, Shear()), lens_light=(MultiGaussian(), Sersic()), source=source)


def values_of(model):
    """Values of all parameters; consecutive parameters have different values."""
    known = {"theta_E": 0.7, "gamma": 2.2, "R_sersic": 0.4, "n_sersic": 1.3, "beta": 0.13}
    return {
        name: known.get(name.split(".")[-1], 0.02 * (number % 7) - 0.05)
        for number, name in enumerate(model.parameters)
    }


def fit_result(model, free, frame, image, **fields):
    """A result with the parameters `free`; by default, of a good fit without artifacts and without light."""
    empty = np.zeros(image.shape)
    default = {
        "noise": empty + 1,
        "lens_light": empty,
        "sky": empty,
        "lensed_source": empty,
        "artifacts": empty > 0,
        "degrees_of_freedom": 1,
        "sky_variance": 1.0,
        "radii": {},
        "others": (),
        "verdict": Verdict("good", ()),
        "notes": (),
    }
    parameters = {name: float(value) for name, value in model.values(free).items()}
    return LensModelFit(
        model=model, parameters=parameters, names=model.fitted, frame=frame, image=image, **(default | fields)
    )


def made_fit(model, psf_subpixels, shape=(50, 53)):
    """The point-spread function, and a fit result whose frame and image have different centers."""
    rng = np.random.default_rng(0)
    psf = gaussian_psf(0.12, SCALE / psf_subpixels)
    skewed = psf * (1 + 0.3 * np.tri(len(psf)))  # a kernel without symmetry shows how it is applied
    observation = Observation(
        rng.normal(0, 1, shape), 1.0, skewed, pixel_scale=SCALE, psf_subpixels=psf_subpixels
    )
    prepared = prepare(observation, radius=1.1)
    frame, data = prepared.fine
    free = model.start(values_of(model))
    amplitudes = rng.uniform(0.5, 2, sum(model.amplitudes.values()))
    images = model_images(model, frame, data, free, amplitudes)
    return data.psf, fit_result(
        model,
        jnp.asarray(free),
        frame,
        data.image,
        covariance=np.zeros(2 * [len(free)]),
        amplitudes=amplitudes,
        lens_light=images["lens_light"],
        sky=images["sky"],
        lensed_source=images["source"],
        chi_square=1.0,
        detection=9.0,
    )
