from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cryoquery.report.statistics import (
    Difference,
    detectable_difference,
    holm,
    rao_wu_weights,
    smallest_wilcoxon_p,
    wilcoxon,
)


def difference(values: np.ndarray, over_micrographs: np.ndarray | None = None, df: int = 0) -> Difference:
    return Difference(tuple(range(len(values))), np.asarray(values, float), over_micrographs, df)


def test_without_micrographs_it_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 10):
        a, b = rng.normal(0.5, 1, n), rng.normal(0, 1, n)
        d = difference(a - b)
        assert d.p_two_sided() == pytest.approx(stats.ttest_rel(a, b).pvalue)
        assert d.p_above() == pytest.approx(stats.ttest_rel(a, b, alternative="greater").pvalue)
        assert d.p_below() == pytest.approx(stats.ttest_rel(a, b, alternative="less").pvalue)
        assert d.p_above(0.3) == pytest.approx(stats.ttest_1samp(a - b, 0.3, alternative="greater").pvalue)
        interval, expected = d.interval(), stats.ttest_rel(a, b).confidence_interval()
        assert interval is not None
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_both_variances_count() -> None:
    """Welch's test on two samples has the same formula: one sample's variance is the other source's."""
    rng = np.random.default_rng(1)
    seeds, micrographs = rng.normal(0.3, 1, 6), rng.normal(0, 2, 9)
    # Replicates whose variance is that of the mean of the nine.
    replicates = rng.normal(0, 1, 5000)
    replicates *= micrographs.std(ddof=1) / 3 / replicates.std(ddof=1)
    d = difference(seeds, np.tile(replicates, (6, 1)), df=8)
    shifted = micrographs - micrographs.mean()
    expected = stats.ttest_ind(seeds, shifted, equal_var=False)
    assert d.df == pytest.approx(expected.df)
    alone = stats.ttest_1samp(seeds, 0).pvalue
    assert d.p_two_sided() == pytest.approx(max(expected.pvalue, alone)), "micrographs never help"


def test_one_seed_tests_nothing() -> None:
    d = difference(np.array([0.4]))
    assert d.mean == 0.4
    assert d.p_above() is d.p_below() is d.p_two_sided() is d.interval() is d.std is None
    assert d.interval_over_seeds() is d.interval_over_micrographs() is None


@pytest.mark.parametrize(("value", "p"), [(0.02, 0.0), (0.0, 1.0), (-0.02, 1.0)])
def test_differences_without_any_spread(value: float, p: float) -> None:
    assert difference(np.full(4, value)).p_above() == p


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_closed_testing_of_bonferroni(p_values: list[float]) -> None:
    """A hypothesis falls when every intersection that it is in falls: the slow definition."""
    n = len(p_values)
    for i, adjusted in enumerate(holm(p_values)):
        subsets = (s for k in range(1, n + 1) for s in itertools.combinations(range(n), k) if i in s)
        slow = max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets)
        assert adjusted == pytest.approx(slow)


def test_wilcoxon() -> None:
    rng = np.random.default_rng(2)
    for n in (3, 5, 8):
        d = rng.normal(0.2, 1, n)
        assert wilcoxon(d) == pytest.approx(stats.wilcoxon(d).pvalue)
        signs = np.array(list(itertools.product((-1, 1), repeat=n)))
        ranks = stats.rankdata(np.abs(d))
        every = signs @ ranks
        slow = np.mean(np.abs(every) >= abs(np.sign(d) @ ranks) - 1e-9)
        assert wilcoxon(d) == pytest.approx(slow), "all 2ⁿ signs"
        assert wilcoxon(np.abs(d)) == pytest.approx(smallest_wilcoxon_p(n))
    assert wilcoxon(np.zeros(4)) is None
    assert smallest_wilcoxon_p(3) == 0.25


