"""What the readers of micrographs share: what they return, what they refuse, how they put it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError

MAX_PIXELS = int(os.environ.get("CRYOQUERY_MAX_PIXELS", 1 << 27))
"""No micrograph should have more: 11,585², and half a gigabyte in memory. The variable allows others."""
MAX_PIXELS_PER_BYTE = 10_000
"""Nor does any compression hold more, even of an empty mask."""
LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601), as Pillow's conversion to gray has them."""


@dataclass(frozen=True)
class Header:
    """What a micrograph's file says of itself."""

    shape: tuple[int, int]
    """(height, width) in pixels."""
    pixel_size: float | None
    """Å/px, where the file states one that can be believed."""
    stated_pixel_size: float | None = None
    """Å/px as stated, be it nonsense; None where nothing is stated."""


@dataclass(frozen=True)
class ImageReader:
    """How a kind of file is read."""

    header: Callable[[Path], Header]
    pixels: Callable[[Path], NDArray[Any]]
    """(height, width) as stored."""


def refuse_stack(path: Path, n_frames: int) -> None:
    """Refuse what is not one image.

    Raises:
        DataError: it has not one frame.
    """
    if n_frames != 1:
        raise DataError(f"{path}: a stack of {n_frames} frames; a micrograph is one, average the movie first")


def refuse_size(path: Path, height: int, width: int) -> None:
    """Refuse a size that cannot be true, before memory is taken for it.

    Raises:
        DataError: no pixels, more than any camera has, or more than the file can hold.
    """
    if min(height, width) < 1:
        raise DataError(f"{path}: {width} x {height} pixels in its header; damaged, copy it again")
    if height * width > MAX_PIXELS:
        raise DataError(
            f"{path}: its header claims {width} x {height} pixels, and at most {MAX_PIXELS:,} are read; copy "
            "it again, or set CRYOQUERY_MAX_PIXELS where it is that large"
        )
    if height * width > MAX_PIXELS_PER_BYTE * path.stat().st_size:
        raise DataError(
            f"{path}: its header claims {width} x {height} pixels, too many for a file of "
            f"{path.stat().st_size} bytes; damaged, copy it again"
        )


@contextmanager
def blame(path: Path) -> Iterator[None]:
    """Whatever a library says about a damaged file becomes one line that names the file.

    Raises:
        DataError: a library raised something; libraries raise all kinds of things at damaged files.
    """
    try:
        with np.errstate(all="ignore"):
            yield
    except DataError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: damaged or not what its suffix says ({reason}); copy it again") from None
