"""Scores of a prediction against the truth: per pixel, and per particle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

N_BINS = 1 << 16


class PixelCounts:
    """Pixel scores pooled over many images, in memory that does not grow with them.

    Logits are counted by their value as a 16-bit float, separately on particles and on background.
    Networks that compute in bfloat16 lose nothing by it; for others a logit is known to 1 part in
    2,048, which is far below what any of the scores resolves.
    """

    def __init__(self) -> None:
        self.positives = np.zeros(N_BINS, dtype=np.int64)
        self.negatives = np.zeros(N_BINS, dtype=np.int64)

    def add(self, logits: NDArray[np.floating], truth: NDArray[np.bool_]) -> None:
        """Count pixels: ``logits`` of any shape, ``truth`` of the same, ignored pixels left out.

        Raises:
            ValueError: a logit is not a number.
        """
        if np.isnan(logits).any():
            raise ValueError("logits: NaN; the network is broken")
        bins = _ordered_bins(logits)
        self.positives += np.bincount(bins[truth], minlength=N_BINS)
        self.negatives += np.bincount(bins[~truth], minlength=N_BINS)

    def __iadd__(self, other: PixelCounts) -> PixelCounts:
        self.positives += other.positives
        self.negatives += other.negatives
        return self

    def confusion(self) -> tuple[int, int, int, int]:
        """(true positives, false positives, false negatives, true negatives) at probability ≥ 0.5."""
        at = int(_ordered_bins(np.zeros(1))[0])
        tp, fp = int(self.positives[at:].sum()), int(self.negatives[at:].sum())
        return tp, fp, int(self.positives.sum()) - tp, int(self.negatives.sum()) - fp

    def scores(self) -> dict[str, float]:
        """F1, precision, recall, IoU, AUC and average precision, all in [0, 1].

        Precision without any predicted pixel and recall without any true pixel are 0. AUC is the
        area under the ROC curve of the probabilities, ties counted half; it is 0.5 where one class
        is missing. Average precision is the step-wise area under precision over recall.
        """
        tp, fp, fn, _ = self.confusion()
        return {
            "f1": _ratio(2 * tp, 2 * tp + fp + fn),
            "precision": _ratio(tp, tp + fp),
            "recall": _ratio(tp, tp + fn),
            "iou": _ratio(tp, tp + fp + fn),
            "auc": self._auc(),
            "average_precision": self._average_precision(),
        }

    def _auc(self) -> float:
        n_pairs = int(self.positives.sum()) * int(self.negatives.sum())
        if n_pairs == 0:
            return 0.5
        below = np.cumsum(self.negatives) - self.negatives / 2
        return float((self.positives * below).sum() / n_pairs)

    def _average_precision(self) -> float:
        tp = np.cumsum(self.positives[::-1])
        found = tp + np.cumsum(self.negatives[::-1])
        precision = tp / np.maximum(found, 1)
        return _ratio(float((precision * self.positives[::-1]).sum()), float(tp[-1]))


def _ordered_bins(logits: ArrayLike) -> NDArray[np.uint16]:
    """Bins 0 … 65535 that increase with the value of a logit as a 16-bit float."""
    # Adding 0 turns −0 into +0: the two are one value and must share a bin.
    half = np.clip(np.asarray(logits, dtype=np.float32), -65504, 65504).astype(np.float16) + np.float16(0)
    bits = half.view(np.uint16)
    negative = bits >> 15 == 1
    ordered: NDArray[np.uint16] = np.where(negative, ~bits, bits | np.uint16(0x8000))
    return ordered


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0


@dataclass(frozen=True)
class ParticleMatches:
    """One-to-one matches between picks and particles."""

    n_picks: int
    n_truth: int
    pick_rows: NDArray[np.int64]
    """Matched rows of the picks."""
    truth_rows: NDArray[np.int64]
    """The particle that each of them matches."""
    distances_px: NDArray[np.float64]

    @property
    def n_matched(self) -> int:
        """True positives."""
        return len(self.pick_rows)

    @property
    def precision(self) -> float:
        """Matched picks among all picks; 0 without picks."""
        return _ratio(self.n_matched, self.n_picks)

    @property
    def recall(self) -> float:
        """Matched particles among all particles; 0 without particles."""
        return _ratio(self.n_matched, self.n_truth)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.n_matched, self.n_picks + self.n_truth)


def match_particles(picks_yx: ArrayLike, truth_yx: ArrayLike, radius_px: float) -> ParticleMatches:
    """Match picks to particles, one to one, at a distance of at most ``radius_px``.

    As many pairs as possible are made, and among all ways to make that many the one with the least
    sum of distances is taken (Kuhn 1955, on each cluster of picks and particles that touch).

    Args:
        picks_yx: (n, 2) centers of the picks, pixels.
        truth_yx: (m, 2) centers that are there, same pixels.
        radius_px: half the particle diameter by the project's definition.

    Raises:
        ValueError: arrays of another shape, coordinates that are not finite, or a radius that is
            not positive.

    Examples:
        The second pick on a particle that is matched already is a false positive.

        >>> matches = match_particles([[10, 10], [11, 10], [50, 50]], [[10, 11], [90, 90]], radius_px=9)
        >>> matches.n_matched
        1
        >>> round(matches.precision, 3), matches.recall, matches.f1
        (0.333, 0.5, 0.4)
    """
    picks, truth = _points("picks_yx", picks_yx), _points("truth_yx", truth_yx)
    pairs = _close_pairs(picks, truth, radius_px)
    rows, columns = _assign(pairs, len(picks), len(truth), radius_px)
    distances = np.linalg.norm(picks[rows] - truth[columns], axis=1)
    return ParticleMatches(len(picks), len(truth), rows, columns, distances)


def _points(name: str, values: ArrayLike) -> NDArray[np.float64]:
    points = np.asarray(values, dtype=np.float64)
    if points.size == 0:
        return np.empty((0, 2))
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError(f"{name}: shape {points.shape}: expected (n, 2) finite (y, x) rows")
    return points


def _close_pairs(
    picks: NDArray[np.float64], truth: NDArray[np.float64], radius_px: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    if not radius_px > 0:
        raise ValueError(f"radius_px={radius_px}: must be positive")
    if len(picks) == 0 or len(truth) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    found = KDTree(picks).sparse_distance_matrix(KDTree(truth), radius_px, output_type="ndarray")
    return found["i"].astype(np.int64), found["j"].astype(np.int64), found["v"]


def _assign(
    pairs: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]],
    n_picks: int,
    n_truth: int,
    radius_px: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows, columns, distances = pairs
    if len(rows) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    graph = coo_array((np.ones(len(rows)), (rows, n_picks + columns)), shape=(n_picks + n_truth,) * 2)
    n_clusters, label = connected_components(graph, directed=False)
    cluster = label[rows]
    # Where one pick or one particle is alone in its cluster, the nearest of the others is the answer.
    n_in = [np.bincount(label[part], minlength=n_clusters) for part in (slice(n_picks), slice(n_picks, None))]
    is_star = (np.minimum(*n_in) == 1)[cluster]
    order = np.lexsort((distances, cluster))
    nearest = np.ones(len(order), dtype=bool)
    nearest[1:] = np.diff(cluster[order]) != 0
    stars = order[nearest & is_star[order]]
    order = order[~is_star[order]]
    clusters = np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1) if len(order) else []
    matched = [_assign_cluster(rows[some], columns[some], distances[some], radius_px) for some in clusters]
    result = np.concatenate([np.column_stack([rows[stars], columns[stars]]), *matched])
    result = result[np.argsort(result[:, 0], kind="stable")]
    return result[:, 0], result[:, 1]


def _assign_cluster(
    rows: NDArray[np.int64], columns: NDArray[np.int64], distances: NDArray[np.float64], radius_px: float
) -> NDArray[np.int64]:
    """(k, 2) matched pick and particle of one cluster, from its pairs."""
    some_picks, r = np.unique(rows, return_inverse=True)
    some_truth, c = np.unique(columns, return_inverse=True)
    # A pair too far apart costs more than any number of good pairs: it is only ever a leftover.
    far = 2 * radius_px * (min(len(some_picks), len(some_truth)) + 1)
    cost = np.full((len(some_picks), len(some_truth)), far)
    cost[r, c] = distances
    i, j = linear_sum_assignment(cost)
    near = cost[i, j] < far
    return np.column_stack([some_picks[i[near]], some_truth[j[near]]])


def mean_particle_scores(matches: list[ParticleMatches]) -> dict[str, float]:
    """Particle scores over micrographs, in [0, 1].

    ``particle_f1``, ``particle_precision`` and ``particle_recall`` are macro: the mean of each
    micrograph's own score, over micrographs with particles or picks (recall: with particles). A
    micrograph without picks counts its particles as missed. ``…_micro`` pools the counts of all.
    """
    scored = [m for m in matches if m.n_picks or m.n_truth]
    with_truth = [m for m in scored if m.n_truth]
    n_matched = sum(m.n_matched for m in matches)
    n_picks = sum(m.n_picks for m in matches)
    n_truth = sum(m.n_truth for m in matches)
    n = len(scored)
    return {
        "particle_f1": _ratio(sum(m.f1 for m in scored), n),
        "particle_precision": _ratio(sum(m.precision for m in scored), n),
        "particle_recall": _ratio(sum(m.recall for m in with_truth), len(with_truth)),
        "particle_f1_micro": _ratio(2 * n_matched, n_picks + n_truth),
        "particle_precision_micro": _ratio(n_matched, n_picks),
        "particle_recall_micro": _ratio(n_matched, n_truth),
    }


def ranked_matches(
    picks_yx: ArrayLike, scores: ArrayLike, truth_yx: ArrayLike, radius_px: float
) -> NDArray[np.bool_]:
    """Which picks make one more match when they are taken in the order of falling scores.

    The running sum in that order is what `match_particles` finds among the picks down to there: the
    sets of picks that can be matched at once form a matroid, so a pick once matched stays matched
    (Edmonds & Fulkerson 1965), and each pick is tried once by an augmenting path (Kuhn 1955).

    Args:
        picks_yx: (n, 2) centers of the picks, pixels.
        scores: (n,) the higher the surer; among equal scores the earlier row comes first.
        truth_yx: (m, 2) centers that are there, same pixels.
        radius_px: half the particle diameter by the project's definition.

    Returns:
        (n,) in the order of the rows of ``picks_yx``.

    Raises:
        ValueError: as `match_particles`, or scores that are not as many as picks.
    """
    picks, truth = _points("picks_yx", picks_yx), _points("truth_yx", truth_yx)
    ranking = np.asarray(scores, dtype=np.float64).reshape(-1)
    if len(ranking) != len(picks):
        raise ValueError(f"scores: {len(ranking)} for {len(picks)} picks")
    near: list[list[int]] = [[] for _ in range(len(picks))]
    rows, columns, _ = _close_pairs(picks, truth, radius_px)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        near[row].append(column)
    owner: dict[int, int] = {}
    own: dict[int, int] = {}
    added = np.zeros(len(picks), dtype=bool)
    for row in np.argsort(-ranking, kind="stable").tolist():
        added[row] = _augment(row, near, owner, own)
    return added


def _augment(start: int, near: list[list[int]], owner: dict[int, int], own: dict[int, int]) -> bool:
    """Match pick ``start`` to a free particle, moving other picks to others of theirs where that helps.

    ``owner`` is the pick of each matched particle, ``own`` the particle of each matched pick.
    """
    reached_from: dict[int, int] = {}
    waiting = [start]
    while waiting:
        pick = waiting.pop()
        for particle in near[pick]:
            if particle in reached_from:
                continue
            reached_from[particle] = pick
            if particle in owner:
                waiting.append(owner[particle])
                continue
            free: int | None = particle
            while free is not None:
                taker = reached_from[free]
                left = own.get(taker)
                owner[free], own[taker] = taker, free
                free = left
            return True
    return False
