"""One streaming pass of a network over images: all signals that a strategy may ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from cryoquery.data.dataset import LEVELS_PER_SIGMA, ZERO_LEVEL, read_rows
from cryoquery.data.pool import Pool, valid_pixels
from cryoquery.device import place
from cryoquery.feed import ahead, to_device
from cryoquery.model import SIZE_MULTIPLE, AttentionUNet

PixelScore = Callable[[Tensor], Tensor]
"""From probabilities of a particle, any shape in [0, 1], to scores of the same shape."""


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

    def __init__(self, network: AttentionUNet, fabric: Fabric, batch_size: int = 16) -> None:
        self.network = place(network, fabric).eval()
        self.fabric = fabric
        self.batch_size = batch_size

    def stream(self, levels: NDArray[np.uint8], rows: NDArray[np.int64]) -> Iterator[Prediction]:
        """Apply the network to images ``levels[rows]`` (n, h, w), batch by batch, in their order."""
        device = self.fabric.device
        starts = range(0, len(rows), self.batch_size)
        batches = [rows[start : start + self.batch_size] for start in starts]
        loaded = ahead(lambda batch: to_device(read_rows(levels, batch), device), batches)
        for start, images in zip(starts, loaded, strict=True):
            with torch.inference_mode(), self.fabric.autocast():
                logits, features = self.network.forward_with_features(network_input(images))
            yield Prediction(np.arange(start, start + len(images)), logits[:, 0].float(), features)


def network_input(levels: Tensor) -> Tensor:
    """8-bit levels (n, 1, h, w) in standard deviations, laid out as the network computes fastest."""
    images = (levels.float() - ZERO_LEVEL) / LEVELS_PER_SIGMA
    return images.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Signals:
    """What one pass yields for ``n`` images; nothing in it grows with the size of the images."""

    scores: Mapping[str, NDArray[np.float64]]
    """For each pixel score its mean over the valid pixels, (n,)."""
    features: NDArray[np.float32]
    """(n, c) bottleneck features, averaged over the valid pixels."""


def compute_signals(
    predictor: Predictor,
    pool: Pool,
    indices: NDArray[np.int64],
    pixel_scores: Mapping[str, PixelScore],
    watch: Callable[[int], None] = lambda n_images: None,
) -> Signals:
    """One pass over the ``pool`` images ``indices`` (n,); ``watch`` is told the size of each batch.

    Probability maps live only as long as their batch.
    """
    height, width = pool.image_shape
    scores = {name: np.empty(len(indices)) for name in pixel_scores}
    features = np.empty((len(indices), 0), dtype=np.float32)
    for batch in predictor.stream(pool.levels, indices):
        content = pool.content[indices[batch.positions]]
        valid = torch.from_numpy(valid_pixels(content, height, width)).to(batch.logits.device)
        with torch.inference_mode():
            probability = torch.sigmoid(batch.logits)
            for name, score in pixel_scores.items():
                per_image = _masked_mean(score(probability)[:, None], valid)
                scores[name][batch.positions] = per_image[:, 0].cpu().numpy()
            coarse = -(-content // SIZE_MULTIPLE)
            shape = batch.features.shape[-2:]
            cells = torch.from_numpy(valid_pixels(coarse, *shape)).to(batch.logits.device)
            means = _masked_mean(batch.features, cells).float().cpu().numpy()
        if features.shape[1] == 0:
            features = np.empty((len(indices), means.shape[1]), dtype=np.float32)
        # Copied into one array: small ones kept between large ones that come and go would tear the heap.
        features[batch.positions] = means
        watch(len(batch.positions))
    return Signals(scores, features)


def _masked_mean(maps: Tensor, valid: Tensor) -> Tensor:
    """Mean of maps (n, c, h, w) over the pixels ``valid`` (n, h, w), in float64: (n, c)."""
    # Summing 0 for padding keeps every batch one dense reduction, whatever the shapes of its content.
    kept = torch.where(valid[:, None], maps, 0.0)
    total = kept.sum(dim=(-2, -1), dtype=torch.float64)
    return total / valid.sum(dim=(-2, -1))[:, None]
