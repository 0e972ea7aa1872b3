"""TIFF files; other compressions than deflate and PackBits need the package's extra ``tiff``.

White is high: where a file says that 0 is white, or has a palette, its values become intensities.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.formats.image_file import LUMINANCE, Header, ImageReader, refuse_size, refuse_stack
from cryoquery.formats.pixel_size import believable_pixel_size

GRAY_FROM_WHITE, GRAY, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
"""How a file says that its values are to be seen (tag 262)."""
TRANSPARENCY = (1, 2)
"""How a file says that a further value of each pixel is not of the image (tag 338)."""
REDUCED = 1
"""Bit of a page that is a smaller version of another one (tag 254)."""
ANGSTROM_PER_UNIT = {2: 2.54e8, 3: 1e8}
"""Of TIFF's units of resolution, inch and centimeter."""

# tifffile reports what it finds odd in a file to a logger; without a handler that ends up on stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@contextmanager
def _open(path: Path) -> Iterator[tifffile.TiffPage]:
    """The one page of the image; smaller versions of it beside it are not looked at."""
    with tifffile.TiffFile(path) as file:
        pages = [page.aspage() for page in file.pages]
        largest = max(map(_n_pixels, pages))
        full = [page for page in pages if _n_pixels(page) == largest]
        page = next((page for page in full if not page.subfiletype & REDUCED), full[0])
        refuse_stack(path, max(len(full), _n_frames(file, page), _n_planes(page)))
        if page.dtype is None or page.dtype.kind not in "biuf":
            raise DataError(f"{path}: pixels of type {page.dtype}; a micrograph has numbers")
        if page.axes not in ("YX", "YXS", "SYX") or page.photometric not in (
            GRAY_FROM_WHITE, GRAY, RGB, PALETTE, YCBCR,
        ):  # fmt: skip
            how = getattr(page.photometric, "name", page.photometric)
            raise DataError(
                f"{path}: pixels of shape {page.shape} ({how}); a micrograph is one gray or color image"
            )
        refuse_size(path, page.imagelength, page.imagewidth)
        yield page


def _n_pixels(page: tifffile.TiffPage) -> int:
    return int(page.imagelength) * int(page.imagewidth)


def _n_frames(file: tifffile.TiffFile, page: tifffile.TiffPage) -> int:
    """Images that the pages and the description of the file announce; ImageJ may write one page for all."""
    for series in file.series:
        if series.keyframe.index == page.index:
            per_image = _n_pixels(page) * int(page.samplesperpixel)
            return max(1, int(np.prod(series.shape, dtype=np.int64)) // max(per_image, 1))
    return 1


def _n_planes(page: tifffile.TiffPage) -> int:
    """Gray images that one page holds side by side, transparency not counted."""
    extra = page.extrasamples or ()
    is_color = page.photometric in (RGB, YCBCR)
    return 1 if is_color else int(page.samplesperpixel) - sum(kind in TRANSPARENCY for kind in extra)


def _read_header(path: Path) -> Header:
    with _open(path) as page:
        stated = _pixel_size(page)
        shape = int(page.imagelength), int(page.imagewidth)
        return Header(shape, believable_pixel_size(stated), stated)


def _pixel_size(page: tifffile.TiffPage) -> float | None:
    """Å/px from the resolution, which IMOD and SerialEM write; printers' dots per inch are nonsense here."""
    unit = page.tags.valueof(296, 2)
    resolution = page.tags.valueof(282)
    if unit not in ANGSTROM_PER_UNIT or not isinstance(resolution, tuple) or len(resolution) != 2:
        return None
    dots, units = resolution
    return round(ANGSTROM_PER_UNIT[unit] * units / dots, 6) if dots else None


def _read_pixels(path: Path) -> NDArray[Any]:
    with _open(path) as page:
        if max(page.databytecounts, default=0) > path.stat().st_size:
            raise DataError(f"{path}: a strip is longer than the file; damaged, copy it again")
        try:
            pixels = np.asarray(page.asarray())
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            compression = getattr(page.compression, "name", page.compression)
            raise DataError(
                f"{path}: TIFF with {compression} compression needs imagecodecs; "
                'pip install "cryoquery[tiff]", or store it uncompressed'
            ) from None
        return _intensities(page, pixels)


def _intensities(page: tifffile.TiffPage, pixels: NDArray[Any]) -> NDArray[Any]:
    """Gray (height, width), the higher the brighter."""
    weights = np.array(LUMINANCE, np.float32)
    if page.photometric == PALETTE and page.colormap is not None:
        levels: NDArray[Any] = page.colormap.T @ weights
        return np.asarray(levels[pixels])
    if pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels
        return pixels[..., :3] @ weights if pixels.shape[-1] > 2 else np.asarray(pixels[..., 0])
    if page.photometric != GRAY_FROM_WHITE:
        return pixels
    if pixels.dtype.kind == "u":
        return np.asarray((2 ** int(page.bitspersample) - 1) - pixels)
    return pixels if pixels.dtype.kind == "b" else -pixels.astype(np.float32)  # bits are those of masks


TIFF = ImageReader(_read_header, _read_pixels)