@pytest.mark.parametrize(("n", "effect"), [(3, 3.3), (5, 1.7), (10, 1.0)])
def test_detectable_difference(n: int, effect: float) -> None:
    found = detectable_difference(1.0, n)
    assert found == pytest.approx(effect, abs=0.05)
    critical = stats.t.ppf(0.975, n - 1)
    assert stats.nct.sf(critical, n - 1, found * np.sqrt(n)) == pytest.approx(0.8, abs=1e-4)
    assert detectable_difference(0.02, n) == pytest.approx(0.02 * found)


def test_a_test_of_one_pair_detects_nothing() -> None:
    with pytest.raises(ValueError, match="n=1: a paired test needs at least 2 pairs"):
        detectable_difference(1.0, 1)


def test_weights_keep_strata_and_variance() -> None:
    strata = ["A", "A", "A", "B", "C", "C"]
    weights = rao_wu_weights(strata, 40_000)
    for name, size in (("A", 3), ("B", 1), ("C", 2)):
        rows = [i for i, s in enumerate(strata) if s == name]
        assert np.allclose(weights[:, rows].sum(axis=1), size)
    x = np.array([1.0, 2.0, 6.0, 5.0, 3.0, 4.0])
    # Variance of a total over strata, by the textbook: sum of m × the sample variance.
    expected = 3 * x[:3].var(ddof=1) + 2 * x[4:].var(ddof=1)
    assert (weights @ x).var() == pytest.approx(expected, rel=0.03)
    assert np.array_equal(weights, rao_wu_weights(strata, 40_000)), "the same every time"


def covered(
    rng: np.random.Generator, n: int, n_seeds: int, seed_std: float, truth: float, n_times: int
) -> dict[str, float]:
    """How often intervals hold the ``truth``, a difference of pooled F1, which micrographs and seeds vary."""
    inside = {"both": 0, "seeds": 0, "micrographs": 0}
    resamples = rao_wu_weights(["A"] * n, 400)
    for _ in range(n_times):
        pixels = rng.uniform(5, 300, n)
        of_micrographs = truth + rng.normal(0, 0.03, n)
        of_seeds = rng.normal(0, seed_std, n_seeds)
        weights = resamples * pixels
        drawn = (weights / weights.sum(axis=1, keepdims=True)) @ of_micrographs
        d = difference(of_seeds + pixels @ of_micrographs / pixels.sum(), of_seeds[:, None] + drawn, df=n - 1)
        intervals = (d.interval(), d.interval_over_seeds(), d.interval_over_micrographs())
        for name, interval in zip(inside, intervals, strict=True):
            assert interval is not None
            inside[name] += interval.low <= truth <= interval.high
    return {name: count / n_times for name, count in inside.items()}


@pytest.mark.parametrize("n", [3, 5, 8, 20])
@pytest.mark.parametrize("n_seeds", [3, 5])
def test_intervals_over_seeds_and_micrographs_hold_the_truth(n: int, n_seeds: int) -> None:
    rng = np.random.default_rng([n, n_seeds])
    found = covered(rng, n, n_seeds, seed_std=0.01, truth=0.02, n_times=800)
    # 800 repetitions miss a true coverage by up to 0.02.
    assert 0.92 - 0.01 <= found["both"] <= 0.98 + 0.01


@pytest.mark.parametrize("n", [3, 5, 8, 20])
def test_intervals_over_one_source_hold_the_truth_where_it_is_the_only_one(n: int) -> None:
    rng = np.random.default_rng(n)
    found = covered(rng, n, 3, seed_std=1e-6, truth=0.02, n_times=800)
    assert 0.92 - 0.01 <= found["micrographs"] <= 0.98 + 0.01
    assert found["seeds"] < 0.2, "the micrographs vary"
    draws = rng.normal(0.7, 2, (800, n))
    intervals = [difference(row).interval_over_seeds() for row in draws]
    assert 0.92 <= np.mean([i is not None and i.low <= 0.7 <= i.high for i in intervals]) <= 0.98
