"""What a trained model sees and nobody has labeled is no background."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from cryoquery.active.oracles import SimulatedOracle
from cryoquery.active.run import Context
from cryoquery.data.dataset import BACKGROUND, IGNORE
from cryoquery.network.checkpoint import load_model
from cryoquery.network.predict import Predictor


@dataclass(frozen=True)
class TrainingMasks:
    """The masks of an oracle, but where background is doubtful they say nothing."""

    oracle: SimulatedOracle
    doubtful: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    """Pixels of an image, as `numpy.packbits` packs them."""

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Masks (n, h, w) of images of the pool that were asked for."""
        masks = self.oracle.masks(indices)
        for mask, index in zip(masks, indices.tolist(), strict=True):
            if (packed := self.doubtful.get(index)) is not None:
                doubtful = np.unpackbits(packed, count=mask.size).reshape(mask.shape)
                mask[(mask == BACKGROUND) & (doubtful == 1)] = IGNORE
        return masks

    def of(self, row: int) -> NDArray[np.uint8]:
        """The mask (h, w) of any image of the dataset; held-out ones are as they were labeled."""
        known = row not in self.doubtful
        return np.asarray(self.oracle.labels.masks[row] if known else self.read(np.array([row]))[0])


def training_masks(context: Context, oracle: SimulatedOracle, labeled: NDArray[np.int64]) -> TrainingMasks:
    """What the images ``labeled`` of the pool teach.

    People overlook particles. Where the mask says background, and the model that trainings start from gives a
    particle at least the probability ``training.doubtful_background``, the mask says nothing; unless a person
    has seen suggestions there, and said no.
    """
    least = context.training.doubtful_background
    asked = labeled[oracle.may_miss(labeled)]
    if context.start is None or least == 0 or len(asked) == 0:
        return TrainingMasks(oracle)
    predictor = Predictor(load_model(context.start), context.fabric, context.training.batch_size)
    doubtful: dict[int, NDArray[np.uint8]] = {}
    for batch in predictor.stream(context.pool.levels, asked):
        pixels = batch.logits.cpu().numpy() >= logit(least)
        doubtful |= dict(zip(asked[batch.positions].tolist(), map(np.packbits, pixels), strict=True))
        context.predicted(len(batch.positions))
    return TrainingMasks(oracle, doubtful)
