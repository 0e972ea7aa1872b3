"""What a training run may see, and what it may not.

The pool has no labels in it. The only way from an image to its mask is an oracle (`oracles.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryoquery.data.array_file import read_rows
from cryoquery.data.dataset import Dataset
from cryoquery.errors import DataError


@dataclass(frozen=True)
class Pool:
    """The training images of a dataset, without their labels."""

    levels: NDArray[np.uint8]
    """(n, h, w) images as stored, a memory map; `read` gives copies."""
    content: NDArray[np.int64]
    """(n, 2) height and width of the content; the rest, below and to the right, is padding."""
    groups: tuple[str, ...]
    micrographs: tuple[str, ...]
    disc_px: NDArray[np.float64] | None = None
    """(n,) diameter of the discs in the masks, pixels of the image: a person states the particle's
    diameter before anything is labeled. None where it was not stated."""

    @classmethod
    def of(cls, dataset: Dataset) -> Pool:
        """The pool of a dataset: its split ``train``.

        Raises:
            DataError: there are no training images.
        """
        rows = dataset.rows("train")
        if len(rows) == 0:
            raise DataError(f"{dataset.path}: no training images; import it with a smaller test fraction")
        records = dataset.records[: len(rows)]
        return cls(
            levels=dataset.images[: len(rows)],
            content=np.array([(r.content_height, r.content_width) for r in records]),
            groups=tuple(r.group for r in records),
            micrographs=tuple(r.micrograph for r in records),
            disc_px=np.array([r.diameter_px * r.scale for r in records]) * dataset.disc_fraction,
        )

    def __len__(self) -> int:
        return len(self.levels)

    def __getstate__(self) -> dict[str, Any]:
        """Another process maps the file for itself; what is no file is copied."""
        state = dict(self.__dict__)
        if isinstance(self.levels, np.memmap):
            file = self.levels.filename, self.levels.dtype, "r", self.levels.offset, self.levels.shape
            state["levels"] = file
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """See `__getstate__`."""
        if isinstance(file := state["levels"], tuple):
            state["levels"] = np.memmap(*file)
        self.__dict__.update(state)

    def read(self, indices: ArrayLike) -> NDArray[np.uint8]:
        """A copy of the images ``indices`` (k,): (k, h, w)."""
        return read_rows(self.levels, indices)

    @property
    def image_shape(self) -> tuple[int, int]:
        """(height, width) of every image."""
        return self.levels.shape[1], self.levels.shape[2]


def valid_pixels(content: NDArray[np.int64], height: int, width: int) -> NDArray[np.bool_]:
    """Which pixels are content and not padding: (n, height, width) for ``content`` (n, 2)."""
    in_rows = np.arange(height)[None, :] < content[:, :1]
    in_columns = np.arange(width)[None, :] < content[:, 1:]
    return in_rows[:, :, None] & in_columns[:, None, :]


@dataclass(frozen=True)
class LabeledImages:
    """The labeled part of a pool: all that training sees."""

    pool: Pool
    indices: NDArray[np.int64]
    """Ascending indices into the pool."""
    read_masks: Callable[[NDArray[np.int64]], NDArray[np.uint8]]
    """The oracle's masks (k, h, w) of labeled indices (k,)."""

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, positions: ArrayLike) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Images and masks, each (k, h, w), at ``positions`` (k,) within the labeled images."""
        indices = self.indices[np.asarray(positions)]
        return self.pool.read(indices), self.read_masks(indices)


def as_indices(values: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Ascending indices without repeats."""
    indices = np.unique(np.asarray(values, dtype=np.int64))
    assert len(indices) == len(values), "an index twice"
    return indices
