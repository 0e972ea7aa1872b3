"""TIFF files; other compressions than deflate and PackBits need the package's extra ``tiff``."""

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

ANGSTROM_PER_UNIT = {2: 2.54e8, 3: 1e8}
"""Of TIFF's units of resolution, inch and centimeter."""

# tifffile reports what it finds odd in a file to a logger; without a handler that ends up on stderr.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@contextmanager
def _open(path: Path) -> Iterator[tifffile.TiffPage]:
    with tifffile.TiffFile(path) as file:
        refuse_stack(path, len(file.pages))
        page = file.pages[0]
        shape = tuple(int(n) for n in page.shape)
        if len(shape) != 2 and not (len(shape) == 3 and shape[2] in (3, 4)):
            raise DataError(f"{path}: pixels of shape {shape}; a micrograph is one gray or color image")
        if page.dtype is None or page.dtype.kind not in "biuf":
            raise DataError(f"{path}: pixels of type {page.dtype}; a micrograph has numbers")
        refuse_size(path, shape[0], shape[1])
        yield page


def _read_header(path: Path) -> Header:
    with _open(path) as page:
        stated = _pixel_size(page)
        return Header((int(page.shape[0]), int(page.shape[1])), believable_pixel_size(stated), stated)


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
    return pixels if pixels.ndim == 2 else pixels[..., :3] @ np.array(LUMINANCE, np.float32)


TIFF = ImageReader(_read_header, _read_pixels)
