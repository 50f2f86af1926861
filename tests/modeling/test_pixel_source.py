"""Sources on a regularized grid of pixels, against direct solutions, lenstronomy and simulated lenses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import physics
from lensjax.errors import UserError
from lensjax.modeling import SIE, LensModel, Observation, Parameter, PixelGrid, gaussian_psf
from lensjax.modeling.covariance import parameter_covariance
from lensjax.modeling.evidence import best_strength
from lensjax.modeling.frame import convolve_columns, margin, pixel_positions, prepare
from lensjax.modeling.linear import solve_amplitudes
from lensjax.modeling.model import replace_source
from lensjax.modeling.pixel_fit import border_brightness, choose_grid, fit_pixel_grid
from lensjax.modeling.sources import FIRST, LATER, POSITIVE_SOURCE
from lensjax.modeling.variable_projection import evaluate_model, fit_model, model_columns

VALUES = {"center_x": 0.1, "center_y": -0.2, "width": 0.8}
LENS = {"theta_E": 1.1, "e1": 0.1, "e2": -0.05, "center_x": 0.0, "center_y": 0.0}
CLUMPS = ((0.1, 0.05, 0.1, 1.0), (0.22, 0.0, 0.04, 1.5), (0.02, 0.15, 0.04, 1.2), (0.12, -0.1, 0.04, 1.5))


def clumpy(x, y):
    """A smooth galaxy with three clumps; `CLUMPS` has x, y, width and peak of each."""
    return sum(peak * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * s**2)) for a, b, s, peak in CLUMPS)


@pytest.fixture(scope="module", autouse=True)
def _implicit_broadcasts():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def simulated():
    """Frame and data of a lensed clumpy source, rendered with 5 x 5 rays per pixel."""
    noise = np.random.default_rng(0).normal(size=(56, 56))
    scale, psf = 0.08, gaussian_psf(0.12, 0.08)
    frame, data = prepare(Observation(noise, 1.0, psf, pixel_scale=scale), radius=4.0).fine
    rays = frame._replace(subpixels=5)
    x, y = (jnp.asarray(each) for each in pixel_positions(rays, margin(frame), 5))
    traced = physics.lens_equation(x, y, *physics.sie_deflection(x, y, **LENS))
    light = jnp.asarray(clumpy(*map(np.asarray, traced)), jnp.float32)
    image = 20 * convolve_columns(light[None], jnp.asarray(data.psf), rays)[0]
    return frame, data._replace(image=np.asarray(data.image + image))


@pytest.fixture(scope="module")
def simple_fit(simulated):
    """A fit with a smooth positive source."""
    model = LensModel(mass=(SIE(),), source=(POSITIVE_SOURCE,), sky=0)
    start = model.start({"mass.0.theta_E": 1.15, "source.0.center_x": 0.1})
    return model, fit_model(model, *simulated, start, FIRST)


def fit_grid(simulated, simple_fit, grid):
    model = replace_source(simple_fit[0], (grid,))
    values = simple_fit[0].values(simple_fit[1].free)
    values |= choose_grid(model, *simple_fit, *simulated)
    return model, fit_pixel_grid(model, *simulated, model.start(values), LATER)


def test_a_clumpy_source_and_its_lens_are_recovered(simulated, simple_fit):
    model, fit = fit_grid(simulated, simple_fit, PixelGrid(number=15))
    values = model.values(fit.free)
    nodes = np.linspace(-0.5, 0.5, 15) * values["source.0.width"]
    x, y = np.meshgrid(nodes + values["source.0.center_x"], nodes + values["source.0.center_y"])
    source = fit.amplitudes[model.pixel_grid[2]]
    assert np.corrcoef(source, clumpy(x, y).ravel())[0, 1] > 0.95
    assert source.max() == pytest.approx(20 * clumpy(x, y).max(), rel=0.2)
    assert values["mass.0.theta_E"] == pytest.approx(LENS["theta_E"], abs=0.005)
    varied = np.sum(~model.held)
    assert varied == 5
    degrees_of_freedom = 56**2 - varied - fit.effective_amplitudes
    assert fit.chi_square / degrees_of_freedom == pytest.approx(1, abs=0.05)
    assert fit.chi_square < 0.7 * simple_fit[1].chi_square  # the clumps matter
    assert border_brightness(model, fit) < 0.1


def test_a_source_beyond_its_grid_is_detected(simulated, simple_fit):
    small = PixelGrid(number=5, width=Parameter.fixed(0.12))
    assert border_brightness(*fit_grid(simulated, simple_fit, small)) > 0.1


def test_amplitudes_and_covariance_solve_the_regularized_normal_equations(simulated):
    model = LensModel(mass=(SIE(),), source=(PixelGrid(number=7),), sky=0)
    values = {f"mass.0.{name}": value for name, value in LENS.items()}
    free = model.start(values | {"source.0.width": 0.9, "source.0.strength": 0.3})
    frame, data = simulated
    fit = evaluate_model(model, frame, data, free)
    columns = model_columns(model, frame, data, free).reshape(50, -1).astype(np.float64)
    penalty = np.zeros((50, 50))
    nodes = np.eye(49).reshape(49, 7, 7)
    for axis in (1, 2):  # second differences of each unit image, 0 outside
        padded = np.pad(nodes, [(0, 0)] + [(1, 1) if each == axis else (0, 0) for each in (1, 2)])
        differences = np.diff(padded, 2, axis=axis).reshape(49, -1)
        penalty[1:, 1:] += 0.3 * differences @ differences.T
    expected = np.linalg.solve(columns @ columns.T + penalty, columns @ data.image.ravel())
    np.testing.assert_allclose(fit.amplitudes, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    inverse = np.linalg.inv(columns @ columns.T + penalty)
    determined = np.trace(columns @ columns.T @ inverse)
    assert fit.effective_amplitudes == pytest.approx(determined, rel=1e-4)
    residual = data.image.ravel() - expected @ columns

    # The covariance of the lens from all parameters and amplitudes at once, with finite differences.
    def image(number, step):
        moved = free + step * (np.arange(len(free)) == number)
        return fit.amplitudes @ model_columns(model, frame, data, moved).reshape(50, -1)

    slopes = [(image(number, 2e-3) - image(number, -2e-3)) / 4e-3 for number in np.flatnonzero(~model.held)]
    design = np.concatenate([slopes, columns])
    prior = np.zeros((len(design), len(design)))
    prior[len(slopes) :, len(slopes) :] = penalty
    joint = np.linalg.inv(design @ design.T + prior)[: len(slopes), : len(slopes)]
    found = parameter_covariance(model, frame, data, fit, prior_weight=1.0, correlate=lambda images: images)
    errors = np.sqrt(np.diag(joint))
    np.testing.assert_allclose(found, joint, rtol=0.05, atol=0.03 * np.outer(errors, errors).min())
    assert fit.chi_square == pytest.approx(residual @ residual, rel=1e-4)
    assert fit.cost == pytest.approx(residual @ residual + expected @ penalty @ expected, rel=1e-4)


def test_negative_amplitudes_are_excluded_only_if_required():
    rng = np.random.default_rng(1)
    design, target = rng.normal(size=(30, 6)), rng.normal(size=30)
    root = rng.normal(size=(6, 6))
    nonnegative = np.arange(6) < 3
    penalty = root @ root.T
    solved = solve_amplitudes(design.T @ design, design.T @ target, nonnegative, penalty)
    # Karush-Kuhn-Tucker conditions for the minimum.
    gradient = (design.T @ design + penalty) @ solved.amplitudes - design.T @ target
    assert (solved.amplitudes[:3] >= 0).all()
    np.testing.assert_allclose(gradient[solved.active], 0, atol=1e-9)
    assert (gradient[~solved.active] > 0).all()
    assert not solved.active.all()


def test_strength_maximizes_the_evidence():
    rng = np.random.default_rng(2)
    grid = PixelGrid(number=5)
    matrix = grid.regularization
    truth = np.linalg.cholesky(np.linalg.inv(4.0 * matrix)) @ rng.normal(size=25)
    design = rng.normal(size=(40, 25))
    target = design @ truth + rng.normal(size=40)

    def log_evidence(strength):
        """Suyu et al. 2006, equation 19: the marginal likelihood, as a normal density of the data."""
        covariance = np.eye(40) + design @ np.linalg.inv(strength * matrix) @ design.T
        return -(target @ np.linalg.solve(covariance, target) + np.linalg.slogdet(covariance)[1]) / 2

    strengths = np.geomspace(1e-3, 1e4, 3000)
    expected = strengths[np.argmax([log_evidence(each) for each in strengths])]
    found = best_strength(design.T @ design, design.T @ target, matrix)
    assert found == pytest.approx(expected, rel=0.01)


def test_lenstronomy_renders_the_same_source():
    light_model = pytest.importorskip("lenstronomy.LightModel.light_model", exc_type=ImportError)
    grid = PixelGrid(number=7)
    rng = np.random.default_rng(3)
    amplitudes = rng.normal(size=49)
    x, y = (rng.uniform(-0.7, 0.7, (1, 300)) for _ in range(2))
    (name, arguments), *_ = grid.to_lenstronomy(VALUES, amplitudes)
    expected = light_model.LightModel([name]).surface_brightness(x[0], y[0], [arguments])
    columns = grid.columns(jnp.asarray(x), jnp.asarray(y), VALUES)
    np.testing.assert_allclose(amplitudes @ columns[:, 0], expected, atol=1e-5)
    image = grid.image(jnp.asarray(x), jnp.asarray(y), VALUES, jnp.asarray(amplitudes))
    np.testing.assert_allclose(image[0], expected, atol=1e-5)
    assert (expected != 0).mean() > 0.5


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: PixelGrid(number=4), "expected 5 to 60"),
        (lambda: LensModel(lens_light=(PixelGrid(),)), "not the lens light"),
        (lambda: LensModel(mass=(SIE(),), source=(PixelGrid(), PixelGrid())), "at most one PixelGrid"),
        (lambda: Parameter.chosen(3.0, (0.0, 2.0)), "not within bounds"),
    ],
)
def test_wrong_grids_are_rejected(create, message):
    with pytest.raises(UserError, match=message):
        create()
