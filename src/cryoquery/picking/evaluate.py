"""A network on a split of a dataset: scores per pixel, per particle, per micrograph, per group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from cryoquery.data.dataset import IGNORE, PARTICLE, Dataset, ImageRecord, MicrographKey
from cryoquery.network.predict import Predictor
from cryoquery.picking.metrics import ParticleMatches, PixelCounts, match_particles, mean_particle_scores
from cryoquery.picking.peaks import DEFAULT_THRESHOLD, MIN_DISTANCE, Detections, find_particles

MaskOf = Callable[[int], NDArray[np.uint8]]
"""A row of a dataset → the mask (h, w) of the image: BACKGROUND, PARTICLE or IGNORE."""


@dataclass(frozen=True)
class Evaluation:
    """What one pass over a split yields."""

    scores: dict[str, Any]
    examples: NDArray[np.uint8]
    """Probabilities (n, h, w) in steps of 1/255 of the images that were asked for, in ascending rows."""


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    split: str,
    watch: Callable[[int], None] = lambda n_images: None,
    *,
    tuned_threshold: float | None = None,
    examples: NDArray[np.int64] | None = None,
) -> Evaluation:
    """Scores of a network on the images of ``split``, each of which passes it once.

    Fields are put together again before anything is counted, so that no pixel counts twice, and a
    particle in two fields is one particle. Pixel scores (`PixelCounts.scores`) are pooled over the split
    at threshold 0.5. Particle scores (`mean_particle_scores`) compare picks with labeled centers at most
    half a particle diameter away, over whole micrographs. Also ``per_group`` and ``per_micrograph``.

    What the masks say to IGNORE counts nowhere: neither its pixels, nor picks and labeled centers on them.

    Args:
        predictor: the network.
        dataset: with labels of ``split``.
        split: ``val`` or ``test``, or ``train``.
        watch: called with the number of images of each batch.
        tuned_threshold: score from which the model picks; counts of picks are given for it, too.
        examples: rows whose predictions are kept; those of other splits are passed over.
    """
    kept: dict[int, NDArray[np.uint8]] = {}
    wanted = set() if examples is None else set(examples.tolist())
    pooled = PixelCounts()
    by_group: dict[str, tuple[PixelCounts, list[ParticleMatches]]] = {}
    records = []
    for predicted in predict_micrographs(predictor, dataset, dataset.rows(split), watch):
        pixels = predicted.pixels
        usual = match_picks(dataset, predicted, DEFAULT_THRESHOLD)
        for row in wanted & predicted.logits.keys():
            kept[row] = _as_levels(predicted.logits[row])
        group, micrograph = predicted.records[0].key
        pooled += pixels
        counts, matches = by_group.setdefault(group, (PixelCounts(), []))
        counts += pixels
        matches.append(usual)
        tp, fp, fn, _ = pixels.confusion()
        record = {
            "group": group,
            "micrograph": micrograph,
            "pixel_tp": tp,
            "pixel_fp": fp,
            "pixel_fn": fn,
            "n_picks": usual.n_picks,
            "n_particles": usual.n_truth,
            "n_matched": usual.n_matched,
        }
        if tuned_threshold is not None:
            tuned = match_picks(dataset, predicted, tuned_threshold)
            record |= {"n_tuned_picks": tuned.n_picks, "n_tuned_matched": tuned.n_matched}
        records.append(record)
    everything = [match for _, matches in by_group.values() for match in matches]
    scores = {
        "split": split,
        **pooled.scores(),
        **mean_particle_scores(everything),
        "per_group": {
            group: {**counts.scores(), **mean_particle_scores(matches)}
            for group, (counts, matches) in sorted(by_group.items())
        },
        "per_micrograph": records,
    }
    maps = [kept[row] for row in sorted(kept)]
    return Evaluation(scores, np.array(maps, np.uint8).reshape(-1, *dataset.images.shape[1:]))


def example_rows(dataset: Dataset, split: str, n: int = 6) -> NDArray[np.int64]:
    """Rows of at most ``n`` images of ``split`` that stand for it in pictures, always the same ones.

    The groups alternate; within a group those images come first whose number of particles is
    nearest to the median of the group's images with particles.
    """
    by_group: dict[str, list[int]] = {}
    for row in dataset.rows(split).tolist():
        by_group.setdefault(dataset.records[row].group, []).append(row)
    ranked = []
    for group, rows in sorted(by_group.items()):
        counts = np.array([len(dataset.centers_in(row)) for row in rows])
        middle = np.median(counts[counts > 0]) if counts.any() else 0.0
        order = np.argsort(np.abs(counts - middle), kind="stable")
        ranked += [(turn, group, rows[i]) for turn, i in enumerate(order[:n].tolist())]
    return np.array([row for _, _, row in sorted(ranked)[:n]], dtype=np.int64)


def predict_examples(predictor: Predictor, dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Probabilities of a particle on images ``rows`` (n,), in steps of 1/255: (n, h, w)."""
    maps = np.empty((len(rows), *dataset.images.shape[1:]), dtype=np.uint8)
    for batch in predictor.stream(dataset.images, rows):
        maps[batch.positions] = _as_levels(batch.logits.cpu().numpy())
    return maps


