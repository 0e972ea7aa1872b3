"""Choose images that differ: from each other, and from those that are labeled."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from sklearn.cluster import KMeans

Floats: TypeAlias = "NDArray[np.float32] | NDArray[np.float64]"
# Distances are taken in blocks of as many rows and centers: 16 MiB for their products.
_ROWS, _CENTERS = 4096, 512


def k_means(
    features: ArrayLike, n: int, rng: np.random.Generator, weights: ArrayLike | None = None
) -> NDArray[np.int64]:
    """``n`` rows of ``features`` (m, c): those nearest to the centers of ``n`` clusters.

    Lloyd's k-means from a k-means++ start (Arthur & Vassilvitskii 2007). Each center gets a row of
    its own; where two would share one, the rows are dealt so that the sum of distances is least.
    Rows come in the order of their distance to their center, nearest first. ``weights`` (m,) ≥ 0 say
    how much a row pulls at its center.

    Raises:
        ValueError: features that are not (m, c) or not finite, or ``n`` outside 1 … m.

    Examples:
        >>> features = [[0, 0], [0, 1], [0, 2], [9, 0], [9, 1], [9, 2]]
        >>> k_means(features, 2, np.random.default_rng(0)).tolist()
        [1, 4]
    """
    points = checked(features, n)[0].astype(np.float64, copy=False)
    seed = int(rng.integers(2**31))
    centers = points if n == len(points) else fitted_k_means(points, n, seed, weights).cluster_centers_
    return _nearest_to_each(centers, points)


def clusters(features: ArrayLike, k: int, rng: np.random.Generator, sample: int) -> NDArray[np.int64]:
    """The cluster of each row of ``features`` (m, c) by k-means with ``k`` clusters, (m,) below ``k``.

    Centers are those of ``sample`` rows drawn at random where there are more.

    Raises:
        ValueError: as `k_means`.
    """
    points = checked(features, k)[0].astype(np.float64, copy=False)
    seed = int(rng.integers(2**31))
    some = points[rng.choice(len(points), sample, replace=False)] if len(points) > sample else points
    found = fitted_k_means(some, k, seed).predict(points)
    return np.asarray(found, dtype=np.int64)


def _nearest_to_each(clusters: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.int64]:
    """A row of ``points`` for each center, no row twice, in the order of their distances."""
    distances = cdist(clusters, points)
    centers, rows = linear_sum_assignment(distances)
    order = np.lexsort((rows, distances[centers, rows]))
    return rows[order].astype(np.int64)


def k_center(features: ArrayLike, labeled_features: ArrayLike, n: int) -> NDArray[np.int64]:
    """``n`` rows of ``features`` (m, c) by the greedy k-center rule, in the order they were chosen.

    Each row taken is the one farthest from everything labeled or taken before it (Gonzalez 1985;
    the core-set of Sener & Savarese 2018, arXiv:1708.00489); ties go to the lowest row. With nothing
    labeled yet the first is the row nearest to the mean.

    The rows are those of the plain algorithm with every distance computed in float64, whatever the
    number of threads. Only the few rows farthest away are followed pick by pick: the others can only
    come nearer, so they are compared with all new picks at once, when one of them could be next.

    Args:
        features: (m, c) of the candidates; of float32 only blocks and the rows that are followed are copied.
        labeled_features: (k, c) of what is labeled; k may be 0.
        n: how many to choose.

    Raises:
        ValueError: features that are not (m, c) or not finite, another c, or ``n`` outside 1 … m.

    Examples:
        >>> k_center([[0.0], [1.0], [5.0], [9.0]], [[0.0]], 2).tolist()
        [3, 2]
    """
    points, labeled = checked(features, n, labeled_features)
    origin = points.mean(axis=0, dtype=np.float64)
    nearest = np.full(len(points), np.inf)
    chosen: list[int] = []
    if labeled.size:
        _approach(nearest, points, labeled, origin)
    else:
        from_origin = [_squared(points[rows], origin) for rows in blocks(len(points), _ROWS)]
        chosen.append(int(np.argmin(np.concatenate(from_origin))))
    n_met, n_ahead = 0, max(256, len(points) // 32)
    while len(chosen) < n:
        _approach(nearest, points, points[chosen[n_met:]], origin)
        # What is taken stays out, also where every candidate lies on something taken.
        nearest[chosen] = -1.0
        n_met = len(chosen)
        chosen += _among_the_farthest(nearest, points, n_ahead, n - n_met)
        if len(chosen) - n_met < 16:
            n_ahead *= 2
    return np.array(chosen, dtype=np.int64)


def _among_the_farthest(nearest: NDArray[np.float64], points: Floats, n_ahead: int, n: int) -> list[int]:
    """The next greedy picks, at most ``n``, as long as they lie among the ``n_ahead`` farthest rows."""
    m = len(points)
    if n_ahead < m:
        least = np.partition(nearest, m - n_ahead)[m - n_ahead]
        ahead = np.concatenate([np.flatnonzero(nearest > least), np.flatnonzero(nearest == least)])[:n_ahead]
        behind = nearest.copy()
        behind[ahead] = -np.inf
        rival = int(np.argmax(behind))
        bar = float(behind[rival])
        ahead.sort()
    else:
        ahead, rival, bar = np.arange(m), m, -np.inf
    distances, vectors = nearest[ahead], points[ahead].astype(np.float64)
    picks: list[int] = []
    while len(picks) < n:
        best = int(np.argmax(distances))
        row = int(ahead[best])
        if distances[best] < bar or (distances[best] == bar and row > rival):
            break
        picks.append(row)
        np.minimum(distances, _squared(vectors, vectors[best]), out=distances)
        distances[best] = -1.0
    return picks


def _approach(
    nearest: NDArray[np.float64], points: Floats, centers: Floats, origin: NDArray[np.float64]
) -> None:
    """Lower ``nearest`` (m,) to the squared distance from ``points`` (m, c) to the nearest of ``centers``.

    Matrix products tell which centers can be nearest; the distances to those are then computed from
    differences. So the result has the bits of the differences, also for duplicates and large offsets.
    """
    for some in blocks(len(centers), _CENTERS):
        around = centers[some].astype(np.float64)
        for rows in blocks(len(points), _ROWS):
            block = points[rows].astype(np.float64)
            so_far = nearest[rows]
            row, center = _can_be_nearer(block - origin, around - origin, so_far)
            if 8 * len(row) > len(block) * len(around):
                np.minimum(so_far, cdist(block, around, "sqeuclidean").min(axis=1), out=so_far)
                continue
            order = np.argsort(center, kind="stable")
            ends = np.cumsum(np.bincount(center, minlength=len(around)))
            for its, one in zip(np.split(row[order], ends[:-1]), around, strict=True):
                so_far[its] = np.minimum(so_far[its], _squared(block[its], one))


def _can_be_nearer(
    x: NDArray[np.float64], y: NDArray[np.float64], so_far: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs among which is, for each row of ``x``, the nearest of ``y`` that is nearer than ``so_far``.

    |x|² + |y|² − 2xy is compared with a bound on its rounding, (c + 2) eps (|x|² + |y|²) for each of
    its terms and for the sum over differences (Higham 2002, § 3.1), here taken twice as large.
    """
    unsure = 8 * (x.shape[1] + 8) * np.finfo(np.float64).eps
    tiny = np.finfo(np.float64).tiny * x.shape[1]
    with np.errstate(over="ignore"):
        xx, yy = (x**2).sum(axis=1), (y**2).sum(axis=1)
        if not np.isfinite(4 * (xx.max() + yy.max())):
            every = np.indices((len(x), len(y))).reshape(2, -1)
            return every[0], every[1]
    least = x @ (-2 * y).T
    least += (1 - unsure) * yy - tiny
    at = least.argmin(axis=1)
    most = least[np.arange(len(x)), at] + 2 * unsure * (xx + yy[at]) + 2 * tiny
    most = np.minimum(most, so_far - (1 - unsure) * xx)
    row, center = np.nonzero(least <= most[:, None])
    return row, center


