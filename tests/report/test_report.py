"""The report page: content, self-containment, and display in a browser without network access."""

import base64
import html.parser
import io
import json
import re
import types

import jax
import matplotlib
import numpy as np
import pytest
from helpers import chromium
from helpers.image_files import bars, npy_bytes, write
from helpers.lenses import FITTED
from helpers.random_runs import SIZE, make_run
from PIL import Image
from scipy.special import softmax
from scipy.stats import binomtest

from lensjax import models
from lensjax.config import default_config
from lensjax.data.images import CLASSES, ImageSet
from lensjax.evaluation.reliability import reliability_diagram, wilson_interval
from lensjax.evaluation.scores import compute_scores
from lensjax.fitting import COMMON_TEST
from lensjax.main import main
from lensjax.report import lens_views, plots
from lensjax.report.galleries import certainty_gallery, most_certain, select_for_detail
from lensjax.report.html import Cell, render_table
from lensjax.report.panels import Panel, Picture, Strip, encode_png, panel_figure
from lensjax.report.provenance import collect_provenance
from lensjax.report.published import comparability_note, training_images

ODD = "<b>&amp;\u00e9 \u661f $x_{.npy"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Folder of a report on images, one of which has special characters in its name."""
    folder = tmp_path_factory.mktemp("reported")
    files = {
        f"{part}/{name}/{ODD if index == label == 0 else f'{index}.npy'}": npy_bytes(
            bars(17 * label + 5 * index + 100 * offset)
        )
        for offset, part in enumerate(("train", "val", "test"))
        for label, name in enumerate(CLASSES)
        for index in range(3)
    }
    write(folder / "data", files)
    run = make_run(folder / "run", **{"data.source": str(folder / "data")})
    assert main(["--mode=evaluate", f"--workdir={run}"]) == 0
    return run / "report"


class Page(html.parser.HTMLParser):
    """Elements of a page, with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(report):
    text = (report / "index.html").read_bytes().decode("ascii")
    return Page(text)


def test_page_shows_all_scores_and_published_values(report, page):
    metrics = json.loads((report / "metrics.json").read_text())
    for name, (low, high) in metrics["intervals"].items():
        assert f"{metrics[name]:.4f}({low:.4f} to {high:.4f})" in page.text, name
    for value in ("0.9890", "0.9926", "0.9810", "0.9933", "0.9879", "0.9902", "0.9804", "0.9932"):
        assert value in page.text
    for row in metrics["confusion_matrix"]:
        assert "".join(f"{100 * count / sum(row):.1f} %{count}" for count in row) in page.text
    assert "--mode evaluate --workdir" in page.text
    assert "config.model.width4" in page.text
    assert "the published results are for the images" in page.text


def test_page_is_self_contained_and_accessible(page):
    assert not page.all("script")
    assert not page.all("link")
    for image in page.all("img"):
        assert image["src"].startswith("data:image/")
        assert len(image["alt"]) > 10
    assert {source["srcset"].partition(";")[0] for source in page.all("source")} == {"data:image/svg+xml"}
    assert [policy["content"] for policy in page.all("meta") if "http-equiv" in policy] == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    ]
    assert len(page.all("table")) == len(page.all("caption"))
    assert {cell.get("scope") for cell in page.all("th")} == {"row", "col"}
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(names)) == len(names)
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(names)
    assert page.all("html")[0]["lang"] == "en"


def test_special_characters_in_names_are_escaped(page):
    assert ODD in page.text
    assert any(ODD in image["alt"] for image in page.all("img"))


def test_dark_figures_have_no_light_theme_ink(page):
    light = [image for image in page.all("img") if image["src"].startswith("data:image/svg+xml")]
    assert len(page.all("source")) == len(light) == 6
    for source in page.all("source"):
        dark = base64.b64decode(source["srcset"].partition("base64,")[2]).decode()
        assert "<svg" in dark
        assert plots.INK not in dark
        assert "#e6e8eb" in dark


def test_pdf_figures_have_column_width_and_fonts(report):
    files = list((report / "figures").glob("*.pdf"))
    assert {file.with_suffix(".png").exists() for file in files} == {True}
    widths = {}
    for file in files:
        content = file.read_bytes()
        assert b"/Type3" not in content  # letters as curves
        assert b"/CIDFontType2" in content or b"/TrueType" in content
        inches = float(re.search(rb"/MediaBox \[ 0 0 (\S+)", content)[1]) / 72
        widths[file.stem] = round(inches, 6)
    assert set(widths.values()) == {plots.NARROW, plots.WIDE}
    assert widths["roc"] == plots.NARROW
    assert widths["most_certain_wrong"] == plots.WIDE


