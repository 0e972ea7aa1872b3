"""Pictures of micrographs for the browser.

A picture of at most `CACHED_SIDE` px is made from a reduced copy of the micrograph in standard deviations,
which is kept in the project's cache; a larger one is made from the micrograph itself.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cryoquery.data.array_file import read_rows
from cryoquery.data.dataset import ImageRecord, decode, encode
from cryoquery.data.preprocess import MAD_TO_SIGMA, normalize, remove_hot_pixels
from cryoquery.errors import ProjectError
from cryoquery.formats import read_micrograph
from cryoquery.project.folder import Project
from cryoquery.project.micrographs import MicrographRow
from cryoquery.storage.atomic import write_bytes, write_file

LONG_SIDES = (512, 1024, 2048, 4096, 8192)
"""Long sides of pictures in px that are offered, as far as an item is larger."""
CACHED_SIDE = 2048
"""Long side in px of the reduced copies."""
CACHE_BYTES = 2 << 30
"""The reduced copies that were not used for longest are removed beyond this."""
THUMBNAIL_SIDE = 320
SIGMA_PER_LENGTH = math.sqrt(math.log(2) / 2) / math.pi
"""Sigma of the Gaussian that lets amplitudes of this period fall to 1/2: exp(−2π²σ²/d²) = 1/2."""
STRETCH = (0.5, 99.5)
"""Percentiles of the low-pass image that become black and white …"""
SIGMAS = (5.0, 4.0)
"""… but at most so many robust standard deviations below and above its median, so that carbon and ice do
not take the contrast from the particles."""
NICE = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
FINEST, COARSEST, DEFAULT = 1 / 32, 1 / 2, 1 / 8
"""Low-pass lengths that are offered, and the one to begin with, in particle diameters."""


def picture(
    project: Project, item: int, long_side: int, lowpass: float | None = None, *, quality: int = 90
) -> bytes:
    """An 8-bit grayscale JPEG of the item, particles dark or bright as they are stored.

    The picture's edges are the edges of the first and last pixels of `shown_region`.

    Args:
        project: whose item it is.
        item: its number.
        long_side: of the picture in px; never larger than what is shown is itself.
        lowpass: length at which amplitudes fall to 1/2, in the unit of `lowpass_unit`; None: no filter.
        quality: of the JPEG, 1 to 95.

    Raises:
        ProjectError: there is no such item, an argument is out of range, or the micrograph is not there.
        DataError: the micrograph cannot be read.
    """
    record = _record(project, item)
    if not 16 <= long_side <= LONG_SIDES[-1]:
        raise ProjectError(f"long_side={long_side}: must lie between 16 and {LONG_SIDES[-1]} px")
    longest = max(_diameter_and_pixel(project)[0], lowpass_values(project)[-1])
    if lowpass is not None and not 0 < lowpass <= longest:
        raise ProjectError(f"lowpass={lowpass:g}: must be positive, and at most {longest:g}")
    whole = (record.height_px, record.width_px)
    region = shown_region(project, item)
    scale = min(1.0, long_side / max(region[2:]))
    micrograph = project.micrograph_of(item)
    if scale * max(whole) <= CACHED_SIDE:
        image = _reduced_cached(project, micrograph)
    else:
        image = _reduced(project.file_of(micrograph), 1.0 if scale == 1 else scale)
    cut = _cut(image, whole, region, scale)
    if lowpass is not None:
        pixel_size = micrograph.pixel_size if lowpass_unit(project) == "Å" else None
        length_px = lowpass / (pixel_size or 1.0)
        cut = _lowpassed(cut, length_px * scale)
    return _jpeg(cut, quality)


def shown_region(project: Project, item: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) in px of the micrograph that pictures of an item show.

    Around a field that is a particle's diameter more, as far as the micrograph goes, so that particles at
    its border are seen whole; but no more than the field's own shorter side.

    Raises:
        ProjectError: there is no such item.
    """
    record = _record(project, item)
    region = project.items[item].region
    if region is None:
        return 0, 0, record.height_px, record.width_px
    top, left, height, width = region
    margin = min(math.ceil(record.diameter_px), height, width)
    bottom = min(top + height + margin, record.height_px)
    right = min(left + width + margin, record.width_px)
    top, left = max(top - margin, 0), max(left - margin, 0)
    return top, left, bottom - top, right - left


def levels(project: Project, item: int) -> list[int]:
    """Long sides in px of the pictures that are offered of an item, ascending; the last is full resolution.

    Raises:
        ProjectError: there is no such item.
    """
    longest = max(shown_region(project, item)[2:])
    return [*(side for side in LONG_SIDES if side < longest), min(longest, LONG_SIDES[-1])]


def lowpass_unit(project: Project) -> Literal["Å", "px"]:
    """The unit of low-pass lengths: Å where all pixel sizes are known, else px of the micrographs."""
    known = all(row.pixel_size is not None for row in project.micrographs.values())
    return "Å" if known else "px"


def lowpass_values(project: Project) -> list[float]:
    """Round values for ``lowpass`` that are offered, ascending, in the unit of `lowpass_unit`.

    They lie between 1/32 and half of a particle's diameter, and not below two pixels.
    """
    diameter, pixel = _diameter_and_pixel(project)
    low, high = max(diameter * FINEST, 2 * pixel), diameter * COARSEST
    decades = range(-2, 5)
    values = [float(f"{nice * 10.0**power:.3g}") for power in decades for nice in NICE]
    return [value for value in values if low <= value <= high] or [float(f"{max(low, high):.2g}")]


def default_lowpass(project: Project) -> float:
    """One of `lowpass_values`, about an eighth of a diameter, with which particles are seen."""
    diameter, _ = _diameter_and_pixel(project)
    return min(lowpass_values(project), key=lambda value: abs(math.log(value / (diameter * DEFAULT))))


