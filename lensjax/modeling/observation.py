"""A telescope image of a lens, with its noise and its point-spread function."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from lensjax.errors import UserError
from lensjax.modeling.arguments import positive_length, whole_number
from lensjax.modeling.blank_sky import estimate_noise
from lensjax.modeling.correlation import NoiseCorrelation
from lensjax.modeling.planes import check_noise, mask_plane, pixels
from lensjax.modeling.psf import check_psf, gaussian_psf, rebin_psf


@dataclasses.dataclass(frozen=True, eq=False, init=False)
class Observation:
    """A cutout around a lens.

    All arrays are NumPy arrays of float64, except `mask`. Invalid pixels have finite values in all of them.

    Attributes:
      image: brightness in any unit `[rows, columns]`.
      noise: standard deviation of each pixel, in the unit of the image `[rows, columns]`.
      psf: point-spread function `[odd, odd]`, which sums to 1.
      mask: True for valid pixels `[rows, columns]`.
      pixel_scale: side of a pixel, arcsec.
      psf_subpixels: pixels of the point-spread function per pixel of the image, along each axis.
      correlation: correlation of the noise between pixels; None if unknown.
      notes: what was estimated or assumed.
    """

    image: np.ndarray
    noise: np.ndarray
    psf: np.ndarray
    mask: np.ndarray
    pixel_scale: float
    psf_subpixels: int
    correlation: NoiseCorrelation | None
    notes: tuple[str, ...]

    def __init__(
        self,
        image: ArrayLike,
        noise: ArrayLike | None = None,
        psf: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        *,
        pixel_scale: float,
        psf_subpixels: int = 1,
        correlation: NoiseCorrelation | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Checks and converts the arrays.

        Args:
          image: brightness in any unit, of any type and byte order `[rows, columns]`. Pixels that are not
            finite are invalid.
          noise: standard deviation of each pixel, in the unit of the image `[rows, columns]`, or one number.
            Pixels whose noise is not finite, or more than 10,000 times that of ordinary pixels, are invalid.
            If None, it is estimated from the blank sky.
          psf: point-spread function `[odd, odd]` in any unit; its brightest pixel must be within one pixel of
            the image of its center.
          mask: True or 1 for valid pixels, False or 0 for others `[rows, columns]`; None if all pixels are
            valid.
          pixel_scale: side of a pixel, arcsec.
          psf_subpixels: pixels of the point-spread function per pixel of the image, along each axis.
          correlation: correlation of the noise between pixels; None if unknown.
          notes: earlier estimates and assumptions.

        Raises:
          UserError: if an argument is missing or cannot be used; the message states which, and what to do.
        """
        image = pixels("image", image)
        valid = np.isfinite(image)
        if mask is not None:
            valid &= mask_plane(mask, image.shape)
        if noise is not None:
            noise, valid, note = check_noise(noise, valid)
            notes = (*notes, note) if note else notes
        if not valid.any():
            raise UserError("image has no valid pixel: all are masked, not finite or without finite noise")
        if np.ptp(image[valid]) == 0:
            raise UserError(f"image is {image[valid][0]:g} in all valid pixels; check the file and the mask")
        image = np.where(np.isfinite(image), image, 0.0)
        if noise is None:
            noise, note = estimate_noise(image, valid)
            notes = (*notes, note)
        if psf is None:
            raise UserError(
                "psf is missing; give the point-spread function of the image, or use "
                "psf=gaussian_psf(fwhm, pixel_scale) as a stand-in"
            )
        subpixels = whole_number("psf_subpixels", psf_subpixels)
        values = {
            "image": image,
            "noise": noise,
            "psf": check_psf(psf, subpixels),
            "mask": valid,
            "pixel_scale": positive_length("pixel_scale", pixel_scale),
            "psf_subpixels": subpixels,
            "correlation": correlation,
            "notes": tuple(notes),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def sky_variance(self) -> float:
        """Variance of the blank sky relative to that of the noise map; 1 if it was not measured."""
        return 1.0 if self.correlation is None else self.correlation.scatter**2

    @property
    def valid(self) -> np.ndarray:
        """True for valid pixels `[rows, columns]`."""
        return self.mask

    @classmethod
    def from_fits(
        cls,
        image: str | Path,
        noise: ArrayLike | str | Path | None = None,
        psf: ArrayLike | str | Path | None = None,
        mask: ArrayLike | str | Path | None = None,
        *,
        pixel_scale: float | None = None,
        psf_subpixels: int = 1,
        psf_fwhm: float | None = None,
        extension: str | int | None = None,
    ) -> "Observation":
        """Reads an observation from FITS files.

        Noise maps are standard deviations, unless the name of their extension or, if it does not state what
        they are, that of their file contains one of the words WHT, WT, WEIGHT, WEIGHTS, IVAR, INVVAR or
        INVERSE VARIANCE (inverse variance), or VAR or VARIANCE (variance).

        Args:
          image: file with the image: the extension SCI if there is one, else the first image that is not
            another part of the observation, such as a noise map.
          noise: file with the noise map, or the array. If None, it is an extension of the image's file
            with the name ERR, ERROR, ERRORS, RMS, SIGMA, STD, STDEV or one of the words above (except INVERSE
            VARIANCE); without them, it is estimated from the image and from the exposure time, gain and unit
            in the header.
          psf: file with the point-spread function, or the array. If None, it is the extension PSF of the
            image's file.
          mask: file with the mask, 1 for valid pixels, or the array; None if all pixels are valid.
          pixel_scale: side of a pixel, arcsec; if None, that of the header.
          psf_subpixels: pixels of the point-spread function per pixel of the image, along each axis.
          psf_fwhm: full width at half maximum of a Gaussian that stands in if there is no point-spread
            function, arcsec.
          extension: name, number or "name,version" of the image's extension.

        Returns:
          The observation; `notes` states what was read from headers or extensions, estimated or assumed.

        Raises:
          UserError: if a file cannot be read, or a part is missing or cannot be used.
        """
        from lensjax.modeling.fits_input import read_observation  # needs astropy

        parts: dict[str, Any] = read_observation(image, noise, psf, mask, pixel_scale, extension)
        try:
            subpixels = whole_number("psf_subpixels", psf_subpixels)
            if parts["psf"] is None:
                if psf_fwhm is None:
                    raise UserError(
                        "has no point-spread function; give psf, or psf_fwhm in arcsec for a Gaussian that "
                        "stands in"
                    )
                # The stand-in has the pixels that psf_subpixels describes.
                fwhm = positive_length("psf_fwhm", psf_fwhm)
                scale = positive_length("pixel_scale", parts["pixel_scale"])
                parts["psf"] = gaussian_psf(fwhm, scale / subpixels)
                parts["notes"] += (f"psf: a Gaussian of {fwhm:.4g} arcsec FWHM stands in",)
            return cls(**parts, psf_subpixels=subpixels)
        except UserError as error:
            raise UserError(f"{image}: {error}") from None

    def crop(self, side: int) -> "Observation":
        """Crops the image to its central part, which has the same center.

        Args:
          side: largest number of rows and columns, pixels. It is reduced by 1 along an axis if this is
            necessary to keep the center.

        Returns:
          The cropped observation.

        Raises:
          UserError: if the side is not at least 2 pixels, or no two valid pixels of the part differ.
        """
        side = whole_number("side", side, 2)
        cuts = [max(0, -(-(have - side) // 2)) for have in self.image.shape]
        part = tuple(slice(cut, have - cut) for cut, have in zip(cuts, self.image.shape, strict=True))
        return dataclasses.replace(self, image=self.image[part], noise=self.noise[part], mask=self.mask[part])

    def bin(self, factor: int) -> "Observation":
        """Averages blocks of pixels.

        A block is valid if at least half of its pixels are; its mean is that of its valid pixels. Rows and
        columns that do not fill a block are removed, the same number on both sides if possible; otherwise,
        the center moves by half a pixel of the image toward lower indices.

        Args:
          factor: side of the blocks, pixels.

        Returns:
          The observation with larger pixels.

        Raises:
          UserError: if the factor is not a whole number from 1 to the size of the image, or no two valid
            blocks differ.
        """
        factor = whole_number("factor", factor)
        if factor > min(self.image.shape):
            raise UserError(f"factor is {factor}, larger than the image with shape {self.image.shape}")

        def block_sums(values: np.ndarray) -> np.ndarray:
            rows, columns = (side // factor for side in values.shape)
            top, left = (side % factor // 2 for side in values.shape)
            part = values[top : top + rows * factor, left : left + columns * factor]
            return part.reshape(rows, factor, columns, factor).sum((1, 3))

        number = block_sums(self.mask.astype(np.float64))
        valid = 2 * number >= factor**2
        number = np.maximum(number, 1)
        unit = np.median(self.noise[self.mask])  # squares of values such as 1e-200 are 0
        noise = unit * np.sqrt(block_sums(np.where(self.mask, self.noise / unit, 0) ** 2)) / number
        return dataclasses.replace(
            self,
            image=block_sums(np.where(self.mask, self.image, 0)) / number,
            noise=np.where(valid, noise, unit),
            mask=valid,
            psf=rebin_psf(self.psf, factor),
            pixel_scale=self.pixel_scale * factor,
            correlation=self.correlation and self.correlation.bin(factor),
        )
