from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import make_dataset
from sklearn.metrics import average_precision_score

from cryoquery.errors import ConfigError, DataError
from cryoquery.formats import Picks, write_coordinates, write_micrograph
from cryoquery.formats.placement import Placement
from cryoquery.formats.reading import Reading
from cryoquery.picking.comparison import (
    PickFile,
    compare_picks,
    evaluate_picks,
    format_table,
    read_comparison,
)
from cryoquery.picking.comparison.output import write_agreement
from cryoquery.picking.comparison.scores import Agreement, average_precision, precision_recall
from cryoquery.picking.metrics import match_particles

SHAPE = (400, 500)


def spread_points(rng: np.random.Generator, n: int) -> np.ndarray:
    """Points on a loose grid, so that each has its own surroundings."""
    grid = np.stack(np.meshgrid(np.arange(25, 375, 50), np.arange(25, 475, 50), indexing="ij"), -1)
    points = grid.reshape(-1, 2) + rng.uniform(-5, 5, (grid.size // 2, 2))
    return rng.permutation(points)[:n]


def write_truth(
    folder: Path, names: list[str], rng: np.random.Generator, n: int = 30
) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    truth = {name: spread_points(rng, n) for name in names}
    for name, points in truth.items():
        write_coordinates(folder / f"{name}.csv", np.column_stack([points, np.full(n, 40.0)]))
    return truth


def write_star(path: Path, picks: dict[str, np.ndarray], scores: dict[str, np.ndarray] | None = None) -> Path:
    points = np.concatenate(list(picks.values()))
    names = [f"{name}.mrc" for name, rows in picks.items() for _ in rows]
    all_scores = None if scores is None else np.concatenate(list(scores.values()))
    write_coordinates(path, Picks.of(points, micrograph=names, scores=all_scores))
    return path


def test_known_answers(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "t", ["a", "b"], np.random.default_rng(0))
    picks = {"a": truth["a"][:24] + 3, "b": np.vstack([truth["b"][:10], truth["b"][:5] + 1])}
    star = write_star(tmp_path / "p.star", picks)
    scores = evaluate_picks(read_comparison(PickFile(star), tmp_path / "t")).overall
    assert (scores["n_picks"], scores["n_particles"], scores["n_matched"]) == (39, 60, 34)
    assert scores["precision_macro"] == pytest.approx((1 + 10 / 15) / 2), "second picks are false"
    assert scores["recall_micro"] == pytest.approx(34 / 60)
    assert scores["f1_micro"] == pytest.approx(2 * 34 / 99)
    assert scores["average_precision"] is None, "the picks have no scores"


@pytest.mark.parametrize(("radius", "matched"), [("0.5d", 30), ("10px", 20), ("12A", 10), ("0.11d", 10)])
def test_the_radius(tmp_path: Path, radius: str, matched: int) -> None:
    truth = write_truth(tmp_path / "t", ["a"], np.random.default_rng(1))["a"]
    off = np.repeat([4.0, 8.0, 15.0], 10)
    star = write_star(tmp_path / "p.star", {"a": truth + np.column_stack([off, np.zeros(30)])})
    comparison = read_comparison(PickFile(star), tmp_path / "t", pixel_size=2.0)
    assert evaluate_picks(comparison, radius).overall["n_matched"] == matched


def test_average_precision_against_scikit_learn_and_by_definition() -> None:
    rng = np.random.default_rng(2)
    truth = spread_points(rng, 40)
    picks = np.vstack([truth[:30] + rng.normal(0, 2, (30, 2)), rng.uniform(0, 400, (60, 2))])
    scores = np.round(rng.random(90), 1)
    scores[:30] = np.round(scores[:30] * 0.7 + 0.3, 1)
    compared = compare_picks("m", picks, scores, truth, 20)
    curve = precision_recall([compared])
    assert curve is not None
    for threshold, precision, recall in zip(curve.thresholds, curve.precision, curve.recall, strict=True):
        match = match_particles(picks[scores >= threshold], truth, 20)
        assert (precision, recall) == pytest.approx((match.precision, match.recall))
    found = compared.hits.sum() / len(truth)
    by_scikit = average_precision_score(compared.hits, scores) * found
    assert average_precision([compared]) == pytest.approx(by_scikit)


def test_average_precision_of_the_perfect_and_of_none() -> None:
    truth = spread_points(np.random.default_rng(3), 20)
    scores = np.linspace(1, 0.1, 20)
    assert average_precision([compare_picks("m", truth, scores, truth, 5)]) == pytest.approx(1)
    assert average_precision([compare_picks("m", truth + 12, scores, truth, 5)]) == 0
    assert average_precision([compare_picks("m", truth[:0], scores[:0], truth, 5)]) == 0
    assert average_precision([compare_picks("m", truth, scores, truth[:0], 5)]) is None
    with_gaps = np.where(np.arange(20) < 10, np.nan, scores)
    assert average_precision([compare_picks("m", truth, with_gaps, truth, 5)]) == pytest.approx(1)


def test_scores_do_not_depend_on_the_order_of_picks() -> None:
    rng = np.random.default_rng(4)
    truth, picks = spread_points(rng, 30), rng.uniform(0, 400, (80, 2))
    scores = rng.integers(0, 6, 80).astype(float)
    order = rng.permutation(80)
    one = compare_picks("m", picks, scores, truth, 30)
    other = compare_picks("m", picks[order], scores[order], truth, 30)
    assert one.row() == pytest.approx(other.row())


def test_turned_picks_are_turned_back(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "t", ["a", "b"], np.random.default_rng(5))
    (tmp_path / "m").mkdir()
    rng = np.random.default_rng(6)
    for name, points in truth.items():
        image = rng.normal(0, 1, SHAPE)
        y, x = np.ogrid[: SHAPE[0], : SHAPE[1]]
        for cy, cx in points:
            image[(y - cy) ** 2 + (x - cx) ** 2 <= 400] -= 2
        write_micrograph(tmp_path / "m" / f"{name}.mrc", image.astype(np.float32))
    flipped = {name: np.column_stack([SHAPE[0] - 1 - p[:, 0], p[:, 1]]) for name, p in truth.items()}
    star = write_star(tmp_path / "p.star", flipped)
    with pytest.raises(DataError, match=r"p\.star.*--flip-y"):
        read_comparison(PickFile(star), tmp_path / "t", micrographs=tmp_path / "m")
    forced = read_comparison(PickFile(star), tmp_path / "t", micrographs=tmp_path / "m", force=True)
    assert evaluate_picks(forced).overall["f1_macro"] < 0.7
    right = PickFile(star, Placement.of(swap_xy=False, flip_y=True, flip_x=False, scale=1.0))
    turned = read_comparison(right, tmp_path / "t", micrographs=tmp_path / "m")
    assert evaluate_picks(turned, "1px").overall["f1_macro"] == 1.0
    with pytest.raises(DataError, match="give --micrographs"):
        read_comparison(right, tmp_path / "t")


def test_scaled_and_swapped_picks(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "t", ["a"], np.random.default_rng(7))["a"]
    star = write_star(tmp_path / "p.star", {"a": truth[:, ::-1] / 4})
    right = PickFile(star, Placement.of(swap_xy=True, flip_y=False, flip_x=False, scale=4))
    assert evaluate_picks(read_comparison(right, tmp_path / "t"), "4px").overall["f1_macro"] == 1.0
    with pytest.raises(ConfigError, match="scale=0"):
        Placement.of(swap_xy=False, flip_y=False, flip_x=False, scale=0)


def test_micrographs_that_one_side_does_not_know(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "t", ["a", "b", "c"], np.random.default_rng(8))
    some = write_star(tmp_path / "some.star", {"a": truth["a"]})
    missed = read_comparison(PickFile(some), tmp_path / "t")
    assert evaluate_picks(missed).overall["recall_macro"] == pytest.approx(1 / 3)
    assert "2 of 3 micrographs have no picks" in missed.notes[0]
    common = read_comparison(PickFile(some), tmp_path / "t", only_common=True)
    assert evaluate_picks(common).overall["n_micrographs"] == 1
    more = write_star(tmp_path / "more.star", {"a": truth["a"], "z": truth["b"]})
    with pytest.raises(DataError, match=r"'z.mrc'; .* knows a, b, c; .*--only-common"):
        read_comparison(PickFile(more), tmp_path / "t")
    assert (
        evaluate_picks(read_comparison(PickFile(more), tmp_path / "t", only_common=True)).overall["f1_macro"]
        == 1
    )
    none = write_star(tmp_path / "none.star", {"z": truth["a"]})
    with pytest.raises(DataError, match="no micrograph in common"):
        read_comparison(PickFile(none), tmp_path / "t", only_common=True)


def test_a_file_without_picks_is_a_micrograph_without_picks(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "t", ["a", "b"], np.random.default_rng(9))
    (tmp_path / "p").mkdir()
    write_coordinates(tmp_path / "p" / "a.csv", np.column_stack([truth["a"], np.full(30, 40.0)]))
    (tmp_path / "p" / "b.csv").write_text("X-Coordinate,Y-Coordinate,Diameter\n")
    found = evaluate_picks(read_comparison(PickFile(tmp_path / "p"), tmp_path / "t", only_common=True))
    assert (found.overall["n_micrographs"], found.overall["f1_macro"]) == (2, 0.5)


def test_single_files_need_no_names(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "t", ["a"], np.random.default_rng(10))["a"]
    write_coordinates(tmp_path / "else.box", Picks.of(truth, diameters_px=60))
    comparison = read_comparison(PickFile(tmp_path / "else.box"), tmp_path / "t" / "a.csv")
    assert evaluate_picks(comparison).overall["f1_macro"] == 1.0


def test_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    truth = write_truth(tmp_path / "t" / "one", ["a", "b"], rng) | write_truth(
        tmp_path / "t" / "two", ["c"], rng
    )
    star = write_star(tmp_path / "p.star", {"a": truth["a"], "b": truth["b"], "c": truth["c"][:15]})
    agreement = evaluate_picks(read_comparison(PickFile(star), tmp_path / "t"))
    assert {g: s["recall_macro"] for g, s in agreement.by_group.items()} == {"one": 1.0, "two": 0.5}
    by_name = read_comparison(PickFile(star), tmp_path / "t", group_pattern="[ab]|c")
    assert sorted(evaluate_picks(by_name).by_group) == ["a", "b", "c"]
    assert format_table(agreement).splitlines()[1].startswith("one")
    with pytest.raises(ConfigError, match="not a regular expression"):
        read_comparison(PickFile(star), tmp_path / "t", group_pattern="(")
    with pytest.raises(ConfigError, match="finds nothing"):
        read_comparison(PickFile(star), tmp_path / "t", group_pattern="x")


def test_a_dataset_as_the_truth(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", {"train": 6, "test": 4})
    picks = {key[1]: rows[:, :2] for key, rows in dataset.particles.items() if key[1].startswith("test")}
    star = write_star(tmp_path / "p.star", picks)
    agreement = evaluate_picks(read_comparison(PickFile(star), tmp_path / "d", split="test"))
    assert agreement.overall["f1_macro"] == 1.0
    assert sorted(agreement.by_group) == ["A", "B"]
    with pytest.raises(ConfigError, match="it has train, test"):
        read_comparison(PickFile(star), tmp_path / "d", split="val")
    with pytest.raises(ConfigError, match="not a dataset"):
        read_comparison(PickFile(star), star, split="val")


def test_two_names_of_one_micrograph_are_refused(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "t", ["a", "b"], np.random.default_rng(12))
    star = write_star(tmp_path / "p.star", {"a": truth["a"], "a_DW": truth["a"]})
    with pytest.raises(DataError, match="both mean 'a'"):
        read_comparison(PickFile(star), tmp_path / "t")


def test_what_is_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(13)
    truth = write_truth(tmp_path / "t", ["a", "b"], rng)
    picks = {name: np.vstack([p[:20], p[:5] + 25]) for name, p in truth.items()}
    star = write_star(tmp_path / "p.star", picks, {name: rng.random(25) for name in picks})
    agreement = evaluate_picks(read_comparison(PickFile(star), tmp_path / "t"))
    write_agreement(agreement, tmp_path / "out", {"picks": "p.star"})
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "scores.json", "per_group.csv", "per_micrograph.csv", "precision_recall.csv", "precision_recall.png",
    }  # fmt: skip
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert written["f1_macro"] == agreement.overall["f1_macro"]
    with (tmp_path / "out" / "per_micrograph.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["micrograph"] for row in rows] == ["a", "b"]
    assert rows[0]["n_matched"] == "20"
    without = Agreement(tuple(compare_picks(n, p, None, truth[n], 20) for n, p in picks.items()))
    write_agreement(without, tmp_path / "out", {})
    assert not (tmp_path / "out" / "precision_recall.png").exists(), "it would be another comparison's"


@pytest.mark.realdata
def test_a_second_labeling_of_real_micrographs(real_data: Path) -> None:
    """The published score of crYOLO on all micrographs of this set is 0.90, after the flip."""
    labels = real_data / "empiar_10017"
    flip = Placement.of(swap_xy=False, flip_y=True, flip_x=False, scale=1.0)
    comparison = read_comparison(
        PickFile(labels / "second_labels" / "crYOLO_box", flip), labels / "coordinates",
        micrographs=labels / "micrographs", only_common=True, force=True,
    )  # fmt: skip
    assert 0.87 < evaluate_picks(comparison).overall["f1_macro"] < 0.93


def test_files_without_picks_or_without_particles(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "t", ["a"], np.random.default_rng(14))["a"]
    (tmp_path / "none.csv").write_text("X-Coordinate,Y-Coordinate,Diameter\n")
    nothing = evaluate_picks(read_comparison(PickFile(tmp_path / "none.csv"), tmp_path / "t"))
    assert (nothing.overall["n_particles"], nothing.overall["f1_macro"]) == (30, 0)
    star = write_star(tmp_path / "p.star", {"none": truth})
    comparison = read_comparison(PickFile(star), tmp_path / "none.csv", diameter_px=40)
    assert evaluate_picks(comparison, "20px").overall["precision_macro"] == 0


def test_diameters_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("X-Coordinate,Y-Coordinate,Diameter\n1,2,-5\n3,4,0\n")
    with pytest.raises(ConfigError, match=r"a particle diameter of -2\.5 px; give --diameter-px"):
        evaluate_picks(read_comparison(PickFile(path), path))
    with pytest.raises(ConfigError, match="diameter_px=0: must be a positive number"):
        read_comparison(PickFile(path), path, diameter_px=0.0)


def test_picks_of_another_micrograph_are_not_scored(tmp_path: Path) -> None:
    for name in "ab":
        write_coordinates(tmp_path / f"{name}.star", Picks.of([[1, 2]], micrograph=f"{name}.mrc"))
        write_coordinates(tmp_path / f"{name}.box", Picks.of([[1, 2]], diameters_px=8))
        write_coordinates(tmp_path / f"{name}.txt", Picks.of([[1, 2]], micrograph=f"{name}.mrc"))
    with pytest.raises(DataError, match=r"picks of micrograph 'a\.mrc', and .*b\.star is of 'b\.mrc'"):
        read_comparison(PickFile(tmp_path / "a.star"), tmp_path / "b.star")
    with pytest.raises(DataError, match=r"a\.txt: picks of micrograph 'a', and .*b\.txt is of 'b'"):
        read_comparison(PickFile(tmp_path / "a.txt"), tmp_path / "b.txt")
    for mine, truth in (("a.box", "b.box"), ("a.star", "b.box"), ("a.box", "b.star")):
        notes = read_comparison(PickFile(tmp_path / mine), tmp_path / truth).notes
        assert any("compared with" in note for note in notes)
    assert not read_comparison(PickFile(tmp_path / "a.star"), tmp_path / "a.star").notes


def test_images_of_coco_without_boxes_count_as_empty(tmp_path: Path) -> None:
    content = {
        "images": [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate("ab")],
        "annotations": [{"image_id": 0, "bbox": [1, 2, 8, 8]}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    picks = Picks.of([[6, 5], [6, 5]], micrograph=["a.png", "b.png"])
    write_coordinates(tmp_path / "picks.star", picks)
    comparison = read_comparison(PickFile(tmp_path / "picks.star"), tmp_path / "truth.json")
    assert evaluate_picks(comparison).overall["precision_micro"] == 0.5


def test_options_of_reading_are_for_the_picks(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("9 1 2\n9 40 50\n")
    write_coordinates(tmp_path / "a.csv", np.array([[6.0, 5.0], [54.0, 44.0]]))
    reading = Reading.of("x=2,y=3,diameter=1", "corner")
    comparison = read_comparison(PickFile(tmp_path / "a.txt", reading=reading), tmp_path / "a.csv")
    assert evaluate_picks(comparison, "1px").overall["f1_macro"] == 1