def thumbnail(project: Project, item: int) -> Path:
    """The file of an item's thumbnail, a JPEG of at most 320 px.

    Raises:
        ProjectError: there is no such item.
    """
    _record(project, item)
    return project.thumbnails_path / f"{item}.jpg"


def write_thumbnail(project: Project, item: int) -> None:
    """Make an item's thumbnail from its image in the dataset, low-passed so that particles show.

    Raises:
        OSError: the disk is full, or the like.
    """
    record = project.dataset.records[item]
    image = decode(read_rows(project.dataset.images, [item])[0])
    if project.config.invert:
        image = -image
    content = np.ascontiguousarray(image[: record.content_height, : record.content_width])
    scale = min(1.0, THUMBNAIL_SIDE / max(content.shape))
    small = _resized(content, (0.0, 0.0, *content.shape), scale)
    particle_px = record.diameter_px * record.scale * scale
    write_bytes(thumbnail(project, item), _jpeg(_lowpassed(small, particle_px * DEFAULT * 2), 85))


def _record(project: Project, item: int) -> ImageRecord:
    if not 0 <= item < len(project.items):
        raise ProjectError(f"item {item}: {project.path} has items 0 to {len(project.items) - 1}")
    return project.dataset.records[item]


def _diameter_and_pixel(project: Project) -> tuple[float, float]:
    """The median particle diameter and the median pixel in the unit of `lowpass_unit`."""
    if lowpass_unit(project) == "px":
        return project.median_diameter_px, 1.0
    pixel = float(np.median([row.pixel_size or 1.0 for row in project.micrographs.values()]))
    return project.median_diameter_px * pixel, pixel


def _cut(
    image: NDArray[np.float32], whole: tuple[int, int], region: tuple[int, int, int, int], scale: float
) -> NDArray[np.float32]:
    """The part of a reduced micrograph that shows ``region`` of the ``whole``, at ``scale`` of the latter."""
    down, across = image.shape[0] / whole[0], image.shape[1] / whole[1]
    top, left, height, width = region
    box = (top * down, left * across, (top + height) * down, (left + width) * across)
    return _resized(image, box, scale / down, (_side(height, scale), _side(width, scale)))


def _side(n: int, scale: float) -> int:
    return max(1, round(n * scale))


def _resized(
    image: NDArray[np.float32],
    box: tuple[float, float, float, float],
    scale: float,
    shape: tuple[int, int] | None = None,
) -> NDArray[np.float32]:
    """The part (top, left, bottom, right) of an image, antialiased, as an image of its own."""
    top, left, bottom, right = box
    bottom, right = min(bottom, image.shape[0]), min(right, image.shape[1])
    height, width = shape or (_side(round(bottom - top), scale), _side(round(right - left), scale))
    if (top, left) == (0, 0) and image.shape == (height, width):
        return image
    source = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
    resized = source.resize((width, height), Image.Resampling.BICUBIC, box=(left, top, right, bottom))
    return np.asarray(resized)


def _lowpassed(image: NDArray[np.float32], length_px: float) -> NDArray[np.float32]:
    sigma = SIGMA_PER_LENGTH * length_px
    if sigma < 0.2:
        return image
    return np.asarray(ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3.0))


def _jpeg(image: NDArray[np.float32], quality: int) -> bytes:
    stride = max(1, math.isqrt(image.size >> 18))
    sample = image[::stride, ::stride]
    low, median, high = np.percentile(sample, (STRETCH[0], 50, STRETCH[1]))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(sample - median)))
    if spread > 0:
        low, high = max(low, median - SIGMAS[0] * spread), min(high, median + SIGMAS[1] * spread)
    gain = np.float32(255 / max(float(high - low), 1e-6))
    gray = np.clip((image - np.float32(low)) * gain + np.float32(0.5), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(gray).save(stream, format="JPEG", quality=quality)
    return stream.getvalue()


def _reduced(path: Path, scale: float) -> NDArray[np.float32]:
    """A micrograph at ``scale`` in standard deviations, from its first to its last pixel's edge."""
    pixels = read_micrograph(path).pixels
    if scale < 1:
        small = _resized(remove_hot_pixels(pixels), (0.0, 0.0, *pixels.shape), scale)
        return normalize(small).image
    return normalize(pixels).image


def _reduced_cached(project: Project, micrograph: MicrographRow) -> NDArray[np.float32]:
    folder = project.previews_path
    number = project.items_of[micrograph.name][0].number
    file = folder / f"{number}_{CACHED_SIDE}.npy"
    try:
        stored: NDArray[np.uint8] = np.load(file)
    except (OSError, ValueError, EOFError):
        pass
    else:
        with contextlib.suppress(OSError):
            os.utime(file)  # the least recently used are removed first
        return decode(stored)
    scale = min(1.0, CACHED_SIDE / max(micrograph.height_px, micrograph.width_px))
    encoded = encode(_reduced(project.file_of(micrograph), scale))
    # The cache may be on a full disk, or not ours to write: pictures are made all the same.
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        with write_file(file) as stream:
            np.save(stream, encoded)
        _prune(folder)
    return decode(encoded)


def _prune(folder: Path) -> None:
    """Remove the copies that were not used for longest, beyond `CACHE_BYTES`."""
    found = []
    for file in folder.glob("*.npy"):
        with contextlib.suppress(FileNotFoundError):
            about = file.stat()
            found.append((about.st_mtime, about.st_size, file))
    total = 0
    for _, size, file in sorted(found, key=lambda entry: -entry[0]):
        total += size
        if total > CACHE_BYTES:
            file.unlink(missing_ok=True)
