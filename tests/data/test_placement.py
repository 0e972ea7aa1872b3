from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tiers import take, thorough

from cryoquery.data.placement import MAX_LOOKED_AT, check_placement, find_placement
from cryoquery.data.preprocess import draw_mask
from cryoquery.errors import DataError
from cryoquery.formats import read_coordinates, read_image
from cryoquery.formats.placement import ORIENTATIONS, Placement, to_scaled

SHAPE = (200, 320)


@cache
def simulated(name: str) -> tuple[np.ndarray, np.ndarray]:
    """An image of dark discs on noise, and their centers."""
    rng = np.random.default_rng(int(name))
    centers = rng.uniform(0, SHAPE, (60, 2))
    image = rng.normal(size=SHAPE) - 0.8 * draw_mask(SHAPE, centers, np.full(60, 14.0))
    return image.astype(np.float32), centers


def pixels(name: str) -> np.ndarray:
    return simulated(name)[0]


def as_in_file(centers: np.ndarray, placement: Placement) -> np.ndarray:
    """Coordinates that ``placement`` brings to ``centers``."""
    y, x = centers.T
    turn = placement.orientation
    y, x = SHAPE[0] - 1 - y if turn.flip_y else y, SHAPE[1] - 1 - x if turn.flip_x else x
    return to_scaled(np.column_stack([x, y] if turn.swap_xy else [y, x]), 1 / placement.scale)


@thorough
@pytest.mark.parametrize("turn", ORIENTATIONS, ids=lambda turn: turn.options or "as they are")
@pytest.mark.parametrize("scale", take([1.0, 1 / 3], [1.0, 0.25, 1 / 3, 2.0]))
def test_any_placement_is_found(turn: object, scale: float) -> None:
    right = Placement(turn, scale)
    picks = {name: as_in_file(simulated(name)[1], right) for name in ("1", "2")}
    for name in picks:
        np.testing.assert_allclose(right.apply(picks[name], SHAPE), simulated(name)[1])
    verdict = find_placement(picks, pixels)
    assert verdict.best == right
    assert verdict.finding == ("fits" if right == Placement() else "misplaced")
    placed = find_placement(picks, pixels, applied=right, diameter_px=14.0)
    assert (placed.finding, placed.best) == ("fits", right)


@pytest.mark.parametrize(("sign", "remedy"), [(1, "--origin corner"), (-1, "--origin center")])
def test_corners_taken_for_centers_are_found(sign: int, remedy: str) -> None:
    picks = {name: simulated(name)[1] - sign * 10.0 for name in ("1", "2")}
    with pytest.raises(DataError, match=f"use {remedy}, or --force"):
        check_placement(picks, pixels, diameter_px=14.0, box_px=20.0)
    right = {name: simulated(name)[1] for name in ("1", "2")}
    assert check_placement(right, pixels, diameter_px=14.0, box_px=20.0).finding == "fits"
    for wrong in (7.0, 28.0):
        check_placement(right, pixels, diameter_px=wrong, box_px=wrong)


@pytest.mark.parametrize("scale", [3838 / 1024, 0.7, 1 / 5])
def test_a_scale_that_is_no_usual_binning_is_found_to_a_percent(scale: float) -> None:
    picks = {name: as_in_file(simulated(name)[1], Placement(scale=scale)) for name in ("1", "2", "3")}
    verdict = find_placement(picks, pixels)
    assert verdict.finding == "misplaced"
    assert verdict.best.orientation == ORIENTATIONS[0]
    assert verdict.best.scale == pytest.approx(scale, rel=0.01)


def test_the_message_names_the_options_and_the_way_around_them() -> None:
    right = Placement(ORIENTATIONS[1], 0.25)
    picks = {"1": as_in_file(simulated("1")[1], right)}
    with pytest.raises(
        DataError, match=r"^a\.box: .* as they are .*; use --flip-y --scale 0\.25, or --force"
    ):
        check_placement(picks, pixels, source="a.box")
    with pytest.raises(DataError, match=r"with --flip-x .*; use --flip-y --scale 0\.25, or --force"):
        check_placement(picks, pixels, applied=Placement(ORIENTATIONS[2]))
    with pytest.raises(DataError, match=r"with --flip-x .*; leave out --flip-x, or --force"):
        check_placement({"1": simulated("1")[1]}, pixels, applied=Placement(ORIENTATIONS[2]))
    assert check_placement(picks, pixels, applied=right).finding == "fits"


