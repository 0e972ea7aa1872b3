"""Selections and the strategies of the literature, on cases small enough to know the answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from cryoquery.acquisition import diversity, select, typical
from cryoquery.acquisition.candidates import Candidates
from cryoquery.acquisition.image_scores import Signal
from cryoquery.acquisition.literature import k_means_plus_plus
from cryoquery.acquisition.selections import log_scores
from cryoquery.acquisition.strategies import STRATEGIES
from cryoquery.errors import ConfigError


class Told:
    """Numbers (n,) or vectors (n, c) for every signal, told by its key; others are made up."""

    def __init__(self, n: int, **values: np.ndarray) -> None:
        rng = np.random.default_rng(0)
        self.made_up = rng.random(n)
        self.vectors = rng.normal(size=(n, 4)).astype(np.float32)
        self.told = values

    def values(self, signal: Signal, indices: np.ndarray) -> np.ndarray:
        made_up = self.vectors if signal.key in ("features", "gradients") else self.made_up
        return self.told.get(signal.key, made_up)[indices]


def candidates(
    n: int = 40, labeled: tuple[int, ...] = (0, 1), seed: int = 0, progress: float = 0.0, **values: np.ndarray
) -> Candidates:
    known = np.array(labeled, dtype=np.int64)
    return Candidates(
        indices=np.setdiff1d(np.arange(n), known),
        labeled=known,
        groups=["ab"[i % 4 == 0] for i in range(n)],
        signals=Told(n, **values),
        rng=np.random.default_rng(seed),
        progress=progress,
    )


def chosen(strategy: str, some: Candidates, n: int) -> list[int]:
    return [choice.index for choice in select(strategy, some, n)]


EVERY = [
    "power(top_fraction(mutual_information('dihedral4')), beta=(0.5, 20))",
    "stratified(k_center)",
    "stratified(stratified(random), otherwise=clustered(random))",
    "clustered(power(foreground(entropy)), k=3)",
    "mix((0.2, random), (0.3, badge), (0.5, clue))",
    "mix(random, 0.5, typiclust)",
    "k_means(boundary(margin), shortlist=2)",
    "k_center(objects(entropy), shortlist=1.5)",
    "proportional(k_means, by=skill, power=4, otherwise=clustered(random))",
    "prefilter(k_means, skill('dihedral4'), share=0.3)",
    "proportional(random, by=skill, power=100)",
    "proportional(prefilter(random, skill), by=skill, otherwise=prefilter(clustered(random), skill))",
    "cost_aware(mean(entropy), seconds_per_image=0)",
    "stochastic_batch(mean(entropy), batches=7)",
    "prob_cover(purity=0.5)",
    *STRATEGIES,
]


@pytest.mark.parametrize("strategy", EVERY)
@pytest.mark.parametrize("n", [1, 9, 38])
def test_the_same_seed_gives_the_same_query_without_repeats(strategy: str, n: int) -> None:
    choices = select(strategy, candidates(), n)
    assert choices == select(strategy, candidates(), n)
    assert len({choice.index for choice in choices}) == n
    assert all(choice.reason for choice in choices)


@pytest.mark.parametrize("strategy", EVERY)
@pytest.mark.parametrize("value", [0.0, 1e-300, 0.3])
def test_networks_that_find_all_images_alike_are_no_trouble(strategy: str, value: float) -> None:
    some = candidates()
    some.signals.made_up[:] = value
    some.signals.vectors[:] = value
    assert len(set(chosen(strategy, some, 9))) == 9


@pytest.mark.parametrize("strategy", EVERY)
def test_more_than_there_are_is_refused(strategy: str) -> None:
    with pytest.raises(ConfigError, match="a query of 39 images: only 38 are unlabeled"):
        select(strategy, candidates(), 39)


def test_one_group_cannot_be_stratified() -> None:
    some = replace(candidates(), groups=["a"] * 40)
    for strategy in ("stratified_random", "stratified(top(mean(entropy)))"):
        with pytest.raises(ConfigError, match="belong to one group; use clustered"):
            select(strategy, some, 3)
    assert len(chosen("stratified(random, otherwise=random)", some, 3)) == 3
    assert len(chosen("auto", some, 3)) == 3


def test_which_strategies_are_the_same_in_disguise() -> None:
    """For the table in docs/acquisition.md: same images, whatever the scores."""
    same = [
        ("margin", "uncertainty"),
        ("power(mean(entropy), beta=1e9)", "top(mean(entropy))"),
        ("k_means(mean(entropy), shortlist=1e-9)", "top(mean(entropy))"),
        ("top(per_minute(mean(entropy), seconds_per_particle=0))", "top(mean(entropy))"),
        ("mix((1, top(mean(entropy))))", "top(mean(entropy))"),
        ("clustered(top(mean(entropy)), k=1)", "top(mean(entropy))"),
        ("prefilter(top(mean(entropy)), mean(entropy), 0.5)", "top(mean(entropy))"),
        ("prefilter(top(mean(entropy)), mean(margin), 1)", "top(mean(entropy))"),
        ("stochastic_batch(mean(entropy), batches=1)", "stochastic_batch(mean(margin), batches=1)"),
    ]
    for first, second in same:
        for seed in range(5):
            values = {"entropy": np.random.default_rng(seed).random(40)}
            values["least_confidence"] = values["entropy"] ** 2
            values["margin"] = 2 * values["least_confidence"]
            one, other = (set(chosen(text, candidates(seed=seed, **values), 8)) for text in (first, second))
            assert one == other, (first, second)


def test_power_draws_in_proportion_to_powers_of_the_scores() -> None:
    """Gumbel noise on log scores: P(first) is score^beta over its sum (Kirsch et al. 2021, § 3)."""
    scores = np.array([1.0, 2.0, 3.0, 6.0])
    for beta in (1.0, 2.0):
        some = candidates(4, labeled=(), entropy=scores)
        strategy = f"power(mean(entropy), beta={beta}, standardize=False)"
        first = Counter(chosen(strategy, some, 1)[0] for _ in range(4000))
        expected = scores**beta / (scores**beta).sum()
        found = np.array([first[i] for i in range(4)]) / 4000
        assert np.abs(found - expected).max() < 0.04


def test_power_is_deaf_to_the_spread_of_scores_once_standardized() -> None:
    scores = np.random.default_rng(3).random(40) + 0.5
    squeezed = scores**0.01
    query = [chosen("power(mean(entropy))", candidates(entropy=values), 8) for values in (scores, squeezed)]
    assert query[0] == query[1]


def test_noise_fades_with_a_schedule() -> None:
    scores = np.random.default_rng(0).random(40)
    best = set(chosen("entropy", candidates(entropy=scores), 8))
    overlaps = []
    for progress in (0.0, 1.0):
        drawn = [candidates(seed=seed, progress=progress, entropy=scores) for seed in range(20)]
        overlaps.append(
            np.mean(
                [len(best & set(chosen("power(mean(entropy), beta=(0.1, 100))", one, 8))) for one in drawn]
            )
        )
    assert overlaps[0] < 4 < 7 < overlaps[1]


def test_log_scores_are_finite() -> None:
    assert log_scores(np.array([0.0, 1e-30, 1.0])).tolist() == pytest.approx([np.log(1e-6), np.log(1e-6), 0])
    assert log_scores(np.zeros(3)).tolist() == [0, 0, 0]


def test_stratified_takes_the_best_of_each_group() -> None:
    scores = np.arange(40, dtype=float)
    query = chosen("stratified_entropy", candidates(entropy=scores), 6)
    assert sorted(query) == [28, 32, 36, 37, 38, 39]


def test_allotted_makes_up_for_what_is_labeled() -> None:
    # Group b: every fourth image from the first, 10 of 40; both labeled images are of it.
    query = chosen("proportional(random)", candidates(labeled=(0, 4)), 6)
    assert Counter("ab"[i % 4 == 0] for i in query) == {"a": 4, "b": 2}


def test_allotted_follows_its_score() -> None:
    skill = np.where(np.arange(40) % 4 == 0, 0.9, 0.3)
    for power, in_b in ((1, 9), (2, 10)):  # 3 to 1, and 9 to 1, of twelve; b has only ten
        query = chosen(
            f"proportional(random, by=skill, power={power})", candidates(labeled=(), skill=skill), 12
        )
        assert sum(i % 4 == 0 for i in query) == in_b
    # A group that nothing is known of still gets its eleventh part; odds within a group follow the score.
    query = chosen("auto", candidates(labeled=(), skill=np.where(np.arange(40) % 4 == 0, 0.0, 0.3)), 11)
    assert sum(i % 4 == 0 for i in query) == 1
    odds = Counter()
    skill = np.where(np.arange(40) < 20, 0.1, 0.3)
    for seed in range(300):
        odds.update(i < 20 for i in chosen("auto", candidates(labeled=(), seed=seed, skill=skill), 2))
    assert odds[True] / odds.total() == pytest.approx(0.25, abs=0.05)
    with pytest.raises(ConfigError, match="one group"):
        chosen("proportional(random)", replace(candidates(), groups=["a"] * 40), 3)
    assert (
        len(chosen("proportional(random, otherwise=random)", replace(candidates(), groups=["a"] * 40), 3))
        == 3
    )


def test_clustered_takes_from_each_cluster() -> None:
    rng = np.random.default_rng(0)
    cluster_of = np.minimum(np.arange(40) // 4, 3)  # 4, 4, 4 and 28 images
    features = 50 * np.eye(4)[cluster_of] + rng.normal(size=(40, 4))
    scores = rng.random(40)
    some = candidates(labeled=(), entropy=scores, features=features)
    query = chosen("clustered(top(mean(entropy)), k=4)", some, 8)
    assert Counter(cluster_of[query]) == {0: 2, 1: 2, 2: 2, 3: 2}
    for cluster in range(4):
        members = np.flatnonzero(cluster_of == cluster)
        best = set(members[np.argsort(-scores[members])[:2]])
        assert {i for i in query if cluster_of[i] == cluster} == best
    skill = np.where(cluster_of == 3, 0.6, 0.1)
    some = candidates(labeled=(0, 12, 13), skill=skill, features=features)
    query = chosen("clustered(random, k=4, by=skill)", some, 6)
    assert Counter(cluster_of[[0, 12, 13, *query]]) == {0: 1, 1: 1, 2: 1, 3: 6}


def test_mix_rounds_shares_and_leaves_out_what_is_taken() -> None:
    scores = np.arange(40, dtype=float)
    some = candidates(entropy=scores, margin=scores)
    query = chosen("mix((0.25, top(mean(entropy))), (0.25, top(mean(margin))), (0.5, random))", some, 10)
    assert query[:5] == [39, 38, 37, 36, 35]
    assert len(set(query)) == 10
    assert chosen("mix(top(mean(entropy)), 0.25, random)", candidates(entropy=scores), 10)[:3] == [39, 38, 37]


def test_the_shortlist_holds_the_highest_scores() -> None:
    scores = np.random.default_rng(1).random(40)
    best = set(chosen("entropy", candidates(entropy=scores), 8))
    for selection in ("k_means", "k_center"):
        query = chosen(f"{selection}(mean(entropy), shortlist=2)", candidates(entropy=scores), 4)
        assert set(query) <= best


def test_among_leaves_out_what_scores_low() -> None:
    scores = np.arange(40, dtype=float)
    some = candidates(entropy=scores)
    assert set(chosen("prefilter(random, mean(entropy), 0.25)", some, 9)) <= set(range(30, 40))
    assert set(chosen("prefilter(random, mean(entropy), 0.25)", some, 10)) == set(range(30, 40))
    assert set(chosen("prefilter(random, mean(entropy), 0.25)", some, 12)) == set(range(28, 40))


def test_cost_is_counted_in_minutes() -> None:
    scores, n = np.array([4.0, 4.0, 1.0]), np.array([100.0, 10.0, 0.0])
    told = {"entropy": scores, "n_particles": n}
    assert chosen("cost_aware(mean(entropy))", candidates(3, (), **told), 3) == [1, 2, 0]
    ((best, *_),) = ([c.score for c in select("cost_aware(mean(entropy))", candidates(3, (), **told), 1)],)
    assert best == pytest.approx(4 / ((60 + 20) / 60))
    free = "cost_aware(mean(entropy), seconds_per_image=0)"
    assert chosen(free, candidates(3, (), **told), 3) == [2, 1, 0]


def test_k_means_plus_plus_draws_by_squared_distance() -> None:
    """After the longest vector: P of each other row by hand (Arthur & Vassilvitskii 2007)."""
    points = np.array([[10.0, 0.0], [0.0, 0.0], [10.0, 0.0], [9.0, 0.0], [4.0, 0.0]])
    second = Counter(k_means_plus_plus(points, 2, np.random.default_rng(i))[1] for i in range(3000))
    weights = (points[:, 0] - 10) ** 2
    found = np.array([second[i] for i in range(5)]) / 3000
    assert found == pytest.approx(weights / weights.sum(), abs=0.03)
    assert sorted(k_means_plus_plus(points, 5, np.random.default_rng(0))) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"expected .m, c. finite values"):
        k_means_plus_plus(points, 6, np.random.default_rng(0))


def test_badge_starts_with_the_longest_gradient_and_spreads() -> None:
    gradients = np.repeat(np.eye(4) * 5, 10, axis=0) + np.random.default_rng(0).normal(size=(40, 4)) * 0.01
    gradients[17] *= 1.1
    query = chosen("badge", candidates(labeled=(), gradients=gradients), 4)
    assert query[0] == 17
    assert {i // 10 for i in query} == {0, 1, 2, 3}


def test_clue_follows_the_weights() -> None:
    """One cluster: its weighted mean is nearest to the image that all weight lies on."""
    features = np.arange(10, dtype=np.float64)[:, None]
    for heavy in (2, 7):
        weights = np.where(np.arange(10) == heavy, 1.0, 1e-9)
        assert chosen("clue", candidates(10, (), features=features, entropy=weights), 1) == [heavy]
        assert chosen("clue(skill)", candidates(10, (), features=features, skill=weights), 1) == [heavy]
    even = chosen(
        "clue", candidates(features=np.random.default_rng(0).normal(size=(40, 3)), entropy=np.ones(40)), 6
    )
    plain = chosen("diversity", candidates(features=np.random.default_rng(0).normal(size=(40, 3))), 6)
    assert even == plain, "with equal weights it is diversity"


def test_of_stochastic_batches_the_best_is_taken() -> None:
    scores = np.random.default_rng(0).random(40)
    some = candidates(entropy=scores)
    order = np.random.default_rng(0).permutation(38)
    batches = [some.indices[order[i : i + 9]] for i in range(0, 36, 9)]
    best = max(batches, key=lambda batch: scores[batch].mean())
    assert set(chosen("stochastic_batches", some, 9)) == set(best.tolist())


def test_clasp_pe_is_two_thirds_foreground() -> None:
    told = {
        "foreground(entropy@dihedral)": np.arange(40.0) ** 9,
        "entropy@dihedral": np.arange(40.0)[::-1] ** 9,
    }
    query = chosen("clasp_pe", candidates(progress=1.0, **told), 9)
    assert set(query) == {39, 38, 37, 36, 35, 34, 2, 3, 4}


@pytest.mark.parametrize("pretrained", [False, True])
def test_cold_starts_look_at_learned_features_where_there_are_some(pretrained: bool) -> None:
    own, learned = (np.random.default_rng(i).normal(size=(40, 4)).astype(np.float32) for i in (1, 2))
    some = candidates(features=own)
    if pretrained:
        some = replace(some, learned=lambda: learned)
    seen = learned if pretrained else own
    rows = typical.typiclust(seen[some.indices], seen[some.labeled], 5, np.random.default_rng(0))
    assert chosen("typiclust", some, 5) == some.indices[rows].tolist()
    points, labeled = seen[some.indices], seen[some.labeled]
    radius = typical.purity_radius(points, 7, np.random.default_rng(0))
    rows = typical.prob_cover(points, labeled, 5, radius)
    some = replace(some, rng=np.random.default_rng(0))
    assert chosen("prob_cover", some, 5) == some.indices[rows].tolist()


def test_clusters_of_a_sample_serve_all() -> None:
    rng = np.random.default_rng(0)
    points = 30 * np.eye(3)[np.arange(300) % 3] + rng.normal(size=(300, 3))
    found = diversity.clusters(points, 3, np.random.default_rng(1), sample=50)
    assert [len(set(found[i::3])) for i in range(3)] == [1, 1, 1]
    assert len(set(found)) == 3
    assert cdist(points[:3], points[:3]).max() > 20
