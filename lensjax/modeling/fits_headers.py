"""Pixel scale and photon counts from the headers of a FITS image."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from lensjax.decoding import suppress_warnings
from lensjax.errors import UserError

_PIXEL_SCALE = re.compile(r"PIXSCALE|PIXELSCALE|PIXELSCL|D\d+SCAL")  # D001SCAL is written by AstroDrizzle
_EXPOSURE = re.compile("EXPTIME|TEXPTIME")
_GAIN = re.compile("GAIN|CCDGAIN|ATODGAIN")
_TOLERANCE = 0.01  # of the ratio of the sides, and of the sine of their angle


def header_pixel_scale(headers: tuple[Any, ...]) -> float | None:
    """Side of a pixel, arcsec, from the world coordinates, or else from keywords such as PIXSCALE.

    Args:
      headers: header of the image, and other headers that are searched for keywords.

    Returns:
      The pixel scale; None if the headers do not contain it.

    Raises:
      UserError: if the pixels are not square.
    """
    matrix = _celestial_matrix(headers[0])
    if matrix is None:
        return _positive(headers, _PIXEL_SCALE)
    x, y = np.hypot(*matrix)
    skew = abs(np.linalg.det(matrix)) / (x * y)
    if abs(x / y - 1) > _TOLERANCE or skew < 1 - _TOLERANCE:
        raise UserError(
            f"pixels are not square: {x:.5g} x {y:.5g} arcsec; resample the image to square pixels"
        )
    return float(np.sqrt(x * y))


def electrons_per_unit(headers: tuple[Any, ...]) -> float | None:
    """Electrons per unit of the image, from BUNIT, the exposure time and the gain.

    Args:
      headers: header of the image, and other headers that are searched for keywords.

    Returns:
      The number of electrons; None if the headers do not determine it.
    """
    unit = next((str(header["BUNIT"]) for header in headers if header.get("BUNIT")), "")
    name, _, per = unit.upper().replace(" ", "").partition("/")
    exposure = _positive(headers, _EXPOSURE)
    time: float | None = {"": 1.0, "S": exposure, "SEC": exposure, "SECOND": exposure}.get(per)
    charge: float | None = None
    if name in ("ELECTRON", "ELECTRONS", "E-"):
        charge = 1.0
    elif name in ("COUNT", "COUNTS", "DN", "ADU"):
        charge = _positive(headers, _GAIN)
    return None if time is None or charge is None else time * charge


def _celestial_matrix(header: Any) -> np.ndarray | None:
    """Derivatives of the sky position `[sky, pixel]`, arcsec; None if the header has no world coordinates."""
    from astropy.wcs import WCS

    if not any(re.fullmatch(r"CD\d_\d|CDELT\d", keyword) for keyword in header):
        return None
    try:
        with suppress_warnings():
            matrix = 3600 * WCS(header, naxis=2).celestial.pixel_scale_matrix
    except Exception:  # damaged or unusual coordinates
        return None
    if matrix.shape != (2, 2) or not np.isfinite(matrix).all() or np.linalg.det(matrix) == 0:
        return None
    return matrix


def _positive(headers: tuple[Any, ...], keyword: re.Pattern) -> float | None:
    """The first positive number among the keywords that match."""
    return next((value for value in _numbers(headers, keyword) if 0 < value < np.inf), None)


def _numbers(headers: tuple[Any, ...], keyword: re.Pattern) -> Iterator[float]:
    for header in headers:
        for name in header:
            if keyword.fullmatch(name) and isinstance(header[name], int | float):
                yield float(header[name])
