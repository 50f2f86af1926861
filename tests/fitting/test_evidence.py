"""Evidence: recovered substructure, symmetries and comparison with dense linear algebra."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from helpers.lenses import FITTED
from oracles.numpy_lens import render

from lensjax import fitting, physics
from lensjax.errors import UserError
from lensjax.fitting import evidence_fit, evidence_line, evidence_masses, evidence_pixels
from lensjax.fitting.result import LensFit
from lensjax.simulation.presets import COMMON_TEST

SIZE, SCALE, SIGMA, AMP = 96, 0.05, 0.087, 100.0
PRESET = dataclasses.replace(
    COMMON_TEST,
    instrument=dataclasses.replace(
        COMMON_TEST.instrument, image_size=SIZE, pixel_scale=SCALE, subpixels=1, psf_sigma=SIGMA, psf_size=11
    ),
    source=dataclasses.replace(COMMON_TEST.source, amp=AMP),
)
MODEL = dataclasses.replace(fitting.COMMON_TEST, pixel_scale=SCALE, subpixels=1, psf_sigma=SIGMA, psf_size=11)
PRIOR = physics.SubstructurePrior(
    subhalos=physics.SubhaloPrior(10, (1e-4, 2e-2), 0.3, (0.3, 1.6)),
    vortex=physics.VortexPrior(12, (0.028, 0.063), (0.5, 1.8), 0.4),
)
SMOOTH = {
    "theta_E": 1.2,
    "gamma1": 0.1,
    "gamma2": -0.04,
    "source_x": 0.12,
    "source_y": 0.08,
    "source_e1": 0.15,
    "source_e2": -0.1,
}


def line(mass_fraction, length, angle, x, y, theta_E=SMOOTH["theta_E"], number=12):
    """Einstein radius, x and y of the points of a line."""
    along = length * np.linspace(-0.5, 0.5, number)
    radius = np.full(number, theta_E * np.sqrt(mass_fraction / number))
    return np.stack([radius, x + along * np.cos(angle), y + along * np.sin(angle)], axis=1)


LINE = (0.042, 1.2, 0.7, 0.3, 0.35)
MASSES = [(0.12, 0.8, 0.75), (0.13, -1.1, 0.2), (0.1, 0.2, -1.15)]


def expected(masses=(), **changes):
    return render(types.SimpleNamespace(masses=masses, **{**SMOOTH, **changes}), PRESET)


def noisy(image, seed):
    return np.random.default_rng(seed).poisson(image).astype(np.float32)


def fit_of(smooths, amp=AMP):
    """Fit result with the parameters of the given smooth lenses."""
    number = len(smooths)
    values = {FITTED[name]: np.array([smooth[name] for smooth in smooths], np.float32) for name in SMOOTH}
    zeros = np.zeros((number, SIZE, SIZE, 1), np.float32)
    ones = np.ones(number, np.float32)
    return LensFit(
        parameters=values | {"source.0.amp": amp * ones, "sky": 10 * ones},
        standard_errors=np.zeros((number, 9), np.float32),
        correlation=np.zeros((number, 9, 9), np.float32),
        reduced_chi_square=ones,
        model_image=zeros,
        residual=zeros,
        source_plane=np.zeros((number, SIZE, SIZE, 2), np.float32),
        gain=ones,
        background_rms=10**0.5 * ones,
        converged=ones > 0,
    )


def orientations(image, smooth):
    """Yields an image and its smooth lens: unchanged, reflected, and rotated by 90 degrees.

    These generate the eight orientations of a square.
    """
    yield image, smooth
    yield image[:, ::-1], smooth | {name: -smooth[name] for name in ("source_x", "gamma2", "source_e2")}
    rotated = {name: -smooth[name] for name in ("gamma1", "gamma2", "source_e1", "source_e2")}
    rotated |= {"source_x": -smooth["source_y"], "source_y": smooth["source_x"]}
    yield image.T[:, ::-1], smooth | rotated


@pytest.fixture(scope="module")
def evidence():
    """Evidence and images: a smooth lens, point masses, a line in three orientations, constant, all NaN."""
    # The Einstein radius of a smooth fit includes the mass of the line.
    heavier = SMOOTH | {"theta_E": float(SMOOTH["theta_E"] * np.sqrt(1 + LINE[0]))}
    cases = [(noisy(expected(), 1), SMOOTH), (noisy(expected(MASSES), 2), SMOOTH)]
    cases += list(orientations(noisy(expected(line(*LINE)), 3), heavier))
    cases += [(np.full((SIZE, SIZE), 7.0), SMOOTH), (np.full((SIZE, SIZE), np.nan), SMOOTH)]
    images = np.stack([image for image, _ in cases]).astype(np.float32)[..., None]
    found = fitting.class_evidence(images, fit_of([smooth for _, smooth in cases]), PRIOR, MODEL)
    return jax.tree.map(np.asarray, found), images


def test_true_class_has_largest_evidence(evidence):
    found, _ = evidence
    np.testing.assert_array_equal(found.log_ratios[:5].argmax(1), [0, 1] + [2] * 3)
    np.testing.assert_array_less(0.99, found.probabilities()[:5].max(1))


def test_best_line_is_close_to_true_line(evidence):
    found, _ = evidence
    fraction, length, angle, x, y = found.line[2]
    np.testing.assert_allclose([length, x, y], [LINE[1], *LINE[3:]], atol=0.12)
    assert abs(fraction - LINE[0]) < 0.01
    assert abs(np.sin(angle - LINE[2])) < 0.1
    degrees = found.pixels[2] - 14
    assert found.line_chi_square[2] < degrees + 4 * np.sqrt(2 * degrees)


def test_evidence_is_invariant_under_rotation_and_reflection(evidence):
    found, _ = evidence
    ratios = found.log_ratios[2:5]
    np.testing.assert_allclose(ratios[:, 2], np.full(3, ratios[0, 2]), atol=3)
    np.testing.assert_allclose(ratios[:, 1], np.full(3, ratios[0, 1]), rtol=0.05)


def test_other_prior_on_vortices_raises_an_error(evidence):
    _, images = evidence
    vortex = physics.BroadVortexPrior(12, (0.028, 0.063), (0.5, 1.8), 0.4)
    with pytest.raises(UserError, match="supports only a VortexPrior, not BroadVortexPrior"):
        fitting.class_evidence(images, fit_of([SMOOTH]), dataclasses.replace(PRIOR, vortex=vortex), MODEL)


def test_unusable_images_have_finite_evidence(evidence):
    found, _ = evidence
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    np.testing.assert_array_equal(found.log_ratios[-1], 0)


def test_wrong_number_of_images_raises_an_error(evidence):
    _, images = evidence
    with pytest.raises(UserError, match="pass the images that were fitted"):
        fitting.class_evidence(images[:3], fit_of([SMOOTH] * 2), PRIOR, MODEL)


def bin_pairs(image):
    return image.reshape(SIZE // 2, 2, SIZE // 2, 2).mean((1, 3)).ravel()


class Reference:
    """Evidence in NumPy: exact deflections, flat priors on the smooth lens to first order."""

    def __init__(self, image):
        half = PRESET.instrument.psf_size // 2
        axis = (np.arange(SIZE + 2 * half) - (SIZE + 2 * half - 1) / 2) * SCALE
        self.x, self.y = axis[None, :], axis[:, None]
        offset = np.arange(-half, half + 1) * SCALE
        kernel = np.exp(-0.5 * (offset / SIGMA) ** 2)
        self.kernel = kernel / kernel.sum()
        self.smooth = self.image(0, 0)
        light = bin_pairs(expected()) - 10
        self.root = np.sqrt(4 / (10 + light))
        columns = [
            bin_pairs(expected(**{name: value + 1e-4}) - expected(**{name: value - 1e-4})) / 2e-4
            for name, value in SMOOTH.items()
        ]
        columns = np.stack([*columns, light, np.ones_like(light)], axis=1) * self.root[:, None]
        self.basis = np.linalg.qr(columns)[0]
        self.residual = self.project(self.root * (bin_pairs(image) - 10 - light))

    def project(self, values):
        return values - (values @ self.basis) @ self.basis.T

    def change(self, masses):
        """Change of the image by masses, in standard deviations and projected.

        The mass of the main lens is reduced by as much, which is projected out to first order.
        """
        theta_E = SMOOTH["theta_E"]
        excess = np.sqrt(theta_E**2 - np.reshape(masses, (-1, 3))[:, 0].sum()) - theta_E
        alpha = np.stack(self.deflection(masses))
        alpha += excess * np.stack(np.broadcast_arrays(self.x, self.y)) / np.hypot(self.x, self.y)
        return self.project(self.root * bin_pairs(self.image(*alpha) - self.smooth))

    def deflection(self, masses, core=0.0):
        """Deflection by masses given by squared Einstein radius, x and y."""
        masses = np.reshape(masses, (-1, 3, 1, 1))
        dx, dy = self.x - masses[:, 1], self.y - masses[:, 2]
        factor = masses[:, 0] / (dx**2 + dy**2 + core**2)
        return (factor * dx).sum(0), (factor * dy).sum(0)

    def image(self, alpha_x, alpha_y):
        x, y = self.x, self.y
        radius = np.hypot(x, y)
        beta_x = x * (1 - SMOOTH["theta_E"] / radius - SMOOTH["gamma1"]) - SMOOTH["gamma2"] * y
        beta_y = y * (1 - SMOOTH["theta_E"] / radius + SMOOTH["gamma1"]) - SMOOTH["gamma2"] * x
        dx, dy = beta_x - alpha_x - SMOOTH["source_x"], beta_y - alpha_y - SMOOTH["source_y"]
        e1, e2 = SMOOTH["source_e1"], SMOOTH["source_e2"]
        # Quadratic form of an ellipse.
        square = (1 + e1**2 + e2**2) * (dx**2 + dy**2)
        square -= 2 * e1 * (dx**2 - dy**2) + 4 * e2 * dx * dy
        n, b = 1.5, 1.9992 * 1.5 - 0.3271
        radius = np.sqrt(square / (1 - e1**2 - e2**2)) / 0.5
        light = AMP * np.exp(-b * (radius ** (1 / n) - 1))
        # Sums are faster than products of small matrices in several threads.
        rows = sum(weight * light[first : first + SIZE] for first, weight in enumerate(self.kernel))
        return sum(weight * rows[:, first : first + SIZE] for first, weight in enumerate(self.kernel))

    def log_ratio(self, masses):
        """Log likelihood of masses relative to that of the smooth lens."""
        left = self.residual - self.change(masses)
        return 0.5 * (self.residual @ self.residual - left @ left)


def test_reference_matches_direct_rendering():
    reference = Reference(expected())
    np.testing.assert_allclose(reference.image(0, 0) + 10, expected(), rtol=1e-9)
    masses = [(radius**2, x, y) for radius, x, y in MASSES]
    changed = reference.image(*reference.deflection(masses)) + 10
    np.testing.assert_allclose(changed, expected(MASSES), rtol=1e-9)


def test_mass_map_matches_dense_covariance_matrices(evidence):
    """The reference uses all pixels, exact derivatives and no modes."""
    found, images = evidence
    reference = Reference(images[1, ..., 0])
    nodes, fraction = evidence_masses.mass_grid(PRIOR)
    soft, step = 0.3 * evidence_masses.SPACING, 1e-5
    templates = []
    for node in nodes:
        alpha = np.stack(reference.deflection([(step, *node)], core=soft))
        change = (reference.image(*alpha) - reference.image(*-alpha)) / (2 * step)
        templates.append(reference.project(reference.root * bin_pairs(change)))
    templates = np.stack(templates, axis=1)
    u = np.linspace(*(end**0.3 for end in (1e-4, 2e-2)), 100_001)
    mean, square = (u ** (1 / 0.3)).mean(), (u ** (2 / 0.3)).mean()
    covariance = 10 * (square * np.diag(fraction) - mean**2 * np.outer(fraction, fraction))
    with_masses = np.eye(len(templates)) + templates @ covariance @ templates.T
    left = reference.residual - 10 * mean * templates @ fraction
    mass_map = 10 * mean * fraction + covariance @ templates.T @ np.linalg.solve(with_masses, left)
    # The modes do not resolve neighboring nodes.
    near = np.hypot(*(nodes[:, None] - nodes[None]).T) < 0.3
    np.testing.assert_allclose(near @ found.masses[1], near @ mass_map, atol=0.2 * (near @ mass_map).max())


def log_mean(logs):
    return np.logaddexp.reduce(logs) - np.log(len(logs))


# One mass, and a line with so narrow a prior that many samples of the prior fit the image.
FEW = physics.SubstructurePrior(
    subhalos=dataclasses.replace(PRIOR.subhalos, number=1),
    vortex=physics.VortexPrior(12, (0.01, 0.014), (0.8, 1.2), 0.1),
)


@pytest.fixture(scope="module")
def few():
    """Evidence and images of one mass, no substructure, and a weak line."""
    weak = expected(line(0.012, 1.0, 0.7, 0.0, 0.0), theta_E=SMOOTH["theta_E"] * np.sqrt(1 - 0.012))
    images = np.stack([noisy(expected([(0.1, 0.8, 0.75)]), 4), noisy(expected(), 5), noisy(weak, 6)])
    found = fitting.class_evidence(images[..., None], fit_of([SMOOTH] * 3), FEW, MODEL)
    return jax.tree.map(np.asarray, found), images


def test_evidence_for_one_mass_matches_numerical_integration(few):
    """The reference integrates over a box, outside which the likelihood is negligible."""
    found, images = few
    best = found.heavy_masses[0, 0]
    np.testing.assert_allclose(best, (0.01, 0.8, 0.75), atol=0.05)
    reference, logs, number = Reference(images[0]), [], 11
    low, high = 1e-4**0.3, 2e-2**0.3
    steps = (np.arange(number) + 0.5) / number * 2 - 1
    for power in best[0] ** 0.3 + 0.015 * steps:
        for x in best[1] + 0.03 * steps:
            for y in best[2] + 0.03 * steps:
                density = 1 / ((high - low) * 2 * np.pi * np.hypot(x, y) * 1.3)
                log_ratio = reference.log_ratio((power ** (1 / 0.3), x, y))
                logs.append(log_ratio + np.log(density * 0.03 * 0.06 * 0.06))
    assert np.exp(logs - np.max(logs)).sum() > 20  # the box is sampled densely enough
    np.testing.assert_allclose(found.log_ratios[0, 1], log_mean(logs), rtol=0.02)


def test_evidence_against_one_mass_matches_prior_samples(few):
    found, images = few
    reference, logs, random = Reference(images[1]), [], np.random.default_rng(0)
    for _ in range(1500):
        mass = random.uniform(1e-4**0.3, 2e-2**0.3) ** (1 / 0.3)
        distance, angle = random.uniform(0.3, 1.6), random.uniform(0, 2 * np.pi)
        logs.append(reference.log_ratio((mass, distance * np.cos(angle), distance * np.sin(angle))))
    assert log_mean(logs) < -0.5
    np.testing.assert_allclose(found.log_ratios[1, 1], log_mean(logs), atol=0.3)


def test_evidence_for_line_matches_prior_samples(few):
    found, images = few
    reference, logs, random = Reference(images[2]), [], np.random.default_rng(0)
    for _ in range(3000):
        x, y = random.normal(0, 0.1, 2)
        parts = random.uniform(0.01, 0.014), random.uniform(0.8, 1.2), random.uniform(0, np.pi), x, y
        radius, x, y = line(*parts).T
        logs.append(reference.log_ratio(np.stack([radius**2, x, y], axis=1)))
    assert np.exp(logs - np.max(logs)).sum() > 5  # the best lines are sampled often enough
    np.testing.assert_allclose(found.log_ratios[2, 2], log_mean(logs), atol=1.5)


@pytest.mark.parametrize("layout", ["line", "masses"])
def test_derivatives_match_finite_differences(layout, monkeypatch):
    # Derivatives with respect to positions are exact without a core.
    monkeypatch.setitem(evidence_fit._CORES, evidence_fit.COARSE, 1e-6)
    with jax.enable_x64(True):
        window = evidence_pixels.central_window(MODEL, (SIZE, SIZE))
        if layout == "line":
            points, extra = evidence_line.line_layout(MODEL, PRIOR.vortex), LINE
        else:
            points = evidence_masses._layout(PRIOR.subhalos, np.arange(8) < 2)
            extra = [0.2, 0.9, 0.5, 0.25, 1.2, 3.0] + 6 * [0.2, 1.0, 0.0]
        theta = np.array([*SMOOTH.values(), *extra, 1.1, 0.01])
        shape, free = window.binned_shape, np.zeros(len(theta) - 2)
        target = evidence_fit.Target(
            np.zeros(shape), np.ones(shape), free, free, free, free, np.zeros((2, *shape))
        )
        evaluate = jax.jit(
            lambda theta: evidence_fit.evaluate(window, points, target, theta, evidence_fit.COARSE)
        )
        found = evaluate(theta)
        for index, column in enumerate(found.columns):
            step = 1e-6 * np.eye(len(theta))[index]
            change = (evaluate(theta - step).residual - evaluate(theta + step).residual) / 2e-6
            np.testing.assert_allclose(column, change, rtol=1e-4, atol=1e-6)


def test_coarse_rays_approximate_dense_rays():
    window = evidence_pixels.central_window(fitting.COMMON_TEST, (150, 150))
    free = np.array(list(SMOOTH.values()), np.float32)
    dense = evidence_pixels.source_image(window, window.dense, free)
    for per_bin, error in ((1, 0.03), (2, 0.01)):
        other = evidence_pixels.source_image(window, per_bin, free)
        np.testing.assert_allclose(other, dense, atol=error * dense.max())


@pytest.mark.parametrize("change", [{"mass_fraction": (0.0, 1.0)}, {"length": (2.0, 1.0)}])
def test_invalid_prior_range_raises_an_error(change):
    with pytest.raises(ValueError, match="expected 0 < lower end < upper end"):
        dataclasses.replace(PRIOR.vortex, **change)
