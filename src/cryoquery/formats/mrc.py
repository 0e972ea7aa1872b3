"""MRC files, plain or compressed as a whole with gzip or bzip2."""

from __future__ import annotations

import bz2
import gzip
import io
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import dtype_from_mode
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.formats.image_file import Header, ImageReader, refuse_size, refuse_stack
from cryoquery.formats.pixel_size import believable_pixel_size

MODES = (0, 1, 2, 6, 12)
HEADER_BYTES = 1024
CHUNK_BYTES = 1 << 24
MAX_START = 1 << 26
"""Bytes before the pixels; those of a compressed file must be read to be skipped."""
COMPRESSED = (gzip.GzipFile, bz2.BZ2File)

IMOD_STAMP = 1146047817
"""IMOD's signature in bytes 152 to 155 of a header; its flags follow."""
SQUARE = 0.01
"""Relative difference of the pixel size along x and y from which neither is believed."""


class _Layout(NamedTuple):
    header: Header
    dtype: np.dtype[Any]
    start: int
    """Bytes before the first pixel."""
    n_bytes: int
    """Bytes of all pixels."""
    identified: bool
    """Whether the file has the map identifier of the MRC2000 and later formats."""
    sign_is_known: bool
    """Whether the header tells how to read bytes; else the pixels have to."""


def _open(path: Path) -> BinaryIO:
    """The bytes of the MRC file itself; compression is known by its signature, whatever the suffix."""
    with path.open("rb") as stream:
        signature = stream.read(4)
    if signature[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if signature[:3] == b"BZh":
        return cast(BinaryIO, bz2.open(path, "rb"))
    return path.open("rb")


def _layout(path: Path, stream: BinaryIO) -> _Layout:
    """Header, type and place of the pixels, checked against the size of the file where that is known.

    Old and careless programs leave out the map identifier or the machine stamp. Such a file is
    taken for MRC only where its size is exactly what the header says.
    """
    raw = stream.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES:
        raise DataError(f"{path}: {len(raw)} bytes, an MRC header alone has {HEADER_BYTES}; copy it again")
    header = _in_byte_order(raw)
    mode, width, height, n_frames = (int(header[name]) for name in ("mode", "nx", "ny", "nz"))
    identified = raw[208:211] == b"MAP"
    if identified and mode in MODES and min(width, height) > 0 and n_frames < 1:
        raise DataError(
            f"{path}: {n_frames} frames (nz) in its header; its writer has not finished, or left it out: "
            "write it again, with nz=1"
        )
    if mode not in MODES or min(width, height, n_frames) < 1:
        found = f"mode {mode}, {width} x {height} x {n_frames}"
        if not identified:
            raise DataError(f"{path}: not an MRC file (its header would read {found}); check what it is")
        cause = f"modes that can be read are {MODES}" if mode not in MODES else "damaged, copy it again"
        raise DataError(f"{path}: {found} in its header; {cause}")
    dtype = np.dtype(dtype_from_mode(mode)).newbyteorder(header.dtype["nx"].byteorder)
    is_unsigned = _is_unsigned(raw, header) if mode == 0 else False
    if is_unsigned:
        dtype = np.dtype(np.uint8)
    start = HEADER_BYTES + max(int(header["nsymbt"]), 0)
    n_bytes = width * height * n_frames * dtype.itemsize
    layout = _Layout(
        _described(header, (height, width)), dtype, start, n_bytes, identified, is_unsigned is not None
    )
    if not isinstance(stream, COMPRESSED):
        _check_length(path, layout, path.stat().st_size)
    refuse_stack(path, n_frames)
    refuse_size(path, height, width)
    if start > MAX_START:
        raise DataError(f"{path}: {start:,} bytes before the pixels by its header; damaged, copy it again")
    return layout


def _check_length(path: Path, layout: _Layout, found: int) -> None:
    expected = layout.start + layout.n_bytes
    if not layout.identified and found != expected:
        raise DataError(f"{path}: not an MRC file (no map identifier, and the size does not fit either)")
    if found < expected:
        height, width = layout.header.shape
        raise DataError(
            f"{path}: truncated: its header says {width} x {height} pixels of {layout.dtype}, "
            f"{expected} bytes, and {found} are there; copy it again"
        )


def _in_byte_order(raw: bytes) -> Any:
    """The header in the byte order that makes sense of it, whatever its machine stamp says.

    Only mode 0 reads the same either way; there the order with the smaller image is right.
    """
    headers = [np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order))[0] for order in "<>"]
    sensible = [h for h in headers if int(h["mode"]) in MODES and min(int(h["nx"]), int(h["ny"])) > 0]
    return min(sensible, key=lambda h: max(int(h["nx"]), int(h["ny"])), default=headers[0])


