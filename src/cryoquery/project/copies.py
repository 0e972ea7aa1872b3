"""Reduced copies of micrographs in standard deviations, kept in the project's cache."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cryoquery.data.dataset import decode, encode
from cryoquery.data.preprocess import normalize, remove_hot_pixels
from cryoquery.formats import read_micrograph
from cryoquery.project.folder import Project
from cryoquery.project.micrographs import MicrographRow
from cryoquery.storage.atomic import write_file

CACHE_BYTES = 2 << 30
"""The copies that were not used for longest are removed beyond this."""
_MAKING = threading.Lock()
"""The memory of one whole micrograph is enough, and requests for its tiles come together."""


def copy_of(project: Project, micrograph: MicrographRow, side: int, factor: int = 1) -> NDArray[np.uint8]:
    """A micrograph as `encode` writes it, reduced to a long side of ``side`` / ``factor`` px, from the cache.

    It reaches from its first to its last pixel's edge.

    Raises:
        ProjectError: the micrograph is not there.
        DataError: it cannot be read.
    """
    number = project.items_of[micrograph.name][0].number
    whole = micrograph.height_px, micrograph.width_px
    scale = min(1.0, side / max(whole)) / factor
    file = project.previews_path / f"{number}_{round(scale * max(whole))}.npy"
    if (stored := _stored(file)) is not None:
        return stored
    finer = copy_of(project, micrograph, side) if factor > 1 else None
    with _MAKING:
        if (stored := _stored(file)) is not None:
            return stored  # somebody else has made it meanwhile
        if finer is None:
            image = _read(project.file_of(micrograph), scale)
        else:
            image = resized(decode(finer), (0.0, 0.0, *finer.shape), 1 / factor)
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
        pixels = resized(remove_hot_pixels(pixels), (0.0, 0.0, *pixels.shape), scale)
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


def whole_side(n: int, scale: float) -> int:
    return max(1, round(n * scale))


def resized(
    image: NDArray[np.float32],
    box: tuple[float, float, float, float],
    scale: float,
    shape: tuple[int, int] | None = None,
) -> NDArray[np.float32]:
    """The part (top, left, bottom, right) of an image, antialiased, as an image of its own."""
    top, left, bottom, right = box
    bottom, right = min(bottom, image.shape[0]), min(right, image.shape[1])
    height, width = shape or (whole_side(round(bottom - top), scale), whole_side(round(right - left), scale))
    if (top, left) == (0, 0) and image.shape == (height, width):
        return image
    source = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
    resized = source.resize((width, height), Image.Resampling.BICUBIC, box=(left, top, right, bottom))
    return np.asarray(resized)
