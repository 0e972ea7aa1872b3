"""Pictures for the browser, a few at a time, so that they never keep a command waiting."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import ProjectError
from cryoquery.label.security import RefusedError
from cryoquery.label.workers import Workers
from cryoquery.project.folder import Project
from cryoquery.project.previews import cutouts, picture, thumbnail, tile, tile_contrast, write_thumbnail
from cryoquery.project.step_files import StepFiles

AT_ONCE = 2
"""Pictures that are made at the same time; each may need the memory of a whole micrograph."""
MOST_WAITING = 400
PATIENCE_SECONDS = 100.0
"""After which a picture is given up; the browser asks again."""
PICTURES_VERSION = 2
"""Raise it when the same request gives another picture, so that browsers forget theirs."""


@dataclass(frozen=True)
class ReadyPicture:
    """What a request for a picture is answered with."""

    etag: str
    content: bytes | None
    """A JPEG or PNG; None: the browser has it."""


class Pictures:
    """Makes pictures in threads of its own."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._threads = Workers(AT_ONCE, "picture")
        self._steps = StepFiles(project.path)
        self._n_waiting = 0
        self._contrast = lru_cache(256)(partial(tile_contrast, project))

    async def picture(
        self, item: int, long_side: int, lowpass: float | None, known: str | None
    ) -> ReadyPicture:
        """A picture of an item, see `cryoquery.project.previews.picture`.

        Args:
            item: its number.
            long_side: of the picture, px.
            lowpass: in Å where the pixel size is known, else in px; None: no filter.
            known: the ETag of what the browser has.

        Raises:
            RefusedError: 404 there is no such item, 429 too many are waiting, 503 it takes too long.
            ProjectError, DataError: the micrograph is not there or cannot be read.
        """

        def make() -> bytes:
            return picture(self._project, item, long_side, lowpass)

        def file() -> Path:
            return self._project.micrograph_path(item)

        return await self._make(item, file, make, known, f"{long_side} {lowpass}")

    async def tile(
        self, item: int, factor: int, place: tuple[int, int], lowpass: float | None, known: str | None
    ) -> ReadyPicture:
        """A tile of an item, see `cryoquery.project.previews.tile`; the rest as of `picture`."""

        def make() -> bytes:
            contrast = self._contrast(item, factor, lowpass)
            return tile(self._project, item, factor, place, lowpass, contrast)

        def file() -> Path:
            return self._project.micrograph_path(item)

        return await self._make(item, file, make, known, f"tile {factor} {place} {lowpass}")

    async def heat(self, item: int, model: str, known: str | None) -> ReadyPicture:
        """The probabilities of ``model`` on the item's micrograph, an 8-bit PNG; raises as `picture`."""

        def file() -> Path:
            first = self._project.items_of[self._project.items[item].micrograph][0].number
            found = self._steps.map_path(model, first)
            if found is None:
                raise RefusedError(404, f"{model} has left no map of item {item}")
            return found

        return await self._make(item, file, lambda: file().read_bytes(), known, f"heat {model}")

    async def cutouts(
        self, item: int, centers_yx: NDArray[np.float64], lowpass: float | None, known: str | None
    ) -> ReadyPicture:
        """Small pictures of places, see `cryoquery.project.previews.cutouts`; the rest as of `picture`."""

        def make() -> bytes:
            return cutouts(self._project, item, centers_yx, lowpass)

        def file() -> Path:
            return self._project.micrograph_path(item)

        return await self._make(item, file, make, known, f"cutouts {centers_yx.tolist()} {lowpass}")

    async def thumbnail(self, item: int, known: str | None) -> ReadyPicture:
        """The small picture of an item for the list, made where it is missing; raises as `picture`."""

        def file() -> Path:
            kept = thumbnail(self._project, item)
            if not kept.is_file():
                kept.parent.mkdir(exist_ok=True)
                write_thumbnail(self._project, item)
            return kept

        return await self._make(item, file, lambda: file().read_bytes(), known, "thumbnail")

    async def _make(
        self, item: int, file: Callable[[], Path], make: Callable[[], bytes], known: str | None, what: str
    ) -> ReadyPicture:
        if item >= len(self._project.items):
            raise RefusedError(404, f"there is no item {item}")
        if self._n_waiting >= MOST_WAITING:
            raise RefusedError(429, "too many pictures at once; wait a moment", 1.0)
        self._n_waiting += 1
        try:
            making = self._threads.do(partial(_ready, item, file, make, known, what))
            return await asyncio.wait_for(making, PATIENCE_SECONDS)
        except asyncio.TimeoutError:
            raise RefusedError(503, "the picture takes too long; it is tried again", 5.0) from None
        finally:
            self._n_waiting -= 1

    def close(self) -> None:
        """Give up those that are not being made yet; nobody waits for the others."""
        self._threads.close()


def _ready(
    item: int, file: Callable[[], Path], make: Callable[[], bytes], known: str | None, what: str
) -> ReadyPicture:
    try:
        found = file().stat()
    except FileNotFoundError as error:
        raise ProjectError(f"{error.filename}: no such file; it was there before") from None
    identity = f"{PICTURES_VERSION} {item} {found.st_ino} {found.st_size} {found.st_mtime_ns} {what}"
    etag = f'"{hashlib.sha256(identity.encode()).hexdigest()[:32]}"'
    return ReadyPicture(etag, None if known == etag else make())
