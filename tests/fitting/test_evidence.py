"""Evidence: recovered substructure, symmetries and comparison with dense linear algebra."""

import dataclasses
import functools
import types

import jax
import numpy as np
import pytest
from oracles.numpy_lens import render

from lensjax import fitting, physics
from lensjax.errors import UserError
from lensjax.fitting import evidence_line, evidence_masses
from lensjax.fitting.result import LensFit
from lensjax.simulation.presets import COMMON_TEST

SIZE, SCALE, SIGMA = 48, 0.1, 0.16
PRESET = dataclasses.replace(
    COMMON_TEST,
    instrument=dataclasses.replace(
        COMMON_TEST.instrument, image_size=SIZE, pixel_scale=SCALE, subpixels=1, psf_sigma=SIGMA, psf_size=7
    ),
    source=dataclasses.replace(COMMON_TEST.source, amp=400.0),
)
MODEL = dataclasses.replace(fitting.COMMON_TEST, pixel_scale=SCALE, subpixels=1, psf_sigma=SIGMA, psf_size=7)
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


def fit_of(smooths, amp=400.0):
    """Fit result with the parameters of the given smooth lenses."""
    number = len(smooths)
    values = {name: np.array([smooth[name] for smooth in smooths], np.float32) for name in SMOOTH}
    zeros = np.zeros((number, SIZE, SIZE, 1), np.float32)
    ones = np.ones(number, np.float32)
    return LensFit(
        parameters=values | {"amp": amp * ones, "sky": 10 * ones},
        covariance=np.zeros((number, 9, 9), np.float32),
        reduced_chi_square=ones,
        model_image=zeros,
        residual=zeros,
        source_plane=np.zeros((number, SIZE, SIZE, 2), np.float32),
        gain=ones,
        background_variance=10 * ones,
        converged=ones > 0,
    )


def orientations(image, smooth):
    """Yields the eight orientations of an image and its smooth lens."""
    x, y = smooth["source_x"], smooth["source_y"]
    g1, g2, e1, e2 = (smooth[name] for name in ("gamma1", "gamma2", "source_e1", "source_e2"))
    for swap in (False, True):
        for sign_x in (1, -1):
            for sign_y in (1, -1):
                rotated = image[::sign_y, ::sign_x]
                x2, y2, both = sign_x * x, sign_y * y, sign_x * sign_y
                center, sign = (x2, y2), 1
                if swap:
                    rotated, center, sign = rotated.T, (y2, x2), -1
                yield (
                    rotated,
                    {
                        "theta_E": smooth["theta_E"],
                        "gamma1": sign * g1,
                        "gamma2": both * g2,
                        "source_x": center[0],
                        "source_y": center[1],
                        "source_e1": sign * e1,
                        "source_e2": both * e2,
                    },
                )


@pytest.fixture(scope="module")
def evidence():
    """Evidence and images: a smooth lens, point masses, a line in eight orientations, constant, all NaN."""
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
    np.testing.assert_array_equal(found.log_ratios[:10].argmax(1), [0, 1] + [2] * 8)
    np.testing.assert_array_less(0.99, found.probabilities()[:10].max(1))


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
    ratios = found.log_ratios[2:10]
    np.testing.assert_allclose(ratios, np.broadcast_to(ratios[:1], ratios.shape), rtol=0.01, atol=1)


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