def test_picks_that_say_nothing_raise_no_alarm() -> None:
    assert check_placement({}, pixels).finding == "undecided"
    assert check_placement({"1": np.empty((0, 2))}, pixels).finding == "undecided"
    wrong = as_in_file(simulated("1")[1], Placement(ORIENTATIONS[1]))
    assert check_placement({"1": wrong[:9]}, pixels).finding == "undecided"
    constant = np.ones(SHAPE, np.float32)
    assert check_placement({"1": simulated("1")[1]}, lambda _: constant).finding == "undecided"


@thorough
@pytest.mark.parametrize("n", take([10, 200], [10, 40, 200, 1000]))
def test_random_and_crowded_picks_raise_no_alarm(n: int) -> None:
    for trial in range(2):
        rng = np.random.default_rng([n, trial])
        scattered = {name: rng.uniform(0, SHAPE, (n, 2)) for name in ("1", "2")}
        assert check_placement(scattered, pixels).finding == "undecided"
        crowded = {name: rng.uniform(0.4, 0.6, (n, 2)) * SHAPE for name in ("1", "2")}
        assert check_placement(crowded, pixels).finding == "undecided"


def test_picks_outside_are_refused_even_if_nothing_fits() -> None:
    rng = np.random.default_rng(3)
    with pytest.raises(DataError, match=r"5\d% of the picks lie outside of the micrographs as they are"):
        check_placement({"1": rng.uniform(0, (200, 700), (60, 2))}, pixels)
    at_the_edge = np.vstack([simulated("1")[1], rng.uniform((-6, 0), (-1, 300), (30, 2))])
    assert check_placement({"1": at_the_edge}, pixels).finding == "fits"


def test_few_micrographs_are_read() -> None:
    read: list[str] = []

    def counted(name: str) -> np.ndarray:
        read.append(name)
        return pixels("1")

    picks = {f"{i:03d}": simulated("1")[1] for i in range(50)}
    assert find_placement(picks, counted).n_micrographs == MAX_LOOKED_AT
    assert len(read) == MAX_LOOKED_AT
    assert (read[0], read[-1]) == ("000", "049")


def reader(folder: Path) -> Callable[[str], np.ndarray]:
    """Micrographs of a folder by their stem."""
    found = {path.stem: path for path in (folder / "micrographs").iterdir()}
    return cache(lambda stem: read_image(found[stem]))


def centers(path: Path) -> np.ndarray:
    return np.asarray(read_coordinates(path).centers_yx)


@thorough
@pytest.mark.realdata
@pytest.mark.parametrize(
    "labels",
    take(
        ["casspper_star", "topaz_box"],
        ["casspper_star", "topaz_box", "crYOLO_box", "deeppicker_box", "picker_eval_star"],
    ),
)
def test_the_flip_of_other_pickers_is_found_in_each_file(real_data: Path, labels: str) -> None:
    folder = real_data / "empiar_10017"
    read = reader(folder)
    for path in sorted((folder / "second_labels" / labels).iterdir())[:2]:
        with pytest.raises(DataError, match="; use --flip-y, or --force"):
            check_placement({path.stem: centers(path)}, read, source=path.name)


@pytest.mark.realdata
def test_the_swap_and_the_binning_are_found(real_data: Path) -> None:
    path = real_data.parent / "formats" / "relion_star" / "cryo-emmae_10028_061_XYSWAPPED.star"
    if not path.is_file():
        pytest.skip(f"{path} is missing")
    verdict = find_placement({"061_10028": centers(path)}, reader(real_data / "empiar_10028"))
    assert (verdict.finding, verdict.best.options) == ("misplaced", "--swap-xy --flip-y --scale 0.25")


@thorough
@pytest.mark.realdata
@pytest.mark.parametrize(
    "group", take(["10028", "10947"], ["10017", "10028", "10146", "10146_noisy", "10947"])
)
def test_right_labels_raise_no_alarm_however_few(real_data: Path, group: str) -> None:
    folder = real_data / f"empiar_{group}"
    read = reader(folder)
    first, second = sorted((folder / "coordinates").iterdir())[:2]
    assert check_placement({first.stem: centers(first)[:10]}, read).finding in ("fits", "undecided")
    assert check_placement({first.stem: centers(first)}, read).finding == "fits"
    assert check_placement({second.stem: centers(second)[:50]}, read).finding == "fits"
