"""Images in .npy files: valid forms, scaling, and damaged or hostile content."""

import contextlib
import io
import struct

import hypothesis
import hypothesis.extra.numpy
import numpy as np
import pytest
from helpers.data_files import SIZE, count_image, npy_bytes
from hypothesis import strategies as st

from lensjax.data.npy import bytes_to_read, min_max_scale, parse_image
from lensjax.errors import UserError

SET_SIZE = "set the image size (config.data.image_size, or --image-size of prepare-tfds)"


def with_header(header, version=b"\x01\x00", payload=b"\0" * 64):
    text = header.encode().ljust(117) + b"\n"
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + length + text + payload


@pytest.mark.parametrize("shape", [(SIZE, SIZE), (1, SIZE, SIZE), (SIZE, SIZE, 1)])
def test_image_is_read_from_every_valid_shape(shape):
    image = count_image(0)
    read = parse_image(npy_bytes(image.reshape(shape)), SIZE)
    np.testing.assert_array_equal(read, image[0])


@pytest.mark.parametrize("dtype", [">f8", "<f4", ">f4", "f2"])
def test_image_from_0_to_1_is_returned_unchanged(dtype):
    image = count_image(0)[0].astype(dtype)
    read = parse_image(npy_bytes(image), SIZE)
    np.testing.assert_array_equal(read, image)
    assert read.dtype.isnative


@pytest.mark.parametrize("dtype", ["u1", "i1", ">i2", "u4", "i8", "u8", "f4", "f8"])
def test_other_images_are_min_max_scaled(dtype):
    image = np.random.default_rng(0).integers(3, 120, (SIZE, SIZE)).astype(dtype)
    read = parse_image(npy_bytes(image), SIZE)
    wide = image.astype(float)
    np.testing.assert_array_equal(read, (wide - wide.min()) / (wide.max() - wide.min()))


def test_fortran_order_is_not_transposed():
    image = count_image(0)[0]
    np.testing.assert_array_equal(parse_image(npy_bytes(np.asfortranarray(image)), SIZE), image)


@hypothesis.given(
    st.one_of(
        hypothesis.extra.numpy.arrays(
            dtype, (SIZE, SIZE), elements={"allow_nan": False, "allow_infinity": False}
        )
        for dtype in (np.float32, np.float64, np.int64, np.uint64, np.int8)
    )
)
def test_scaled_image_has_range_0_to_1(image):
    hypothesis.assume(image.min() < image.max())
    scaled = min_max_scale(image)
    assert scaled.min() == 0
    assert scaled.max() == 1
    assert np.all(np.diff(scaled.ravel()[np.argsort(image, axis=None)]) >= 0)


def test_values_with_overflowing_difference_are_scaled():
    image = np.full((2, 2), 1e308)
    image[0] = -1e308, 0
    np.testing.assert_array_equal(min_max_scale(image), [[0, 0.5], [1, 1]])
    extremes = np.array([[-(2**63), 2**63 - 1]])
    np.testing.assert_array_equal(min_max_scale(extremes), [[0, 1]])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.eye(64)[None], f"shape (64, 64), expected (8, 8); {SET_SIZE} to 64 for Model II to IV images"),
        (np.eye(9), f"shape (9, 9), expected (8, 8); {SET_SIZE} to 9"),
        (np.eye(8, 9), "shape (8, 9), expected (8, 8); crop it to a square"),
        (np.zeros((3, 8, 8)), "shape (3, 8, 8), expected (8, 8) or (1, 8, 8); save one image per file"),
        (np.zeros(()), "shape (), expected (8, 8) or (1, 8, 8); save one image per file"),
        (np.zeros((0, 0)), "shape (0, 0), expected (8, 8); crop it to a square"),
    ],
)
def test_wrong_shape_error_has_expected_shape(array, message):
    with pytest.raises(UserError) as caught:
        parse_image(npy_bytes(array), SIZE)
    assert str(caught.value) == message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_error_counts_pixels_that_are_not_finite(value):
    image = count_image(0)
    image[0, 3, 3:6] = value
    with pytest.raises(UserError, match="3 of 64 pixels are NaN or infinite; remove the image"):
        parse_image(npy_bytes(image), SIZE)


