"""Searches for images that are in two splits or in two classes."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from lensjax.data.images import CLASSES, ImageSet
from lensjax.runtime.progress import log

_STEP = 5  # only every fifth row and column is hashed; equal hashes are confirmed with all pixels
_CHUNK = 256  # images


def warn_about_duplicates(sets: Mapping[str, ImageSet]) -> None:
    """Logs a warning if images are in two splits or in two classes.

    Args:
      sets: images of each split. Splits that are the same object are searched once.
    """
    distinct: dict[int, tuple[str, ImageSet]] = {}
    for name, images in sets.items():
        distinct.setdefault(id(images), (name, images))
    across: dict[tuple[str, str], list[str]] = defaultdict(list)
    classes: list[str] = []
    for (first, row), (second, other) in _pairs(dict(distinct.values())):
        one, two = sets[first], sets[second]
        names = f"{one.names[row]} and {two.names[other]}"
        if first != second:
            across[first, second].append(names)
        if one.labels[row] != two.labels[other]:
            classes.append(f"{names} ({CLASSES[one.labels[row]]}, {CLASSES[two.labels[other]]})")
    for (first, second), found in across.items():
        log.warning(
            "the %s and %s splits share images, which makes scores optimistic; found %s, for example %s",
            first,
            second,
            f"{len(found):,}",
            found[0],
        )
    if classes:
        log.warning("images in two classes: %s, for example %s", f"{len(classes):,}", classes[0])


def _pairs(sets: Mapping[str, ImageSet]) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """Yields (split, row) of the first of several equal images, with (split, row) of each repeat."""
    seen: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for name, images in sets.items():
        for start in range(0, len(images), _CHUNK):
            rows = slice(start, start + _CHUNK)
            part = images.pixels[rows, ::_STEP, ::_STEP].astype(np.float32)
            part /= images.scale[rows, None, None]
            for row, image in enumerate(part, start):
                equal = seen[hash(image.tobytes())]
                for split, other in equal:
                    pixels = images.images(np.array([row]))
                    if np.array_equal(pixels, sets[split].images(np.array([other]))):
                        yield (split, other), (name, row)
                        break
                else:
                    equal.append((name, row))
