from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from conftest import make_dataset
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from cryoquery import compare, run_experiment
from cryoquery.acquisition.label_cost import LabelCost
from cryoquery.errors import DataError, ExperimentError
from cryoquery.report.computing import computing, in_words
from cryoquery.report.efficiency import aulc, score_at
from cryoquery.report.runs import label, read_results

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


CURVES = {
    "entropy_sampling": {1: [0.5, 0.7, 0.8, 0.805, 0.81], 2: [0.5, 0.6, 0.7, 0.8, 0.82]},
    "random_sampling": {1: [0.5, 0.6, 0.7, 0.75, 0.81], 2: [0.5, 0.6, 0.7, 0.75, 0.79]},
    "full_supervision": {1: [0.81], 2: [0.83]},
}


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without figures: to draw them is most of the work."""
    monkeypatch.setattr(Figure, "savefig", lambda _, picture, **__: picture.write(b"<svg></svg>"))


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return fake_experiment(tmp_path / "e", CURVES)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a comparison of the same writes; only to be read."""
    return compare(fake_experiment(tmp_path_factory.mktemp("compared") / "e", CURVES))


def test_compare_writes_what_the_design_names(compared: Path) -> None:
    assert sorted(path.name for path in compared.iterdir()) == [
        "efficiency_analysis.json",
        "learning_curves.png",
        "methods.md",
        "performance_table.json",
        "report.html",
        "results_table.md",
        "results_table.tex",
        "selection.json",
    ]
    with Image.open(compared / "learning_curves.png") as picture:
        assert picture.width >= 1000


def test_efficiency_is_paired_by_seed(compared: Path) -> None:
    numbers = json.loads((compared / "efficiency_analysis.json").read_text())
    entropy = numbers["runs"]["entropy_sampling"]
    assert entropy["by_seed"]["1"]["to_reach_full_supervision"] == {
        "labeled_fraction": 0.5,
        "n_labeled_images": 50,
        "n_labeled_particles": 350,
        "minutes": pytest.approx((50 * 60 + 350 * 2) / 60),
    }
    assert entropy["by_seed"]["2"]["to_reach_full_supervision"]["n_labeled_images"] == 100
    random = numbers["runs"]["random_sampling"]["by_seed"]
    assert random["1"]["to_reach_full_supervision"]["n_labeled_images"] == 100
    assert random["2"]["to_reach_full_supervision"] is None, "0.79 never reaches 0.83 - 0.01"
    assert entropy["over_seeds"]["f1_at_50"]["mean"] == pytest.approx(0.75)
    assert entropy["over_seeds"]["f1_at_50"]["std"] == pytest.approx(0.0707, abs=1e-4)
    assert entropy["by_seed"]["1"]["aulc"] == pytest.approx(aulc(FRACTIONS, [0.5, 0.7, 0.8, 0.805, 0.81]))


def test_the_table_has_the_form_of_the_protocol(compared: Path) -> None:
    lines = (compared / "results_table.md").read_text().splitlines()
    assert lines[0] == "**Table: Active Learning Performance at 50% Labeled Data**"
    assert lines[2] == "| Method | F1 Score | Precision | Recall | % Reduction |"
    assert lines[4] == "| Full Supervision (100%) | 82.0 ± 1.4% | 41.0 ± 0.7% | 41.0 ± 0.7% | 0% (baseline) |"
    assert lines[5].startswith("| Entropy Sampling (50%) | 75.0 ± 7.1% † |"), "5 points above random"
    assert lines[6].startswith("| Random Sampling (50%) | 70.0 ± 0.0% |")


@pytest.mark.usefixtures("undrawn")
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


def test_the_table_for_latex(compared: Path) -> None:
    text = (compared / "results_table.tex").read_text()
    for command in ("\\toprule", "\\midrule", "\\bottomrule", "\\begin{tabular}{lrrrr}"):
        assert command in text
    assert r"Full Supervision (100\%) & 82.0 $\pm$ 1.4\% &" in text
    assert r"Entropy Sampling (50\%) & 75.0 $\pm$ 7.1\% $^{\dagger}$ &" in text
    body = text.split("\n", 1)[1]
    assert not re.search(r"(?<!\\)[%#_]", body), "what LaTeX takes for commands is written out"


