"""A network over an image of any size: overlapping tiles, blended where they overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from cryoquery.data.dataset import ZERO_LEVEL
from cryoquery.network.model import SIZE_MULTIPLE
from cryoquery.network.predict import Predictor

RECEPTIVE_RADIUS_PX = 96
"""The network sees no further than this: 92 px, rounded up to its grid of 16."""
FULL_OVERLAP_PX = 2 * RECEPTIVE_RADIUS_PX + 32
"""With so much overlap no pixel is taken from where a tile's border shows."""
EXACT_SIDE_PX = 2 * FULL_OVERLAP_PX
"""Tiles from this size on overlap by that much; smaller ones by a quarter of their side."""


def predict_tiled(predictor: Predictor, levels: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Probability of a particle (h, w) in [0, 1] for 8-bit levels (h, w) of any size.

    Tiles of ``side`` px, a multiple of 16, lie on a grid of 16 px and overlap. What is nearest to a
    tile's border, where it lacks its surroundings, has no weight; from there the weight grows towards
    the middle. Tiles of at least 448 px give what one pass over the whole image would give, up to
    rounding; smaller ones do not, and should be as large as the images that the network was trained
    on, so that it meets borders as it knows them. An image smaller than a tile is padded below and to
    the right as in training.
    """
    height, width = levels.shape
    tops, lefts = (tile_starts(length, side) for length in (height, width))
    padded = np.full((max(tops[-1] + side, height), max(lefts[-1] + side, width)), ZERO_LEVEL, np.uint8)
    padded[:height, :width] = levels
    total = np.zeros(padded.shape, dtype=np.float32)
    weight = np.zeros(padded.shape, dtype=np.float32)
    corners = [(top, left) for top in tops for left in lefts]
    weights = [[_ramp(i, starts, side) for i in range(len(starts))] for starts in (tops, lefts)]
    tiles = np.stack([padded[top : top + side, left : left + side] for top, left in corners])
    for batch in predictor.stream(tiles, np.arange(len(tiles))):
        for number, tile in zip(batch.positions.tolist(), batch.logits.cpu().numpy(), strict=True):
            top, left = corners[number]
            i, j = divmod(number, len(lefts))
            share = np.outer(weights[0][i], weights[1][j])
            part = np.s_[top : top + side, left : left + side]
            total[part] += share * tile
            weight[part] += share
    return np.asarray(expit(total[:height, :width] / weight[:height, :width]), dtype=np.float32)


def predict_turned(predictor: Predictor, levels: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """`predict_tiled`, as the mean over the eight orientations of the image: eight times the work."""
    total = np.zeros(levels.shape, dtype=np.float32)
    for turns in range(4):
        turned = np.rot90(levels, turns)
        total += np.rot90(predict_tiled(predictor, turned, side), -turns)
        total += np.rot90(predict_tiled(predictor, turned[:, ::-1], side)[:, ::-1], -turns)
    return np.asarray(total / np.float32(8))


def tile_starts(length: int, side: int) -> list[int]:
    """Where tiles of ``side`` px begin that cover ``length`` px: a grid of 16 px, evenly spread."""
    if length <= side:
        return [0]
    last = -(-(length - side) // SIZE_MULTIPLE)
    step = max((side - _overlap(side)) // SIZE_MULTIPLE, 1)
    n_steps = -(-last // step)
    return [i * last // n_steps * SIZE_MULTIPLE for i in range(n_steps + 1)]


def _overlap(side: int) -> int:
    """Rows or columns that neighboring tiles share at least."""
    return FULL_OVERLAP_PX if side >= EXACT_SIDE_PX else side // 4


def _ramp(number: int, starts: list[int], side: int) -> NDArray[np.float32]:
    """Weight (side,) of tile ``number`` along one axis; there is no ramp at the image's own borders."""
    overlap = _overlap(side)
    margin = RECEPTIVE_RADIUS_PX if side >= EXACT_SIDE_PX else overlap // 4
    rising = np.clip((np.arange(side) + 1 - margin) / max(overlap - 2 * margin, 1), 0, 1)
    falling = rising[::-1]
    weight = np.ones(side)
    if number > 0:
        weight = np.minimum(weight, rising)
    if number < len(starts) - 1:
        weight = np.minimum(weight, falling)
    return weight.astype(np.float32)
