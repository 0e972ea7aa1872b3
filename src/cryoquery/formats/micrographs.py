"""Micrographs: MRC, TIFF, PNG and JPG. The first row of a file is the first row of the array: no flips."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import tifffile
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import dtype_from_mode
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from cryoquery.errors import DataError
from cryoquery.records import write_bytes

MRC_MODES = (0, 1, 2, 6, 12)
MRC_HEADER_BYTES = 1024

IMOD_STAMP = 1146047817
"""IMOD's signature in bytes 152 to 155 of a header; its flags follow."""

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601), as Pillow's conversion to gray has them."""


@dataclass(frozen=True)
class Header:
    """What a micrograph's file says of itself."""

    shape: tuple[int, int]
    """(height, width) in pixels."""
    pixel_size: float | None
    """Å/px, where the file states one that can be believed."""


@dataclass(frozen=True)
class Micrograph:
    """An image as recorded."""

    pixels: NDArray[np.float32]
    """(height, width), intensities as stored, first row of the file on top."""
    pixel_size: float | None
    """Å/px, where the file states one that can be believed."""


def read_micrograph(path: Path | str) -> Micrograph:
    """Read one micrograph: MRC (modes 0, 1, 2, 6, 12), TIFF, PNG or JPG; color becomes gray.

    An MRC pixel size of 0 or of exactly 1 Å is what programs write that do not know it, so it
    counts as unknown.

    Raises:
        DataError: the file is missing, empty, truncated, of an unknown kind, holds several frames,
            NaN or infinite pixels, or the same intensity everywhere.
    """
    path = Path(path)
    pixels, header = read_image(path), read_header(path)
    n_bad = pixels.size - int(np.count_nonzero(np.isfinite(pixels)))
    if n_bad:
        raise DataError(
            f"{path}: {n_bad} of {pixels.size} pixels are NaN or infinite; repair it or leave it out"
        )
    if pixels.min() == pixels.max():
        raise DataError(f"{path}: every pixel is {pixels.flat[0]:g}; an empty image, leave it out")
    return Micrograph(pixels, header.pixel_size)


def read_image(path: Path | str) -> NDArray[np.float32]:
    """Read the pixels (height, width) of a micrograph or a mask, whatever their values are.

    Raises:
        DataError: the file is missing, empty, truncated, of an unknown kind or holds several frames.
    """
    path = Path(path)
    reader = _reader(path)
    with _blame(path):
        pixels = reader.pixels(path)
    return np.ascontiguousarray(pixels, dtype=np.float32)


def read_header(path: Path | str) -> Header:
    """Read size and pixel size without reading the pixels.

    Raises:
        DataError: the file is missing, empty, of an unknown kind, holds several frames, or is
            shorter than its header says (MRC).
    """
    path = Path(path)
    reader = _reader(path)
    with _blame(path):
        return reader.header(path)


def micrograph_shape(path: Path | str) -> tuple[int, int]:
    """(height, width) in pixels from the header alone.

    Raises:
        DataError: as `read_header`.
    """
    return read_header(path).shape


def write_micrograph(path: Path | str, pixels: NDArray[Any], pixel_size: float | None = None) -> None:
    """Write pixels (height, width) as .mrc, .tif or .png, whole or not at all.

    MRC and TIFF keep the numbers (64-bit types become float32). PNG keeps 8 and 16 bits without
    sign; anything else is stretched linearly over 16 bits. Only MRC stores ``pixel_size`` (Å/px).

    Raises:
        DataError: the suffix is another one.
    """
    path = Path(path)
    if pixels.ndim != 2:
        raise DataError(f"{path}: a micrograph is (height, width), not {pixels.shape}")
    if pixels.dtype not in (np.int8, np.uint8, np.int16, np.uint16, np.float16, np.float32):
        pixels = pixels.astype(np.float32)
    suffix = path.suffix.lower()
    if suffix in (".mrc", ".mrcs"):
        partial = path.with_name(f".{path.name}.partial")
        mrcfile.write(partial, np.ascontiguousarray(pixels), overwrite=True, voxel_size=pixel_size)
        partial.replace(path)
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


@dataclass(frozen=True)
class _Reader:
    header: Callable[[Path], Header]
    pixels: Callable[[Path], NDArray[Any]]


def _reader(path: Path) -> _Reader:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes); copy it again")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = " ".join(MICROGRAPH_SUFFIXES)
        raise DataError(f"{path}: unknown suffix {path.suffix!r}; micrographs are {known}")
    return reader


