"""Sets of simulated images: determinism, noise, and likeness to real ones."""

import jax
import numpy as np
import pytest
from scipy import stats

from lensjax import simulation
from lensjax.simulation.images import render_batch
from lensjax.simulation.noise import poisson_counts

COMMON_TEST = simulation.preset("common_test")


@pytest.fixture(scope="module")
def images():
    return simulation.simulate("common_test", seed=1, split="train", num_images=120)


def test_an_image_depends_on_seed_split_and_number_alone(images):
    fewer = simulation.simulate("common_test", seed=1, split="train", num_images=40)
    np.testing.assert_array_equal(fewer.counts, images.counts[:40])
    np.testing.assert_array_equal(fewer.scale, images.scale[:40])
    jax.tree.map(
        lambda one, other: np.testing.assert_array_equal(one, other[:40]),
        fewer.scenes,
        images.scenes,
    )


@pytest.mark.parametrize("other", [{"seed": 2}, {"split": "validation"}])
def test_other_seeds_and_splits_share_no_scene(images, other):
    options = {"seed": 1, "split": "train"} | other
    different = simulation.simulate("common_test", num_images=40, **options)
    assert not set(different.scenes.theta_E.tolist()) & set(images.scenes.theta_E.tolist())


def test_classes_take_turns_and_scenes_say_which(images):
    np.testing.assert_array_equal(images.labels, np.arange(120) % 3)
    np.testing.assert_array_equal(images.scenes.label, images.labels)


def test_counts_go_from_zero_to_the_scale(images):
    assert images.counts.dtype == np.uint16
    assert (images.counts.min((1, 2)) == 0).all()
    np.testing.assert_array_equal(images.counts.max((1, 2)), images.scale)


def test_progress_is_reported_in_full():
    seen = []
    simulation.simulate("common_test", seed=0, split="test", num_images=35, report=seen.append)
    assert sum(seen) == 35


@pytest.mark.parametrize("rate", [1.0, 10.0, 100.0, 800.0])
def test_noise_is_poisson(rate):
    """Chi-square of the counts' frequencies, at a level that a right sampler fails once in 10,000."""
    counts = poisson_counts(np.full((200, 200), rate), (7, int(rate)))
    distribution = stats.poisson(rate)
    edges = np.unique(distribution.ppf(np.linspace(0.02, 0.98, 15)))
    expected = np.diff(np.concatenate([[0], distribution.cdf(edges), [1]])) * counts.size
    observed = np.bincount(np.searchsorted(edges, counts.ravel()), minlength=len(expected))
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_noise_is_that_of_the_expected_counts(images):
    """Standardised residuals against the noise-free image: mean 0, variance 1, no correlation."""
    key = jax.random.fold_in(jax.random.key(1), 0)
    _, expected = render_batch(key, COMMON_TEST, 0)
    residuals = []
    for index in range(32):
        rate = np.asarray(expected[index], np.float64)
        # The smallest count was taken off; its most likely value puts it back.
        offset = round(float(np.mean(rate - images.counts[index])))
        residuals.append((images.counts[index] + offset - rate) / np.sqrt(rate))
    residuals = np.asarray(residuals)
    assert residuals.mean() == pytest.approx(0, abs=0.01)
    assert residuals.var() == pytest.approx(1, abs=0.01)
    neighbours = np.mean(residuals[:, :, 1:] * residuals[:, :, :-1])
    assert neighbours == pytest.approx(0, abs=0.005)


def test_a_pixel_with_too_many_counts_is_refused():
    with pytest.raises(ValueError, match="too many: at most 65,535"):
        poisson_counts(np.full((2, 2), 1e6), (0,))


def summary(image, largest):
    """Numbers that tell published images from others, from an image scaled to 0..1."""
    counts = image * largest
    axis = np.arange(150) - 74.5
    x, y = np.meshgrid(axis, axis)
    light = np.clip(image - 0.05, 0, None)
    total = light.sum()
    center_x, center_y = (light * x).sum() / total, (light * y).sum() / total
    width = np.sqrt((light * x**2).sum() / total - center_x**2)
    height = np.sqrt((light * y**2).sum() / total - center_y**2)
    corners = np.concatenate(
        [counts[rows, columns].ravel() for rows in CORNERS for columns in CORNERS]
    )
    high_pass = counts[1:-1, 1:-1] - (counts[:-2, 1:-1] + counts[2:, 1:-1]) / 2
    return {
        "largest count": largest,
        "mean": image.mean(),
        "corner mean": corners.mean(),
        "corner variance": corners.var(),
        "elongation": width / height,
        "size": np.hypot(width, height),
        "noise": high_pass[20:-20, :12].var(),
        "step at the sides": (counts[:, [0, -1]] - counts[:, [4, -5]]).mean(),
    }


CORNERS = (slice(0, 20), slice(130, 150))


def test_real_images_lie_within_the_range_of_simulated_ones(real_samples):
    """Every summary of every real image lies within what 600 simulated ones span."""
    simulated = simulation.simulate("common_test", seed=3, split="train", num_images=600)
    spans = {}
    for counts, largest in zip(simulated.counts, simulated.scale, strict=True):
        for name, value in summary(counts / largest, largest).items():
            spans.setdefault(name, []).append(value)
    files = sorted(real_samples.rglob("*.npy"))
    assert len(files) == 12
    for file in files:
        image = np.load(file)[0]
        found = summary(image, round(1 / image[image > 0].min()))
        for name, value in found.items():
            assert min(spans[name]) < value < max(spans[name]), f"{file.name}: {name}"


def test_real_images_are_on_average_as_simulated_ones(real_samples):
    """Means over the twelve real images within four standard errors of the simulated mean."""
    simulated = simulation.simulate("common_test", seed=3, split="train", num_images=600)
    model = [
        summary(counts / largest, largest)
        for counts, largest in zip(simulated.counts, simulated.scale, strict=True)
    ]
    real = []
    for file in sorted(real_samples.rglob("*.npy")):
        image = np.load(file)[0]
        real.append(summary(image, round(1 / image[image > 0].min())))
    for name in model[0]:
        values = np.asarray([row[name] for row in model])
        mean = np.mean([row[name] for row in real])
        deviation = (mean - values.mean()) / (values.std() / np.sqrt(len(real)))
        assert abs(deviation) < 4, f"{name}: {mean} against {values.mean()}"
