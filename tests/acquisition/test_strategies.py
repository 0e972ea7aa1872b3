from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from cryoquery.acquisition import (
    STRATEGIES,
    diversity,
    entropy,
    k_center,
    k_means,
    least_confidence,
    margin,
    select,
    selections,
)
from cryoquery.acquisition.candidates import Candidates
from cryoquery.acquisition.image_scores import FEATURES, GRADIENTS, Signal
from cryoquery.errors import ConfigError

P = np.concatenate([np.linspace(0, 1, 1001), [1e-12, 1 - 1e-12]])


def test_scores_against_the_protocol_in_float64() -> None:
    positive, negative = P, 1 - P
    assert least_confidence(P) == pytest.approx(1 - np.maximum(positive, negative), abs=1e-15)
    assert margin(P) == pytest.approx(1 - np.abs(positive - negative), abs=1e-15)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        formula = -P * np.log(P) - (1 - P) * np.log(1 - P)
    assert entropy(P) == pytest.approx(np.nan_to_num(formula), abs=1e-14)


@pytest.mark.parametrize("score", [least_confidence, entropy, margin])
def test_scores_are_symmetric_and_largest_at_one_half(score) -> None:
    assert score(P) == pytest.approx(score(1 - P), abs=1e-12)
    assert score(np.array([0.0, 1.0])) == pytest.approx(0, abs=1e-12)
    assert np.argmax(score(np.linspace(0, 1, 101))) == 50
    assert (np.diff(score(np.linspace(0, 0.5, 200))) > 0).all()


@pytest.mark.parametrize("score", [least_confidence, entropy, margin])
def test_scores_are_the_same_for_arrays_and_tensors(score) -> None:
    tensor = score(torch.from_numpy(P))
    assert isinstance(tensor, torch.Tensor)
    assert tensor.numpy() == pytest.approx(score(P), abs=1e-14)


def test_margin_is_twice_least_confidence_to_the_last_bit() -> None:
    p = np.random.default_rng(0).random(100_000).astype(np.float32)
    assert np.array_equal(margin(p), 2 * least_confidence(p))


def greedy_reference(features: np.ndarray, labeled: np.ndarray, n: int) -> list[int]:
    """Greedy k-center with every distance computed anew."""
    chosen: list[int] = []
    while len(chosen) < n:
        centers = np.concatenate([labeled, features[chosen]])
        to_nearest = [
            -1.0 if i in chosen else min(((x - c) ** 2).sum() for c in centers)
            for i, x in enumerate(features)
        ]
        chosen.append(int(np.argmax(to_nearest)))
    return chosen


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 5), st.booleans())
def test_k_center_against_brute_force(seed: int, n: int, n_labeled: int, on_a_grid: bool) -> None:
    rng = np.random.default_rng(seed)
    features, labeled = rng.normal(size=(12, 3)), rng.normal(size=(n_labeled, 3))
    if on_a_grid:  # many ties
        features, labeled = np.rint(features), np.rint(labeled)
    assert k_center(features, labeled, n).tolist() == greedy_reference(features, labeled, n)


def plain_k_center(features: np.ndarray, labeled: np.ndarray, n: int) -> list[int]:
    """Greedy k-center in float64, with all distances from differences at each pick."""
    features, labeled = features.astype(np.float64), labeled.astype(np.float64)
    first = cdist(features, features.mean(axis=0, keepdims=True), "sqeuclidean")[:, 0]
    chosen: list[int] = [] if len(labeled) else [int(first.argmin())]
    while len(chosen) < n:
        centers = np.concatenate([labeled, features[chosen]])
        nearest = cdist(features, centers, "sqeuclidean").min(axis=1)
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return chosen


