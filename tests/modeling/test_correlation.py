"""Correlated noise: its measurement from blank sky, and the errors of parameters that follow from it."""

import numpy as np
import pytest
from scipy.signal import convolve2d

from lensjax.errors import UserError
from lensjax.modeling.correlation import NoiseCorrelation, measure_correlation
from lensjax.modeling.observation import Observation
from lensjax.modeling.psf import gaussian_psf

# White noise is convolved with these kernels, which need not be symmetric.
KERNELS = {
    "white": np.ones((1, 1)),
    "drizzled": np.array([[0.03, 0.08, 0.0], [0.1, 0.6, 0.12], [0.02, 0.15, 0.05]]),
    "two pixels": np.full((2, 2), 0.25),
}


def autocovariance(kernel, reach):
    """Covariance of filtered white noise at each lag, from the definition."""
    rows, columns = kernel.shape
    result = np.zeros((2 * reach + 1, 2 * reach + 1))
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            for i in range(rows):
                for j in range(columns):
                    if 0 <= i + y < rows and 0 <= j + x < columns:
                        result[y + reach, x + reach] += kernel[i, j] * kernel[i + y, j + x]
    return result


def filtered_noise(kernel, size, seed):
    white = np.random.default_rng(seed).normal(size=(size + 4, size + 4))
    return convolve2d(white, kernel, mode="same")[2:-2, 2:-2]


def observe(image, noise):
    return Observation(image, noise, gaussian_psf(0.1, 0.05), pixel_scale=0.05)