def test_masses_evidence_matches_dense_covariance_matrices(evidence):
    """The reference is NumPy in float64 on all pixels, with finite differences and without projections."""
    found, images = evidence
    half = PRESET.instrument.psf_size // 2
    axis = (np.arange(SIZE + 2 * half) - (SIZE + 2 * half - 1) / 2) * SCALE
    x, y = axis[None, :], axis[:, None]
    offset = np.arange(-half, half + 1) * SCALE
    kernel = np.exp(-0.5 * (offset / SIGMA) ** 2)
    kernel /= kernel.sum()
    blur = sum(np.eye(SIZE, SIZE + 2 * half, k) * weight for k, weight in enumerate(kernel))

    def shifted(x_shift, y_shift):
        """Brightness at the source-plane positions of the rays, shifted."""
        radius = np.hypot(x, y)
        beta_x = x * (1 - SMOOTH["theta_E"] / radius - SMOOTH["gamma1"]) - SMOOTH["gamma2"] * y
        beta_y = y * (1 - SMOOTH["theta_E"] / radius + SMOOTH["gamma1"]) - SMOOTH["gamma2"] * x
        dx, dy = beta_x + x_shift - SMOOTH["source_x"], beta_y + y_shift - SMOOTH["source_y"]
        e1, e2 = SMOOTH["source_e1"], SMOOTH["source_e2"]
        # Quadratic form of an ellipse.
        square = (1 + e1**2 + e2**2) * (dx**2 + dy**2)
        square -= 2 * e1 * (dx**2 - dy**2) + 4 * e2 * dx * dy
        n, b = 1.5, 1.9992 * 1.5 - 0.3271
        radius = np.sqrt(square / (1 - e1**2 - e2**2)) / 0.5
        return 400 * np.exp(-b * (radius ** (1 / n) - 1))

    np.testing.assert_allclose(blur @ shifted(0, 0) @ blur.T + 10, expected(), rtol=1e-9)
    step = 1e-5
    by_x = (shifted(step, 0) - shifted(-step, 0)) / (2 * step)
    by_y = (shifted(0, step) - shifted(0, -step)) / (2 * step)
    light = bin_pairs(expected()) - 10
    root = np.sqrt(4 / (10 + light))
    residual = (bin_pairs(images[1, ..., 0]) - 10 - light) * root
    nodes, fraction = evidence_masses.mass_grid(PRIOR)
    soft = 0.3 * evidence_masses.SPACING
    columns = []
    for node_x, node_y in nodes:
        dx, dy = x - node_x, y - node_y
        moved = (by_x * dx + by_y * dy) / (dx**2 + dy**2 + soft**2)
        columns.append(-root * bin_pairs(blur @ moved @ blur.T))
    templates = np.stack(columns, axis=1)
    smooth = [
        root * bin_pairs(expected(**{name: value + 1e-4}) - expected(**{name: value - 1e-4})) / 2e-4
        for name, value in SMOOTH.items()
    ]
    smooth = np.stack([*smooth, root * light / 400, root], axis=1)
    flat = 1e4 * smooth @ smooth.T / (smooth**2).sum(0).min() + np.eye(len(root))

    u = np.linspace(*(end**0.3 for end in (1e-4, 2e-2)), 100_001)
    mean, square = (u ** (1 / 0.3)).mean(), (u ** (2 / 0.3)).mean()
    covariance = 10 * (square * np.diag(fraction) - mean**2 * np.outer(fraction, fraction))
    prior_mean = 10 * mean * templates @ fraction
    with_masses = flat + templates @ covariance @ templates.T

    def log_normal(value, covariance):
        return -0.5 * (value @ np.linalg.solve(covariance, value) + np.linalg.slogdet(covariance)[1])

    log_ratio = log_normal(residual - prior_mean, with_masses) - log_normal(residual, flat)
    assert log_ratio > 10
    np.testing.assert_allclose(found.log_ratios[1, 1], log_ratio, rtol=0.01, atol=0.3)
    mass_map = 10 * mean * fraction + covariance @ templates.T @ np.linalg.solve(
        with_masses, residual - prior_mean
    )
    np.testing.assert_allclose(found.masses[1], mass_map, atol=0.1 * np.abs(mass_map).max())


def test_line_deflection_and_derivatives_match_numpy():
    with jax.enable_x64(True):
        at = np.array(LINE)
        x, y = np.random.default_rng(0).uniform(-2, 2, (2, 40))
        deflection = functools.partial(evidence_line.line_deflection, theta_E=1.2, number=12, core=1e-6)
        deflect = jax.jit(deflection)
        alpha, derivatives = deflect(at, x=x, y=y)
        expected_alpha = sum(
            radius**2 / np.conj(x - mass_x + 1j * (y - mass_y)) for radius, mass_x, mass_y in line(*LINE)
        )
        np.testing.assert_allclose(alpha, expected_alpha, rtol=1e-6)
        for index in range(5):
            step = 1e-6 * np.eye(5)[index]
            change = (deflect(at + step, x=x, y=y)[0] - deflect(at - step, x=x, y=y)[0]) / 2e-6
            np.testing.assert_allclose(derivatives[index], change, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("change", [{"mass_fraction": (0.0, 1.0)}, {"length": (2.0, 1.0)}])
def test_invalid_prior_range_raises_an_error(change):
    with pytest.raises(ValueError, match="expected 0 < lower end < upper end"):
        dataclasses.replace(PRIOR.vortex, **change)
