"""Photon counts recovered from images divided by their largest count."""

import hypothesis
import hypothesis.extra.numpy
import numpy as np
import pytest
from hypothesis import strategies as st

from lensjax.data.counts import MAX_COUNT, recover_counts


def assert_lossless(image, recovered):
    counts, largest = recovered
    assert counts.dtype == np.uint16
    quotient = counts.astype(np.float32) / np.float32(largest)
    # Adding zero converts -0.0 to 0.0.
    expected = image.astype(np.float32) + np.float32(0)
    np.testing.assert_array_equal(quotient.view(np.uint32), expected.view(np.uint32))


@st.composite
def count_arrays(draw, up_to):
    maximum = draw(st.integers(1, up_to))
    counts = draw(
        hypothesis.extra.numpy.arrays(
            np.int64, st.tuples(st.integers(1, 5), st.integers(2, 6)), elements=st.integers(0, maximum)
        )
    )
    counts.flat[0], counts.flat[-1] = 0, maximum
    return counts, maximum


@hypothesis.given(count_arrays(MAX_COUNT))
def test_counts_of_float64_quotients_are_recovered(drawn):
    counts, largest = drawn
    image = counts / largest
    recovered = recover_counts(image)
    assert_lossless(image, recovered)
    np.testing.assert_array_equal(recovered[0] / recovered[1], image)


@hypothesis.given(count_arrays(4096), st.sampled_from([np.float32, np.float64]))
def test_float32_counts_up_to_4096_are_recovered(drawn, saved_as):
    counts, largest = drawn
    image = (counts.astype(np.float32) / np.float32(largest)).astype(saved_as)
    assert_lossless(image, recover_counts(image))


# Hypothesis fails if `assume` rejects every image.
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.filter_too_much])
@hypothesis.given(count_arrays(MAX_COUNT))
def test_recovered_counts_of_float32_quotients_are_lossless(drawn):
    counts, largest = drawn
    image = counts.astype(np.float32) / np.float32(largest)
    recovered = recover_counts(image)
    hypothesis.assume(recovered is not None)
    assert_lossless(image, recovered)


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.filter_too_much])
@hypothesis.example(np.array([[0, 0.25, 0.5, 1]]))
@hypothesis.example(np.array([[0, 1 / 3, 2 / 3, 1]], np.float32))
@hypothesis.given(
    st.one_of(
        hypothesis.extra.numpy.arrays(dtype, (3, 4), elements=st.floats(0, 1, width=width))
        for dtype, width in ((np.float32, 32), (np.float64, 64))
    )
)
def test_recovered_counts_of_any_image_are_lossless(image):
    image.flat[0], image.flat[-1] = 0, 1
    recovered = recover_counts(image)
    hypothesis.assume(recovered is not None)
    assert_lossless(image, recovered)


def test_smallest_possible_counts_are_recovered():
    counts, largest = recover_counts(np.array([[0.0, 0.25, 0.5, 1.0]]))
    assert largest == 4
    assert counts.tolist() == [[0, 1, 2, 4]]


def test_counts_are_recovered_without_a_one_count_pixel():
    counts, largest = recover_counts(np.array([[0, 6, 10, 15, 899]]) / 899)
    assert largest == 899
    assert counts.tolist() == [[0, 6, 10, 15, 899]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_image_of_random_floats_has_no_counts(dtype):
    image = np.random.default_rng(0).uniform(size=(20, 20)).astype(dtype)
    image[0, :2] = 0, 1
    assert recover_counts(image) is None


def test_change_of_one_bit_leaves_no_counts():
    image = np.random.default_rng(0).integers(0, 801, (20, 20)) / 800
    image[0, :3] = 0, 1, 0.3
    counts, largest = recover_counts(image)
    np.testing.assert_array_equal(counts / largest, image)
    image[0, 2] = np.nextafter(np.float32(0.3), np.float32(1))
    assert recover_counts(image) is None


def test_counts_above_16_bits_are_not_recovered():
    image = np.array([[0, 1, 65_537]]) / 65_537
    assert recover_counts(image) is None