def test_every_seed_stands_in_the_table(compared: Path) -> None:
    table = json.loads((compared / "performance_table.json").read_text())
    entropy = table["runs"]["entropy_sampling"]
    assert entropy["at_50_percent"]["f1"]["by_seed"] == {"1": 0.8, "2": 0.7}
    assert entropy["difference_to_random"] == pytest.approx(0.05)
    assert entropy["above_3_percent"] is True
    assert table["runs"]["full_supervision"]["difference_to_random"] is None
    assert [row["labeled_fraction"] for row in entropy["by_iteration"]] == FRACTIONS
    assert entropy["by_iteration"][1]["f1"]["mean"] == pytest.approx(0.65)


@pytest.mark.usefixtures("undrawn")
def test_the_cost_of_a_label_can_be_stated(experiment: Path) -> None:
    out = compare(experiment, LabelCost(seconds_per_image=600, seconds_per_particle=0))
    numbers = json.loads((out / "efficiency_analysis.json").read_text())
    reached = numbers["runs"]["entropy_sampling"]["by_seed"]["1"]["to_reach_full_supervision"]
    assert reached["minutes"] == 500
    assert "600 s per image and 0 s per particle" in (out / "report.html").read_text()


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset_fingerprint": "f" * 64}, "dataset fingerprint ffffffffffff instead of aaaaaaaaaaaa"),
        ({"split": "test"}, "split test instead of val"),
        ({"protocol": {"training": {"epochs": 3}}}, "training.epochs 3 instead of 10"),
        ({"n_labeled_images": 31}, "has 31 labeled images where the schedule of config.toml has 30"),
    ],
)
def test_runs_that_were_made_differently_are_refused(
    experiment: Path, change: dict[str, Any], message: str
) -> None:
    changed(experiment / "environment.json", lambda v: v.update(dataset_fingerprint="a" * 64))
    metrics = experiment / "entropy_sampling" / "seed_2" / "iteration_1" / "metrics.json"
    changed(metrics, lambda v: v.update(change))
    with pytest.raises(ExperimentError) as error:
        compare(experiment)
    assert message in str(error.value)
    assert "entropy_sampling/seed_2" in str(error.value), "says which"


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"seed": 7}, ExperimentError, "is of seed 7, in the folder of 2"),
        ({"run": "hybrid_sampling"}, ExperimentError, "is of run 'hybrid_sampling'"),
        ({"auc": None}, DataError, "metrics.json: auc is None, not a number"),
    ],
)
def test_metrics_that_are_in_the_wrong_place_or_damaged(
    experiment: Path, change: dict[str, Any], kind: type[Exception], message: str
) -> None:
    metrics = experiment / "entropy_sampling" / "seed_2" / "iteration_1" / "metrics.json"
    changed(metrics, lambda v: v.update(change))
    with pytest.raises(kind, match=re.escape(message)):
        compare(experiment)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "runs",
    [
        ("full_supervision",),
        ("random_sampling",),
        ("entropy_sampling",),
        ("progressive_supervised", "full_supervision"),
    ],
)
def test_odd_experiments_are_compared(tmp_path: Path, runs: tuple[str, ...]) -> None:
    curves = {run: {1: [0.5, 0.6, 0.7, 0.75, 0.8]} for run in runs}
    if "full_supervision" in curves:
        curves["full_supervision"] = {1: [0.8]}
    folder = fake_experiment(tmp_path / "e", curves)
    config = (folder / "config.toml").read_text().replace("seeds = [\n    1,\n]", "seeds = [1, 2]")
    (folder / "config.toml").write_text(config)
    assert "undecided" in (compare(folder) / "report.html").read_text()


@pytest.mark.usefixtures("undrawn")
def test_seeds_that_nobody_shares(experiment: Path) -> None:
    shutil.rmtree(experiment / "entropy_sampling" / "seed_2")
    shutil.rmtree(experiment / "random_sampling" / "seed_1")
    numbers = json.loads((compare(experiment) / "efficiency_analysis.json").read_text())
    assert {h["verdict"] for h in numbers["hypotheses"].values()} == {"undecided"}
    text = (experiment / "comparison_results" / "methods.md").read_text()
    assert "No test was made" in text


@pytest.mark.usefixtures("undrawn")
def test_names_are_only_names(real_experiment: Path, tmp_path: Path) -> None:
    """A group may be called anything: it is neither HTML nor a formula."""
    copy, data = tmp_path / "experiment", tmp_path / "discs"
    shutil.copytree(real_experiment, copy)
    shutil.copytree(real_experiment.parent / "discs", data)
    for path in (data / "images.csv", data / "particles.csv"):
        text = path.read_text()
        path.write_text(re.sub(r"(?m)(^|,)A(,)", r'\1<img src="http://x/">$\\frac_\2', text).replace('"', ""))
    config = copy / "config.toml"
    config.write_text(config.read_text().replace(str(real_experiment.parent / "discs"), str(data)))
    page = Page((compare(copy) / "report.html").read_text())
    assert all(source.startswith("data:image/") for source in page.fetched)


