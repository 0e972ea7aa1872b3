from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoquery.data.layouts import SourceOptions, read_source
from cryoquery.data.orientation import best_orientation, orientation_contrast
from cryoquery.data.preprocess import draw_mask, normalize
from cryoquery.formats.placement import ORIENTATIONS, to_scaled

EXTENT = (200.0, 320.0)


def simulated(seed: int, sign: float = -1.0, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (200, 320)
    centers = rng.uniform(0, shape, (n, 2))
    image = rng.normal(size=shape) + sign * 0.8 * draw_mask(shape, centers, np.full(n, 14.0))
    return image.astype(np.float32), centers


def test_the_eight_are_all_different_and_named() -> None:
    points = np.array([[1.0, 5.0]])
    turned = {tuple(o.apply(points, (20.0, 20.0))[0]) for o in ORIENTATIONS}
    assert len(turned) == 8
    assert ORIENTATIONS[0].options == ""
    assert len({o.options for o in ORIENTATIONS}) == 8


def test_two_turns_make_one() -> None:
    points, extent = np.array([[1.0, 5.0], [7.0, 2.0]]), (20.0, 20.0)
    for first in ORIENTATIONS:
        for second in ORIENTATIONS:
            expected = second.apply(first.apply(points, extent), extent)
            np.testing.assert_array_equal(second.after(first).apply(points, extent), expected)


@pytest.mark.parametrize("at", range(8))
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_turned_labels_are_found_with_the_options_that_turn_them_back(at: int, sign: float) -> None:
    """Labels are turned so that orientation ``at`` puts them right; micrographs are not square."""
    contrasts = []
    for seed in range(4):
        image, centers = simulated(seed, sign)
        right = ORIENTATIONS[at]
        y = EXTENT[0] - 1 - centers[:, 0] if right.flip_y else centers[:, 0]
        x = EXTENT[1] - 1 - centers[:, 1] if right.flip_x else centers[:, 1]
        labels = np.column_stack([x, y] if right.swap_xy else [y, x])
        np.testing.assert_allclose(right.apply(labels, EXTENT), centers)
        contrasts.append(orientation_contrast(image, labels, 14.0))
    verdict = best_orientation(contrasts)
    assert verdict.best == ORIENTATIONS[at]
    assert verdict.finding == ("turned" if at else "fits")


def test_random_labels_are_undecided() -> None:
    for trial in range(10):
        rng = np.random.default_rng([9, trial])
        contrasts = [
            orientation_contrast(simulated(seed)[0], rng.uniform(0, EXTENT, (60, 2)), 14.0)
            for seed in range(4)
        ]
        assert best_orientation(contrasts).finding == "undecided"
    assert best_orientation([]).finding == "undecided"


def test_a_missing_strip_does_not_shift_the_turn() -> None:
    image, centers = simulated(1)
    labels = np.column_stack([EXTENT[0] - 1 - centers[:, 0], centers[:, 1]])
    scores = orientation_contrast(image[:180, :300], labels, 14.0, EXTENT)
    assert np.argmax(np.abs(scores)) == 1
    assert abs(scores[1]) > 8


def test_a_constant_image_has_no_contrast() -> None:
    assert not orientation_contrast(np.zeros((50, 50), np.float32), np.array([[20.0, 20.0]]), 10.0).any()


def contrasts_of(folder: Path, options: SourceOptions, n: int = 6) -> list[np.ndarray]:
    found = []
    for micrograph in read_source(folder, options).micrographs[:n]:
        diameter = float(np.median(micrograph.particles[:, 2]))
        scale = 12 / diameter
        image = normalize(micrograph.read(), scale).image
        found.append(orientation_contrast(image, to_scaled(micrograph.particles[:, :2], scale), 12.0))
    return found


@pytest.mark.realdata
@pytest.mark.parametrize("group", ["10017", "10028", "10146"])
def test_real_labels_fit_and_turned_ones_are_found(real_data: Path, group: str) -> None:
    folder = real_data / f"empiar_{group}"
    n = 3 if group == "10017" else 6
    for options, expected, remedy in (
        (SourceOptions(), "fits", ""),
        (SourceOptions(flip_y=True), "turned", "--flip-y"),
        (SourceOptions(swap_xy=True), "turned", "--swap-xy"),
    ):
        verdict = best_orientation(contrasts_of(folder, options, n))
        assert (verdict.finding, verdict.best.options) == (expected, remedy)


@pytest.mark.realdata
@pytest.mark.parametrize(("group", "expected"), [("10947", "undecided"), ("10146_noisy", "fits")])
def test_doubtful_and_noisy_sets_raise_no_false_alarm(real_data: Path, group: str, expected: str) -> None:
    assert best_orientation(contrasts_of(real_data / f"empiar_{group}", SourceOptions())).finding == expected
