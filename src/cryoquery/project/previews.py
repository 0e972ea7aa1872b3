"""Pictures of micrographs for the browser.

They are made from copies of the micrograph in standard deviations that are kept in the project's cache: one
that is reduced to `CACHED_SIDE` px, and where more is asked for, one of full size. What is larger than
`CACHED_SIDE` is sent in tiles.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import threading
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

LONG_SIDES = (512, 1024, 2048)
"""Long sides of pictures in px that are offered, as far as an item is larger."""
LARGEST_SIDE = 8192
CACHED_SIDE = 2048
"""Long side in px of the reduced copies."""
CACHE_BYTES = 2 << 30
"""The copies that were not used for longest are removed beyond this."""
TILE = 512
"""Side of a tile, px."""
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
_MAKING = threading.Lock()
"""The memory of one whole micrograph is enough, and requests for its tiles come together."""
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
    cut = _cut(decode(_copy(project, micrograph, side)), whole, region, scale)
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
    return _copy(project, micrograph, side, factor), _length_px(project, micrograph, lowpass) / factor


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
    small = _resized(content, (0.0, 0.0, *content.shape), scale)
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


def _length_px(project: Project, micrograph: MicrographRow, lowpass: float | None) -> float:
    """A low-pass length in px of the micrograph; 0: no filter.

    Raises:
        ProjectError: it is no length.
    """
    if lowpass is None:
        return 0.0
    if not 0 < lowpass < math.inf:
        raise ProjectError(f"lowpass={lowpass:g}: must be a positive length")
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


def _copy(project: Project, micrograph: MicrographRow, side: int, factor: int = 1) -> NDArray[np.uint8]:
    """A micrograph as `encode` writes it, reduced to a long side of ``side`` / ``factor`` px, from the cache.

    It reaches from its first to its last pixel's edge.
    """
    number = project.items_of[micrograph.name][0].number
    whole = micrograph.height_px, micrograph.width_px
    scale = min(1.0, side / max(whole)) / factor
    file = project.previews_path / f"{number}_{round(scale * max(whole))}.npy"
    if (stored := _stored(file)) is not None:
        return stored
    finer = _copy(project, micrograph, side) if factor > 1 else None
    with _MAKING:
        if (stored := _stored(file)) is not None:
            return stored  # somebody else has made it meanwhile
        if finer is None:
            image = _read(project.file_of(micrograph), scale)
        else:
            image = _resized(decode(finer), (0.0, 0.0, *finer.shape), 1 / factor)
        encoded = encode(image)
        # The cache may be on a full disk, or not ours to write: pictures are made all the same.
        with contextlib.suppress(OSError):
            file.parent.mkdir(exist_ok=True)
            with write_file(file) as stream:
                np.save(stream, encoded)
            _prune(file.parent)
        return encoded


def _stored(file: Path) -> NDArray[np.uint8] | None:
    try:
        stored: NDArray[np.uint8] = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    with contextlib.suppress(OSError):
        os.utime(file)  # the least recently used are removed first
    return stored


def _read(path: Path, scale: float) -> NDArray[np.float32]:
    """A micrograph at ``scale`` in standard deviations."""
    pixels = read_micrograph(path).pixels
    if scale < 1:
        pixels = _resized(remove_hot_pixels(pixels), (0.0, 0.0, *pixels.shape), scale)
    return normalize(pixels).image


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