def _is_unsigned(raw: bytes, header: Any) -> bool | None:
    """Whether bytes are unsigned: IMOD says so, or the extremes stated fit only one way; None: unknown."""
    stamp, flags = np.frombuffer(raw, header.dtype["nx"], count=2, offset=152).tolist()
    if stamp == IMOD_STAMP:
        return not flags & 1
    lowest, highest = float(header["dmin"]), float(header["dmax"])
    if not lowest < highest:
        return None
    return True if lowest >= 0 and 127 < highest <= 255 else False if lowest < 0 else None


def _wraps(values: NDArray[np.int8]) -> bool:
    """Whether signed bytes are rather unsigned ones, which are less spread as they do not wrap around."""
    counts = np.bincount(values.ravel().view(np.uint8), minlength=256)
    signed, unsigned = np.arange(256).astype(np.uint8).view(np.int8).astype(np.float64), np.arange(256.0)
    return _variance(unsigned, counts) < _variance(signed, counts)


def _variance(levels: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    mean = np.average(levels, weights=counts)
    return float(np.average((levels - mean) ** 2, weights=counts))


def _described(header: Any, shape: tuple[int, int]) -> Header:
    along_x, along_y = (_per_pixel(header, axis) for axis in "xy")
    if along_x is None or along_y is None:
        stated = along_y if along_x is None else along_x
        return Header(shape, believable_pixel_size(stated), stated)
    is_square = abs(along_y - along_x) <= SQUARE * abs(along_x)
    return Header(shape, believable_pixel_size(along_x) if is_square else None, along_x)


def _per_pixel(header: Any, axis: str) -> float | None:
    n_intervals = int(header[f"m{axis}"])
    size = float(header["cella"][axis])
    return None if n_intervals <= 0 or size == 0 else round(size / n_intervals, 6)


def _read_header(path: Path) -> Header:
    with _open(path) as stream:
        return _layout(path, stream).header


def _read_pixels(path: Path) -> NDArray[Any]:
    with _open(path) as stream:
        layout = _layout(path, stream)
        stream.seek(layout.start)
        read = _read_up_to if isinstance(stream, COMPRESSED) else _read_known
        raw = read(stream, layout.n_bytes)
        rest = 0 if layout.identified else len(stream.read(1))
    _check_length(path, layout, layout.start + len(raw) + rest)
    pixels = np.frombuffer(raw, layout.dtype).reshape(layout.header.shape)
    return pixels.view(np.uint8) if not layout.sign_is_known and _wraps(pixels) else pixels


def _read_known(stream: BinaryIO, n_bytes: int) -> memoryview:
    """So many bytes, which the file was found to have; fewer if it shrank meanwhile."""
    raw = np.empty(n_bytes, np.uint8).data
    return raw[: cast(io.BufferedReader, stream).readinto(raw)]


def _read_up_to(stream: BinaryIO, n_bytes: int) -> bytearray:
    """Memory is taken for what is there, not for what a header claims."""
    raw = bytearray()
    while part := stream.read(min(n_bytes - len(raw), CHUNK_BYTES)):
        raw += part
    return raw


MRC = ImageReader(_read_header, _read_pixels)