def test_browser_shows_all_images_without_network(report, tmp_path):
    if (program := chromium.find()) is None:
        pytest.skip("needs chromium")
    broken = (
        "Promise.all([...document.images].map(image => image.decode().then("
        "() => image.naturalWidth > 0 ? '' : image.alt, () => image.alt)))"
        ".then(found => found.filter(Boolean))"
    )
    messages = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
    with chromium.tab(program, tmp_path / "profile") as tab:
        for width, dark in ((1200, False), (360, False), (360, True)):
            tab.open(report / "index.html", width=width, dark=dark)
            assert tab.evaluate("innerWidth") == width
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate("document.images.length") > 20
            assert tab.evaluate(broken) == []
            source = tab.evaluate("document.querySelector('picture img').currentSrc")
            assert (b"#e6e8eb" in base64.b64decode(source.partition("base64,")[2])) == dark
            assert not messages & set(tab.event_names())
            requests = [
                event["params"]["request"]["url"]
                for event in tab.events
                if event.get("method") == "Network.requestWillBeSent"
            ]
            assert {url.partition(":")[0] for url in requests} <= {"file", "data"}
            assert sum(url.startswith("file:") for url in requests) == 1


def test_table_cells_have_escaped_attributes():
    rows = [["first", Cell("1", {"class": "full", "title": 'a "b"'})], ["second", "2"]]
    table = Page(render_table("a table", ["name", "value"], rows, highlighted_row=1))
    assert table.all("td") == [{"class": "full", "title": 'a "b"'}, {}]
    assert table.all("tr") == [{}, {}, {"class": "here"}]


@pytest.fixture(scope="module")
def predictions():
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 3, 400).astype(np.int32)
    return labels, softmax(2 * generator.normal(size=(400, 3)) + np.eye(3)[labels], axis=1)


def test_most_certain_sorts_and_filters_predictions(predictions):
    labels, probabilities = predictions
    all_rows = []
    for label in range(3):
        for right in (True, False):
            rows = most_certain(labels, probabilities, label=label, right=right)
            assert set(labels[rows]) == {label}
            assert {int(probabilities[row].argmax()) == label for row in rows} == {right}
            certainty = [max(probabilities[row]) for row in rows]
            assert certainty == sorted(certainty, reverse=True)
            all_rows += rows.tolist()
    assert sorted(all_rows) == list(range(400))
    first = [most_certain(labels, probabilities, label=1, right=right)[0] for right in (True, False)]
    assert select_for_detail(labels, probabilities)[2:4].tolist() == first


def test_empty_gallery_states_the_count(predictions):
    labels = predictions[0]
    pixels = np.broadcast_to(np.float32(0.5), (400, 4, 4))
    images = ImageSet(pixels, np.ones(400, np.float32), labels, ("",) * 400)
    panel = certainty_gallery(images, np.eye(3)[labels], right=False, split="test")
    assert [strip.pictures for strip in panel.strips] == [()] * 3
    assert panel.strips[1].note == f"0 of {(labels == 1).sum()} classified incorrectly"
    shown = certainty_gallery(images, np.eye(3)[labels], right=True, split="test").strips[2].pictures
    assert shown[0].caption == f"test image {np.argmax(labels == 2)}\nVortex > 0.9999"
    with plots.paper_style():
        assert panel_figure(panel).get_size_inches()[0] == plots.WIDE


def test_reliability_diagram_matches_calibration_error(predictions):
    labels, probabilities = predictions
    found = reliability_diagram(labels, probabilities)
    assert found.ece == pytest.approx(compute_scores(labels, probabilities)["ece"], abs=1e-12)
    assert found.counts.sum() == 400
    right = np.round(found.accuracy * found.counts[found.counts > 0]).astype(int)
    assert right.sum() == (probabilities.argmax(1) == labels).sum()


@pytest.mark.parametrize(("hits", "number"), [(0, 3), (7, 7), (40, 60)])
def test_wilson_interval_matches_scipy(hits, number):
    expected = binomtest(hits, number).proportion_ci(method="wilson")
    found = wilson_interval(np.array([hits / number]), np.array([number]))
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6, atol=1e-12)


def test_png_has_colormap_colors_first_row_at_bottom():
    values = np.array([[0.0, 4.0], [2.0, np.nan]])
    picture = Picture(values, "", "", "viridis", (0, 4))
    shown = np.asarray(Image.open(io.BytesIO(encode_png(picture))).convert("RGB"))
    expected = matplotlib.colormaps["viridis"]([0.0, 1.0, 0.5], bytes=True)[:, :3]
    assert np.abs(shown[1].astype(int) - expected[:2]).max() <= 2
    assert np.abs(shown[0, 0].astype(int) - expected[2]).max() <= 2
    assert shown[0, 1].tolist() == [128, 128, 128]
    red = Picture(np.stack([np.eye(2), np.zeros((2, 2)), np.zeros((2, 2))], -1), "", "")
    shown = np.asarray(Image.open(io.BytesIO(encode_png(red))).convert("RGB"))
    assert shown[..., 0].tolist() == [[0, 255], [255, 0]]


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("test", "Not directly comparable"),
        ("test", "not used to select the best epoch"),
        ("validation", "makes both results optimistic"),
        ("train", "does not measure performance on new images"),
    ],
)
def test_comparability_note_names_limits_of_split(split, words):
    assert words in comparability_note(default_config(), split)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("simulated:common_test", "30,000 simulated"),
        ("simulated:common_test?fresh", "30,000 simulated per epoch"),
        ("dataset.zip", "see Reproducibility"),
    ],
)
def test_training_images_are_those_of_the_source(source, words):
    config = default_config()
    config.data.source = source
    assert training_images(config) == words


