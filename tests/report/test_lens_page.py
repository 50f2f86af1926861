"""Pages of fitted lenses: content, escaping, self-containment, and the data of the figures."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers import chromium
from helpers.made_fits import lens_model, made_fit
from lenstronomy.LightModel.light_model import LightModel
from PIL import Image

from lensjax.modeling import SIE, Shapelets
from lensjax.modeling.verdict import Verdict
from lensjax.report.lens_figures import lens_views, thumbnail
from lensjax.report.lens_index import render_index
from lensjax.report.lens_page import render_lens_page
from lensjax.report.plots import paper_style

NAME = "J0946 <b>&"
REASONS = ("the external shear is 0.31", "parameters at a bound: <mass.0.e1>")


@pytest.fixture(scope="module")
def fitted():
    """A doubtful fit in which some pixels are not used."""
    _, fit = made_fit(lens_model(SIE(), (Shapelets(order=4),)), 1)
    noise = fit.noise.copy()
    noise[:5] = np.inf
    return dataclasses.replace(
        fit,
        noise=noise,
        image=fit.model_image,
        covariance=np.diag(np.full(len(fit.names), 0.0123**2)),
        radii={"Shapelets 2": 0.712, "Shapelets 4": 0.7},
        others=((1.23, 1.4),),
        verdict=Verdict("doubtful", REASONS),
        notes=("noise: extension ERR, standard deviation",),
    )


@pytest.fixture(scope="module")
def page(fitted):
    return render_lens_page(NAME, fitted)


class Text(HTMLParser):
    """Collects the text and the links of a page, and checks that its elements are balanced."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, page):
        super().__init__()
        self.open, self.parts, self.links = [], [], []
        self.feed(page)
        self.text = " ".join(" ".join(self.parts).split())

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [value for name, value in attributes if name in ("href", "src")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.parts.append(data)


def test_page_states_result_verdict_and_reasons(page):
    found = Text(page)
    assert not found.open
    for part in (NAME, *REASONS, "noise: extension ERR", "0.700", "± 0.012", "+1.71 %", "1.2300"):
        assert part in found.text, part
    assert "doubtful" in found.text
    assert NAME not in page
    assert "&lt;mass.0.e1&gt;" in page


def test_page_needs_no_other_files(page):
    assert all(link.startswith(("#", "data:image/png")) for link in Text(page).links)
    assert "default-src 'none'" in page
    assert page.isascii()


def test_page_has_eight_figures_with_alternative_text(page):
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)"[^>]*alt="([^"]+)"', page)
    titles = [alt.split(":")[0] for _, alt in pictures]
    assert len(set(titles)) == 8
    for content, title in zip(pictures, titles, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content[0]))).convert("RGB"))
        assert pixels.std() > 10, title


def test_source_figure_shows_the_unlensed_source(fitted):
    with paper_style():
        views = {view.title: view.figure for view in lens_views(fitted)}
    axes = views["Source"].axes[0]
    (picture,) = axes.get_images()
    shown, (left, right, bottom, top) = picture.get_array(), picture.get_extent()
    x, y = np.meshgrid(np.linspace(left, right, shown.shape[1]), np.linspace(bottom, top, shown.shape[0]))
    exported = fitted.to_lenstronomy()
    expected = LightModel(exported["source_light_model_list"]).surface_brightness(
        x.ravel(), y.ravel(), exported["kwargs_source"]
    )
    expected = expected.reshape(x.shape) * fitted.frame.pixel_scale**2
    np.testing.assert_allclose(shown, expected, atol=1e-4 * np.abs(expected).max())
    # The tangential critical curve of an isothermal lens has about its Einstein radius.
    curve = views["Critical curves"].axes[0].get_lines()[0].get_xydata()
    center = [fitted.parameters[f"mass.0.center_{axis}"] for axis in "xy"]
    assert np.hypot(*(curve - center).T).mean() == pytest.approx(fitted.einstein_radius, rel=0.05)


def test_unused_pixels_are_gray_in_the_thumbnail(fitted):
    pixels = np.asarray(Image.open(io.BytesIO(thumbnail(fitted))).convert("RGB"))
    rows, columns = fitted.image.shape
    assert pixels.shape == (rows, 3 * columns, 3)
    data, model, residual = np.split(pixels[::-1], 3, axis=1)
    for part in (data, residual):
        assert (abs(part[:5].astype(int) - 128) < 8).all()
    assert len(np.unique(model[:5].reshape(-1, 3), axis=0)) > 1
    assert (residual[5:] > 235).all()  # the image is the model: white


ROWS = [
    {"name": "b", "verdict": "good", "reasons": "", "mass.0.theta_E": 1.5, "reduced_chi_square": 1.01},
    {"name": "a <i>", "verdict": "doubtful", "reasons": "<why>", "mass.0.theta_E": 0.9},
    {"name": "c", "verdict": "failed", "reasons": "c.fits: is not a FITS file"},
]


def test_index_lists_all_lenses_and_links_to_pages(fitted):
    page = render_index(ROWS, {"b": thumbnail(fitted), "a <i>": thumbnail(fitted)})
    found = Text(page)
    links = [link for link in found.links if not link.startswith("data:image/png")]
    assert links == ["b.html", "a%20%3Ci%3E.html"]
    for part in ("3 lenses", "1.5000", "<why>", "c.fits: is not a FITS file", "a <i>"):
        assert part in found.text, part


def test_headings_of_the_index_sort_it(tmp_path):
    if (program := chromium.find()) is None:
        pytest.skip("needs chromium")
    file = tmp_path / "index.html"
    file.write_text(render_index(ROWS, {}))
    names = "[...document.querySelectorAll('tbody th')].map((cell) => cell.textContent).join()"
    with chromium.tab(program, tmp_path / "profile") as tab:
        tab.open(file, width=1100)
        orders = [tab.evaluate(names)]
        for column in (1, 1, 3, 0):
            tab.evaluate(f"document.querySelectorAll('thead button')[{column}].click()")
            orders.append(tab.evaluate(names))
        assert not [event for event in tab.events if event.get("method") == "Log.entryAdded"]
    # As given; by Einstein radius, ascending and descending; by verdict; by name.
    assert orders == ["b,a <i>,c", "a <i>,b,c", "c,b,a <i>", "b,a <i>,c", "a <i>,b,c"]
