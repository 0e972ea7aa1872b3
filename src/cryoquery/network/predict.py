"""One streaming pass of a network over images: all signals that a strategy may ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoquery.data.array_file import read_rows
from cryoquery.data.dataset import LEVELS_PER_SIGMA, ZERO_LEVEL
from cryoquery.data.pool import Pool, valid_pixels
from cryoquery.network.device import place
from cryoquery.network.loader import ahead, to_device
from cryoquery.network.model import SIZE_MULTIPLE, AttentionUNet

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Prediction:
    """What the network says of one batch."""

    positions: NDArray[np.int64]
    """(k,) rows of the images within those that were asked for."""
    logits: Tensor
    """(k, h, w) float32 on the device."""
    features: Tensor
    """(k, c, h/16, w/16) activations of the bottleneck, on the device."""


class Predictor:
    """A network that is ready to be applied, in evaluation mode on its device."""

    def __init__(
        self,
        network: AttentionUNet,
        fabric: Fabric,
        batch_size: int = 16,
        snapshots: Callable[[], Sequence[AttentionUNet]] = tuple,
    ) -> None:
        """``snapshots`` loads earlier weights of the same training, where they were kept."""
        self.network = place(network, fabric).eval()
        self.fabric = fabric
        self.batch_size = batch_size
        self._load_snapshots = snapshots

    @cached_property
    def snapshots(self) -> tuple[AttentionUNet, ...]:
        """Earlier weights of the same training, ready to be applied; empty where none were kept."""
        return tuple(place(network, self.fabric).eval() for network in self._load_snapshots())

    def stream(self, levels: NDArray[np.uint8], rows: NDArray[np.int64]) -> Iterator[Prediction]:
        """Apply the network to images ``levels[rows]`` (n, h, w), batch by batch, in their order."""
        for positions, images in self.batches(levels, rows):
            with torch.inference_mode(), self.fabric.autocast():
                logits, features = self.network.forward_with_features(images)
            yield Prediction(positions, logits[:, 0].float(), features)

    def batches(
        self, levels: NDArray[np.uint8], rows: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """The images ``levels[rows]`` as the network sees them, (k, 1, h, w), and their positions (k,)."""
        device = self.fabric.device
        starts = range(0, len(rows), self.batch_size)
        batches = [rows[start : start + self.batch_size] for start in starts]
        loaded = ahead(lambda batch: to_device(read_rows(levels, batch), device), batches)
        for start, images in zip(starts, loaded, strict=True):
            with torch.inference_mode():
                seen = network_input(images)
            yield np.arange(start, start + len(images)), seen


def network_input(levels: Tensor) -> Tensor:
    """8-bit levels (n, 1, h, w) in standard deviations, laid out as the network computes fastest."""
    images = (levels.float() - ZERO_LEVEL) / LEVELS_PER_SIGMA
    return images.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Maps:
    """What a pass says of one batch, pixel by pixel; it lives no longer than the batch."""

    probability: Tensor
    """(k, h, w) float32 in [0, 1]; of an ensemble the mean over its members."""
    valid: Tensor
    """(k, h, w) which pixels are content and not padding."""
    disc_px: NDArray[np.float64] | None
    """(k,) diameter of the discs that the network was taught to draw, where it is known."""
    expected_entropy: Tensor | None = None
    """(k, h, w) mean over the members of their entropy; None without an ensemble."""
    bottleneck: Tensor | None = None
    """(k, c, h/16, w/16) activations of the bottleneck; None of an ensemble."""
    cells: Tensor | None = None
    """(k, h/16, w/16) which cells of the bottleneck see content."""
    decoder: Tensor | None = None
    """(k, c, h, w) activations that the head sees; None of an ensemble."""


Statistic = Callable[[Maps], Tensor]
"""From the maps of k images to a number for each, (k,), or a vector for each, (k, c)."""


class Ensemble(Protocol):
    """An ensemble: several predictions of one network for the same images."""

    def n_members(self, image_shape: tuple[int, int], n_snapshots: int) -> int:
        """How many passes it takes where a training kept ``n_snapshots`` weights, the last among them."""

    def probabilities(self, predictor: Predictor, images: Tensor) -> Iterator[Tensor]:
        """Each member's probabilities (k, h, w) of images (k, 1, h, w)."""


def compute_signals(
    predictor: Predictor,
    pool: Pool,
    indices: NDArray[np.int64],
    statistics: Mapping[str, Statistic],
    watch: Callable[[int], None] = lambda n_images: None,
    ensemble: Ensemble | None = None,
) -> dict[str, NDArray[np.float64] | NDArray[np.float32]]:
    """One pass over the ``pool`` images ``indices`` (n,): each statistic (n,) or (n, c), by its name.

    Maps live only as long as their batch; of an ensemble all members see a batch before the next one
    is read, and only sums are kept. ``watch`` is called with the number of images that passed the network.
    """
    n_members = 1
    if ensemble is not None:
        n_members = ensemble.n_members(pool.image_shape, 1 + len(predictor.snapshots))
    out: dict[str, Any] = {}
    for positions, images in predictor.batches(pool.levels, indices):
        with torch.inference_mode():
            maps = _maps(predictor, pool, indices[positions], images, ensemble)
            values = {name: statistic(maps).cpu().numpy() for name, statistic in statistics.items()}
        for name, some in values.items():
            if name not in out:
                out[name] = np.empty((len(indices), *some.shape[1:]), dtype=some.dtype)
            # Copied into one array: small ones kept between large ones that come and go would tear the heap.
            out[name][positions] = some
        watch(n_members * len(positions))
    return out


def _maps(
    predictor: Predictor,
    pool: Pool,
    indices: NDArray[np.int64],
    images: Tensor,
    ensemble: Ensemble | None,
) -> Maps:
    content, device = pool.content[indices], images.device
    valid = torch.from_numpy(valid_pixels(content, *pool.image_shape)).to(device)
    disc_px = None if pool.disc_px is None else pool.disc_px[indices]
    if ensemble is None:
        with predictor.fabric.autocast():
            logits, bottleneck, decoder = predictor.network.forward_with_decoder(images)
        coarse = -(-content // SIZE_MULTIPLE)
        cells = torch.from_numpy(valid_pixels(coarse, *bottleneck.shape[-2:])).to(device)
        probability = torch.sigmoid(logits[:, 0].float())
        return Maps(probability, valid, disc_px, bottleneck=bottleneck, cells=cells, decoder=decoder)
    total = torch.zeros(valid.shape, device=device)
    entropy = torch.zeros_like(total)
    n = 0
    for p in ensemble.probabilities(predictor, images):
        total += p
        entropy += torch.special.entr(p) + torch.special.entr(1 - p)
        n += 1
    return Maps(total / n, valid, disc_px, expected_entropy=entropy / n)


def masked_mean(maps: Tensor, valid: Tensor) -> Tensor:
    """Mean of maps (n, c, h, w) over the pixels ``valid`` (n, h, w), in float64: (n, c)."""
    # Summing 0 for padding keeps every batch one dense reduction, whatever the shapes of its content.
    kept = torch.where(valid[:, None], maps, 0.0)
    total = kept.sum(dim=(-2, -1), dtype=torch.float64)
    return total / valid.sum(dim=(-2, -1))[:, None]
