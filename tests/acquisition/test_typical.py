from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cryoquery.acquisition import typical
from cryoquery.acquisition.typical import prob_cover, purity_radius, typiclust

NONE = np.empty((0, 2))


def on_circle(*degrees: float) -> NDArray[np.float64]:
    angles = np.deg2rad(degrees)
    return np.column_stack([np.cos(angles), np.sin(angles)])


def blobs(seed: int, sizes: tuple[int, ...], spread: float = 0.1, c: int = 4) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    centers = np.eye(max(c, len(sizes)))[: len(sizes)]
    return np.concatenate(
        [
            center + rng.normal(0, spread, (n, centers.shape[1]))
            for n, center in zip(sizes, centers, strict=True)
        ]
    )


def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def greedy_cover(features: NDArray, labeled: NDArray, n: int, radius: float) -> list[int]:
    """Greedy maximum coverage the slow way; where all is covered, what lies in the fewest balls."""
    points, limit = unit(features), radius + 1e-9
    near = np.linalg.norm(points[:, None] - points[None], axis=2) <= limit
    covers = np.zeros(len(points), dtype=int)
    if len(labeled):
        covers += (np.linalg.norm(points[:, None] - unit(labeled)[None], axis=2) <= limit).sum(axis=1)
    chosen: list[int] = []
    while len(chosen) < n:
        free = [i for i in range(len(points)) if i not in chosen]
        best = max(free, key=lambda i: ((near[i] & (covers == 0)).sum(), -i))
        if not (near[best] & (covers == 0)).any():
            best = min(free, key=lambda i: (covers[i], -near[i].sum(), i))
        chosen.append(best)
        covers += near[best]
    return chosen


def most_typical(features: NDArray, k: int) -> int:
    points = unit(features)
    distances = np.sort(np.linalg.norm(points[:, None] - points[None], axis=2), axis=1)
    return int(np.argmin(distances[:, 1 : k + 1].mean(axis=1)))


def test_typiclust_takes_the_most_typical_of_each_cluster_the_largest_first() -> None:
    features = blobs(0, (12, 30, 20))
    parts = [slice(0, 12), slice(12, 42), slice(42, 62)]
    expected = [parts[i].start + most_typical(features[parts[i]], 5) for i in (1, 2, 0)]
    chosen = typiclust(features, NONE[:, :0], 3, np.random.default_rng(0), k=5)
    assert chosen.tolist() == expected


def test_typiclust_leaves_out_clusters_that_hold_a_label() -> None:
    features = blobs(1, (30, 20, 10))
    labeled = blobs(2, (1, 0, 1))
    for seed in range(5):
        chosen = typiclust(features, labeled, 1, np.random.default_rng(seed), k=5)
        assert 30 <= chosen[0] < 50


def test_typiclust_goes_round_where_clusters_are_fewer_than_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typical, "MAX_CLUSTERS", 2)
    chosen = typiclust(blobs(3, (20, 10)), NONE[:, :0], 6, np.random.default_rng(0))
    assert (chosen < 20).tolist() == [True, False] * 3


def test_tiny_clusters_come_last() -> None:
    features = np.concatenate([blobs(4, (30, 20)), [[0, 0, 1.0, 0]] * 2])
    chosen = typiclust(features, NONE[:, :0], 3, np.random.default_rng(0))
    assert set(chosen[:2] < 30) == {True, False}
    assert (chosen < 50).all()


