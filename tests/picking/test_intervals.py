from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryoquery.picking.intervals import (
    Interval,
    interval_of_difference,
    interval_of_mean,
    interval_of_ratio,
    limits,
    limits_of_difference,
)

NUMBERS = (3, 5, 8, 20)
N_TIMES = 2000
LEAST, MOST = 0.92 - 0.01, 0.98 + 0.01
"""92 to 98 %, and two standard errors of a coverage found in so many samples."""
F1 = ((0.6, 0.2), (0.75, 0.1), (0.85, 0.03), (0.9, 0.09), (0.95, 0.03), (0.97, 0.029))
"""(mean, standard deviation) of F1 over micrographs."""
SKEWED = ((0.9, 0.2), (0.95, 0.1))
"""More than half of the micrographs are all but perfect, some are anything."""


def draw(
    rng: np.random.Generator, shape: tuple[int, ...], mean: float, std: float
) -> tuple[np.ndarray, np.ndarray]:
    """Twice the matched particles, and picks and particles together, of micrographs of many sizes."""
    n = mean * (1 - mean) / std**2 - 1
    n_particles = rng.integers(5, 301, shape)
    quality = rng.beta(mean * n, (1 - mean) * n, shape)
    n_matched, n_false = rng.binomial(n_particles, quality), rng.binomial(n_particles, 1 - quality)
    return 2.0 * n_matched, (n_particles + n_matched + n_false).astype(float)


def held(found: tuple[np.ndarray, np.ndarray], truth: float) -> float:
    low, high = found
    given = ~np.isnan(low)
    return float(((low <= truth) & (truth <= high))[given].mean())


@pytest.mark.parametrize("m", NUMBERS)
@pytest.mark.parametrize(("mean", "std"), F1)
def test_the_mean_over_micrographs(m: int, mean: float, std: float) -> None:
    """F1 of picks, and that of a person with oneself over blind repeats."""
    rng = np.random.default_rng([m, round(1000 * mean)])
    above, below = draw(rng, (N_TIMES + 40_000 // m, m), mean, std)
    scores = above / below
    found = limits(scores[:N_TIMES], np.ones((N_TIMES, m)))
    assert LEAST <= held(found, float(scores.mean())) <= MOST


@pytest.mark.parametrize("m", NUMBERS)
@pytest.mark.parametrize(("mean", "std"), F1)
def test_the_pooled_f1_of_micrographs_of_unequal_size(m: int, mean: float, std: float) -> None:
    rng = np.random.default_rng([m, round(1000 * mean)])
    above, below = draw(rng, (N_TIMES + 40_000 // m, m), mean, std)
    truth = float(above.sum() / below.sum())
    assert LEAST <= held(limits(above[:N_TIMES], below[:N_TIMES]), truth) <= MOST


@pytest.mark.parametrize("m", NUMBERS)
@pytest.mark.parametrize(("mean", "std"), F1)
def test_the_difference_of_two_samples(m: int, mean: float, std: float) -> None:
    """Of labels that were shown with suggestions, and without."""
    rng = np.random.default_rng([m, round(1000 * mean)])
    one, other = (a / b for a, b in (draw(rng, (N_TIMES, m), mean, std) for _ in range(2)))
    assert LEAST <= held(limits_of_difference(one, other), 0.0) <= MOST


@pytest.mark.parametrize("m", NUMBERS)
@pytest.mark.parametrize(("mean", "std"), SKEWED)
def test_where_most_micrographs_are_perfect_the_mean_is_held_as_often(
    m: int, mean: float, std: float
) -> None:
    rng = np.random.default_rng([m, round(1000 * mean)])
    above, below = draw(rng, (N_TIMES + 40_000 // m, m), mean, std)
    scores = above / below
    found = limits(scores[:N_TIMES], np.ones((N_TIMES, m)))
    assert held(found, float(scores.mean())) >= 0.9, "92 %, less what 2000 samples miss"


def test_percentiles_of_a_bootstrap_are_far_too_narrow() -> None:
    """What projects had: this test would find it."""
    rng = np.random.default_rng(0)
    above, below = draw(rng, (500, 3), 0.75, 0.1)
    drawn = (above / below)[:, rng.integers(3, size=(400, 3))].mean(axis=-1)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=-1)
    assert held((low, high), float((above / below).mean())) < 0.85


@pytest.mark.parametrize("scores", [[], [0.5], [0.5, 0.6], [1.0] * 8, [0.0] * 5, [0.7] * 4])
def test_too_few_or_equal_scores_have_no_interval(scores: list[float]) -> None:
    assert interval_of_mean(scores) is None
    assert interval_of_ratio(scores, np.ones(len(scores))) is None
    assert interval_of_difference(scores, [0.1, 0.5, 0.7, 0.9]) is None
    assert interval_of_difference([0.1, 0.5, 0.7, 0.9], scores) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1000)), max_size=8))
def test_intervals_lie_within_what_is_possible_and_hold_the_estimate(parts: list[tuple[float, int]]) -> None:
    below = np.array([n for _, n in parts], dtype=float)
    scores = np.array([score for score, _ in parts], dtype=float)
    above = np.rint(scores * below)
    for found, estimate in (
        (interval_of_ratio(above, below), above.sum() / max(below.sum(), 1)),
        (interval_of_mean(scores), scores.mean() if len(scores) else math.nan),
    ):
        assert found is None or 0 <= found.low <= estimate <= found.high <= 1
    difference = interval_of_difference(scores, [0.2, 0.9, 0.95])
    assert difference is None or -1 <= difference.low <= difference.high <= 1


def of_complement(found: Interval | None) -> Any:
    assert found is not None
    return pytest.approx((1 - found.high, 1 - found.low))


def test_symmetries() -> None:
    scores = np.array([0.5, 0.9, 0.8, 0.97])
    below = np.array([10.0, 200.0, 30.0, 70.0])
    found = interval_of_ratio(scores * below, below)
    assert found is not None
    low_high = (found.low, found.high)
    assert low_high == of_complement(interval_of_ratio((1 - scores) * below, below)), "errors for scores"
    assert interval_of_ratio(1000 * scores * below, 1000 * below) == Interval(*map(pytest.approx, low_high))
    padded = interval_of_ratio([*(scores * below), 0], [*below, 0])
    assert padded == found, "a micrograph without anything"
    assert interval_of_mean(scores) == interval_of_ratio(scores, np.ones(4))


def test_it_is_the_t_interval_where_scores_are_many_and_near_the_middle() -> None:
    scores = np.random.default_rng(1).normal(0.5, 0.02, 60)
    found = interval_of_mean(scores)
    assert found is not None
    half = 2.0 * scores.std(ddof=1) / 60**0.5
    assert (found.low, found.high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=5e-4)
