from __future__ import annotations

import numpy as np
import pytest

from cryoquery.active.stopping import (
    Gain,
    Point,
    expected_gain,
    largest_change,
    points,
    sentence,
    should_stop,
)


def curve(n: list[int], asymptote: float, drop: float, exponent: float, std: float = 0.005) -> list[Point]:
    f1 = asymptote - drop * (np.array(n) / n[0]) ** -exponent
    return [Point(k, float(value), std) for k, value in zip(n, f1, strict=True)]


def test_nothing_is_said_from_one_point() -> None:
    assert expected_gain([Point(8, 0.5, 0.01)], 8) is None
    assert expected_gain([], 8) is None
    assert not should_stop([Point(8, 0.5, 0.01)], 8)


def test_a_rising_curve_goes_on_and_a_flat_one_ends() -> None:
    n = [8, 16, 24, 32]
    assert not should_stop(curve(n, 0.9, 0.5, 0.7), 8)
    assert should_stop(curve(n, 0.9, 0.0, 1.0), 8)
    assert should_stop(curve([8, 16, 32, 64, 128, 256], 0.9, 0.3, 1.5), 64)


@pytest.mark.parametrize(("drop", "exponent"), [(0.3, 0.5), (0.3, 1.0), (0.1, 1.5), (0.6, 1.0)])
def test_the_gain_of_a_power_law_is_found(drop: float, exponent: float) -> None:
    n = [8, 16, 24, 32, 40]
    gain = expected_gain(curve(n, 0.9, drop, exponent, std=0.002), 8)
    assert gain is not None
    true = drop * ((40 / 8) ** -exponent - (48 / 8) ** -exponent)
    assert abs(gain.mean - true) < 2 * gain.std + 0.002
    assert 0 <= gain.mean <= gain.all_mean


def test_gains_are_stated_with_honest_uncertainty() -> None:
    rng = np.random.default_rng(0)
    n = [8, 16, 24, 32]
    inside = []
    for _ in range(200):
        drop, exponent, noise = rng.uniform(0.02, 0.5), float(np.exp(rng.normal(0, 0.5))), 0.01
        true = curve([*n, 40], 0.9, drop, exponent, noise)
        seen = [Point(p.n_labeled, p.f1 + rng.normal(0, noise), noise) for p in true[:-1]]
        gain = expected_gain(seen, 8)
        assert gain is not None
        inside.append(abs(gain.mean - (true[-1].f1 - true[-2].f1)) <= 2 * gain.std)
    assert np.mean(inside) > 0.85


def test_more_labels_bring_more_and_less_is_left_later() -> None:
    seen = curve([8, 16, 24], 0.9, 0.4, 0.8)
    few, many = expected_gain(seen, 4), expected_gain(seen, 16)
    assert few is not None
    assert many is not None
    assert few.mean < many.mean
    assert few.p_enough >= many.p_enough


def test_models_that_agree_rule_out_steep_curves() -> None:
    unsure = [Point(8, 0.60, 0.05), Point(16, 0.70, 0.05)]
    alone = expected_gain(unsure, 8)
    agreeing = expected_gain(unsure, 8, [0.99])
    assert alone is not None
    assert agreeing is not None
    assert agreeing.mean < alone.mean
    assert agreeing.p_enough > alone.p_enough
    assert expected_gain(unsure, 8, [None]) == alone
    contradictory = expected_gain([Point(8, 0.1, 1e-3), Point(16, 0.9, 1e-3)], 8, [1.0])
    assert contradictory is not None
    assert np.isfinite(contradictory.mean)


def test_a_flat_curve_of_models_that_disagree_is_no_plateau() -> None:
    flat = curve([8, 16, 24, 32], 0.4, 0.0, 1.0)
    assert should_stop(flat, 8, [0.7, 0.8, 0.9])
    assert not should_stop(flat, 8, [0.9, 0.8, 0.7])
    assert should_stop(flat, 8, [0.7, 0.7, None]), "what was not measured holds nothing up"


def test_the_change_of_predictions_bounds_that_of_f1() -> None:
    rng = np.random.default_rng(1)
    truth = np.zeros(200, dtype=bool)
    truth[:100] = True
    for _ in range(200):
        first, second = (np.zeros(200, dtype=bool) for _ in range(2))
        first[rng.choice(200, 100, replace=False)] = True
        second[rng.choice(200, 100, replace=False)] = True
        f1 = [2 * (p & truth).sum() / (p.sum() + truth.sum()) for p in (first, second)]
        agreement = 2 * (first & second).sum() / 200
        assert abs(f1[0] - f1[1]) <= largest_change(agreement) + 1e-12


def test_what_all_models_find_hard_is_no_noise() -> None:
    rng = np.random.default_rng(2)
    hard = rng.uniform(0.2, 0.9, 20)
    same = points([8, 16, 24], hard + np.array([[0.0], [0.05], [0.07]]))
    mixed = points([8, 16, 24], hard + rng.normal(0, 0.1, (3, 20)))
    assert same[0].std < mixed[0].std / 2
    assert [p.f1 for p in same] == pytest.approx([hard.mean(), hard.mean() + 0.05, hard.mean() + 0.07])
    assert points([8, 16], [[0.5], [0.6]])[0].std > 0.01, "one micrograph says little"


def test_the_sentence_says_what_it_costs_and_brings() -> None:
    said = sentence(Gain(0.004, 0.005, 0.02, 0.3), 5, 40.0)
    assert said == "5 more micrographs (about 40 min) are expected to raise F1 by 0.4 ± 0.5 points"
    assert sentence(Gain(0.001, 0.001, 0.002, 0.9), 1, 3.0, "field") == (
        "1 more field (about 3 min) is expected to raise F1 by 0.1 ± 0.1 points; it may be time to stop"
    )