@pytest.mark.usefixtures("undrawn")
def test_unfinished_runs_are_left_out_and_listed(experiment: Path) -> None:
    shutil.rmtree(experiment / "entropy_sampling" / "seed_2" / "iteration_4")
    out = compare(experiment)
    line = "Entropy Sampling, seed 2: 4 of 5 iterations"
    assert json.loads((out / "efficiency_analysis.json").read_text())["unfinished"] == [line]
    page = (out / "report.html").read_text()
    assert line in page
    assert "Entropy Sampling has no finished run with seed 2: it is compared on the other seeds only" in page


def test_the_order_of_the_config_and_a_second_call_change_no_byte(
    real_experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tmp_path / "experiment"
    shutil.copytree(real_experiment, experiment)
    monkeypatch.chdir(tmp_path)

    def everything() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in compare("experiment").iterdir()}

    first = everything()
    config = experiment / "config.toml"
    text = config.read_text()
    for key in ("strategies", "seeds", "baselines"):
        block = re.search(rf"{key} = \[(.*?)\]", text, re.S)
        assert block
        turned = ",".join(reversed([part.strip() for part in block[1].split(",") if part.strip()]))
        text = text.replace(block[0], f"{key} = [{turned}]")
    assert text != config.read_text()
    config.write_text(text)
    assert everything() == first


class Page(HTMLParser):
    """What a page shows, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.anchors: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.ids += [values["id"]] if values.get("id") else []
        for name in ("src", "href"):
            if (value := values.get(name)) is not None:
                (self.anchors if value.startswith("#") else self.fetched).append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "tags are closed in order"


@pytest.fixture(scope="module")
def real_experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment that was run: two groups, every kind of run."""
    folder = tmp_path_factory.mktemp("run")
    dataset = make_dataset(folder / "discs", {"train": 20, "val": 8})
    return run_experiment(
        {
            "dataset": str(dataset.path),
            "out": str(folder / "experiment"),
            "strategies": ["uncertainty", "margin", "random", "stratified_random"],
            "seeds": [1, 2],
            "schedule": {"fractions": [0.1, 0.3, 0.5, 1.0]},
            "model": {"base_channels": 2},
            "training": {"initial_epochs": 2, "epochs": 1},
            "workers": 1,
        }
    )


@pytest.fixture(scope="module")
def real_comparison(real_experiment: Path) -> Path:
    """What a comparison of it writes; only to be read."""
    return compare(real_experiment)


def test_the_page_needs_nothing_from_elsewhere(real_comparison: Path) -> None:
    text = (real_comparison / "report.html").read_text()
    page = Page(text)
    assert not page.open
    assert page.fetched, "it has pictures"
    assert all(source.startswith("data:image/") for source in page.fetched)
    assert {anchor[1:] for anchor in page.anchors} == set(page.ids)
    assert "@import" not in text
    assert "<script" not in text


def test_the_page_says_what_the_strategies_did(real_comparison: Path) -> None:
    text = (real_comparison / "report.html").read_text()
    assert "Uncertainty Sampling and Margin Sampling labeled the same images in every iteration" in text
    assert "For one sigmoid output margin is twice least confidence: the two rank images alike" in text
    n_pictures = 1 + 4 * 2 + 1
    assert text.count("% labeled<br>") == 4 * n_pictures, "the first stage and full supervision once"
    asked = json.loads((real_comparison / "selection.json").read_text())
    for query in asked["overlap_of_queries"]:
        assert query["share"]["uncertainty_sampling"]["margin_sampling"] == 1.0
        share = query["share"]["random_sampling"]["stratified_random_sampling"]
        assert share == query["share"]["stratified_random_sampling"]["random_sampling"]
    by_chance = [query["by_chance"] for query in asked["overlap_of_queries"]]
    assert by_chance == pytest.approx([4 / 18, 4 / 18, 10 / 18]), "of the 18 that the runs do not begin with"