def _as_levels(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(255 * expit(logits)).astype(np.uint8)


@dataclass(frozen=True)
class PredictedMicrograph:
    """What the network says of one micrograph, or of those of its fields that were asked for."""

    records: tuple[ImageRecord, ...]
    logits: Mapping[int, NDArray[np.float32]]
    """(h, w) of each image, by its row in the dataset."""
    probability: NDArray[np.float32]
    """(h, w) of the micrograph put together at the scale of the dataset; 0 where no field was asked for."""
    truth_yx: NDArray[np.float64]
    """(n, 2) labeled centers in these images, in pixels of ``probability``; none that is to be ignored."""
    mask: NDArray[np.uint8]
    """(h, w) likewise put together; IGNORE where no field was asked for."""
    pixels: PixelCounts
    """Of all pixels that the mask says something of."""

    @property
    def diameter_px(self) -> float:
        """Particle diameter in pixels of ``probability``."""
        return self.records[0].diameter_px * self.records[0].scale

    def is_known(self, points_yx: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the points (n, 2), in pixels of ``probability``, lie where the labels say something."""
        return np.asarray(_at(self.mask, points_yx) != IGNORE)


def predict_micrographs(
    predictor: Predictor,
    dataset: Dataset,
    rows: NDArray[np.int64],
    watch: Callable[[int], None] = lambda n_images: None,
    mask_of: MaskOf | None = None,
) -> Iterator[PredictedMicrograph]:
    """Predict image by image, and yield each micrograph when its last image is there.

    ``mask_of`` gives the masks, where they are not to be those of the dataset.
    """
    mask_of = dataset.masks.__getitem__ if mask_of is None else mask_of
    waiting: dict[int, NDArray[np.float32]] = {}
    key: Mapping[int, MicrographKey] = {int(row): dataset.records[row].key for row in rows}
    for batch in predictor.stream(dataset.images, rows):
        watch(len(batch.positions))
        for row, logits in zip(rows[batch.positions], batch.logits.cpu().numpy(), strict=True):
            if waiting and key[next(iter(waiting))] != key[int(row)]:
                yield _put_together(dataset, waiting, mask_of)
                waiting = {}
            waiting[int(row)] = logits
    if waiting:
        yield _put_together(dataset, waiting, mask_of)


def _put_together(
    dataset: Dataset, logits: Mapping[int, NDArray[np.float32]], mask_of: MaskOf
) -> PredictedMicrograph:
    records = tuple(dataset.records[row] for row in logits)
    shape = max(r.top + r.content_height for r in records), max(r.left + r.content_width for r in records)
    whole = np.full(shape, -np.inf, dtype=np.float32)
    mask = np.full(shape, IGNORE, dtype=np.uint8)
    own = [dataset.own_parts[row] for row in logits]
    # Where two fields overlap both were asked for, or one: the one whose own part it is has the last word.
    for parts in ([record.field for record in records], own):
        for record, part, row in zip(records, parts, logits, strict=True):
            inside = part.within(record.field)
            whole[part.place] = logits[row][inside]
            mask[part.place] = mask_of(row)[inside]
    truth = dataset.centers_among(list(logits))
    valid, pixels = mask != IGNORE, PixelCounts()
    pixels.add(whole[valid], mask[valid] == PARTICLE)
    known = truth[_at(mask, truth) != IGNORE]
    return PredictedMicrograph(records, logits, expit(whole), known, mask, pixels)


def _at(values: NDArray[np.uint8], points_yx: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The value (n,) of the pixel of ``values`` (h, w) that each point (n, 2) lies in."""
    y, x = np.clip(np.rint(points_yx).astype(np.int64), 0, np.array(values.shape) - 1).T
    return np.asarray(values[y, x])


def match_picks(dataset: Dataset, predicted: PredictedMicrograph, threshold: float) -> ParticleMatches:
    """The picks from a score of ``threshold`` on against the labels, where these say something."""
    picks = known_picks(dataset, predicted, threshold).centers_yx
    return match_particles(picks, predicted.truth_yx, predicted.diameter_px / 2)


def known_picks(dataset: Dataset, predicted: PredictedMicrograph, threshold: float) -> Detections:
    """The picks from a score of ``threshold`` on, where the labels say something."""
    diameter_px = predicted.diameter_px
    disc_px, apart_px = diameter_px * dataset.disc_fraction, MIN_DISTANCE * diameter_px
    found = find_particles(predicted.probability, disc_px, threshold, apart_px)
    known = predicted.is_known(found.centers_yx)
    return Detections(found.centers_yx[known], found.scores[known])
