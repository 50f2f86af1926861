"""The exported model gives the same image in lenstronomy."""

import json

import numpy as np
import pytest
from helpers.made_fits import lens_model, made_fit
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel as LenstronomyLens
from lenstronomy.LightModel.light_model import LightModel

from lensjax.modeling import EPL, SIE, SIS, MultiGaussian, Shapelets


def render(content, psf):
    """Images of foreground light and lensed source, by lenstronomy from the JSON content and the kernel."""
    frame, model = content["frame"], content["lenstronomy"]
    scale, factor = frame["pixel_scale"], frame["psf_subpixels"]
    edge = len(psf) // factor  # the point-spread function also scatters light from outside of the frame
    rows, columns = frame["rows"] + 2 * edge, frame["columns"] + 2 * edge
    data = ImageData(
        np.zeros((rows, columns)),
        1.0,
        1.0,
        ra_at_xy_0=frame["center_x"] - (columns - 1) / 2 * scale,
        dec_at_xy_0=frame["center_y"] - (rows - 1) / 2 * scale,
        transform_pix2angle=scale * np.eye(2),
    )
    kernel = PSF("PIXEL", kernel_point_source=psf, point_source_supersampling_factor=factor)
    image_model = ImageModel(
        data,
        kernel,
        LenstronomyLens(model["lens_model_list"]),
        LightModel(model["source_light_model_list"]),
        LightModel(model["lens_light_model_list"]),
        kwargs_numerics={
            "supersampling_factor": frame["subpixels"],
            "supersampling_convolution": factor > 1,
            "supersampling_kernel_size": None,
        },
    )
    parts = {name: model[f"kwargs_{name}"] for name in ("lens", "source", "lens_light")}
    arguments = {f"kwargs_{name}": value for name, value in parts.items()}
    images = [
        image_model.image(**arguments, lens_light_add=light, source_add=not light) for light in (True, False)
    ]
    return [image[edge:-edge, edge:-edge] for image in images]


@pytest.mark.filterwarnings("ignore:`axes` should not be `None`:DeprecationWarning")  # in lenstronomy
@pytest.mark.parametrize(
    ("main", "source", "psf_subpixels"),
    [
        (SIE(), (Shapelets(order=8),), 1),
        (EPL(), (Shapelets(order=3), Shapelets(order=1)), 2),
        (SIS(), (MultiGaussian(number=4, outer_e1=None, outer_e2=None),), 2),
    ],
    ids=["sie", "epl", "sis"],
)
def test_exported_model_renders_the_same_image_in_lenstronomy(main, source, psf_subpixels):
    psf, fit = made_fit(lens_model(main, source), psf_subpixels)
    assert abs(fit.frame.center_x) > 0.01
    light, lensed = render(json.loads(fit.to_json()), psf)
    for found, expected in ((light, fit.lens_light), (lensed, fit.lensed_source)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
