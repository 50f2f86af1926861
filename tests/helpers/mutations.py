"""Damage to files: seeded bit flips, cuts, insertions and edits of numbers such as sizes."""

import re
from collections.abc import Callable

import numpy as np

Mutation = Callable[[bytearray, np.random.Generator], bytearray]

_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 2**63 - 1, 2**64 - 1)
_HEAD = 4_000  # bytes at the start and end, where sizes are stored


def flip_bits(content: bytearray, generator: np.random.Generator) -> bytearray:
    """Flips 1 to 8 bits."""
    for place in generator.integers(0, len(content), generator.integers(1, 9)):
        content[place] ^= 1 << generator.integers(8)
    return content


def truncate(content: bytearray, generator: np.random.Generator) -> bytearray:
    """Removes the end."""
    return content[: generator.integers(0, len(content))]


def insert(content: bytearray, generator: np.random.Generator) -> bytearray:
    """Inserts random bytes, or a copy of a part."""
    place, length = generator.integers(0, len(content)), generator.integers(1, 600)
    copied = content[place : place + length]
    new = copied if generator.integers(2) else generator.bytes(length)
    return content[:place] + new + content[place:]


def remove(content: bytearray, generator: np.random.Generator) -> bytearray:
    """Removes a part."""
    place = generator.integers(0, len(content))
    return content[:place] + content[place + generator.integers(1, 600) :]


def edit_integer(content: bytearray, generator: np.random.Generator) -> bytearray:
    """Overwrites 1 to 8 bytes near the start or the end with an extreme integer."""
    length, order = 2 ** int(generator.integers(4)), ("little", "big")[generator.integers(2)]
    value = _EXTREMES[generator.integers(len(_EXTREMES))] % 2 ** (8 * length)
    place = int(generator.integers(0, min(_HEAD, len(content))))
    if generator.integers(2):
        place = len(content) - place - 1
    content[place : place + length] = value.to_bytes(length, order)
    return content


def edit_number(content: bytearray, generator: np.random.Generator) -> bytearray:
    """Replaces a number in the text of a header; a longer number overwrites the spaces before it."""
    numbers = list(re.finditer(rb"(?<=[ (=,'<>|uif-])\d+", bytes(content[:20_000])))
    if not numbers:
        return edit_integer(content, generator)
    found = numbers[generator.integers(len(numbers))]
    value = str((0, 1, 7, 99, 10**6, 10**9, 10**18)[generator.integers(7)]).encode()
    start, end = found.span()
    spare = min(len(value) - len(found[0]), start)
    if spare > 0 and content[start - spare : start].isspace():
        start -= spare
    content[start:end] = value
    return content


MUTATIONS: dict[str, Mutation] = {
    function.__name__: function
    for function in (flip_bits, truncate, insert, remove, edit_integer, edit_number)
}


def mutate(content: bytes, name: str, seed: int) -> bytes:
    """The content with one kind of damage.

    Args:
      content: the file, not empty.
      name: one of `MUTATIONS`.
      seed: seed of the random choices.
    """
    return bytes(MUTATIONS[name](bytearray(content), np.random.default_rng(seed)))
