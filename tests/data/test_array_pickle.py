"""Pickled object arrays: values as saved by NumPy, and pickles that run code or allocate memory."""

import base64
import contextlib
import io
import os
import pathlib
import pickle
import struct
import time
import tracemalloc
import zlib

import hypothesis
import numpy as np
import pytest
from helpers.deeplensesim_files import MakesFolder, pair
from hypothesis import strategies as st

from lensjax.data.array_pickle import load_object_array
from lensjax.errors import UserError

IMAGE = np.array([[3, 1, 4], [1, 5, 9], [2, 6, 5]])
MASS = 6.65e-23
# np.save(file, np.array([IMAGE, np.float64(MASS)], dtype=object)) with NumPy 1.26.4
SAVED_BY_NUMPY_1 = (
    "c-p0qOH0E*6on^At8IM0t<MNTB9tP!DOGS$5HXlaP^b$jd6g8}q-Qb}iWS_nwQGNczfzMXF08onEaq^}y?h+zUAw=zec;Fwd6sP_u&7*;"
    "<X%P2OLE<(j2d3er?wNtmqs&i!aQ(|wiC|EN&YA=y-5F&_$pXlr`7HjET1}sR;S4t2Bk(<tWn4Ey@1h<#YB+!O7!e_3r;0{@MX?~Fhoj6"
    "T2VQb?_(-Cv{|?9h?uVOgpf)RnbF%2SskLH3RN!5dYI8P?fNs+_)#wyX3fzf<`kE>WBj}uvKMqLMr=V923T@qV55lT2)LqS^&5DOwVy!3"
    "ux^gZR|1K}C7zm?(}`yj=M$fr*kglX)BNMR0?TL`R75UmSTABLYPhXqCv52c?zU@|Go{0i)8pLT8TJO)*C9C!2WH_53h#}v"
)
REFUSED = "can run code and was not loaded"


def refusal(payload):
    with pytest.raises(UserError) as caught:
        load_object_array(payload)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 250
    return message


def pickled(value, protocol=4):
    return pickle.dumps(value, protocol=protocol)