def awkward(kind: str, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Features that trouble a method that does not compute every distance from differences."""
    normal = rng.normal(size=(rows, 6))
    far = 10 * rng.normal(size=(12, 6))
    return {
        "plain": lambda: normal,
        "offset": lambda: normal + 1e6,
        "tiny at an offset": lambda: 1e-6 * normal + 1e6,
        "duplicates": lambda: normal[rng.integers(0, 40, rows)],
        "grid": lambda: rng.integers(0, 3, (rows, 6)).astype(float),
        "all equal": lambda: np.full((rows, 6), 0.1),
        "clusters": lambda: far[rng.integers(0, 12, rows)] + 0.01 * normal,
        "one far away": lambda: np.where(np.arange(rows)[:, None] == rows // 2, 1e9, normal),
        "rectified": lambda: np.maximum(normal - 1, 0),
        "beyond squares": lambda: 1e160 * normal,
        "below squares": lambda: 1e-160 * normal,
    }[kind]()


IN_BOTH = ["plain", "offset", "tiny at an offset", "duplicates", "grid", "all equal", "clusters"]
IN_BOTH += ["one far away", "rectified"]
KINDS = [(kind, dtype) for kind in IN_BOTH for dtype in (np.float32, np.float64)]
KINDS += [("beyond squares", np.float64), ("below squares", np.float64)]


@pytest.mark.parametrize("n_labeled", [0, 1, 30])
@pytest.mark.parametrize(("kind", "dtype"), KINDS)
def test_k_center_is_the_plain_algorithm_to_the_row(
    kind: str, dtype: type, n_labeled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diversity, "_ROWS", 100)
    monkeypatch.setattr(diversity, "_CENTERS", 16)
    both = awkward(kind, 400 + n_labeled, np.random.default_rng(n_labeled)).astype(dtype)
    features, labeled = both[n_labeled:], both[:n_labeled]
    assert k_center(features, labeled, 60).tolist() == plain_k_center(features, labeled, 60)


def test_k_center_takes_every_row_once_and_spares_its_arguments() -> None:
    features = awkward("duplicates", 300, np.random.default_rng(0)).astype(np.float32)
    before = features.copy()
    rows = k_center(features, features[:5], 300)
    assert rows.tolist() == plain_k_center(features, features[:5], 300)
    assert sorted(rows) == list(range(300))
    assert np.array_equal(features, before)


def test_selection_does_not_depend_on_the_number_of_threads() -> None:
    features = np.random.default_rng(0).normal(size=(1500, 32)).astype(np.float32)
    rows = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads):
            by_distance = k_center(features, features[:40] + 1, 60)
            rows.append((by_distance.tolist(), k_means(features, 60, np.random.default_rng(0)).tolist()))
    assert rows[0] == rows[1]


def test_k_center_without_labels_starts_in_the_middle() -> None:
    features = np.array([[0.0], [4.0], [5.0], [10.0]])
    assert k_center(features, np.empty((0, 1)), 3).tolist() == [2, 0, 3]


def test_k_means_finds_the_clusters() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.array([[0, 0], [100, 0], [0, 100], [100, 100]]), 25, axis=0)
    features = clusters + rng.normal(size=clusters.shape)
    rows = k_means(features, 4, np.random.default_rng(1))
    assert sorted(rows // 25) == [0, 1, 2, 3]
    for row in rows:
        center = features[row // 25 * 25 : row // 25 * 25 + 25].mean(axis=0)
        nearest = np.argmin(np.linalg.norm(features - center, axis=1))
        assert row == nearest


@pytest.mark.parametrize("n", [1, 7, 20])
def test_k_means_takes_no_row_twice_even_among_duplicates(n: int) -> None:
    features = np.repeat(np.eye(3), [10, 7, 3], axis=0)
    assert len(set(k_means(features, n, np.random.default_rng(0)))) == n


@pytest.mark.parametrize("n", [0, 21])
def test_impossible_numbers_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match="between 1 and the 20 rows"):
        k_means(np.zeros((20, 2)), n, np.random.default_rng(0))
    with pytest.raises(ValueError, match="between 1 and the 20 rows"):
        k_center(np.zeros((20, 2)), np.zeros((1, 2)), n)


@pytest.mark.parametrize("labeled", [np.zeros((4, 3)), np.full((4, 2), np.nan)])
def test_labeled_features_that_do_not_fit_are_refused(labeled: np.ndarray) -> None:
    with pytest.raises(ValueError, match="labeled_features"):
        k_center(np.zeros((6, 2)), labeled, 2)


@dataclass
class KnownSignals:
    """Signals that were made up; counts how often it is asked."""

    scores: np.ndarray
    vectors: np.ndarray
    n_asked: int = 0

    def values(self, signal: Signal, indices: np.ndarray) -> np.ndarray:
        self.n_asked += 1
        if signal in (FEATURES, GRADIENTS):
            return self.features(indices)
        return self.scores[indices] * (2 if signal.key == "margin" else 1)

    def features(self, indices: np.ndarray) -> np.ndarray:
        return self.vectors[indices]


def candidates(seed: int = 0, n: int = 40, ties: bool = False) -> Candidates:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, n) / 4 if ties else rng.random(n)
    labeled = np.sort(rng.choice(n, 6, replace=False))
    return Candidates(
        indices=np.setdiff1d(np.arange(n), labeled),
        labeled=labeled,
        groups=["ab"[i % 2] for i in range(n)],
        signals=KnownSignals(scores, rng.normal(size=(n, 5))),
        rng=np.random.default_rng(seed),
    )


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("n", [0, 1, 10, 34])
def test_every_strategy_keeps_its_contract(name: str, n: int) -> None:
    choices = select(name, candidates(), n)
    again = select(name, candidates(), n)
    assert choices == again, "the same arguments give the same query"
    indices = [choice.index for choice in choices]
    assert len(set(indices)) == n
    assert not set(indices) & set(candidates().labeled.tolist())
    assert all(choice.reason and np.isfinite(choice.score) for choice in choices)


@pytest.mark.parametrize("ties", [False, True])
def test_uncertainty_and_margin_ask_for_the_same_images(ties: bool) -> None:
    for seed in range(20):
        some = candidates(seed, ties=ties)
        first, second = (select(name, some, 10) for name in ("uncertainty", "margin"))
        assert [c.index for c in first] == [c.index for c in second]


def test_ties_go_to_the_lower_index() -> None:
    some = candidates(ties=True)
    choices = select("uncertainty", some, 34)
    assert choices == sorted(choices, key=lambda c: (-c.score, c.index))


def test_random_looks_at_nothing_and_is_uniform() -> None:
    some = candidates()
    drawn = np.zeros(40)
    for _ in range(2000):
        for choice in select("random", some, 5):
            drawn[choice.index] += 1
    assert some.signals.n_asked == 0
    expected = 2000 * 5 / 34
    assert (np.abs(drawn[some.indices] - expected) < 5 * np.sqrt(expected)).all()


def test_stratified_random_takes_equal_shares() -> None:
    groups = ["a"] * 30 + ["b"] * 6 + ["c"] * 4
    some = replace(candidates(), groups=groups)
    left = Counter(groups[i] for i in some.indices)
    drawn: Counter[int] = Counter()
    first: Counter[str] = Counter()
    for _ in range(600):
        query = [choice.index for choice in select("stratified_random", some, 7)]
        assert sorted(Counter(groups[i] for i in query).values()) == [2, 2, 3]
        drawn.update(query)
        first[groups[query[0]]] += 1
    assert some.signals.n_asked == 0
    assert min(first.values()) > 120, "what cannot be shared goes to each group in turn"
    for group, n in left.items():
        counts = [drawn[i] for i in some.indices if groups[i] == group]
        expected = 600 * 7 / 3 / n
        assert np.abs(np.array(counts) - expected).max() < 6 * np.sqrt(expected), "uniform within a group"


def test_a_group_that_runs_out_leaves_its_share_to_the_others() -> None:
    groups = ["a"] * 30 + ["b"] * 6 + ["c"] * 4
    some = replace(candidates(), groups=groups)
    left = Counter(groups[i] for i in some.indices)
    query = Counter(groups[choice.index] for choice in select("stratified_random", some, 20))
    assert query == {"a": 20 - left["b"] - left["c"], "b": left["b"], "c": left["c"]}


def test_hybrid_is_70_to_30() -> None:
    some = candidates()
    hybrid = [c.index for c in select("hybrid", some, 10)]
    assert hybrid[:7] == [c.index for c in select("uncertainty", some, 7)]
    rest = some.without(np.array(hybrid[:7]))
    assert hybrid[7:] == [c.index for c in select("diversity", candidates().without(np.array(hybrid[:7])), 3)]
    assert set(hybrid[7:]) <= set(rest.indices.tolist())


FEATURE_STRATEGIES = ("diversity", "core_set", "hybrid")


@pytest.mark.parametrize("name", FEATURE_STRATEGIES)
@pytest.mark.parametrize("n", [1, 10, 34])
def test_a_pool_no_larger_than_the_shortlist_is_chosen_from_whole(
    name: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    some, again = candidates(), candidates()
    unlimited = select(name, some, n)
    monkeypatch.setattr(selections, "SHORTLIST", 34)
    assert select(name, again, n) == unlimited
    assert not any("drawn" in choice.reason for choice in unlimited)
    assert some.rng.bit_generator.state == again.rng.bit_generator.state


@pytest.mark.parametrize("name", FEATURE_STRATEGIES)
@pytest.mark.parametrize("n", [1, 5, 60, 394])
def test_a_larger_pool_is_chosen_from_by_shortlists(
    name: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selections, "SHORTLIST", 40)
    some = candidates(n=400)
    choices = select(name, some, n)
    assert choices == select(name, candidates(n=400), n), "the same arguments give the same query"
    indices = [choice.index for choice in choices]
    assert len(set(indices)) == n
    assert set(indices) <= set(some.indices.tolist())
    assert choices[-1].reason.endswith("(of 40 drawn at random)") == (name != "hybrid" or n > 1)


def test_the_network_sees_only_the_shortlist_and_what_is_labeled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selections, "SHORTLIST", 40)
    some = candidates(n=400)
    seen: list[np.ndarray] = []
    features = some.signals.features
    some.signals.features = lambda indices: seen.append(indices) or features(indices)  # type: ignore[method-assign]
    chosen = {choice.index for choice in select("core_set", some, 10)}
    shortlist = set(np.concatenate(seen).tolist()) - set(some.labeled.tolist())
    assert len(shortlist) == 40
    assert chosen <= shortlist


def test_every_candidate_can_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selections, "SHORTLIST", 8)
    some = candidates(n=60)
    chosen = {choice.index for _ in range(300) for choice in select("diversity", some, 2)}
    assert chosen == set(some.indices.tolist())


def test_what_one_shortlist_yields_counts_as_labeled_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selections, "SHORTLIST", 40)
    some = candidates(n=400)
    asked: list[np.ndarray] = []
    features = some.signals.features
    some.signals.features = lambda indices: asked.append(indices) or features(indices)  # type: ignore[method-assign]
    taken = [choice.index for choice in select("core_set", some, 15)]
    first, labeled, second, labeled_then = asked
    assert set(taken[:10]) <= set(first.tolist())
    assert set(taken[10:]) <= set(second.tolist()) - set(taken[:10])
    assert labeled.tolist() == some.labeled.tolist()
    assert labeled_then.tolist() == sorted([*some.labeled, *taken[:10]])


def test_core_set_depends_on_what_is_labeled() -> None:
    some = candidates()
    chosen = [c.index for c in select("core_set", some, 5)]
    vectors = some.signals.vectors
    rows = k_center(vectors[some.indices], vectors[some.labeled], 5)
    assert chosen == some.indices[rows].tolist()


def test_too_large_a_query_and_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="only 34 are unlabeled"):
        select("entropy", candidates(), 35)
    with pytest.raises(ConfigError, match="'entropie': unknown; choose from uncertainty"):
        select("entropie", candidates(), 3)


PROTOCOL_CHOICES = {
    "uncertainty": [19, 11, 25, 30, 33, 9, 21, 28, 15, 29],
    "entropy": [19, 11, 25, 30, 33, 9, 21, 28, 15, 29],
    "margin": [19, 11, 25, 30, 33, 9, 21, 28, 15, 29],
    "diversity": [32, 18, 28, 6, 31, 23, 12, 27, 25, 13],
    "hybrid": [19, 11, 25, 30, 33, 9, 21, 17, 31, 3],
    "random": [31, 32, 12, 8, 20, 16, 13, 7, 18, 10],
    "stratified_random": [28, 15, 5, 7, 22, 30, 21, 8, 23, 35],
    "core_set": [22, 32, 30, 8, 37, 9, 39, 10, 33, 19],
}
"""What the strategies chose before they were expressions."""


@pytest.mark.parametrize("name", PROTOCOL_CHOICES)
def test_strategies_choose_what_they_always_chose(name: str) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 30, 40) / 30
    labeled = np.sort(rng.choice(40, 6, replace=False))
    some = Candidates(
        indices=np.setdiff1d(np.arange(40), labeled),
        labeled=labeled,
        groups=["abc"[min(i % 7, 2)] for i in range(40)],
        signals=KnownSignals(scores, rng.normal(size=(40, 5))),
        rng=np.random.default_rng(0),
    )
    assert [choice.index for choice in select(name, some, 10)] == PROTOCOL_CHOICES[name]
