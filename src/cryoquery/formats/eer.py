"""EER, the electron events of Falcon cameras: summed to one image on the grid of the sensor.

A file is a BigTIFF with a page per frame; a page holds the distances between the pixels that
were hit, and where within a pixel, which is not used here (Guo et al. 2020, IUCrJ 7, 860). There
is neither gain nor motion correction: the sum is good enough to look at, a corrected micrograph
is better to pick from. Decoding needs the package's extra ``eer``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.formats.image_file import Header, ImageReader, refuse_size
from cryoquery.formats.pixel_size import believable_pixel_size

SKIP_BITS = {65000: 8, 65001: 7, 65002: 7}
"""Bits of a distance by compression; 65002 may state others in its tags."""
SUBPIXEL_BITS = 2
"""Bits of a place within a pixel, along each axis."""
METADATA_TAG, SKIP_TAG, HORIZONTAL_TAG, VERTICAL_TAG = 65001, 65007, 65008, 65009
ANGSTROM_PER_METER = 1e10
COMPLETE = 0.98
"""A file with fewer than so many of the frames it announces is truncated."""


@contextmanager
def _open(path: Path) -> Iterator[tuple[tifffile.TiffFile, list[Any]]]:
    """The file and its frames; an image of the sum that some programs put first is not one."""
    with tifffile.TiffFile(path) as file:
        first = 1 if len(file.pages) > 1 and file.pages[0].compression not in SKIP_BITS else 0
        frames = [file.pages[i] for i in range(first, len(file.pages))]
        if not frames or any(page.compression not in SKIP_BITS for page in frames):
            raise DataError(f"{path}: no frames of electron events in it; an EER file has nothing else")
        refuse_size(path, frames[0].imagelength, frames[0].imagewidth)
        announced = _number(file.pages[0], b"numberOfFrames")
        if announced and len(frames) < COMPLETE * announced:
            raise DataError(f"{path}: truncated: {len(frames)} of {announced:.0f} frames; copy it again")
        yield file, frames


def _number(page: tifffile.TiffPage, name: bytes) -> float | None:
    """A number from the metadata, in the unit of the file."""
    text = page.tags.valueof(METADATA_TAG, b"")
    text = text.encode() if isinstance(text, str) else bytes(text)
    match = re.search(
        rb'name="' + re.escape(name) + rb'"[^>]{0,200}>\s{0,99}([-+.0-9eE]{1,99})\s{0,99}<', text
    )
    return float(match.group(1)) if match else None


def _read_header(path: Path) -> Header:
    with _open(path) as (file, frames):
        meters = _number(file.pages[0], b"sensorPixelSize.width")
        stated = None if meters is None else round(meters * ANGSTROM_PER_METER, 6)
        shape = (int(frames[0].imagelength), int(frames[0].imagewidth))
        return Header(shape, believable_pixel_size(stated), stated)


def _read_pixels(path: Path) -> NDArray[Any]:
    """Electrons per pixel (height, width)."""
    try:
        from imagecodecs import eer_decode
    except ImportError:
        raise DataError(
            f'{path}: EER needs imagecodecs; pip install "cryoquery[eer]", or correct the movie first'
        ) from None
    with _open(path) as (file, frames):
        shape = (int(frames[0].imagelength), int(frames[0].imagewidth))
        total = np.zeros(shape, np.uint32)
        part = np.zeros(shape, np.uint8)  # adding bytes is ten times as fast
        for i, page in enumerate(frames):
            if (page.imagelength, page.imagewidth) != shape:
                raise DataError(f"{path}: frames of different sizes; damaged, copy it again")
            skip = int(page.tags.valueof(SKIP_TAG, SKIP_BITS[page.compression]))
            within = [int(page.tags.valueof(tag, SUBPIXEL_BITS)) for tag in (HORIZONTAL_TAG, VERTICAL_TAG)]
            part += eer_decode(_events(path, file, page), shape, skip, *within).view(np.uint8)
            if i % 255 == 254:
                total += part
                part[:] = 0
    return total + part


def _events(path: Path, file: tifffile.TiffFile, page: tifffile.TiffPage) -> bytes:
    """The bytes of a frame, an even number of them, as the decoder wants."""
    parts = []
    for offset, n_bytes in zip(page.dataoffsets, page.databytecounts, strict=True):
        if offset + n_bytes > file.filehandle.size:
            raise DataError(f"{path}: truncated: a frame ends after the file does; copy it again")
        file.filehandle.seek(offset)
        parts.append(file.filehandle.read(n_bytes))
    events = b"".join(parts)
    return events + bytes(len(events) % 2)


EER = ImageReader(_read_header, _read_pixels)
