"""Parts of an observation from FITS files: image, noise, point-spread function and mask."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lensjax.decoding import (
    MAX_PIXELS,
    NOISE_KINDS,
    describe_error,
    is_auxiliary,
    noise_kind,
    suppress_warnings,
)
from lensjax.errors import UserError
from lensjax.modeling.blank_sky import estimate_noise
from lensjax.modeling.fits_headers import electrons_per_unit, header_pixel_scale
from lensjax.modeling.planes import pixels, plane_like

_NOISE = tuple(name.upper() for name in NOISE_KINDS)  # extensions; the first that exists is used
_SCALE_TOLERANCE = 0.01  # relative difference of the given pixel scale and that of the header


@dataclasses.dataclass(frozen=True)
class _Planes:
    """Planes of a FITS file.

    Attributes:
      image: pixels of the chosen extension `[rows, columns]`.
      name: name of this extension; "" if it has none.
      headers: its header, and the primary header.
      others: pixels of the other requested extensions that exist, by name.
      names: names of all extensions with images.
    """

    image: np.ndarray
    name: str
    headers: tuple[Any, Any]
    others: dict[str, np.ndarray]
    names: list[str]


def read_observation(
    image: str | Path, noise: Any, psf: Any, mask: Any, pixel_scale: float | None, extension: str | int | None
) -> dict[str, Any]:
    """Reads the arguments of `Observation` from files.

    Args:
      image, noise, psf, mask, pixel_scale, extension: as for `Observation.from_fits`.

    Returns:
      The arguments by name.

    Raises:
      UserError: if a file cannot be read or contains no image, the header has no pixel scale, or the noise
        cannot be estimated.
    """
    path = Path(image)
    requested = (*(_NOISE if noise is None else ()), *(("PSF",) if psf is None else ()))
    planes = _read(path, requested, extension)
    if is_auxiliary(planes.name) and extension is None:
        raise UserError(
            f"{path}: contains only {', '.join(planes.names)}; choose an image (--extension, or extension= "
            "in Python)"
        )
    notes = []
    if "DQ" in planes.names:
        notes.append("mask: extension DQ is not applied; give a mask if it marks bad pixels")
    if isinstance(mask, str | Path):
        found = _read(Path(mask), ("MASK",))
        mask = found.others.get("MASK", found.image)
    if isinstance(noise, str | Path):
        noise, note = _read_noise(Path(noise))
        notes.append(note)
    elif noise is None:
        with _errors_in(path):
            noise, noise_notes = _own_noise(planes, mask)
        notes += noise_notes
    if psf is None:
        psf = planes.others.get("PSF")
    elif isinstance(psf, str | Path):
        found = _read(Path(psf), ("PSF",))
        psf = found.others.get("PSF", found.image)
    with _errors_in(path):
        scale, scale_notes = _pixel_scale(planes.headers, pixel_scale)
    return {
        "image": planes.image,
        "noise": noise,
        "psf": psf,
        "mask": mask,
        "pixel_scale": scale,
        "notes": (*notes, *scale_notes),
    }


def _read_noise(file: Path) -> tuple[np.ndarray, str]:
    """Noise map of a file, with a note; its extension's name states the kind, or the file's name."""
    found = _read(file, _NOISE)
    name = next((name for name in _NOISE if name in found.others), None)
    if name is not None:
        noise = found.others[name]
    else:
        name = next((name for name in found.names if noise_kind(name)), found.name)
        noise = found.image if name == found.name else _read(file, extension=name).image
    noise, kind = _standard_deviation(noise, noise_kind(name) or noise_kind(file.name))
    return noise, f"noise: {file.name}, {kind}"


def _own_noise(planes: _Planes, mask: Any) -> tuple[np.ndarray | None, list[str]]:
    """Noise map from an extension or the headers of the image's file, with notes; None without either."""
    name = next((name for name in _NOISE if name in planes.others), None)
    if name is not None:
        noise, kind = _standard_deviation(planes.others[name], noise_kind(name))
        return noise, [f"noise: extension {name}, {kind}"]
    electrons = electrons_per_unit(planes.headers)
    if electrons is None:
        return None, []
    finite = np.isfinite(planes.image)
    valid = finite if mask is None else finite & (plane_like("mask", mask, finite.shape) > 0)
    noise, note = estimate_noise(np.where(finite, planes.image, 0.0), valid, electrons)
    return noise, [note]


