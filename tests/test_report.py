from __future__ import annotations

import json
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cryoquery import compare
from cryoquery.errors import ExperimentError
from cryoquery.report.efficiency import aulc, score_at
from cryoquery.report.runs import label

FRACTIONS = [0.1, 0.3, 0.5, 0.7, 1.0]


def test_area_under_the_learning_curve() -> None:
    assert aulc([0.1, 1.0], [0.8, 0.8]) == pytest.approx(0.8)
    assert aulc([0.0, 1.0], [0.0, 1.0]) == pytest.approx(0.5)
    assert aulc([0.1, 0.3, 1.0], [0.2, 0.6, 0.8]) == pytest.approx((0.2 * 0.4 + 0.7 * 0.7) / 0.9)
    assert aulc([0.2, 0.8], [0.4, 0.8], up_to=0.5) == pytest.approx(0.5), "the end is interpolated"
    assert aulc([0.2, 0.5, 0.8], [0.4, 0.6, 0.9], up_to=0.5) == pytest.approx(0.5)
    assert aulc([1.0], [0.9]) is None


@given(st.lists(st.floats(0, 1), min_size=2, max_size=10))
def test_the_area_lies_within_the_scores(scores: list[float]) -> None:
    fractions = [(i + 1) / len(scores) for i in range(len(scores))]
    area = aulc(fractions, scores)
    assert min(scores) - 1e-12 <= area <= max(scores) + 1e-12


def test_score_at() -> None:
    assert score_at([0.1, 0.4, 0.6], [0.5, 0.6, 0.8], 0.5) == pytest.approx(0.7)
    assert score_at([0.1, 0.5], [0.5, 0.6], 0.5) == pytest.approx(0.6)
    assert score_at([1.0], [0.9], 0.5) is None


def fake_experiment(path: Path, curves: dict[str, dict[int, list[float]]], n_train: int = 100) -> Path:
    """An experiment whose metrics are made up: F1 by run, seed and iteration."""
    seeds = sorted({seed for by_seed in curves.values() for seed in by_seed})
    sampling = [name.removesuffix("_sampling") for name in curves if name.endswith("_sampling")]
    path.mkdir()
    config = {
        "dataset": "nowhere",
        "out": "moved/since",
        "strategies": sampling,
        "baselines": [name for name in curves if not name.endswith("_sampling")],
        "seeds": seeds,
        "schedule": {"fractions": FRACTIONS},
    }
    (path / "config.toml").write_text(tomli_w.dumps(config))
    (path / "environment.json").write_text(json.dumps({"n_train_images": n_train, "splits": ["val"]}))
    for run, by_seed in curves.items():
        for seed, scores in by_seed.items():
            for i, f1 in enumerate(scores):
                folder = path / run / f"seed_{seed}" / f"iteration_{i}"
                folder.mkdir(parents=True)
                fraction = 1.0 if run == "full_supervision" else FRACTIONS[i]
                metrics = dict.fromkeys(
                    ("precision", "recall", "iou", "auc", "average_precision", "particle_f1",
                     "particle_precision", "particle_recall"), f1 / 2
                )  # fmt: skip
                metrics |= {
                    "f1": f1,
                    "labeled_fraction": fraction,
                    "n_labeled_images": int(fraction * n_train),
                    "n_labeled_particles": int(fraction * n_train) * 7,
                }
                (folder / "metrics.json").write_text(json.dumps(metrics))
    return path


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return fake_experiment(
        tmp_path / "e",
        {
            "entropy_sampling": {1: [0.5, 0.7, 0.8, 0.805, 0.81], 2: [0.5, 0.6, 0.7, 0.8, 0.82]},
            "random_sampling": {1: [0.5, 0.6, 0.7, 0.75, 0.81], 2: [0.5, 0.6, 0.7, 0.75, 0.79]},
            "full_supervision": {1: [0.81], 2: [0.83]},
        },
    )


