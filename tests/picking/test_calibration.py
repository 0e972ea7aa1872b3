from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from cryoquery.picking.calibration import Calibration, expected_f1

SLOPES, OFFSETS = st.floats(0.1, 5), st.floats(-4, 4)


def drawn(n: int, slope: float, offset: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of n picks, and hits as a network makes them that is wrong by a line in log-odds."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(1, 2.5, n)
    return expit(log_odds), rng.random(n) < expit(slope * log_odds + offset)


@given(SLOPES, OFFSETS)
def test_the_order_stays_and_thresholds_are_found_again(slope: float, offset: float) -> None:
    calibration = Calibration(slope=slope, offset=offset)
    scores = np.linspace(0.01, 0.99, 50)
    chances = calibration.of(scores)
    assert (np.diff(chances) > 0).all()
    assert ((chances > 0) & (chances < 1)).all()
    assert calibration.raw(float(chances[20])) == pytest.approx(scores[20])


def test_scores_of_0_and_1_have_chances() -> None:
    low, high = Calibration(offset=-1).of(np.array([0.0, 1.0]))
    assert 0 < low < 0.001
    assert 0.99 < high < 1
    assert Calibration().raw(0.0) == 0.0
    assert Calibration().raw(1.0) == 1.0


@pytest.mark.parametrize(("slope", "offset"), [(0.4, -0.5), (1.0, 0.0), (2.0, -2.0)])
def test_of_picks_with_a_chance_of_80_percent_80_percent_are_right(slope: float, offset: float) -> None:
    calibration = Calibration.fitted(*drawn(3000, slope, offset))
    scores, hits = drawn(100_000, slope, offset, seed=1)
    chances = calibration.of(scores)
    for low in np.arange(0.05, 0.95, 0.1):
        some = (chances >= low) & (chances < low + 0.1)
        assert hits[some].mean() == pytest.approx(chances[some].mean(), abs=0.04)


def test_few_labels_change_little_and_none_nothing() -> None:
    nothing = Calibration.fitted(np.empty(0), np.empty(0, bool))
    assert (nothing.slope, nothing.offset) == pytest.approx((1, 0), abs=1e-3)
    for hits in ([True, True], [False, False], [True, False]):
        few = Calibration.fitted(np.array([0.9, 0.6]), np.array(hits))
        assert 0.4 < few.slope < 2
        assert abs(few.offset) < 1.5
    always = Calibration.fitted(np.full(500, 0.9), np.ones(500, bool))
    assert 0.97 < always.of(np.array([0.9]))[0] < 1


def test_expected_f1_is_the_one_that_comes_true() -> None:
    scores, hits = drawn(200_000, 1.0, 0.0)
    thresholds = np.array([0.0, 0.3, 0.5, 0.9, 1.0])
    expected = expected_f1(scores, thresholds)
    for threshold, value in zip(thresholds, expected, strict=True):
        chosen = scores >= threshold
        true = 2 * (hits & chosen).sum() / (chosen.sum() + hits.sum())
        assert value == pytest.approx(true, abs=0.01)
    assert expected_f1(np.empty(0), thresholds).tolist() == [0] * 5