def _standard_deviation(plane: np.ndarray, kind: str | None) -> tuple[np.ndarray, str]:
    """Standard deviation of each pixel, infinite in pixels without weight, and what the plane contained."""
    if kind not in ("inverse variance", "variance"):
        return plane, "standard deviation"
    positive = plane > 0
    root = np.sqrt(np.where(positive, plane, 1.0))
    return np.where(positive, root if kind == "variance" else 1 / root, np.inf), kind


def _pixel_scale(headers: tuple[Any, Any], given: float | None) -> tuple[float, list[str]]:
    """The given pixel scale, with a note if that of the header differs; else the header's, with a note."""
    if given is None:
        scale = header_pixel_scale(headers)
        if scale is None:
            raise UserError(
                "the header has no pixel scale; give it in arcsec (--pixel-scale, or pixel_scale= in Python)"
            )
        return scale, [f"pixel scale: {scale:.5g} arcsec, from the header"]
    with contextlib.suppress(UserError, TypeError):
        scale = header_pixel_scale(headers)
        if scale is not None and abs(given / scale - 1) > _SCALE_TOLERANCE:
            return given, [
                f"pixel scale: {given:.5g} arcsec was given, but the header has {scale:.5g} arcsec"
            ]
    return given, []


@contextlib.contextmanager
def _errors_in(path: Path) -> Iterator[None]:
    """Converts all errors to a UserError that names the file."""
    try:
        with suppress_warnings():
            yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except ImportError:
        raise UserError(f'{path}: needs astropy; run: pip install "lensjax[formats]"') from None
    except Exception as error:  # decoders can raise any exception for a damaged file
        raise UserError(
            f"{path}: cannot be read as FITS: {describe_error(error)}; check the file or copy it again"
        ) from error


def _read(path: Path, others: tuple[str, ...] = (), extension: str | int | None = None) -> _Planes:
    """Reads the image of a FITS file and the extensions `others` that it has."""
    with _errors_in(path):
        from lensjax.fits_units import open_units  # needs astropy

        if path.exists() and not path.is_file():  # opening a pipe would block
            raise UserError("is not a regular file")
        try:
            stream = path.open("rb")
        except OSError as error:
            raise UserError(f"cannot be opened: {error.strerror or error}") from None
        with stream, open_units(stream) as units:
            return _select(units, others, extension)


def _select(units: Any, others: tuple[str, ...], extension: str | int | None) -> _Planes:
    """The image and the extensions `others` among the units of an open FITS file."""
    if units.problem:
        raise UserError(units.problem)
    names = {
        index: str(unit.header.get("EXTNAME", "")).strip().upper() for index, unit in units.images.items()
    }
    listed = ", ".join(name or str(index) for index, name in names.items()) or "none"
    if extension is not None:
        wanted = str(extension).strip().upper()
        chosen = [
            index
            for index, name in names.items()
            if wanted in (name, f"{name},{units.images[index].ver}", str(index))
        ]
        if not chosen:
            raise UserError(
                f"has no image extension {extension} (its images are {listed}); correct the extension"
            )
    else:
        chosen = [index for index, name in names.items() if name == "SCI"]
        chosen = chosen or [index for index, name in names.items() if not is_auxiliary(name)] or list(names)
        if not chosen:
            raise UserError("contains no image; choose another file")
    image = units.images[chosen[0]]
    found = {}
    for name in others:
        same = [unit for index, unit in units.images.items() if names[index] == name]
        # In files of instruments with several chips, EXTVER is the number of the chip.
        same.sort(key=lambda unit: unit.ver != image.ver)
        if same:
            found[name] = _data(same[0], name, units.length)
    headers = (image.header, units.primary.header)
    image_pixels = _data(image, "image", units.length)
    return _Planes(image_pixels, names[chosen[0]], headers, found, list(names.values()))


def _data(unit: Any, name: str, length: int) -> np.ndarray:
    """Pixels of a unit; `length` is the size of the file in bytes."""
    from lensjax.fits_units import check_compressed

    if math.prod(unit.shape) > MAX_PIXELS:
        raise UserError(
            f"{name} has shape {unit.shape}, more than {MAX_PIXELS:,} pixels; crop it to the lens"
        )
    check_compressed(unit, length)
    return pixels(name, unit.data)
