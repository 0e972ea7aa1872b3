"""Labeled images on their way into the network: on its device, in a given order, turned and mirrored."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoquery.data.pool import LabeledImages
from cryoquery.network import capability

if TYPE_CHECKING:
    from lightning_fabric import Fabric

N_AHEAD = 2
"""Batches that are read while the device works on another one."""
RESIDENT_SHARE = 0.4
"""A training set that takes no more than this share of a GPU's free memory is kept there."""

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Batch:
    """Which images go through the network together, and how each of them is turned."""

    positions: NDArray[np.int64]
    """(k,) within the labeled images."""
    symmetries: NDArray[np.int64] | None = None
    """(k,) symmetries of the square, see `apply_symmetries`; None: as they are."""

    def share(self, rank: int, n_ranks: int) -> Batch:
        """The part of the batch that one of several processes takes."""
        symmetries = None if self.symmetries is None else np.array_split(self.symmetries, n_ranks)[rank]
        return Batch(np.array_split(self.positions, n_ranks)[rank], symmetries)


class BatchLoader:
    """Labeled images and their masks, resident on a GPU where they fit, else read ahead from disk."""

    def __init__(self, labeled: LabeledImages, fabric: Fabric, resident: bool = True) -> None:
        """``resident``: keep them on a GPU where they fit."""
        self._labeled = labeled
        self._device = fabric.device
        self._resident: tuple[Tensor, Tensor] | None = None
        height, width = labeled.pool.image_shape
        needed = 2 * len(labeled) * height * width
        if resident and needed <= RESIDENT_SHARE * capability.free_bytes(self._device):
            self._resident = self._upload()

    def __call__(self, batches: Sequence[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and masks, each (k, 1, h, w) of 8 bits on the device, batch by batch.

        Nothing in here waits for the device, but for a moment when it begins.
        """
        symmetries = [batch.symmetries for batch in batches if batch.symmetries is not None]
        all_symmetries = torch.from_numpy(np.concatenate(symmetries)).to(self._device) if symmetries else None
        ends = np.cumsum([len(batch.positions) for batch in batches])
        for batch, end, (images, masks) in zip(batches, ends, self._load_all(batches), strict=True):
            if all_symmetries is None:
                yield images, masks
            else:
                some = all_symmetries[end - len(batch.positions) : end]
                yield apply_symmetries(images, some), apply_symmetries(masks, some)

    def _load_all(self, batches: Sequence[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        if self._resident is None:
            yield from ahead(self._load, [batch.positions for batch in batches])
            return
        images, masks = self._resident
        order = torch.from_numpy(np.concatenate([batch.positions for batch in batches])).to(self._device)
        for rows in torch.split(order, [len(batch.positions) for batch in batches]):
            yield images[rows], masks[rows]

    def _load(self, positions: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        images, masks = self._labeled.batch(positions)
        return to_device(images, self._device), to_device(masks, self._device)

    def _upload(self) -> tuple[Tensor, Tensor]:
        n, (height, width) = len(self._labeled), self._labeled.pool.image_shape
        images, masks = (
            torch.empty((n, 1, height, width), dtype=torch.uint8, device=self._device) for _ in range(2)
        )
        chunks = np.array_split(np.arange(n), -(-n // 64))
        for positions, (some_images, some_masks) in zip(chunks, ahead(self._load, chunks), strict=True):
            part = slice(int(positions[0]), int(positions[-1]) + 1)
            images[part], masks[part] = some_images, some_masks
        return images, masks


def ahead(load: Callable[[Item], Loaded], items: Iterable[Item]) -> Iterator[Loaded]:
    """``load(item)`` for each item in their order, computed in a thread that runs a little ahead."""
    with ThreadPoolExecutor(1) as pool:
        pending: deque[Future[Loaded]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(load, item))
                if len(pending) > N_AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def to_device(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """8-bit images (k, h, w) as (k, 1, h, w) on a device; the copy to a GPU goes on in the background."""
    tensor = torch.from_numpy(images)[:, None]
    if capability.copies_in_background(device):
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor


def apply_symmetries(images: Tensor, symmetries: Tensor) -> Tensor:
    """Apply to each image (n, c, h, w) one of the 8 symmetries of the square, by its number (n,).

    Numbers 0 to 3 are quarter turns, 4 to 7 the same after mirroring. Images that are not square
    are only mirrored and turned by halves.
    """
    square = images.shape[-1] == images.shape[-2]
    quarters = (symmetries % 4 if square else 2 * (symmetries % 2))[:, None, None, None]
    mirrored = (symmetries >= 4)[:, None, None, None]
    # A quarter turn is a transposition and a flip; whether to flip is decided per image, on the device.
    images = torch.where(mirrored, images.flip(-1), images)
    if square:
        images = torch.where(quarters % 2 == 1, images.transpose(-1, -2), images)
    images = torch.where((quarters == 1) | (quarters == 2), images.flip(-2), images)
    return torch.where(quarters >= 2, images.flip(-1), images)