def test_selection_against_a_count_by_hand(real_experiment: Path, real_comparison: Path) -> None:
    labeled = json.loads((real_comparison / "selection.json").read_text())["labeled"][
        "stratified_random_sampling"
    ]
    groups, foreground = {}, {}
    data = real_experiment.parent / "discs"
    lines = (data / "images.csv").read_text().splitlines()
    at = lines[0].split(",").index("group")
    masks = np.load(data / "masks.npy")
    for row, line in enumerate(lines[1:]):
        groups[row], foreground[row] = line.split(",")[at], float((masks[row] == 1).mean())
    shares, bought = [], []
    for seed in (1, 2):
        folder = real_experiment / "stratified_random_sampling" / f"seed_{seed}"
        before, after = (
            json.loads((folder / f"iteration_{i}" / "labeled_indices.json").read_text()) for i in (1, 2)
        )
        shares.append(np.mean([groups[row] == "A" for row in after]))
        bought.append(np.mean([foreground[row] for row in set(after) - set(before)]))
    assert labeled["share_of_groups"]["A"][2] == pytest.approx(np.mean(shares))
    assert labeled["mean_foreground_of_new_images"][2] == pytest.approx(np.mean(bought))


def test_methods_have_the_numbers_of_this_experiment(real_comparison: Path) -> None:
    text = (real_comparison / "methods.md").read_text()
    for fact in (
        "Starting with 10% labeled data (2 of 20 images",
        "using two acquisition functions: uncertainty sampling (mean least confidence) and margin sampling",
        "In each of 3 queries we selected 4 to 10 new images",
        "2, 6, 10 and 20 images",
        "2 initial epochs and 0.0005 for 1 fine-tuning epochs per iteration",
        "2 random seeds (1, 2)",
        "fixed held-out split “val” of 8 micrographs",
    ):
        assert fact in text, fact
    assert "517" not in text
    assert "XX" not in text


@pytest.mark.usefixtures("undrawn")
def test_a_dataset_that_is_gone_costs_only_the_pictures(real_experiment: Path, tmp_path: Path) -> None:
    copy = tmp_path / "experiment"
    shutil.copytree(real_experiment, copy)
    config = copy / "config.toml"
    config.write_text(config.read_text().replace(str(real_experiment.parent / "discs"), "/no/such/folder"))
    text = (compare(copy) / "report.html").read_text()
    assert "Groups, crowding and pictures are left out, because the images could not be read: " in text
    assert "/no/such/folder: no such dataset folder" in text


@pytest.mark.usefixtures("undrawn")
def test_predictions_that_were_not_kept(real_experiment: Path, tmp_path: Path) -> None:
    copy = tmp_path / "experiment"
    shutil.copytree(real_experiment, copy)
    for path in copy.rglob("examples.npz"):
        path.unlink()
    assert "No predictions were kept with these runs" in (compare(copy) / "report.html").read_text()


@pytest.mark.usefixtures("undrawn")
def test_what_was_saved_is_counted_from_keys(tmp_path: Path) -> None:
    """Uncertainty and margin share everything, all share iteration 0, progressive ends in full training."""
    make_dataset(tmp_path / "d", {"train": 10, "val": 2})
    config = {
        "dataset": str(tmp_path / "d"),
        "out": str(tmp_path / "e"),
        "cache": str(tmp_path / "cache"),
        "strategies": ["uncertainty", "margin", "random"],
        "seeds": [1],
        "schedule": {"counts": [2, 5, 10]},
        "model": {"base_channels": 2},
        "training": {"initial_epochs": 2, "epochs": 1},
        "workers": 1,
    }
    numbers = computing(read_results(run_experiment(config)))
    distinct = (2 * 2) + 2 * (5 + 10) + 2 * 10 + 2 * 5
    everything = 3 * (2 * 2 + 5 + 10) + 2 * 10 + 2 * (2 + 5 + 10)
    assert numbers["n_training_passes"] == distinct
    assert numbers["n_training_passes_saved"] == everything - distinct
    assert numbers["n_trainings"] == 1 + 2 * 2 + 1 + 1
    again = computing(read_results(run_experiment(config | {"out": str(tmp_path / "again")})))
    assert again["n_training_passes"] == 0
    assert again["n_trainings_from_elsewhere"] == 7
    assert "7 more were found in the cache" in in_words(again)
    queries = [
        {p.relative_to(tmp_path / name): p.read_text() for p in (tmp_path / name).rglob("query.json")}
        for name in ("e", "again")
    ]
    assert queries[0] == queries[1], "what is found in a cache changes no selection"