def _squared(points: Floats, center: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances in float64, (m,); the same bits for a row whatever stands around it."""
    return cdist(points, center[None], "sqeuclidean")[:, 0]


def blocks(n: int, size: int) -> list[slice]:
    """``n`` rows in blocks of ``size``, the last one smaller."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def fitted_k_means(
    points: NDArray[np.float64], n: int, seed: int, weights: ArrayLike | None = None
) -> KMeans:
    """Lloyd's k-means with ``n`` clusters of ``points`` (m, c), from a k-means++ start."""
    from sklearn.cluster import KMeans  # a second: only where something is clustered
    from sklearn.exceptions import ConvergenceWarning

    # Threads would add up in an order of their own: one of them, so that a rerun gives the same bits.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # Fewer distinct points than clusters: centers are equal, and some clusters empty.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(n, init="k-means++", n_init=1, random_state=seed)
        return model.fit(points, sample_weight=weights)


def _floats(values: ArrayLike) -> Floats:
    array = np.asarray(values)
    return array if array.dtype == np.float32 else np.asarray(array, dtype=np.float64)


def checked(features: ArrayLike, n: int, labeled_features: ArrayLike = ()) -> tuple[Floats, Floats]:
    """``features`` (m, c) and ``labeled_features`` (k, c) as floats; k may be 0.

    Raises:
        ValueError: arrays of other shapes or that are not finite, or ``n`` outside 1 … m.
    """
    points, labeled = _floats(features), _floats(labeled_features)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ValueError(f"features: shape {points.shape}: expected (m, c) finite values")
    if labeled.size == 0:
        labeled = np.empty((0, points.shape[1]))
    if labeled.shape[1:] != points.shape[1:] or not np.isfinite(labeled).all():
        raise ValueError(
            f"labeled_features: shape {labeled.shape}: expected (k, {points.shape[1]}) finite values"
        )
    if not 1 <= n <= len(points):
        raise ValueError(f"n={n}: must lie between 1 and the {len(points)} rows of features")
    return points, labeled
