"""Pictures of micrographs for the browser."""

from __future__ import annotations

from pathlib import Path

from cryoquery.project.folder import Project

LONG_SIDES = (512, 1024, 2048, 4096, 8192)
"""Long sides of pictures in px that are offered."""


def picture(
    project: Project, item: int, long_side: int, lowpass: float | None = None, *, quality: int = 90
) -> bytes:
    """An 8-bit grayscale JPEG of an item, particles dark as stored.

    Args:
        project: whose item it is.
        item: its number.
        long_side: of the picture in px; never larger than the item is itself.
        lowpass: length at which amplitudes fall to 1/2, in Å where the pixel size is known, else in pixels
            of the original micrograph; None: no filter.
        quality: of the JPEG, 1 to 95.

    Raises:
        ProjectError: there is no such item, the arguments are out of range, or the micrograph is not there.
        DataError: the micrograph cannot be read.
    """
    raise NotImplementedError


def levels(project: Project, item: int) -> list[int]:
    """Long sides in px of the pictures that are offered of an item, ascending; the last is full resolution."""
    raise NotImplementedError


def lowpass_values(project: Project) -> list[float]:
    """Values for ``lowpass`` that are offered, ascending: Å where the pixel size is known, else px."""
    raise NotImplementedError


def default_lowpass(project: Project) -> float:
    """One of `lowpass_values` with which particles are seen."""
    raise NotImplementedError


def thumbnail(project: Project, item: int) -> Path:
    """The file of an item's thumbnail, a JPEG of at most 320 px.

    Raises:
        ProjectError: there is no such item.
    """
    raise NotImplementedError
