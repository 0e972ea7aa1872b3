from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score

from cryoquery.picking.metrics import (
    ParticleMatches,
    PixelCounts,
    match_particles,
    mean_particle_scores,
    ranked_matches,
)


def test_pixel_scores_against_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(20_000) < 0.2
    logits = rng.normal(0, 2, truth.shape) + truth
    counts = PixelCounts()
    for part in np.array_split(np.arange(len(truth)), 7):
        counts.add(logits[part], truth[part])
    scores = counts.scores()
    assert scores["f1"] == pytest.approx(f1_score(truth, logits >= 0))
    assert scores["iou"] == pytest.approx(jaccard_score(truth, logits >= 0))
    assert scores["auc"] == pytest.approx(roc_auc_score(truth, logits), abs=1e-5)
    assert scores["average_precision"] == pytest.approx(average_precision_score(truth, logits), abs=1e-4)


def test_auc_of_what_bfloat16_can_hold_is_exact() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(5_000) < 0.5
    logits = (rng.integers(-40, 40, truth.shape) / 8 + truth).astype(np.float32)
    counts = PixelCounts()
    counts.add(logits, truth)
    assert counts.scores()["auc"] == pytest.approx(roc_auc_score(truth, logits), abs=1e-12)


def test_auc_is_not_that_of_thresholded_masks() -> None:
    truth = np.array([False, False, True, True])
    logits = np.array([1.0, 2.0, 3.0, 4.0])
    counts = PixelCounts()
    counts.add(logits, truth)
    assert counts.scores()["auc"] == 1.0, "the ranking is perfect, though all four exceed the threshold"


def test_scores_without_any_pixel_of_a_class() -> None:
    counts = PixelCounts()
    counts.add(np.array([-1.0, -2.0]), np.array([False, False]))
    scores = counts.scores()
    assert (scores["f1"], scores["precision"], scores["recall"], scores["auc"]) == (0, 0, 0, 0.5)


def test_zero_and_minus_zero_and_overflow() -> None:
    counts = PixelCounts()
    counts.add(np.array([0.0, -0.0, 1e9, -1e9]), np.array([True, True, True, False]))
    assert counts.confusion() == (3, 0, 0, 1)


def brute_force(picks: np.ndarray, truth: np.ndarray, radius: float) -> tuple[int, float]:
    """Most pairs, then least total distance, over every assignment."""
    if len(picks) > len(truth):
        picks, truth = truth, picks
    best = (0, 0.0)
    for order in permutations(range(len(truth)), len(picks)):
        distances = [float(np.linalg.norm(p - truth[j])) for p, j in zip(picks, order, strict=True)]
        good = [d for d in distances if d <= radius]
        best = max(best, (len(good), -sum(good)))
    return best[0], -best[1]


points = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=6)


@settings(max_examples=150, deadline=None)
@given(points, points, st.sampled_from([1.0, 3.0, 5.5]))
def test_matching_is_the_best_assignment(p: list, t: list, radius: float) -> None:
    picks, truth = (np.array(x, dtype=float).reshape(-1, 2) for x in (p, t))
    found = match_particles(picks, truth, radius)
    n, total = brute_force(picks, truth, radius)
    assert found.n_matched == n
    assert found.distances_px.sum() == pytest.approx(total, abs=1e-6)
    assert len(set(found.pick_rows)) == len(set(found.truth_rows)) == n
    assert (found.distances_px <= radius).all()


def test_second_pick_on_a_particle_is_false() -> None:
    found = match_particles([[10, 10], [11, 10]], [[10, 10]], 5)
    assert (found.n_matched, found.precision, found.recall) == (1, 0.5, 1.0)


def test_macro_counts_a_micrograph_without_picks_as_missed() -> None:
    perfect = match_particles([[1, 1]], [[1, 1]], 2)
    missed = match_particles([], [[1, 1], [9, 9], [20, 20]], 2)
    empty = match_particles([], [], 2)
    scores = mean_particle_scores([perfect, missed, empty])
    assert scores["particle_f1"] == pytest.approx(0.5)
    assert scores["particle_f1_micro"] == pytest.approx(2 / 5)


def test_false_picks_on_an_empty_micrograph_cost_precision_not_recall() -> None:
    perfect, false = match_particles([[1, 1]], [[1, 1]], 2), match_particles([[5, 5]], [], 2)
    scores = mean_particle_scores([perfect, false])
    assert (scores["particle_precision"], scores["particle_recall"]) == (0.5, 1.0)


def test_a_broken_network_is_not_scored() -> None:
    with pytest.raises(ValueError, match="NaN"):
        PixelCounts().add(np.array([1.0, np.nan]), np.array([True, False]))


@pytest.mark.parametrize("wrong", [[[1, 2, 3]], [[np.nan, 1]], [1, 2]])
def test_wrong_points_are_refused(wrong: list) -> None:
    with pytest.raises(ValueError, match="picks_yx"):
        match_particles(wrong, [[1, 1]], 3)


def test_a_crowded_micrograph_is_matched() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 1000, (600, 2))
    found = match_particles(rng.permutation(truth + rng.normal(0, 2, truth.shape)), truth, 20)
    assert isinstance(found, ParticleMatches)
    assert found.recall > 0.99


def test_ranked_matches_add_up_to_match_particles_at_every_score() -> None:
    rng = np.random.default_rng(4)
    for _ in range(60):
        picks = rng.uniform(0, 30, (int(rng.integers(0, 25)), 2))
        truth = rng.uniform(0, 30, (int(rng.integers(0, 20)), 2))
        scores = rng.integers(0, 9, len(picks)).astype(float)
        hits = ranked_matches(picks, scores, truth, 5.0)
        for threshold in np.unique(scores):
            kept = scores >= threshold
            assert hits[kept].sum() == match_particles(picks[kept], truth, 5.0).n_matched


def test_ranked_matches_wants_a_score_for_each_pick() -> None:
    with pytest.raises(ValueError, match="1 for 2 picks"):
        ranked_matches([[0, 0], [1, 1]], [0.5], [[0, 0]], 1.0)