@pytest.mark.parametrize("seed", range(6))
def test_prob_cover_is_greedy_maximum_coverage(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, labeled = rng.normal(size=(60, 3)), rng.normal(size=(seed, 3))
    for radius in (0.0, 0.2, 0.5, 2.0):
        for n in (1, 7, 60):
            chosen = prob_cover(features, labeled, n, radius)
            assert chosen.tolist() == greedy_cover(features, labeled, n, radius)


def test_no_row_is_lost_at_the_end_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(0).normal(size=(43, 3))
    labeled = features[:9] + 0.01
    whole = prob_cover(features, labeled, 20, 0.4), purity_radius(features, 4, np.random.default_rng(0))
    clustered = typiclust(features, labeled, 20, np.random.default_rng(0))
    monkeypatch.setattr(typical, "_BLOCK", 8)
    assert prob_cover(features, labeled, 20, 0.4).tolist() == whole[0].tolist()
    assert purity_radius(features, 4, np.random.default_rng(0)) == pytest.approx(whole[1], rel=1e-9)
    assert typiclust(features, labeled, 20, np.random.default_rng(0)).tolist() == clustered.tolist()
    lonely = np.concatenate([np.tile([1.0, 0, 0], (8, 1)), [[0, 0, 1.0]]])
    assert 8 in prob_cover(lonely, NONE[:, :0], 2, 0.1), "the last row, alone in its block"


def test_prob_cover_on_a_circle() -> None:
    features = on_circle(0, 10, 20, 90, 100, 200)
    ten_degrees = 2 * np.sin(np.deg2rad(5))
    assert prob_cover(features, NONE, 3, ten_degrees).tolist() == [1, 3, 5], "ties go to the lower row"
    assert prob_cover(features, on_circle(15), 2, ten_degrees).tolist() == [3, 0]
    assert prob_cover(3 * features, NONE, 3, ten_degrees).tolist() == [1, 3, 5], "length does not matter"


def test_the_radius_keeps_balls_in_one_cluster() -> None:
    features = on_circle(0, 1, 2, 3, 90, 91, 92, 93)
    radius = purity_radius(features, 2, np.random.default_rng(0), purity=1.0)
    gap = 2 * np.sin(np.deg2rad(87 / 2))
    assert radius == pytest.approx(gap, rel=1e-5)
    assert radius < gap
    assert purity_radius(features, 2, np.random.default_rng(0), purity=0.75) == pytest.approx(
        2 * np.sin(np.deg2rad(88 / 2)), rel=1e-5
    ), "two of eight balls may be impure"
    assert purity_radius(features, 1, np.random.default_rng(0)) == 2.0
    assert purity_radius(np.ones((5, 3)), 3, np.random.default_rng(0)) <= 2.0


def test_the_radius_is_the_largest_with_that_purity() -> None:
    features = blobs(5, (25, 25), spread=0.5)
    points, rng = unit(features), np.random.default_rng(0)
    assigned = typical._clusters(points, 4, np.random.default_rng(0))
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    other = np.where(assigned[:, None] == assigned, np.inf, distances).min(axis=1)
    radius = purity_radius(features, 4, rng, purity=0.9)
    assert (other > radius).mean() >= 0.9
    assert (other > radius + 1e-4).mean() < 0.9


@pytest.mark.parametrize("seed", [0, 1])
def test_duplicates_zeros_and_everything(seed: int) -> None:
    features = np.concatenate([np.ones((7, 3)), np.zeros((2, 3)), np.full((3, 3), 2.0)])
    for n in (1, 5, 12):
        for labeled in (NONE[:, :0], np.ones((2, 3))):
            for chosen in (
                typiclust(features, labeled, n, np.random.default_rng(seed)),
                prob_cover(features, labeled, n, 0.1),
            ):
                assert len(set(chosen.tolist())) == n
                assert set(chosen.tolist()) <= set(range(12))
    assert prob_cover(features, NONE[:, :0], 1, 0.0).tolist() == [0], "ones and twos coincide on the sphere"


def test_the_same_arguments_give_the_same_rows() -> None:
    features = blobs(6, (40, 30, 20), spread=0.4).astype(np.float32)
    first, second = (typiclust(features, features[:4], 9, np.random.default_rng(3)) for _ in range(2))
    assert first.tolist() == second.tolist()
    radii = {purity_radius(features, 5, np.random.default_rng(3)) for _ in range(2)}
    assert len(radii) == 1


def test_huge_and_tiny_features_are_scaled_alike() -> None:
    features = blobs(7, (30, 20))
    for factor in (1e-200, 1e200):
        assert prob_cover(features * factor, NONE[:, :0], 9, 0.2).tolist() == greedy_cover(
            features, NONE, 9, 0.2
        )


@pytest.mark.parametrize(
    ("features", "labeled", "n", "what"),
    [
        (np.ones(3), NONE, 1, "features: shape"),
        (np.full((3, 2), np.nan), NONE, 1, "features: shape"),
        (np.ones((3, 2)), np.ones((1, 3)), 1, "labeled_features: shape"),
        (np.ones((3, 2)), np.full((1, 2), np.inf), 1, "labeled_features: shape"),
        (np.ones((3, 2)), NONE, 0, "n=0"),
        (np.ones((3, 2)), NONE, 4, "n=4"),
    ],
)
def test_what_cannot_be_done_is_refused(features: NDArray, labeled: NDArray, n: int, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        typiclust(features, labeled, n, np.random.default_rng(0))
    with pytest.raises(ValueError, match=what):
        prob_cover(features, labeled, n, 0.1)


def test_parameters_are_checked() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="radius=-1"):
        prob_cover(np.ones((3, 2)), NONE, 1, -1)
    with pytest.raises(ValueError, match="k=0"):
        typiclust(np.ones((3, 2)), NONE, 1, rng, k=0)
    with pytest.raises(ValueError, match="n_clusters=0"):
        purity_radius(np.ones((3, 2)), 0, rng)
    with pytest.raises(ValueError, match="purity=0"):
        purity_radius(np.ones((3, 2)), 2, rng, purity=0)