def test_reference_data_and_selection_are_directly_comparable():
    config = default_config()
    config.data.source, config.data.selection = "dataset.zip", "reference"
    note = comparability_note(config, "test")
    assert "Not directly comparable" not in note
    assert "makes both results optimistic" in note
    assert "its training images" in comparability_note(config, "train")


def test_report_command_reproduces_options(tmp_path):
    found = collect_provenance(default_config(), tmp_path / "a run", split="validation", tta="d4")
    folder = f"'{tmp_path}/a run'"
    expected = f"python -m lensjax.main --mode evaluate --workdir {folder} --split validation --tta d4"
    assert found.report_command == expected
    assert found.settings == {}


def trained(size=SIZE, **fields):
    """A model with random parameters, with the attributes of a run that a view needs."""
    config = default_config()
    config.update_from_flattened_dict(fields)
    model = models.build(config)
    seen = np.random.default_rng(0).uniform(0, 1, (2, size, size, 1)).astype(np.float32)
    variables = jax.jit(lambda key: model.init(key, seen, train=False))(jax.random.key(0))
    return types.SimpleNamespace(config=config, model=model, variables=variables), seen


def physics_loss(run, seen):
    def loss(variables):
        return run.model.apply(variables, seen, train=False, with_physics_loss=True).physics_loss

    return jax.jit(loss)(run.variables)


def test_reference_view_residual_gives_physics_loss():
    small = {"model.patch_size": 8, "model.embedding_size": 8, "model.num_heads": 1}
    small |= {"model.name": "lens_vit_pinn", "model.depth": 1, "model.width": 2}
    run, seen = trained(**small)
    view = lens_views.reference_view(run, seen)
    residual = view.columns[4].values
    assert residual.std() > 0.01
    assert np.allclose(np.square(residual).mean((1, 2)), physics_loss(run, seen), rtol=1e-5)


ENCODER = {"model.name": "lens_encoder_net", "model.width": 2, "model.num_blocks": 0}
SPHERE = {"theta_E": 1.2, "gamma1": 0.0, "gamma2": 0.0}
SOURCE = {"source_x": 0.3, "source_y": -0.1, "source_e1": 0.0, "source_e2": 0.0}


def set_constant_prediction(run, lens):
    """Sets the encoder's last layer so that it predicts these parameters for every image."""

    def logit(value, low, high):
        return np.log((value - low) / (high - value))

    parameters = [COMMON_TEST.lens.parameters[name] for name in COMMON_TEST.nonlinear]
    bias = [
        logit(lens[name], *parameter.bounds) - logit(parameter.value, *parameter.bounds)
        for name, parameter in zip(FITTED, parameters, strict=True)
    ]
    last = run.variables["params"]["encoder"]["fc"]
    last["kernel"], last["bias"] = 0 * last["kernel"], np.asarray(bias, np.float32)


def test_encoder_view_shows_deflection_and_source():
    """A singular isothermal sphere deflects all rays by theta_E; the light returns to the source position."""
    run, _ = trained(size=100, **ENCODER)
    set_constant_prediction(run, SPHERE | SOURCE)
    theta = (np.arange(100) - 49.5) * COMMON_TEST.pixel_scale
    x, y = np.meshgrid(theta, theta)
    beta_x, beta_y = (axis * (1 - 1.2 / np.hypot(x, y)) for axis in (x, y))
    image = np.exp(-((beta_x - 0.3) ** 2 + (beta_y + 0.1) ** 2) / (2 * 0.1**2)).astype(np.float32)
    view = lens_views.encoder_view(run, image[None, ..., None])
    values = {column.title.partition("\n")[0]: column.values[0] for column in view.columns}
    np.testing.assert_array_equal(values["image"], image)
    np.testing.assert_allclose(values["deflection"], 1.2, atol=1e-4)
    source = values["source plane"]
    core = np.where(np.nan_to_num(source) > 0.5 * np.nanmax(source), source, 0)
    position = (np.arange(50) - 24.5) * 0.8 * COMMON_TEST.pixel_scale
    center = [(core.sum(axis) * position).sum() / core.sum() for axis in (0, 1)]
    np.testing.assert_allclose(center, [0.3, -0.1], atol=0.01)


def test_encoder_view_residual_gives_physics_loss():
    run, seen = trained(**ENCODER)
    view = lens_views.encoder_view(run, seen)
    chi_square = np.square(view.columns[2].values).mean((1, 2))
    assert np.allclose(np.log(chi_square), physics_loss(run, seen), rtol=1e-4, atol=1e-5)


def test_strips_of_different_lengths_share_a_figure():
    picture = Picture(np.zeros((3, 3)), "one\ntwo", "a square")
    strips = (Strip("first", "", (picture,) * 2), Strip("second", "none", ()))
    with plots.paper_style():
        figure = panel_figure(Panel("name", "Title", "Text.", strips))
    width, height = figure.get_size_inches()
    assert width == plots.WIDE
    assert height < width / 3