class Call:
    """Object whose pickle calls a function."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = function, arguments, state

    def __reduce__(self):
        return self.reduced


def reconstruct(kind=np.ndarray, shape=(0,), code=b"b", state=None):
    return Call(np.ndarray(0).__reduce__()[0], kind, shape, code, state=state)


def dtype(code, order="<", *structure, version=3, flags=0):
    names = structure or (None, None, None)
    return Call(np.dtype, code, False, True, state=(version, order, *names, -1, -1, flags))


def test_array_saved_by_numpy_1_is_read():
    file = zlib.decompress(base64.b85decode(SAVED_BY_NUMPY_1))
    assert b"numpy.core.multiarray" in file
    stream = io.BytesIO(file)
    np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream)
    image, mass = load_object_array(stream.read())
    assert image.dtype == np.int64
    np.testing.assert_array_equal(image, IMAGE)
    assert mass == MASS


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("dtype", ["<i8", ">i4", "u2", "i1", "<f8", ">f4", "f2"])
@pytest.mark.parametrize("mass", [MASS, np.float64(MASS), np.float32(1e-23)], ids=["float", "f8", "f4"])
def test_arrays_of_numbers_keep_type_and_values(protocol, dtype, mass):
    expected = IMAGE.astype(dtype)
    image, read = load_object_array(pickled(pair(expected, mass), protocol))
    assert image.dtype == expected.dtype
    np.testing.assert_array_equal(image, expected)
    assert read == float(mass)


def test_fortran_order_is_not_transposed():
    image, _ = load_object_array(pickled(pair(np.asfortranarray(IMAGE), MASS)))
    np.testing.assert_array_equal(image, IMAGE)


def test_old_and_new_names_of_numpy_are_equivalent():
    new = pickled(pair(IMAGE, np.float64(MASS)), 3)
    old = new.replace(b"numpy._core", b"numpy.core")
    assert old != new
    for payload in (old, new):
        image, mass = load_object_array(payload)
        np.testing.assert_array_equal(image, IMAGE)
        assert mass == MASS


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_is_rejected_and_not_run(tmp_path, protocol):
    marker = tmp_path / "marker"
    for value in (MakesFolder(marker), pair(IMAGE, MakesFolder(marker)), pair(MakesFolder(marker), MASS)):
        payload = pickled(value, protocol)
        message = refusal(payload)
        assert REFUSED in message
        assert not marker.exists()
        pickle.loads(payload)
        assert marker.exists()  # pickle.loads ran the code
        marker.rmdir()


def test_refusal_has_the_name_of_the_function(tmp_path):
    assert f"its pickle calls '{os.mkdir.__module__}.mkdir'; it can run code" in refusal(
        pickled(pair(IMAGE, MakesFolder(tmp_path / "marker")))
    )


@pytest.mark.parametrize(
    "function",
    [
        *(np.load, np.fromfile, np.memmap, np.array, np.save, np.float64),
        *(eval, exec, getattr, __import__, pickle.loads, pathlib.Path, bytearray),
    ],
    ids=lambda function: function.__name__,
)
def test_functions_other_than_the_four_are_rejected(function):
    assert f".{function.__name__}'; it can run code" in refusal(pickled(pair(IMAGE, Call(function, "x"))))


def stack_global(module, name):
    """Protocol 4: a function named by two strings, called with one string."""
    words = [b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name)]
    return b"\x80\x04" + b"".join(words) + b"\x93\x8c\x01x\x85R."


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("numpy", "load"),
        ("numpy", "ndarray.tofile"),
        ("numpy", "dtype.__class__"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy._core.multiarray", "_reconstruct.__self__"),
        ("numpy._core.multiarray", "ndarray"),
        ("numpy.core.numeric", "scalar"),
    ],
)
def test_names_similar_to_numpys_are_rejected(module, name):
    call_by_line = f"\x80\x03c{module}\n{name}\nX\x01\0\0\0x\x85R.".encode("latin1")
    for payload in (stack_global(module, name), call_by_line):
        assert f"its pickle calls '{module}.{name}'; it {REFUSED}" in refusal(payload)


def test_control_characters_of_names_are_escaped():
    assert r"'numpy\n.\x1b[2J'" in refusal(stack_global("numpy\n", "\x1b[2J"))


def test_nested_calls_are_rejected(tmp_path):
    method = Call(getattr, tmp_path / "marker", "mkdir")
    for value in (method, Call(pickle.loads, pickled(MakesFolder(tmp_path / "marker")))):
        state = (1, (2,), dtype("O8", "|", flags=63), False, [IMAGE, value])
        assert REFUSED in refusal(pickled(reconstruct(state=state)))
        assert REFUSED in refusal(pickled(reconstruct(shape=value)))
        assert REFUSED in refusal(pickled(pair(pair(IMAGE, value), MASS)))
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"\x80\x02cnumpy\nndarray\n)\x81.",
        b"(S'x'\nios\nsystem\n.",
        b"(cos\nsystem\nS'x'\no.",
        b"Pos.system\n.",
        b"\x80\x02K\x01Q.",
        b"\x80\x02\x82\x01.",
        b"\x80\x05\x97.",
        b"}.",
        b"\x80\x04\x8f.",
    ],
    ids=["NEWOBJ", "INST", "OBJ", "PERSID", "BINPERSID", "EXT1", "NEXT_BUFFER", "EMPTY_DICT", "EMPTY_SET"],
)
def test_other_opcodes_are_rejected(payload):
    assert "opcode" in refusal(payload)
    assert REFUSED in refusal(payload)


INTEGERS = dtype("i8")
FORGED = {
    "pointers": ((1, (1,), dtype("O8", "|"), False, b"\x41" * 8), "object array of shape"),
    "pointers in a list": ((1, (2,), dtype("O8", "|"), False, [0]), "object array of shape"),
    "numbers in a list": ((1, (1,), INTEGERS, False, [0]), "values that are not numbers"),
    "fewer bytes": ((1, (2,), INTEGERS, False, bytes(8)), "8 bytes for an array of shape"),
    "more bytes": ((1, (2,), INTEGERS, False, bytes(24)), "24 bytes for an array of shape"),
    "large shape": ((1, (2**62,), INTEGERS, False, bytes(8)), "8 bytes for an array of shape"),
    "overflowing shape": ((1, (2**32, 2**32), INTEGERS, False, b""), "0 bytes for an array of shape"),
    "negative shape": ((1, (-1, -1), INTEGERS, False, bytes(8)), "without a shape"),
    "shape of floats": ((1, (1.0,), INTEGERS, False, bytes(8)), "without a shape"),
    "no dtype": ((1, (1,), "i8", False, bytes(8)), "without a data type"),
    "fields": ((1, (1,), dtype("i8", "<", ("x",), None, None), False, bytes(8)), "structured data type"),
    "subarray": ((1, (1,), dtype("i8", "<", None, (), None), False, bytes(8)), "structured data type"),
    "version of dtype": ((1, (1,), dtype("i8", version=4), False, bytes(8)), "structured data type"),
    "void": ((1, (1,), dtype("V8"), False, bytes(8)), "values of another type"),
    "text": ((1, (1,), dtype("U2"), False, bytes(8)), "values of another type"),
    "short state": ((1, (1,)), "damaged pickle"),
}


@pytest.mark.parametrize(("state", "message"), FORGED.values(), ids=FORGED.keys())
def test_forged_arrays_are_rejected(state, message):
    inner = (1, (1,), dtype("O8", "|", flags=63), False, [reconstruct(state=state)])
    assert message in refusal(pickled(reconstruct(state=inner)))


@pytest.mark.parametrize(
    "value",
    [
        reconstruct(shape=(2**40,)),
        reconstruct(kind=np.dtype),
        reconstruct(code=b"O"),
        Call(np.ndarray, (2**40,)),
        Call(np.ndarray, (1,), "O"),
        Call(np.float64(1).__reduce__()[0], "f8", bytes(8)),
        Call(np.float64(1).__reduce__()[0], dtype("O8", "|"), b"\x41" * 8),
        Call(np.float64(1).__reduce__()[0], INTEGERS, bytes(4)),
    ],
    ids=["shape", "kind", "code", "ndarray", "object ndarray", "no dtype", "pointer", "short scalar"],
)
def test_forged_calls_are_rejected(value):
    refusal(pickled(value))
    refusal(pickled(pair(IMAGE, value)))


@pytest.mark.parametrize("value", [[IMAGE, MASS], MASS, None, IMAGE, np.float64(1), pair()[:, None]], ids=str)
def test_other_objects_are_rejected(value):
    refusal(pickled(value))


BOMBS = {
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "byte array": b"\x80\x05\x96" + struct.pack("<Q", 2**31) + b"x.",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",
    "memo": b"\x80\x02Nr" + struct.pack("<I", 2**28) + b".",
    "integer": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "many lists": b"\x80\x02(" + b"]" * 1_000_000 + b"t.",
    "nested keys": b"\x80\x02}" + b")" + b"q\x00h\x00\x86" * 200 + b"Ns.",
    "nested shape": b"\x80\x02cnumpy\ndtype\n" + b")" + b"q\x00h\x00\x86" * 200 + b"\x85R.",
}


@pytest.mark.parametrize("payload", BOMBS.values(), ids=BOMBS.keys())
def test_bombs_use_little_memory_and_time(payload):
    start = time.monotonic()
    tracemalloc.start()
    try:
        refusal(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000
    assert time.monotonic() - start < 2


def test_every_truncation_is_reported():
    whole = pickled(pair(IMAGE, np.float64(MASS)))
    for length in range(len(whole)):
        assert "truncated or damaged pickle; copy or download it again" in refusal(whole[:length])


def test_extra_bytes_are_rejected():
    whole = pickled(pair(IMAGE, MASS))
    assert "extra bytes after the array" in refusal(whole + whole)


@hypothesis.given(st.dictionaries(st.integers(0, 420), st.integers(0, 255), max_size=4))
def test_changed_bytes_give_values_or_UserError(changes):
    content = bytearray(pickled(pair(IMAGE, np.float64(MASS))))
    for place, value in changes.items():
        content[place % len(content)] = value
    with contextlib.suppress(UserError):
        for element in load_object_array(bytes(content)):
            assert not isinstance(element, np.ndarray) or element.dtype.kind in "iuf"


@hypothesis.given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_UserError(payload):
    with contextlib.suppress(UserError):
        load_object_array(b"\x80\x04" + payload)