def test_compare_writes_what_the_design_names(experiment: Path) -> None:
    out = compare(experiment)
    assert sorted(path.name for path in out.iterdir()) == [
        "efficiency_analysis.json",
        "learning_curves.png",
        "performance_table.json",
        "results_table.md",
    ]
    with Image.open(out / "learning_curves.png") as picture:
        assert picture.width >= 1000


def test_efficiency_is_paired_by_seed(experiment: Path) -> None:
    numbers = json.loads((compare(experiment) / "efficiency_analysis.json").read_text())
    entropy = numbers["runs"]["entropy_sampling"]
    assert entropy["by_seed"]["1"]["to_reach_full_supervision"] == {
        "labeled_fraction": 0.5,
        "n_labeled_images": 50,
        "n_labeled_particles": 350,
    }
    assert entropy["by_seed"]["2"]["to_reach_full_supervision"]["n_labeled_images"] == 100
    random = numbers["runs"]["random_sampling"]["by_seed"]
    assert random["1"]["to_reach_full_supervision"]["n_labeled_images"] == 100
    assert random["2"]["to_reach_full_supervision"] is None, "0.79 never reaches 0.83 - 0.01"
    assert entropy["over_seeds"]["f1_at_50"]["mean"] == pytest.approx(0.75)
    assert entropy["over_seeds"]["f1_at_50"]["std"] == pytest.approx(0.0707, abs=1e-4)
    assert entropy["by_seed"]["1"]["aulc"] == pytest.approx(aulc(FRACTIONS, [0.5, 0.7, 0.8, 0.805, 0.81]))


def test_the_table_has_the_form_of_the_protocol(experiment: Path) -> None:
    lines = (compare(experiment) / "results_table.md").read_text().splitlines()
    assert lines[0] == "**Table: Active Learning Performance at 50% Labeled Data**"
    assert lines[2] == "| Method | F1 Score | Precision | Recall | % Reduction |"
    assert lines[4] == "| Full Supervision (100%) | 82.0 ± 1.4% | 41.0 ± 0.7% | 41.0 ± 0.7% | 0% (baseline) |"
    assert lines[5].startswith("| Entropy Sampling (50%) | 75.0 ± 7.1% |")
    assert lines[6].startswith("| Random Sampling (50%) | 70.0 ± 0.0% |")


def test_seeds_are_paired_by_number_not_by_order(experiment: Path, tmp_path: Path) -> None:
    """Exchanging the folders of the two seeds everywhere exchanges their numbers and nothing else."""
    before = json.loads((compare(experiment) / "efficiency_analysis.json").read_text())
    for run in ("entropy_sampling", "random_sampling", "full_supervision"):
        (experiment / run / "seed_1").rename(experiment / run / "tmp")
        (experiment / run / "seed_2").rename(experiment / run / "seed_1")
        (experiment / run / "tmp").rename(experiment / run / "seed_2")
    after = json.loads((compare(experiment) / "efficiency_analysis.json").read_text())
    for run, numbers in before["runs"].items():
        assert numbers["by_seed"]["1"] == after["runs"][run]["by_seed"]["2"]
        assert numbers["over_seeds"]["f1_at_50"] == pytest.approx(
            after["runs"][run]["over_seeds"]["f1_at_50"]
        )


def test_nothing_to_compare(tmp_path: Path, experiment: Path) -> None:
    with pytest.raises(ExperimentError, match="holds no experiment"):
        compare(tmp_path)
    for metrics in experiment.rglob("metrics.json"):
        metrics.unlink()
    with pytest.raises(ExperimentError, match="no run is finished yet"):
        compare(experiment)


@pytest.mark.parametrize(
    ("run", "name"),
    [("core_set_sampling", "Core Set Sampling"), ("progressive_supervised", "Progressive Supervised")],
)
def test_labels(run: str, name: str) -> None:
    assert label(run) == name