def crowded_field(size):
    """A galaxy with a wide halo in the center, neighbors and a gradient of the sky, in units of the noise."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    light = 500 / (1 + np.hypot(x, 0.7 * y) / 4) ** 3 + 0.01 * x
    for row, column in np.random.default_rng(5).uniform(-size / 2, size / 2, (12, 2)):
        light += 30 * np.exp(-np.hypot(x - column, y - row) / 1.5)
    return light


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("crowded", [False, True])
def test_measured_correlation_matches_the_noise(name, crowded):
    kernel, size = KERNELS[name], 240
    noise_map = 3e-19 * np.linspace(1, 2, size) * np.ones((size, 1))
    image = 2 + filtered_noise(kernel, size, 1) + (crowded_field(size) if crowded else 0)
    found = measure_correlation(observe(image * noise_map, noise_map))
    covariance = autocovariance(kernel, 3)
    assert found.scatter == pytest.approx(covariance[3, 3] ** 0.5, rel=0.02)
    expected = covariance / covariance[3, 3]
    np.testing.assert_allclose(found.kernel[2:5, 2:5], expected[2:5, 2:5], atol=0.02)  # neighbors
    np.testing.assert_allclose(found.kernel, expected, atol=0.03)
    assert found.variance_factor == pytest.approx(covariance.sum(), rel=0.1)


@pytest.mark.parametrize("seed", [2, 3])
def test_lens_light_across_the_image_is_not_noise(seed):
    """Outside of the central region, the galaxy has 12 to 44 times the noise map; an arc is added."""
    kernel, size = KERNELS["drizzled"], 120
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    light = 1.5e5 * np.exp(-7.67 * (np.hypot(x, 0.8 * y) / 40) ** 0.25) + 3 * np.exp(
        -(((np.hypot(x, y) - 33) / 2) ** 2)
    ) * (x > 20)
    noise_map = np.sqrt(1 + light / 12)
    found = measure_correlation(observe(light + filtered_noise(kernel, size, seed) * noise_map, noise_map))
    covariance = autocovariance(kernel, 3)
    assert found.scatter == pytest.approx(covariance[3, 3] ** 0.5, rel=0.03)
    assert found.variance_factor == pytest.approx(covariance.sum(), rel=0.15)


@pytest.mark.parametrize("seed", [1, 7, 9])
def test_measured_kernel_is_symmetric_and_positive_definite(seed):
    kernel = measure_correlation(observe(filtered_noise(KERNELS["two pixels"], 60, seed), 1.0)).kernel
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-12)
    assert kernel[3, 3] == pytest.approx(1)
    wave = np.exp(1j * np.arange(-3, 4) * np.linspace(0, np.pi, 301)[:, None])
    for other in (wave, wave.conj()):
        assert (wave @ kernel @ other.T).real.min() > 0  # power at every frequency


def test_white_noise_has_few_correlated_pairs():
    kernel = measure_correlation(observe(filtered_noise(KERNELS["white"], 120, 4), 1.0)).kernel
    assert np.count_nonzero(kernel) < 12  # of 49; 2 are expected by chance


def test_correlation_is_unknown_without_blank_sky():
    assert measure_correlation(observe(filtered_noise(KERNELS["white"], 24, 0), 1.0)) is None
    y, x = np.mgrid[:60, :60] - 29.5
    for halo in (300, 1e4):
        image = halo * np.exp(-np.hypot(x, y) / 10) + filtered_noise(KERNELS["drizzled"], 60, 0)
        assert measure_correlation(observe(image, 1.0)) is None
    with pytest.raises(UserError, match="reach is 0"):
        measure_correlation(observe(filtered_noise(KERNELS["white"], 60, 0), 1.0), reach=0)


def dense_covariance(correlation, rows, columns):
    """Covariance of all pairs of pixels, from the definition of the kernel."""
    kernel = correlation.kernel
    reach = len(kernel) // 2
    place = np.stack(np.mgrid[:rows, :columns], -1).reshape(-1, 2)
    lag = place[:, None] - place + reach
    inside = ((lag >= 0) & (lag < len(kernel))).all(-1)
    lag = np.clip(lag, 0, len(kernel) - 1)
    return correlation.scatter**2 * np.where(inside, kernel[lag[..., 0], lag[..., 1]], 0)


def true_correlation(name):
    covariance = autocovariance(KERNELS[name], 2)
    return NoiseCorrelation(covariance[2, 2] ** 0.5, covariance / covariance[2, 2])


def test_apply_multiplies_by_the_covariance_matrix():
    correlation = true_correlation("drizzled")
    columns = np.random.default_rng(0).normal(size=(2, 9, 11))
    expected = columns.reshape(2, -1) @ dense_covariance(correlation, 9, 11)
    np.testing.assert_allclose(correlation.apply(columns).reshape(2, -1), expected, atol=1e-12)


@pytest.mark.parametrize("factor", [2, 3])
def test_binned_correlation_matches_block_means(factor):
    correlation = true_correlation("drizzled")
    noise = 2.0
    image = noise * filtered_noise(KERNELS["drizzled"], 5 * factor, 0)
    observation = Observation(
        image, noise, gaussian_psf(0.1, 0.05), pixel_scale=0.05, correlation=correlation
    )
    binned = observation.bin(factor)
    mean = np.kron(np.eye(5), np.full((1, factor), 1 / factor))
    mean = np.kron(mean, mean)
    expected = noise**2 * mean @ dense_covariance(correlation, 5 * factor, 5 * factor) @ mean.T
    found = dense_covariance(binned.correlation, 5, 5) * np.outer(binned.noise, binned.noise)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert observation.crop(4).correlation is correlation


def test_sandwich_covariance_is_the_scatter_of_many_fits():
    """A linear model is fitted with weights that ignore the correlation."""
    size, number, kernel = 40, 500, KERNELS["two pixels"]
    y, x = np.mgrid[:size, :size] - 19.5
    noise_map = 1 + 0.02 * np.hypot(x, y)
    columns = np.stack([np.ones_like(x), x / 20, np.exp(-(x**2 + y**2) / 50)]) / noise_map
    jacobian = columns.reshape(3, -1).T
    noise = np.stack([filtered_noise(kernel, size, seed).ravel() for seed in range(number)])
    scatter = np.linalg.lstsq(jacobian, noise.T, rcond=None)[0].std(1)

    sky = filtered_noise(kernel, 240, number)
    correlation = measure_correlation(observe(sky, 1.0))
    naive = np.linalg.inv(jacobian.T @ jacobian)
    middle = jacobian.T @ correlation.apply(columns).reshape(3, -1).T
    sandwich = naive @ middle @ naive
    np.testing.assert_allclose(np.sqrt(np.diag(sandwich)), scatter, rtol=0.1)
    assert correlation.scatter**2 < 0.3  # errors scaled to the residual would be too small
    assert (np.sqrt(correlation.scatter**2 * np.diag(naive)) < 0.6 * scatter).all()