@contextmanager
def _blame(path: Path) -> Iterator[None]:
    """What a library says about a damaged file becomes one line that names the file."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, KeyError, IndexError, struct.error, zlib.error) as error:
        if "imagecodecs" in str(error):
            remedy = "install imagecodecs, or store it uncompressed"
            raise DataError(f"{path}: this compression of TIFF cannot be read ({error}); {remedy}") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: damaged or not what its suffix says ({reason}); copy it again") from None


def _mrc_layout(path: Path) -> tuple[Header, np.dtype[Any], int]:
    """Header, type and place of the pixels, checked against the size of the file.

    Old and careless programs leave out the map identifier or the machine stamp. Such a file is
    taken for MRC only where its size is exactly what the header says.
    """
    with path.open("rb") as stream:
        raw = stream.read(MRC_HEADER_BYTES)
    if len(raw) < MRC_HEADER_BYTES:
        raise DataError(
            f"{path}: {len(raw)} bytes, an MRC header alone has {MRC_HEADER_BYTES}; copy it again"
        )
    header = _in_byte_order(raw)
    mode, width, height, n_frames = (int(header[name]) for name in ("mode", "nx", "ny", "nz"))
    identified = bytes(raw[208:211]) == b"MAP"
    if mode not in MRC_MODES or min(width, height, n_frames) < 1:
        found = f"mode {mode}, {width} x {height} x {n_frames}"
        if not identified:
            raise DataError(f"{path}: not an MRC file (its header would read {found}); check what it is")
        raise DataError(f"{path}: {found} in its header; modes that can be read are {MRC_MODES}")
    dtype = np.dtype(dtype_from_mode(mode)).newbyteorder(header.dtype["nx"].byteorder)
    if mode == 0 and _is_unsigned_imod(raw):
        dtype = np.dtype(np.uint8)
    start = MRC_HEADER_BYTES + max(int(header["nsymbt"]), 0)
    expected = start + width * height * n_frames * dtype.itemsize
    found_bytes = path.stat().st_size
    if not identified and found_bytes != expected:
        raise DataError(f"{path}: not an MRC file (no map identifier, and the size does not fit either)")
    if found_bytes < expected:
        raise DataError(
            f"{path}: truncated: its header says {width} x {height} pixels of mode {mode}, "
            f"{expected} bytes, and {found_bytes} are there; copy it again"
        )
    _refuse_stack(path, n_frames)
    return Header((height, width), _mrc_pixel_size(header)), dtype, start


def _in_byte_order(raw: bytes) -> Any:
    """The header in the byte order that makes sense of its mode, whatever its machine stamp says."""
    headers = [np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0] for order in "<>"]
    return next(
        (header for header in headers if int(header["mode"]) in MRC_MODES and header["nx"] < 2**24),
        headers[0],
    )


def _is_unsigned_imod(raw: bytes) -> bool:
    stamp, flags = struct.unpack("<ii", raw[152:160])
    return stamp == IMOD_STAMP and not flags & 1


def _mrc_pixel_size(header: Any) -> float | None:
    size, columns = float(header["cella"]["x"]), int(header["mx"])
    if columns <= 0 or not np.isfinite(size):
        return None
    pixel_size = size / columns
    return None if pixel_size <= 0 or pixel_size == 1 else round(pixel_size, 6)


def _read_mrc(path: Path) -> NDArray[Any]:
    header, dtype, start = _mrc_layout(path)
    pixels = np.fromfile(path, dtype, count=header.shape[0] * header.shape[1], offset=start)
    return pixels.reshape(header.shape)


def _refuse_stack(path: Path, n_frames: int) -> None:
    if n_frames != 1:
        raise DataError(f"{path}: a stack of {n_frames} frames; a micrograph is one, average the movie first")


@contextmanager
def _open_tiff(path: Path) -> Iterator[tifffile.TiffPage]:
    with tifffile.TiffFile(path) as file:
        _refuse_stack(path, len(file.pages))
        page = file.pages[0]
        if len(page.shape) != 2 and not (len(page.shape) == 3 and page.shape[2] in (3, 4)):
            raise DataError(f"{path}: pixels of shape {page.shape}; a micrograph is one gray or color image")
        yield page


def _tiff_header(path: Path) -> Header:
    with _open_tiff(path) as page:
        return Header((int(page.shape[0]), int(page.shape[1])), None)


def _read_tiff(path: Path) -> NDArray[Any]:
    with _open_tiff(path) as page:
        pixels = np.asarray(page.asarray())
    return pixels if pixels.ndim == 2 else pixels[..., :3] @ np.array(LUMINANCE, np.float32)


def _pillow_reader(file_type: type[ImageFile]) -> _Reader:
    """Opens with the plugin itself: `Image.open` refuses the size of an ordinary micrograph as a bomb."""

    def header(path: Path) -> Header:
        with file_type(path) as image:
            return Header((image.height, image.width), None)

    def pixels(path: Path) -> NDArray[Any]:
        with file_type(path) as image:
            _refuse_stack(path, getattr(image, "n_frames", 1))
            gray = (
                image
                if image.mode in ("L", "I", "F") or image.mode.startswith("I;16")
                else image.convert("L")
            )
            return np.asarray(gray)

    return _Reader(header, pixels)


_MRC = _Reader(lambda path: _mrc_layout(path)[0], _read_mrc)
_TIFF = _Reader(_tiff_header, _read_tiff)
_JPG = _pillow_reader(JpegImageFile)
_READERS = {
    ".mrc": _MRC,
    ".mrcs": _MRC,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".png": _pillow_reader(PngImageFile),
    ".jpg": _JPG,
    ".jpeg": _JPG,
}

MICROGRAPH_SUFFIXES = tuple(_READERS)
