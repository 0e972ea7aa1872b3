"""How long it takes to choose a query once every image has passed the network, and how much memory.

    python benchmarks/selection.py [--features 256]

k-center and k-means of the protocol's first query, each beside the way it is usually written, on
normally distributed features: they have no clusters and no directions that matter less, which is
what leaves a fast method the least to save. Then every strategy on a pool of a million images, each
in a process of its own so that its memory is its own. On a pool such as the protocol's:

    python benchmarks/selection.py --skip-methods --pool 5172
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances, pairwise_distances_argmin

from cryoquery.acquisition import STRATEGIES, k_center, k_means, select
from cryoquery.acquisition.candidates import Candidates
from cryoquery.acquisition.image_scores import FEATURES, GRADIENTS, LEARNED, Signal


class MadeUpSignals:
    """Scores and features at random, as if a network had seen the whole pool."""

    def __init__(self, n: int, n_features: int) -> None:
        self._rng = np.random.default_rng(0)
        self._n, self._n_features = n, n_features
        self._made: dict[str, np.ndarray] = {}

    def values(self, signal: Signal, indices: np.ndarray) -> np.ndarray:
        """A number for each image, (n,), or its features or gradients, (n, c)."""
        if signal.key not in self._made:
            if signal in (FEATURES, GRADIENTS):
                made = self._rng.standard_normal((self._n, self._n_features), dtype=np.float32)
            else:
                made = self._rng.random(self._n)
            self._made[signal.key] = made
        return self._made[signal.key][indices]


def plain_k_center(points: np.ndarray, labeled: np.ndarray, n: int) -> list[int]:
    """The way such scripts are usually written: all distances to all centers, for each pick."""
    centers, chosen = labeled, []
    for _ in range(n):
        chosen.append(int(pairwise_distances(points, centers).min(axis=1).argmax()))
        centers = np.concatenate([centers, points[chosen[-1:]]])
    return chosen


def exact_k_center(points: np.ndarray, labeled: np.ndarray, n: int) -> list[int]:
    """The greedy rule in float64, every distance once, summed over differences."""
    nearest = cdist(points, labeled, "sqeuclidean").min(axis=1)
    chosen = [int(nearest.argmax())]
    while len(chosen) < n:
        nearest = np.minimum(nearest, cdist(points, points[chosen[-1:]], "sqeuclidean")[:, 0])
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return chosen


def plain_k_means(points: np.ndarray, n: int) -> np.ndarray:
    """The way such scripts are usually written."""
    centers = KMeans(n, n_init=10, random_state=0).fit(points).cluster_centers_
    rows: np.ndarray = pairwise_distances_argmin(centers, points)
    return rows


def timed(task: Callable[[], Sequence[int] | np.ndarray]) -> tuple[float, list[int]]:
    """Seconds, and the rows that were chosen."""
    start = time.perf_counter()
    rows = task()
    return time.perf_counter() - start, np.asarray(rows).tolist()


def compare_methods(args: argparse.Namespace) -> None:
    """k-center and k-means beside their references."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((args.candidates, args.features), dtype=np.float32)
    labeled = rng.standard_normal((args.labeled, args.features), dtype=np.float32)
    n = args.picks
    print(f"{n} of {len(points)} × {args.features} features, {len(labeled)} labeled")
    k_center(points, labeled, 1)  # starts the threads of BLAS
    ours, rows = timed(lambda: k_center(points, labeled, n))
    exact, exact_rows = timed(lambda: exact_k_center(points, labeled, n))
    plain, _ = timed(lambda: plain_k_center(points, labeled, n))
    same = "the same rows" if rows == exact_rows else "OTHER ROWS"
    print(f"k-center {ours:6.2f} s; all distances for each pick {plain:6.2f} s, ratio {plain / ours:.1f}")
    print(
        f"                   each distance once in float64 {exact:6.2f} s, ratio {exact / ours:.1f}, {same}"
    )
    ours, _ = timed(lambda: k_means(points, n, np.random.default_rng(0)))
    plain, _ = timed(lambda: plain_k_means(points, n))
    print(f"k-means  {ours:6.2f} s; scikit-learn, ten starts       {plain:6.2f} s, ratio {plain / ours:.1f}")


def measure_strategy(args: argparse.Namespace) -> None:
    """Seconds of one strategy on the large pool, and the most memory that this process ever had."""
    rng = np.random.default_rng(0)
    labeled = np.sort(rng.choice(args.pool, args.labeled, replace=False))
    candidates = Candidates(
        indices=np.setdiff1d(np.arange(args.pool), labeled),
        labeled=labeled,
        groups=[f"{10000 + i % 22}" for i in range(args.pool)],
        signals=MadeUpSignals(args.pool, args.features),
        rng=rng,
    )
    # What the network says is there before the clock starts.
    for signal in STRATEGIES[args.only].strategy.needs - {LEARNED}:
        candidates.values(signal)
    seconds, _ = timed(lambda: [choice.index for choice in select(args.only, candidates, args.picks)])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{args.only:17}  {seconds:6.2f} s  {peak:5.2f} GiB")


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line per method, then one per strategy."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--candidates", type=int, default=5172, help="images to choose from (default: 5172)")
    parser.add_argument("--labeled", type=int, default=517, help="labeled images (default: 517)")
    parser.add_argument("--features", type=int, default=256, help="features of an image (default: 256)")
    parser.add_argument("--picks", type=int, default=517, help="images to choose (default: 517)")
    parser.add_argument("--pool", type=int, default=1_000_000, help="images of the large pool")
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES), help="to run on the large pool")
    parser.add_argument("--skip-methods", action="store_true", help="only the strategies")
    parser.add_argument("--only", help="run this strategy on the large pool, here, and nothing else")
    args = parser.parse_args(argv)
    if args.only:
        measure_strategy(args)
        return
    if not args.skip_methods:
        compare_methods(args)
    kept = ("labeled", "features", "picks", "pool")
    sizes = [text for name in kept for text in (f"--{name}", str(getattr(args, name)))]
    print(f"{args.picks} of {args.pool} × {args.features} features, {args.labeled} labeled")
    for name in args.strategies:
        command = [sys.executable, __file__, *sizes, "--only", name]
        print(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout, end="", flush=True
        )


if __name__ == "__main__":
    main()
