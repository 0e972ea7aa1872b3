"""Selections from the literature, as published; docstrings name what differs for micrographs."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from cryoquery.acquisition import diversity, typical
from cryoquery.acquisition.candidates import Candidates, Choice, ImageScore, Strategy
from cryoquery.acquisition.image_scores import BASE, FEATURES, GRADIENTS, LEARNED
from cryoquery.acquisition.selections import Rows, SomeScore, by_features

_MEAN_ENTROPY = ImageScore.of("mean entropy", next(signal for signal in BASE if signal.key == "entropy"))


def k_means_plus_plus(points: ArrayLike, n: int, rng: np.random.Generator) -> Rows:
    """``n`` rows of ``points`` (m, c), each drawn with a probability in proportion to its squared distance
    to the nearest row that was drawn before it (Arthur & Vassilvitskii 2007). No row is drawn twice.

    The first is the longest vector, as in the code of BADGE. Where all rows left lie on rows that were
    drawn, the others are drawn uniformly.

    Raises:
        ValueError: points that are not (m, c) or not finite, or ``n`` outside 1 … m.
    """
    vectors = np.asarray(points, dtype=np.float64)
    if vectors.ndim != 2 or not np.isfinite(vectors).all() or not 1 <= n <= len(vectors):
        raise ValueError(f"points: shape {vectors.shape}: expected (m, c) finite values, and 1 ≤ n={n} ≤ m")
    # Gradients of a network that is sure of everything are so small that their squares would vanish.
    vectors = vectors / (np.abs(vectors).max() or 1.0)
    chosen = [int(np.argmax((vectors**2).sum(axis=1)))]
    nearest = np.full(len(vectors), np.inf)
    free = np.ones(len(vectors), dtype=bool)
    while True:
        free[chosen[-1]] = False
        if len(chosen) == n:
            return np.array(chosen, dtype=np.int64)
        np.minimum(nearest, ((vectors - vectors[chosen[-1]]) ** 2).sum(axis=1), out=nearest)
        weights = np.where(free, nearest, 0.0)
        weights = weights if weights.sum() > 0 else free.astype(np.float64)
        totals = np.cumsum(weights)
        at = int(np.searchsorted(totals, rng.random() * totals[-1], side="right"))
        # Rounding may point past the last row that can be drawn.
        chosen.append(at if at < len(free) and weights[at] > 0 else int(np.flatnonzero(weights)[-1]))


def badge() -> Strategy:
    """Large and differing gradients: k-means++ on gradient embeddings (Ash et al. 2020, arXiv:1906.03671).

    The embedding of an image is the gradient of the last layer at the predicted labels, pooled over the
    pixels predicted to be particle and background apart, see `image_scores.pooled_gradients`.
    """

    def rows(candidates: Candidates, n: int) -> Rows:
        return k_means_plus_plus(candidates.values(GRADIENTS), n, candidates.rng)

    return by_features(rows, "large gradient that differs from the others", {GRADIENTS})


def clue(weight: SomeScore = _MEAN_ENTROPY) -> Strategy:
    """The images nearest to the centers of k-means on weighted features.

    Source: Prabhu et al. 2021 (arXiv:2010.08666). The weight of an image is its uncertainty, which is its
    mean entropy unless another score is given; features are those of the bottleneck, averaged over the image.
    """

    def rows(candidates: Candidates, n: int) -> Rows:
        weights = weight(candidates)
        # A network that is sure of everything weighs all images alike.
        weights = np.maximum(weights, 1e-6 * weights.max()) if weights.max() > 0 else np.ones(len(weights))
        return diversity.k_means(candidates.features(), n, candidates.rng, weights)

    reason = f"nearest to the center of a cluster weighted by {weight.label}"
    return by_features(rows, reason, {FEATURES} | weight.needs)


def stochastic_batch(score: SomeScore, batches: Annotated[int, Field(ge=0)] = 0) -> Strategy:
    """Of random batches the one with the highest mean score (Gaillochet et al. 2023, arXiv:2301.07670).

    Args:
        score: of an image.
        batches: how many are drawn; 0: the candidates are shuffled and cut into as many as they fill.
    """

    def select(candidates: Candidates, n: int) -> list[Choice]:
        scores, m = score(candidates), len(candidates)
        if batches:
            drawn = [candidates.rng.choice(m, n, replace=False) for _ in range(batches)]
        else:
            order = candidates.rng.permutation(m)
            drawn = [order[start : start + n] for start in range(0, m - n + 1, n)]
        best = max(drawn, key=lambda rows: float(scores[rows].mean()))
        best = best[np.lexsort((best, -scores[best]))]
        reason = f"in the random batch of the highest {score.label}"
        return [Choice(int(candidates.indices[row]), float(scores[row]), reason) for row in best]

    return Strategy(select, score.needs)


def typiclust(k: Annotated[int, Field(ge=1)] = 20) -> Strategy:
    """The most typical image of each of the largest clusters without a label (arXiv:2202.02794).

    On features learned without labels where the experiment has a pretraining, else on those of the
    network's bottleneck. See `typical.typiclust`.
    """

    def rows(candidates: Candidates, n: int) -> Rows:
        return typical.typiclust(*_learned_or_own(candidates), n, candidates.rng, k)

    return by_features(rows, "typical of a cluster with few labels", {LEARNED})


def prob_cover(purity: Annotated[float, Field(gt=0, le=1)] = 0.95) -> Strategy:
    """The images around which most others lie that no labeled one covers (arXiv:2205.11320).

    The radius of what an image covers is the largest at which the share ``purity`` of all balls is
    pure, with as many clusters as there will be labels. Features as for `typiclust`.
    """

    def rows(candidates: Candidates, n: int) -> Rows:
        points, labeled = _learned_or_own(candidates)
        n_clusters = min(len(labeled) + n, len(points), typical.MAX_CLUSTERS)
        radius = typical.purity_radius(points, n_clusters, candidates.rng, purity)
        return typical.prob_cover(points, labeled, n, radius)

    return by_features(rows, "many like it, none of them labeled", {LEARNED})


def _learned_or_own(candidates: Candidates) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if candidates.learned is not None:
        return candidates.pretrained_features()
    return candidates.features(), candidates.labeled_features()


WORDS = (badge, clue, stochastic_batch, typiclust, prob_cover)
