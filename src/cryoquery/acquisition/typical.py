"""Choose images that stand for many others: what to label first, on features learned without labels.

Distances are between features scaled to length 1, as in the papers; a row of zeros stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from cryoquery.acquisition.diversity import blocks, checked, fitted_k_means

MAX_CLUSTERS = 500
"""More clusters than this are not made, however many rows are asked for."""
MIN_CLUSTER = 6
"""Smaller clusters are left for last: what is typical of so few cannot be told from an outlier."""
SHORTLIST = 20_000
"""A larger pool is represented by as many images, drawn at random, when its first ones are chosen."""
COLD_PURITY = 0.5
"""Share of pure balls that the radius of a cold start is taken from. The 0.95 of the paper is meant for a
few hundred labels: with a dozen, such balls cover a third of the real fields they were tried on, and miss
groups of the pool."""
_BLOCK = 512
_ROUNDING = 1e-12
"""Squared distances of vectors of length 1, taken from products, are this exact."""

ColdStart = Literal["random", "typiclust", "prob_cover"]
_Vectors = NDArray[np.float64]


def cold_start_set(how: ColdStart, features: ArrayLike, n: int, seed: int) -> NDArray[np.int64]:
    """Ascending indices (n,) of the images to label first, given what was learned without labels.

    `prob_cover` gets the radius of `purity_radius` for ``n`` clusters and the purity `COLD_PURITY`.

    Args:
        how: ``typiclust`` or ``prob_cover``; ``random`` looks at no features and is not done here.
        features: (m, c) of all images of the pool.
        n: how many to choose.
        seed: of the generator that starts k-means, and draws the shortlist of a pool of more than
            `SHORTLIST` images.

    Raises:
        ValueError: features that are not (m, c) or not finite, or ``n`` outside 1 … m.
    """
    assert how != "random", "drawn by the loop"
    rng = np.random.default_rng([seed, 1])
    rows = np.asarray(features)
    drawn = np.arange(len(rows))
    if len(rows) > max(SHORTLIST, n):
        drawn = np.sort(rng.choice(len(rows), max(SHORTLIST, n), replace=False))
    rows = rows[drawn]
    if how == "typiclust":
        return np.sort(drawn[typiclust(rows, (), n, rng)])
    return np.sort(drawn[prob_cover(rows, (), n, purity_radius(rows, n, rng, COLD_PURITY))])


def draws_at_random(how: ColdStart, n: int, n_pool: int) -> bool:
    """Whether a cold start needs no features: it is random, or takes everything."""
    return how == "random" or n == n_pool


def typiclust(
    features: ArrayLike, labeled_features: ArrayLike, n: int, rng: np.random.Generator, k: int = 20
) -> NDArray[np.int64]:
    """``n`` rows of ``features`` (m, c), in the order they were chosen: the most typical of each cluster.

    All rows, labeled ones too, are put into as many clusters as there will be labels (k-means, at most
    `MAX_CLUSTERS`). The clusters with the fewest labels come first, the larger ones of these before the
    smaller ones, those below `MIN_CLUSTER` rows at the very end; each gives its most typical row, the one
    with the smallest mean distance to its ``k`` nearest neighbors among the cluster's unlabeled rows.
    Where there are fewer clusters than rows are wanted, each gives several. Ties go to the cluster
    that holds the lowest row, and to the lowest row in it.

    Source: Hacohen et al. 2022 (arXiv:2202.02794).

    Args:
        features: (m, c) of the candidates.
        labeled_features: (l, c) of what is labeled; l may be 0.
        n: how many to choose.
        rng: starts k-means.
        k: neighbors that make up the typicality; fewer where a cluster has fewer.

    Raises:
        ValueError: features that are not (m, c) or not finite, another c, ``n`` outside 1 … m, or k < 1.
    """
    points, labeled = _checked(features, labeled_features, n)
    if k < 1:
        raise ValueError(f"k={k}: must be at least 1")
    n_clusters = min(len(labeled) + n, MAX_CLUSTERS, len(points) + len(labeled))
    assigned = _clusters(np.concatenate([points, labeled]), n_clusters, rng)
    members = [np.flatnonzero(assigned[: len(points)] == cluster) for cluster in range(n_clusters)]
    members = sorted((rows for rows in members if len(rows)), key=lambda rows: int(rows[0]))
    n_labeled = np.bincount(assigned[len(points) :], minlength=n_clusters)
    n_all = np.bincount(assigned, minlength=n_clusters)
    taken = np.array([n_labeled[assigned[rows[0]]] for rows in members])
    sizes = np.array([n_all[assigned[rows[0]]] for rows in members])
    waiting: list[NDArray[np.int64] | None] = [None] * len(members)
    n_given = np.zeros(len(members), dtype=np.int64)
    chosen: list[int] = []
    while len(chosen) < n:
        empty = n_given == [len(rows) for rows in members]
        best = int(np.lexsort((-sizes, taken, sizes < MIN_CLUSTER, empty))[0])
        ranked = waiting[best]
        if ranked is None:
            ranked = waiting[best] = members[best][_by_typicality(points[members[best]], k)]
        chosen.append(int(ranked[n_given[best]]))
        n_given[best] += 1
        taken[best] += 1
    return np.array(chosen, dtype=np.int64)


def prob_cover(features: ArrayLike, labeled_features: ArrayLike, n: int, radius: float) -> NDArray[np.int64]:
    """``n`` rows of ``features`` (m, c), in the order they were chosen, whose balls cover the most rows.

    Each row taken is the one with the most rows within ``radius`` of it that no labeled or taken row
    covers yet (greedy maximum coverage); ties go to the lowest row. Once all are covered, the next is the
    row that lies in the fewest balls, of these the one whose own ball holds the most rows, so that there
    are always ``n``. Which rows lie within the
    radius of which is kept as one bit per pair: 50 MB for 20,000 rows.

    Source: Yehuda et al. 2022 (arXiv:2205.11320).

    Args:
        features: (m, c) of the candidates.
        labeled_features: (l, c) of what is labeled; l may be 0.
        n: how many to choose.
        radius: of the balls, between vectors of length 1, so 0 to 2; see `purity_radius`.

    Raises:
        ValueError: features that are not (m, c) or not finite, another c, ``n`` outside 1 … m, or a
            radius that is negative or not finite.
    """
    points, labeled = _checked(features, labeled_features, n)
    if not (np.isfinite(radius) and radius >= 0):
        raise ValueError(f"radius={radius}: must be a finite number, at least 0")
    m, limit = len(points), radius**2 + _ROUNDING
    near = np.empty((m, -(-m // 8)), dtype=np.uint8)
    n_covers = np.zeros(m, dtype=np.int64)
    for rows, squared in _squared_distances(points, points):
        near[rows] = np.packbits(squared <= limit, axis=1)
    if len(labeled):
        for rows, squared in _squared_distances(points, labeled):
            n_covers[rows] = (squared <= limit).sum(axis=1)
    free, chosen = np.ones(m, dtype=bool), list[int]()
    gains = _column_sums(near, np.flatnonzero(n_covers == 0), m)
    sizes = _column_sums(near, np.arange(m), m)
    while len(chosen) < n:
        best = int(np.argmax(np.where(free, gains, -1)))
        if gains[best] == 0:
            left = np.flatnonzero(free)
            best = int(left[np.lexsort((-sizes[left], n_covers[left]))[0]])
        chosen.append(best)
        free[best] = False
        ball = (near[:, best // 8] >> (7 - best % 8)) & 1 == 1
        gains -= _column_sums(near, np.flatnonzero(ball & (n_covers == 0)), m)
        n_covers += ball
    return np.array(chosen, dtype=np.int64)


def purity_radius(
    features: ArrayLike, n_clusters: int, rng: np.random.Generator, purity: float = 0.95
) -> float:
    """The largest radius at which a share ``purity`` of all balls holds rows of one cluster alone.

    The rule of ProbCover (Yehuda et al. 2022, arXiv:2205.11320, section 3.3), which needs no labels: the
    clusters of k-means stand for the classes. A ball is pure as long as its radius is below the distance
    to the nearest row of another cluster, so the radius is a quantile of these distances. 0 where rows
    of different clusters coincide too often, 2 where there is only one cluster.

    Args:
        features: (m, c) rows that will be chosen from.
        n_clusters: about as many as there are kinds of images; not more than rows.
        rng: starts k-means.
        purity: share of pure balls, in (0, 1].

    Raises:
        ValueError: features that are not (m, c) or not finite, fewer than one cluster, or a purity
            outside (0, 1].
    """
    points, _ = _checked(features, (), 1)
    if n_clusters < 1 or not 0 < purity <= 1:
        raise ValueError(f"n_clusters={n_clusters}, purity={purity}: must be at least 1, and in (0, 1]")
    assigned = _clusters(points, min(n_clusters, len(points)), rng)
    nearest = np.empty(len(points))
    for rows, squared in _squared_distances(points, points):
        squared[assigned[rows, None] == assigned] = np.inf
        nearest[rows] = squared.min(axis=1)
    impure = int((1 - purity) * len(points) + 1e-9)
    distance = float(np.sqrt(max(np.sort(nearest)[impure] - 2 * _ROUNDING, 0)))
    return min(distance * (1 - 1e-6), 2.0)


def _checked(features: ArrayLike, labeled_features: ArrayLike, n: int) -> tuple[_Vectors, _Vectors]:
    """Both as rows of length 1."""
    points, labeled = checked(features, n, labeled_features)
    return _unit(points.astype(np.float64)), _unit(labeled.astype(np.float64))


def _unit(rows: _Vectors) -> _Vectors:
    # Scaled by the largest value first, so that no square overflows or vanishes.
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    scaled = rows / np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit: _Vectors = scaled / np.where(length > 0, length, 1.0)
    return unit


def _clusters(points: _Vectors, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    labels = fitted_k_means(points, n, int(rng.integers(2**31))).labels_
    return labels.astype(np.int64)  # type: ignore[no-any-return]


def _by_typicality(points: _Vectors, k: int) -> NDArray[np.int64]:
    """Rows of ``points`` (m, c), the most typical first; ties go to the lower row."""
    k = min(k, len(points) - 1)
    if k < 1:
        return np.arange(len(points))
    from sklearn.neighbors import NearestNeighbors  # a second: only where it is asked for

    with threadpool_limits(limits=1):
        near = (
            NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points).kneighbors(return_distance=False)
        )
    mean = np.empty(len(points))
    for rows in blocks(len(points), _BLOCK):
        # From differences: products leave a rest where rows coincide. Sorted, so that equal sums are equal.
        distances = np.linalg.norm(points[rows, None] - points[near[rows]], axis=2)
        mean[rows] = np.sort(distances, axis=1).mean(axis=1)
    return np.argsort(mean.round(12), kind="stable")


def _squared_distances(x: _Vectors, y: _Vectors) -> Iterator[tuple[slice, _Vectors]]:
    """Blocks of rows of the squared distances between ``x`` and ``y``, for rows of length 1 or 0."""
    yy = (y**2).sum(axis=1)
    with threadpool_limits(limits=1):
        for rows in blocks(len(x), _BLOCK):
            squared = x[rows] @ (-2 * y).T
            squared += (x[rows] ** 2).sum(axis=1)[:, None]
            squared += yy
            yield rows, squared


def _column_sums(near: NDArray[np.uint8], rows: NDArray[np.int64], m: int) -> NDArray[np.int64]:
    total = np.zeros(m, dtype=np.int64)
    for some in blocks(len(rows), _BLOCK):
        total += np.unpackbits(near[rows[some]], axis=1, count=m).sum(axis=0, dtype=np.int64)
    return total
