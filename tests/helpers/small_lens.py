"""A small lens: its model, its true parameters, and images rendered by lenstronomy."""

import numpy as np
from lenstronomy.LensModel.lens_model import LensModel as LenstronomyLens
from lenstronomy.LightModel.light_model import LightModel
from scipy import signal

from lensjax.modeling import SIE, LensModel, MultiGaussian, Parameter, Prior, Shapelets
from lensjax.modeling.frame import Data, Frame, margin, pixel_positions
from lensjax.modeling.psf import gaussian_psf

FIXED = Parameter.fixed(0.0)
MODEL = LensModel(
    mass=(SIE(center_x=FIXED, center_y=FIXED),),
    lens_light=(
        MultiGaussian(
            smallest=0.2, largest=0.7, number=2, center_x=FIXED, center_y=FIXED, outer_e1=None, outer_e2=None
        ),
    ),
    source=(Shapelets(order=1),),
    sky=0,
    priors=(Prior((("mass.0.e1", 1.0), ("lens_light.0.e1", -0.8)), 0.0, 0.004),),
)
TRUTH = {
    "mass.0.theta_E": 1.05,
    "mass.0.e1": 0.12,
    "mass.0.e2": -0.08,
    "lens_light.0.e1": 0.15,
    "lens_light.0.e2": -0.1,
    "source.0.beta": 0.15,
    "source.0.center_x": 0.11,
    "source.0.center_y": -0.06,
}
AMPLITUDES = np.array([8.0, 20.0, 0.5, 30.0, 4.0, -6.0])  # two Gaussians, the sky, three shapelets
FREE = np.array(list(TRUTH.values()))
FRAME = Frame(41, 41, 0.08, 0.0, 0.0, 9)
PSF = gaussian_psf(0.12, 0.08)


def simulate(parameters, perturber=None):
    """Image that lenstronomy renders from all parameters: those of `TRUTH`, then the amplitudes.

    `perturber` contains the arguments of lenstronomy's PJAFFE.
    """
    theta_E, e1, e2, light_e1, light_e2, beta, source_x, source_y = parameters[:8]
    inner, outer, sky, *shapelets = parameters[8:]
    x, y = (axis.ravel() for axis in pixel_positions(FRAME, margin(FRAME)))
    place = {"center_x": 0.0, "center_y": 0.0}
    masses = [{"theta_E": theta_E, "e1": e1, "e2": e2, **place}] + [perturber] * (perturber is not None)
    lens = LenstronomyLens(["SIE", "PJAFFE"][: len(masses)])
    beta_x, beta_y = lens.ray_shooting(x, y, masses)
    widths = MODEL.lens_light[0].sigmas
    gaussians = [
        {"amp": amp * 2 * np.pi * sigma**2, "sigma": sigma, "e1": light_e1, "e2": light_e2, **place}
        for amp, sigma in zip((inner, outer), widths, strict=True)
    ]
    image = LightModel(["GAUSSIAN_ELLIPSE"] * 2).surface_brightness(x, y, gaussians)
    n_max = round(np.sqrt(2 * len(shapelets) + 0.25) - 1.5)
    source = {"n_max": n_max, "beta": beta, "amp": shapelets, "center_x": source_x, "center_y": source_y}
    image = image + LightModel(["SHAPELETS"]).surface_brightness(beta_x, beta_y, [source])
    side = FRAME.rows + 2 * margin(FRAME)
    return signal.fftconvolve(image.reshape(side, side), PSF, mode="valid") + sky


def observe(seed=None, perturber=None):
    """Data without noise, or with white noise of standard deviation 1; some pixels have weight 0."""
    image = simulate(np.append(FREE, AMPLITUDES), perturber)
    if seed is not None:
        image = image + np.random.default_rng(seed).normal(0, 1, image.shape)
    weight = np.ones(image.shape)
    weight[3:6, 20:24] = 0
    return Data(*(np.asarray(part, np.float32) for part in (image, weight, PSF)))
