"""Files .npy that are filled and read entry by entry, without the pages of a memory map."""

from __future__ import annotations

import errno
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryoquery.errors import DataError


class ArrayFile(io.FileIO):
    """A new .npy file of (n, h, w) bytes, 0 where nothing was put, filled in any order by any threads.

    Pages of a writable map would count as memory of this process until they are written back, and a
    disk that becomes full would be a signal that kills it, not an error. No thread may still `put` when the
    file is closed.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        """Make the file, as large as it will be.

        Raises:
            OSError: the file exists or cannot be made.
        """
        self.shape = shape
        header = _header(shape)
        self._start = len(header)
        super().__init__(path, "x+")
        try:
            self._write(memoryview(header), 0)
            self.truncate(self._start + math.prod(shape))
        except BaseException:
            self.close()
            raise

    def put(self, index: int, content: NDArray[np.uint8], padding: int) -> None:
        """Put ``content`` (h, w) as entry ``index``, a smaller one padded below and to the right.

        Raises:
            OSError: the disk is full, or fails.
        """
        n, height, width = self.shape
        assert 0 <= index < n, f"entry {index} of {n}"
        padded = np.full((height, width), padding, dtype=np.uint8)
        padded[: content.shape[0], : content.shape[1]] = content
        self._write(padded.ravel().data, self._start + index * padded.size)

    def keep(self, indices: Sequence[int]) -> None:
        """Drop all entries but ``indices``, ascending, which move together; no thread may `put` meanwhile.

        Raises:
            OSError: the disk fails.
        """
        size = math.prod(self.shape[1:])
        for new, old in enumerate(indices):
            if new != old:
                entry = os.pread(self.fileno(), size, self._start + old * size)
                self._write(memoryview(entry), self._start + new * size)
        self.shape = (len(indices), *self.shape[1:])
        header = _header(self.shape)
        # NumPy leaves room in a header for a first axis of any length.
        assert len(header) == self._start, f"header of {len(header)} bytes in place of {self._start}"
        self._write(memoryview(header), 0)
        self.truncate(self._start + len(indices) * size)

    def sync(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            OSError: the disk is full, or fails.
        """
        os.fsync(self.fileno())

    def _write(self, left: memoryview, offset: int) -> None:
        """Leaves the position of the file alone, which all threads share."""
        while left:
            n_written = os.pwrite(self.fileno(), left, offset)
            if n_written == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            left, offset = left[n_written:], offset + n_written


def read_rows(stack: NDArray[np.uint8], rows: ArrayLike) -> NDArray[np.uint8]:
    """A copy of the images ``stack[rows]`` (n, h, w).

    Of a memory map they are read from the file: pages of a map would count as memory of this process
    as long as it lives, and are not kept up to date by every network file system.
    """
    indices = np.asarray(rows, dtype=np.int64)
    file = getattr(stack, "filename", None)
    if not isinstance(stack, np.memmap) or file is None or not stack.flags.c_contiguous:
        return np.asarray(stack[indices])
    whole = stack
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    # A part of a map keeps the offset of the whole.
    start = stack.offset + stack.ctypes.data - whole.ctypes.data
    out = np.empty((len(indices), *stack.shape[1:]), dtype=np.uint8)
    with Path(file).open("rb", buffering=0) as stream:
        for image, row in zip(out, indices.tolist(), strict=True):
            stream.seek(start + row * image.size)
            if stream.readinto(image.data) != image.size:
                raise DataError(f"{file}: ends before image {row}; import the dataset again")
    return out


def _header(shape: tuple[int, int, int]) -> bytes:
    header = io.BytesIO()
    description = np.lib.format.dtype_to_descr(np.dtype(np.uint8))
    np.lib.format.write_array_header_1_0(
        header, {"descr": description, "fortran_order": False, "shape": shape}
    )
    return header.getvalue()