@pytest.mark.parametrize("value", [0, 0.5, 7])
def test_constant_image_is_rejected(value):
    with pytest.raises(UserError, match=r"every pixel is .* remove it"):
        parse_image(npy_bytes(np.full((SIZE, SIZE), value)), SIZE)


@pytest.mark.parametrize("dtype", [bool, complex, "S8", "M8[s]", [("x", "f4")], np.longdouble])
def test_other_value_types_are_rejected(dtype):
    if np.dtype(dtype) == np.float64:
        pytest.skip("long double is double here")
    with pytest.raises(UserError, match="save it as floats or integers of at most 64 bits"):
        parse_image(npy_bytes(np.zeros((SIZE, SIZE), dtype)), SIZE)


class Exploit:
    """Fails the test when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


def test_pickle_is_never_loaded():
    stream = io.BytesIO()
    np.save(stream, np.array([Exploit(), 1e-23], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"never loaded .* lensjax import, or save only"):
        parse_image(stream.getvalue(), SIZE)


def test_every_truncation_is_reported():
    whole = npy_bytes(count_image(0))
    for length in range(len(whole)):
        with pytest.raises(UserError, match=r"truncated|empty|not a .npy file"):
            parse_image(whole[:length], SIZE)


def test_truncation_error_has_number_of_bytes():
    with pytest.raises(UserError, match=r"truncated: 412 of 512 bytes of pixels; copy or download"):
        parse_image(npy_bytes(count_image(0))[:-100], SIZE)


def test_extra_bytes_are_rejected():
    with pytest.raises(UserError, match="extra bytes after the array"):
        parse_image(npy_bytes(count_image(0)) * 2, SIZE)


@pytest.mark.parametrize("data", [b"hello", b"PK\x03\x04" + b"\0" * 100, b"\x89PNG\r\n\x1a\n"])
def test_file_that_is_not_npy_is_reported(data):
    with pytest.raises(UserError, match=r"not a \.npy file; convert it with np\.save"):
        parse_image(data, SIZE)


DAMAGED = "damaged header; copy or download it again"


def with_shape(shape):
    return with_header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (with_shape("(10**9,)"), DAMAGED),
        (
            with_shape("(1000000000, 1000000000)"),
            f"shape (1000000000, 1000000000), expected (8, 8); {SET_SIZE} to 1000000000",
        ),
        (with_shape("(-8, -8)"), "shape (-8, -8), expected (8, 8); crop it to a square"),
        (with_header("{'descr': '<f8', 'shape': (8, 8)}"), DAMAGED),
        (with_header("{'descr': 'nonsense', 'fortran_order': False, 'shape': (8, 8)}"), DAMAGED),
        (with_header("(" * 110), DAMAGED),
        (with_header("\0" * 110), DAMAGED),
        (with_header("{}", version=b"\x02\x00"), DAMAGED),
        (
            with_header("{}", version=b"\x03\x00"),
            "unsupported .npy version 3.0; convert it with np.save(path, image)",
        ),
        (
            with_header("{}", version=b"\x09\x07"),
            "unsupported .npy version 9.7; convert it with np.save(path, image)",
        ),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 100, DAMAGED),
    ],
)
def test_invalid_header_error_is_one_line(data, message):
    with pytest.raises(UserError) as caught:
        parse_image(data, SIZE)
    assert str(caught.value) == message


@hypothesis.given(st.binary(max_size=200), st.binary(max_size=600))
def test_arbitrary_bytes_raise_only_UserError(header, payload):
    prefix = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header))
    with contextlib.suppress(UserError):
        parse_image(prefix + header + payload, SIZE)


@hypothesis.example({})
@hypothesis.given(st.dictionaries(st.integers(0, 639), st.integers(0, 255), max_size=3))
def test_changed_bytes_give_scaled_image_or_UserError(changes):
    content = bytearray(npy_bytes(count_image(0)))
    for place, value in changes.items():
        content[place] = value
    try:
        image = parse_image(bytes(content), SIZE)
    except UserError:
        assert changes
    else:
        assert image.shape == (SIZE, SIZE)
        assert (image.min(), image.max()) == (0, 1)


def test_bytes_to_read_suffice_for_largest_type():
    assert len(npy_bytes(np.zeros((1, SIZE, SIZE)))) <= bytes_to_read(SIZE)
