"""Pictures of micrographs for the browser.

They are made from copies of the micrograph in standard deviations that are kept in the project's cache: one
that is reduced to `CACHED_SIDE` px, and where more is asked for, one of full size. What is larger than
`CACHED_SIDE` is sent in tiles.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cryoquery.data.array_file import read_rows
from cryoquery.data.dataset import ImageRecord, decode
from cryoquery.data.preprocess import MAD_TO_SIGMA
from cryoquery.errors import ProjectError
from cryoquery.project.copies import copy_of, resized, whole_side
from cryoquery.project.folder import Project
from cryoquery.project.micrographs import MicrographRow
from cryoquery.storage.atomic import write_bytes

LONG_SIDES = (512, 1024, 2048)
"""Long sides of pictures in px that are offered, as far as an item is larger."""
LARGEST_SIDE = 8192
CACHED_SIDE = 2048
"""Long side in px of the reduced copies."""
TILE = 512
"""Side of a tile, px."""
CUTOUT, CUTOUT_DIAMETERS = 80, 1.7
"""Side in px of a small picture of a particle, and the same in particle diameters."""
N_PATCHES, PATCH = 5, 160
"""The contrast of tiles is that of so many patches per side, of so many px each."""
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
    if not 16 <= long_side <= LARGEST_SIDE:
        raise ProjectError(f"long_side={long_side}: must lie between 16 and {LARGEST_SIDE} px")
    whole = (record.height_px, record.width_px)
    region = shown_region(project, item)
    scale = min(1.0, long_side / max(region[2:]))
    micrograph = project.micrograph_of(item)
    side = CACHED_SIDE if scale * max(whole) <= CACHED_SIDE else max(whole)
    cut = _cut(decode(copy_of(project, micrograph, side)), whole, region, scale)
    cut = _lowpassed(cut, _length_px(project, micrograph, lowpass) * scale)
    return _jpeg(cut, quality)


def tile(
    project: Project,
    item: int,
    factor: int,
    place: tuple[int, int],
    lowpass: float | None = None,
    contrast: tuple[float, float] | None = None,
) -> bytes:
    """A square of `TILE` px of the item's micrograph, an 8-bit grayscale JPEG; smaller at the far edges.

    Args:
        project: whose item it is.
        item: its number.
        factor: pixels of the micrograph per pixel of the tile, one of `tile_factors`.
        place: (row, column) of the tile, from 0 at the top and on the left.
        lowpass: as of `picture`.
        contrast: `tile_contrast` with the same arguments, where it is known.

    Raises:
        ProjectError: there is no such item or tile, or the micrograph is not there.
        DataError: the micrograph cannot be read.
    """
    image, length_px = _tiled(project, item, factor, lowpass)
    top, left = (TILE * index for index in place)
    height, width = min(TILE, image.shape[0] - top), min(TILE, image.shape[1] - left)
    if top < 0 or left < 0 or height <= 0 or width <= 0:
        raise ProjectError(f"tile {place}: item {item} has no such tile")
    cut = _lowpassed_part(image, (top, left, height, width), length_px)
    return _jpeg(cut, 90, contrast or tile_contrast(project, item, factor, lowpass))


def tile_contrast(project: Project, item: int, factor: int, lowpass: float | None) -> tuple[float, float]:
    """What becomes black and what white in the tiles of an item; arguments and errors as of `tile`."""
    image, length_px = _tiled(project, item, factor, lowpass)
    tops, lefts = (np.linspace(0, max(n - PATCH, 0), N_PATCHES).astype(int).tolist() for n in image.shape)
    patches = [_lowpassed_part(image, (y, x, PATCH, PATCH), length_px) for y in tops for x in lefts]
    return _contrast(np.concatenate(patches))


def _tiled(
    project: Project, item: int, factor: int, lowpass: float | None
) -> tuple[NDArray[np.uint8], float]:
    """The copy of a micrograph that tiles are cut from, and the low-pass length in its px."""
    if factor not in tile_factors(project, item):
        raise ProjectError(f"factor={factor}: item {item} has no such tiles")
    micrograph = project.micrograph_of(item)
    side = max(micrograph.height_px, micrograph.width_px)
    return copy_of(project, micrograph, side, factor), _length_px(project, micrograph, lowpass) / factor


def tile_factors(project: Project, item: int) -> list[int]:
    """Factors of the tiles that are offered of an item, ascending, such as 1 and 2; none where it is small.

    Raises:
        ProjectError: there is no such item.
    """
    longest = max(shown_region(project, item)[2:])
    return [factor for factor in (1, 2, 4, 8) if longest / factor > CACHED_SIDE]


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
    """Long sides in px of the pictures that are offered of an item whole, ascending; finer are its tiles.

    Raises:
        ProjectError: there is no such item.
    """
    longest = max(shown_region(project, item)[2:])
    return [*(side for side in LONG_SIDES if side < longest), *([longest] if longest <= CACHED_SIDE else [])]


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
    small = resized(content, (0.0, 0.0, *content.shape), scale)
    particle_px = record.diameter_px * record.scale * scale
    shown = _lowpassed(small, particle_px * DEFAULT * 2)
    write_bytes(thumbnail(project, item), _jpeg(shown, 85))


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
    return resized(image, box, scale / down, (whole_side(height, scale), whole_side(width, scale)))


def _lowpassed(image: NDArray[np.float32], length_px: float) -> NDArray[np.float32]:
    sigma = SIGMA_PER_LENGTH * length_px
    if sigma < 0.2:
        return image
    return np.asarray(ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3.0))


def _length_px(project: Project, micrograph: MicrographRow, lowpass: float | None) -> float:
    """A low-pass length in px of the micrograph; 0: no filter.

    Raises:
        ProjectError: it is no length, or longer than a particle.
    """
    if lowpass is None:
        return 0.0
    longest = max(_diameter_and_pixel(project)[0], lowpass_values(project)[-1])
    if not 0 < lowpass <= longest:
        raise ProjectError(f"lowpass={lowpass:g}: must be positive, and at most {longest:g}")
    pixel_size = micrograph.pixel_size if lowpass_unit(project) == "Å" else None
    return lowpass / (pixel_size or 1.0)


def _lowpassed_part(
    image: NDArray[np.uint8], part: tuple[int, int, int, int], length_px: float
) -> NDArray[np.float32]:
    """The part (top, left, height, width) of a low-passed copy, of which no more than that is looked at."""
    top, left, height, width = part
    margin = math.ceil(3 * SIGMA_PER_LENGTH * length_px) + 1
    start = max(top - margin, 0), max(left - margin, 0)
    around = decode(image[start[0] : top + height + margin, start[1] : left + width + margin])
    return _lowpassed(around, length_px)[top - start[0] :, left - start[1] :][:height, :width]


def _contrast(image: NDArray[np.float32]) -> tuple[float, float]:
    """What becomes black and what white, in the units of ``image``."""
    stride = max(1, math.isqrt(image.size >> 18))
    sample = image[::stride, ::stride]
    low, median, high = np.percentile(sample, (STRETCH[0], 50, STRETCH[1]))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(sample - median)))
    if spread > 0:
        low, high = max(low, median - SIGMAS[0] * spread), min(high, median + SIGMAS[1] * spread)
    return float(low), float(high)


def _jpeg(image: NDArray[np.float32], quality: int, contrast: tuple[float, float] | None = None) -> bytes:
    low, high = contrast or _contrast(image)
    gain = np.float32(255 / max(high - low, 1e-6))
    gray = np.clip((image - np.float32(low)) * gain + np.float32(0.5), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(gray).save(stream, format="JPEG", quality=quality)
    return stream.getvalue()


def cutouts(
    project: Project, item: int, centers_yx: NDArray[np.float64], lowpass: float | None, *, side: int = CUTOUT
) -> bytes:
    """Small pictures of places of an item's micrograph, one beside the other, an 8-bit grayscale JPEG.

    Args:
        project: whose item it is.
        item: its number.
        centers_yx: (n, 2) pixels of the micrograph.
        lowpass: as of `picture`.
        side: of each picture, px; it shows `CUTOUT_DIAMETERS` particle diameters.

    Raises:
        ProjectError: there is no such item, or the micrograph is not there.
        DataError: the micrograph cannot be read.
    """
    record, micrograph = _record(project, item), project.micrograph_of(item)
    whole = max(record.height_px, record.width_px)
    step = CUTOUT_DIAMETERS * record.diameter_px / side  # px of the micrograph per px of a cutout
    copied = copy_of(project, micrograph, CACHED_SIDE if whole / step <= CACHED_SIDE else whole)
    scale = copied.shape[0] / record.height_px
    length_px = _length_px(project, micrograph, lowpass) * scale
    grid = (np.arange(side) - (side - 1) / 2) * step * scale
    cuts = []
    for center in (centers_yx + 0.5) * scale - 0.5:
        top, left = np.floor(center + grid[0]).astype(int) - 1
        wide = math.ceil(grid[-1] - grid[0]) + 4
        first = np.clip((top, left), 0, np.array(copied.shape) - 1)
        part = _lowpassed_part(copied, (int(first[0]), int(first[1]), wide, wide), length_px)
        at = np.meshgrid(center[0] + grid - first[0], center[1] + grid - first[1], indexing="ij")
        cuts.append(ndimage.map_coordinates(part, at, order=1, mode="constant"))
    return _jpeg(np.concatenate(cuts, axis=1), 85)
