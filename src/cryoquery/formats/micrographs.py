"""Micrographs of every kind. The first row of a file is the first row of the array: no flips."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cryoquery.errors import DataError
from cryoquery.formats.eer import EER
from cryoquery.formats.image_file import Header, ImageReader, blame
from cryoquery.formats.mrc import MRC
from cryoquery.formats.pictures import JPG, PNG
from cryoquery.formats.text_names import check_name
from cryoquery.formats.tiff import TIFF
from cryoquery.storage.atomic import write_bytes, write_file

_READERS = {
    **dict.fromkeys((".mrc", ".mrcs", ".mrc.gz", ".mrc.bz2", ".mrcs.gz", ".mrcs.bz2"), MRC),
    **dict.fromkeys((".tif", ".tiff"), TIFF),
    ".eer": EER,
    ".png": PNG,
    **dict.fromkeys((".jpg", ".jpeg"), JPG),
}

MICROGRAPH_SUFFIXES = tuple(_READERS)


@dataclass(frozen=True)
class Micrograph:
    """An image as recorded."""

    pixels: NDArray[np.float32]
    """(height, width), intensities as stored, first row of the file on top."""
    pixel_size: float | None
    """Å/px, where the file states one that can be believed."""


def micrograph_suffix(path: Path | str) -> str:
    """The suffix of a micrograph's name as in `MICROGRAPH_SUFFIXES`, both parts of .mrc.gz; or empty."""
    name = Path(path).name.lower()
    return max((suffix for suffix in _READERS if name.endswith(suffix)), key=len, default="")


def read_micrograph(path: Path | str) -> Micrograph:
    """Read one micrograph: MRC (modes 0, 1, 2, 6, 12), TIFF, EER, PNG or JPG; color becomes gray.

    See `believable_pixel_size` for which pixel sizes count as unknown.

    Raises:
        DataError: the file is missing, empty, truncated, of an unknown kind, holds several frames,
            NaN or infinite pixels, or the same intensity everywhere; or a library that its
            compression needs is not installed.

    Examples:
        >>> write_micrograph("stack_07.mrc", np.arange(12.0).reshape(3, 4), pixel_size=1.06)
        >>> micrograph = read_micrograph("stack_07.mrc")
        >>> micrograph.pixels.shape, round(micrograph.pixel_size, 2)
        ((3, 4), 1.06)
    """
    path = Path(path)
    pixels, header = read_image(path), read_header(path)
    with np.errstate(invalid="ignore"):
        lowest, highest = pixels.min(), pixels.max()
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        n_bad = pixels.size - int(np.count_nonzero(np.isfinite(pixels)))
        raise DataError(
            f"{path}: {n_bad} of {pixels.size} pixels are NaN or infinite; repair it or leave it out"
        )
    if lowest == highest:
        raise DataError(f"{path}: every pixel is {pixels.flat[0]:g}; an empty image, leave it out")
    return Micrograph(pixels, header.pixel_size)


def read_image(path: Path | str) -> NDArray[np.float32]:
    """Read the pixels (height, width) of a micrograph or a mask, whatever their values are.

    Raises:
        DataError: the file is missing, empty, truncated, of an unknown kind or holds several frames.
    """
    path = Path(path)
    reader = _reader(path)
    with blame(path):
        return np.ascontiguousarray(reader.pixels(path), dtype=np.float32)


def read_header(path: Path | str) -> Header:
    """Read size and pixel size without reading the pixels.

    Raises:
        DataError: the file is missing, empty, of an unknown kind, holds several frames, or is
            shorter than its header says (MRC that is not compressed).
    """
    path = Path(path)
    reader = _reader(path)
    with blame(path):
        return reader.header(path)


def micrograph_shape(path: Path | str) -> tuple[int, int]:
    """(height, width) in pixels from the header alone.

    Raises:
        DataError: as `read_header`.
    """
    return read_header(path).shape


def write_micrograph(path: Path | str, pixels: NDArray[Any], pixel_size: float | None = None) -> None:
    """Write pixels (height, width) as .mrc, .tif or .png, whole or not at all.

    MRC and TIFF keep the numbers (64-bit types become float32, in MRC also those without sign and 16-bit
    floats: RELION 3.1 reads them as signed, or not at all). PNG keeps 8 and 16 bits without sign; anything
    else is stretched linearly over 16 bits. Only MRC stores ``pixel_size`` (Å/px).

    Raises:
        DataError: the suffix is another one, or a pixel is NaN or infinite.
    """
    path = Path(path)
    if pixels.ndim != 2:
        raise DataError(f"{path}: a micrograph is (height, width), not {pixels.shape}")
    if n_bad := pixels.size - int(np.count_nonzero(np.isfinite(pixels))):
        raise DataError(f"{path}: {n_bad} pixels to write are NaN or infinite; give them a value")
    if pixels.dtype not in (np.int8, np.uint8, np.int16, np.uint16, np.float16, np.float32):
        pixels = pixels.astype(np.float32)
    suffix = path.suffix.lower()
    if suffix in (".mrc", ".mrcs"):
        if pixels.dtype not in (np.int8, np.int16, np.float32):
            pixels = pixels.astype(np.float32)
        with write_file(path) as file:  # mrcfile writes to names only: to that of the file beside
            mrcfile.write(file.name, np.ascontiguousarray(pixels), overwrite=True, voxel_size=pixel_size)
    elif suffix in (".tif", ".tiff"):
        stream = io.BytesIO()
        tifffile.imwrite(stream, pixels, photometric="minisblack")
        write_bytes(path, stream.getvalue())
    elif suffix == ".png":
        stream = io.BytesIO()
        Image.fromarray(_as_png_levels(pixels)).save(stream, format="PNG")
        write_bytes(path, stream.getvalue())
    else:
        raise DataError(f"{path}: cannot write {suffix or 'a file without suffix'}; use .mrc, .tif or .png")


def _as_png_levels(pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    low, high = float(pixels.min()), float(pixels.max())
    stretched = (pixels.astype(np.float64) - low) * (65535 / max(high - low, np.finfo(float).tiny))
    return np.rint(stretched).astype(np.uint16)


def _reader(path: Path) -> ImageReader:
    check_name(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes); copy it again")
    suffix = micrograph_suffix(path)
    if not suffix:
        known = " ".join(MICROGRAPH_SUFFIXES)
        raise DataError(f"{path}: unknown suffix {path.suffix!r}; micrographs are {known}")
    return _READERS[suffix]
