"""How to pick with a network: the scale it was trained at, the discs it draws, its score threshold.

Calibration and threshold are never tuned on the split that is reported. Where a dataset has a validation
split beside a reported test split it is done there, otherwise on the labeled training images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cryoquery.config import CheckedModel
from cryoquery.data.dataset import LEVELS_PER_SIGMA, ZERO_LEVEL, Dataset, ImageRecord
from cryoquery.data.preprocess import NORMALIZATION, evenly
from cryoquery.data.source import MAX_DIAMETER_RATIO
from cryoquery.network.predict import Predictor
from cryoquery.picking.calibration import Calibration, expected_f1
from cryoquery.picking.evaluate import MaskOf, known_picks, predict_micrographs
from cryoquery.picking.metrics import ranked_matches
from cryoquery.picking.peaks import DEFAULT_THRESHOLD

MAX_IMAGES = 128
"""Images that a threshold is tuned on at most, as whole micrographs evenly chosen."""
THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.01), 2)
MIN_PARTICLES = 20
"""With fewer labeled particles nothing is tuned."""

TunedOn = Literal["val", "labeled training images", "nothing"]


class PickingRecipe(CheckedModel):
    """What picking with a network needs to know; kept in its `model.pt` as ``picking``."""

    scale: Literal["particle", "fit"]
    """``particle``: micrographs are scaled until the particle has ``particle_px``. ``fit``: until the
    longer side has ``image_side`` px."""
    image_side: int = Field(gt=0)
    """Side in px of the images that it was trained on."""
    particle_px: float = Field(gt=0)
    """Particle diameter in px of the training images: their median."""
    particle_px_range: tuple[float, float]
    """The smallest and the largest."""
    disc_fraction: float = Field(gt=0)
    """Diameter of the discs that it was taught to draw over the diameter of the particle."""
    invert: bool = False
    """Whether the contrast of the training micrographs was inverted."""
    diameter_angstrom: float | None = None
    """Particle diameter in Å, where all training micrographs agree in it."""
    calibration: Calibration = Calibration()
    """What makes of a raw score the chance that the pick is a particle: the score that is given out."""
    threshold: float = Field(default=DEFAULT_THRESHOLD, ge=0, le=1)
    """Lowest score of a particle."""
    tuned_on: TunedOn = "nothing"
    """What calibration and threshold were tuned on: never the split that is reported."""
    tuned_f1: float | None = None
    """Particle F1 there, macro over micrographs."""
    n_tuned_particles: int = 0
    normalization: dict[str, Any] = Field(default_factory=lambda: dict(NORMALIZATION))
    """How micrographs become images, as in the recipe of the dataset."""
    levels: dict[str, float] = Field(
        default_factory=lambda: {"zero": ZERO_LEVEL, "per_sigma": LEVELS_PER_SIGMA}
    )
    """Quantization to 8 bits, see `data.dataset.encode`."""

    @property
    def raw_threshold(self) -> float:
        """The threshold before calibration."""
        return self.calibration.raw(self.threshold)


def picking_recipe(
    predictor: Predictor,
    dataset: Dataset,
    labeled: NDArray[np.int64],
    splits: Sequence[str],
    watch: Callable[[int], None] = lambda n_images: None,
    mask_of: MaskOf | None = None,
) -> PickingRecipe:
    """The recipe for a network trained on the images ``labeled`` of ``dataset``.

    Args:
        predictor: the trained network.
        dataset: what it was trained on.
        labeled: training images whose labels it has seen, and the only ones whose labels are read here.
        splits: the held-out splits, the reported one first.
        watch: called with the number of images of each batch.
        mask_of: as in `predict_micrographs`.
    """
    on, rows = tuning_rows(dataset, labeled, splits)
    tuned = tune(predictor, dataset, rows, watch, mask_of)
    config = dataset.recipe["config"]
    train = [record for record in dataset.records if record.split == "train"]
    sizes = np.array([record.diameter_px * record.scale for record in train])
    return PickingRecipe(
        scale="particle" if config.get("field") else "fit",
        image_side=int(max(dataset.images.shape[1:])),
        particle_px=float(np.median(sizes)),
        particle_px_range=(float(sizes.min()), float(sizes.max())),
        disc_fraction=dataset.disc_fraction,
        invert=bool(dataset.recipe.get("origin", {}).get("options", {}).get("invert", False)),
        diameter_angstrom=_common_diameter(train),
        calibration=tuned.calibration,
        threshold=tuned.threshold,
        tuned_on=on if tuned.f1 is not None else "nothing",
        tuned_f1=tuned.f1,
        n_tuned_particles=tuned.n_particles,
    )


def tuning_rows(
    dataset: Dataset, labeled: NDArray[np.int64], splits: Sequence[str]
) -> tuple[TunedOn, NDArray[np.int64]]:
    """What a threshold is tuned on, and its rows: never the split that is reported."""
    if splits and splits[0] == "test" and len(rows := dataset.rows("val")):
        return "val", rows
    return "labeled training images", np.sort(labeled)


@dataclass(frozen=True)
class Tuned:
    """What labeled images say of the scores that a network gives."""

    calibration: Calibration
    threshold: float
    """Lowest calibrated score of a pick."""
    f1: float | None
    """Particle F1 there, macro over micrographs; None: too few labeled particles, nothing was tuned."""
    n_particles: int
    """Labeled particles."""


def tune(
    predictor: Predictor,
    dataset: Dataset,
    rows: NDArray[np.int64],
    watch: Callable[[int], None] = lambda n_images: None,
    mask_of: MaskOf | None = None,
) -> Tuned:
    """Calibrate scores on the images ``rows``, and choose the threshold of the best F1 that they promise.

    Where labels miss a share of the particles, chances and threshold are lower by about this share.
    ``mask_of`` as in `predict_micrographs`.
    """
    found, n_particles = [], 0
    for predicted in predict_micrographs(
        predictor, dataset, _whole_micrographs(dataset, rows), watch, mask_of
    ):
        picks, n_truth = known_picks(dataset, predicted, 0.0), len(predicted.truth_yx)
        radius = predicted.diameter_px / 2
        hits = ranked_matches(picks.centers_yx, picks.scores, predicted.truth_yx, radius)
        found.append((picks.scores, hits, n_truth))
        n_particles += n_truth
    if n_particles < MIN_PARTICLES:
        return Tuned(Calibration(), DEFAULT_THRESHOLD, None, n_particles)
    scores, hits = (np.concatenate([one[part] for one in found]) for part in (0, 1))
    calibration = Calibration.fitted(scores, hits)
    expected = expected_f1(calibration.of(scores), THRESHOLDS)
    equal = np.flatnonzero(expected >= expected.max() - 1e-9)  # where no pick lies between, the middle
    threshold = float(THRESHOLDS[equal[len(equal) // 2]])
    lowest = calibration.raw(threshold)
    kept = [(hits[scores >= lowest], n_truth) for scores, hits, n_truth in found]
    f1s = [2 * hits.sum() / (len(hits) + n_truth) for hits, n_truth in kept if len(hits) or n_truth]
    return Tuned(calibration, threshold, float(np.mean(f1s)), n_particles)


def _whole_micrographs(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of evenly chosen micrographs, at most about `MAX_IMAGES` of them."""
    keys = list(dict.fromkeys(dataset.records[row].key for row in rows))
    chosen = set(evenly(keys, max(1, len(keys) * MAX_IMAGES // max(len(rows), 1))))
    return np.array([row for row in rows if dataset.records[row].key in chosen], dtype=np.int64)


def _common_diameter(records: Sequence[ImageRecord]) -> float | None:
    """Particle diameter in Å, where every record has a pixel size and they agree."""
    known = [r.diameter_px * r.pixel_size for r in records if r.pixel_size is not None]
    if len(known) < len(records) or not known or max(known) > MAX_DIAMETER_RATIO * min(known):
        return None
    return float(np.median(known))
