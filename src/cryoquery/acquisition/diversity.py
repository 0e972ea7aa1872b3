"""Choose images that differ: from each other, and from those that are labelled."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits


def k_means(features: ArrayLike, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``n`` rows of ``features`` (m, c): those nearest to the centers of ``n`` clusters.

    Lloyd's k-means from a k-means++ start (Arthur & Vassilvitskii 2007). Each center gets a row of
    its own; where two would share one, the rows are dealt so that the sum of distances is least.
    Rows come in the order of their distance to their center, nearest first.

    Raises:
        ValueError: features that are not (m, c) or not finite, or ``n`` outside 1 … m.
    """
    points = _checked(features, n)
    seed = int(rng.integers(2**31))
    clusters = points if n == len(points) else _cluster_centers(points, n, seed)
    distances = cdist(clusters, points)
    centers, rows = linear_sum_assignment(distances)
    order = np.lexsort((rows, distances[centers, rows]))
    return rows[order].astype(np.int64)


def k_center(features: ArrayLike, labeled_features: ArrayLike, n: int) -> NDArray[np.int64]:
    """``n`` rows of ``features`` (m, c) by the greedy k-center rule, in the order they were chosen.

    Each row taken is the one farthest from everything labelled or taken before it (Gonzalez 1985;
    the core-set of Sener & Savarese 2018, arXiv:1708.00489); ties go to the lowest row. With nothing
    labelled yet the first is the row nearest to the mean.

    Args:
        features: (m, c) of the candidates.
        labeled_features: (k, c) of what is labelled; k may be 0.
        n: how many to choose.

    Raises:
        ValueError: features that are not (m, c) or not finite, another c, or ``n`` outside 1 … m.
    """
    points = _checked(features, n)
    labeled = np.asarray(labeled_features, dtype=np.float64)
    if labeled.size and (labeled.shape[1:] != points.shape[1:] or not np.isfinite(labeled).all()):
        raise ValueError(
            f"labeled_features: shape {labeled.shape}: expected (k, {points.shape[1]}) finite values"
        )
    chosen = np.empty(n, dtype=np.int64)
    if labeled.size:
        nearest = np.full(len(points), np.inf)
        for start in range(0, len(labeled), 512):
            nearest = np.minimum(
                nearest, cdist(points, labeled[start : start + 512], "sqeuclidean").min(axis=1)
            )
        chosen[0] = np.argmax(nearest)
    else:
        chosen[0] = np.argmin(cdist(points, points.mean(axis=0, keepdims=True), "sqeuclidean"))
        nearest = np.full(len(points), np.inf)
    for i in range(1, n):
        last = points[chosen[i - 1]]
        nearest = np.minimum(nearest, cdist(points, last[None], "sqeuclidean")[:, 0])
        # What is taken stays out, also where every candidate lies on something taken.
        nearest[chosen[i - 1]] = -1.0
        chosen[i] = np.argmax(nearest)
    return chosen


def _cluster_centers(points: NDArray[np.float64], n: int, seed: int) -> NDArray[np.float64]:
    # Threads would add up in an order of their own: one of them, so that a rerun gives the same bits.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # Fewer distinct points than clusters: equal centers are dealt different rows below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(n, init="k-means++", n_init=1, random_state=seed).fit(points)
    centers: NDArray[np.float64] = model.cluster_centers_
    return centers


def _checked(features: ArrayLike, n: int) -> NDArray[np.float64]:
    points = np.asarray(features, dtype=np.float64)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ValueError(f"features: shape {points.shape}: expected (m, c) finite values")
    if not 1 <= n <= len(points):
        raise ValueError(f"n={n}: must lie between 1 and the {len(points)} rows of features")
    return points
