from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cryoquery.report.statistics import (
    Difference,
    bootstrap_interval,
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
    assert d.bootstrap_over_seeds() is d.bootstrap_over_both() is None


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


@pytest.mark.parametrize(("n", "least"), [(3, 0.91), (5, 0.93), (10, 0.93), (30, 0.93)])
def test_coverage_over_seeds(n: int, least: float) -> None:
    rng = np.random.default_rng(n)
    inside = 0
    for _ in range(1000):
        interval = difference(rng.normal(0.7, 2, n)).bootstrap_over_seeds()
        assert interval is not None
        inside += interval.low <= 0.7 <= interval.high
    assert least <= inside / 1000 <= 0.97


def test_coverage_over_micrographs() -> None:
    """A mean over strata of known mean: 95 % of the intervals hold it."""
    rng = np.random.default_rng(5)
    strata = ["A"] * 8 + ["B"] * 5 + ["C"] * 7
    center = np.where(np.array(strata) == "A", 1.0, 3.0)
    weights = rao_wu_weights(strata, 1000) / len(strata)
    inside = 0
    for _ in range(1000):
        x = rng.normal(center, 0.5)
        interval = bootstrap_interval(float(x.mean()), weights @ x, len(strata) - 3)
        inside += interval.low <= center.mean() <= interval.high
    assert 0.93 <= inside / 1000 <= 0.97


@pytest.mark.parametrize("n_seeds", [6, 12])
def test_coverage_over_both(n_seeds: int) -> None:
    """Seeds and micrographs both vary; an interval over only one of them would cover far less."""
    rng = np.random.default_rng(6)
    weights = rao_wu_weights(["A"] * 12, 1000) / 12
    inside = {"both": 0, "test": 0, "seeds": 0}
    for _ in range(1500):
        micrographs, seeds = rng.normal(0, 1, 12), rng.normal(0, 0.3, n_seeds)
        d = difference(0.2 + micrographs.mean() + seeds, 0.2 + seeds[:, None] + weights @ micrographs, df=11)
        for name, interval in (
            ("both", d.bootstrap_over_both()),
            ("test", d.interval()),
            ("seeds", d.bootstrap_over_seeds()),
        ):
            assert interval is not None
            inside[name] += interval.low <= 0.2 <= interval.high
    assert 0.93 <= inside["test"] / 1500 <= 0.97
    assert 0.93 <= inside["both"] / 1500 <= 0.97
    assert inside["seeds"] / 1500 < 0.85


def test_seeds_and_micrographs_are_resampled_independently() -> None:
    """As many seeds as micrographs, effects that cancel: drawn alike they would cancel in every resample."""
    x = np.array([1.0, 2.0, 4.0, 7.0, 11.0])
    weights = rao_wu_weights(["A"] * 5) / 5
    d = difference(x - x.mean(), x[:, None] - (weights @ x)[None], df=4)
    interval = d.bootstrap_over_both()
    assert interval is not None
    assert interval.high - interval.low > 5
