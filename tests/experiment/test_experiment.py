from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_dataset
from small_protocol import SAMPLING, SEEDS, iterations, small
from tiers import take, thorough

from cryoquery import compare, load_config, run_experiment
from cryoquery.data.dataset import Dataset
from cryoquery.errors import ConfigError, CryoqueryError, DataError, ExperimentError
from cryoquery.network.checkpoint import load_weights
from cryoquery.storage.leases import alone

PROTOCOL = Path(__file__).parents[2] / "configs" / "protocol.toml"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "discs", {"train": 20, "val": 4})


SOME_SEEDS = take(SEEDS[:2], SEEDS)
COUNTS = take([2, 8, 20], list(range(2, 21, 2)))
LAST = len(COUNTS) - 1


def whole(dataset: Dataset, out: Path) -> dict:
    """The small protocol, all strategies and both baselines; in the second tier all iterations and seeds."""
    return small(dataset, out, seeds=list(SOME_SEEDS), schedule={"fractions": [n / 20 for n in COUNTS]})


@pytest.fixture(scope="module")
def undisturbed(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_experiment(whole(dataset, tmp_path_factory.mktemp("whole") / "experiment"))


def labeled_in(experiment: Path, run: str, seed: int) -> list[list[int]]:
    """What was labeled in each iteration of a run."""
    folders = (experiment / run / f"seed_{seed}" / f"iteration_{i}" for i in range(len(COUNTS)))
    return [json.loads((folder / "labeled_indices.json").read_text()) for folder in folders]


@thorough
def test_the_small_protocol_leaves_the_tree_of_the_design(undisturbed: Path) -> None:
    expected = {"config.toml", "environment.json", "full_supervision", "progressive_supervised"}
    assert {path.name for path in undisturbed.iterdir()} >= expected | {
        f"{name}_sampling" for name in SAMPLING
    }
    found = iterations(undisturbed)
    for seed in SOME_SEEDS:
        for run in [f"{name}_sampling" for name in SAMPLING] + ["progressive_supervised"]:
            assert [len(labeled) for labeled in labeled_in(undisturbed, run, seed)] == COUNTS
        full = found[f"full_supervision/seed_{seed}/iteration_0"] / "labeled_indices.json"
        assert json.loads(full.read_text()) == list(range(20))
    assert len(found) == len(SOME_SEEDS) * (7 * len(COUNTS) + 1)
    environment = json.loads((undisturbed / "environment.json").read_text())
    assert {"dataset_fingerprint", "device", "precision", "packages"} <= set(environment)


@thorough
def test_labels_never_leave_and_seeds_differ(undisturbed: Path) -> None:
    firsts = set()
    for seed in SOME_SEEDS:
        sets = {}
        for name in (*SAMPLING, "progressive_supervised"):
            run = name if name.startswith("prog") else f"{name}_sampling"
            labeled = [set(indices) for indices in labeled_in(undisturbed, run, seed)]
            assert all(before < after for before, after in zip(labeled, labeled[1:], strict=False))
            sets[name] = labeled
        assert len({tuple(sorted(labeled[0])) for labeled in sets.values()}) == 1
        assert sets["uncertainty"] == sets["margin"]
        assert sets["random"] != sets["progressive_supervised"]
        firsts.add(tuple(sorted(sets["random"][0])))
    assert len(firsts) == len(SOME_SEEDS)


def test_progressive_ends_where_full_supervision_is(undisturbed: Path) -> None:
    """Both train from scratch on everything: one training, done once."""
    last, full = (
        json.loads((undisturbed / name / "metrics.json").read_text())
        for name in (
            f"progressive_supervised/seed_42/iteration_{LAST}",
            "full_supervision/seed_42/iteration_0",
        )
    )
    assert last["training_key"] == full["training_key"]
    assert last["reused"]


def test_running_again_changes_nothing(undisturbed: Path, dataset: Dataset) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("iteration_*/*")}
    run_experiment(whole(dataset, undisturbed))
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("iteration_*/*")} == before


def test_one_seed_has_no_seed_folders(dataset: Dataset, tmp_path: Path) -> None:
    out = run_experiment(
        small(dataset, tmp_path / "e", seeds=[1], strategies=["random"], baselines=[], keep_models="last",
              schedule={"counts": [2, 5, 9]})
    )  # fmt: skip
    assert sorted(path.name for path in (out / "random_sampling").iterdir()) == [
        "iteration_0",
        "iteration_1",
        "iteration_2",
        "metrics.jsonl",
        "run.log",
        "state.json",
    ]
    kept = {str(p.parent.relative_to(out)) for p in out.rglob("model.pt") if ".cache" not in p.parts}
    assert kept == {"random_sampling/iteration_2"}, "keep_models = 'last'"
    assert len(list((out / ".cache").rglob("model.pt"))) == 1, "nor does the cache keep the others"


def test_strategies_and_seeds_can_be_added_later(dataset: Dataset, tmp_path: Path) -> None:
    changes = {"schedule": {"counts": [2, 4]}, "baselines": []}
    run_experiment(small(dataset, tmp_path / "e", strategies=["random"], seeds=[1, 2], **changes))
    run_experiment(
        small(dataset, tmp_path / "e", strategies=["random", "entropy"], seeds=[1, 2, 3], **changes)
    )
    assert len(iterations(tmp_path / "e")) == 2 * 2 * 3


def test_what_was_finished_stays_in_the_report(dataset: Dataset, tmp_path: Path) -> None:
    changes = {"schedule": {"counts": [2, 4]}, "baselines": [], "seeds": [1, 2]}
    run_experiment(small(dataset, tmp_path / "e", strategies=["random", "entropy"], **changes))
    run_experiment(small(dataset, tmp_path / "e", strategies=["random"], **changes))
    assert load_config(tmp_path / "e" / "config.toml").strategies == ("random", "entropy")


def test_models_that_were_not_kept_are_made_again(dataset: Dataset, tmp_path: Path) -> None:
    """Losing the end of a pruned run costs time, not bits."""
    changes = {"strategies": ["entropy"], "baselines": [], "seeds": [1], "schedule": {"counts": [2, 4, 6, 8]}}
    run_experiment(small(dataset, tmp_path / "whole", **changes))
    run_experiment(small(dataset, tmp_path / "pruned", keep_models="last", **changes))
    last = "entropy_sampling/iteration_3"
    shutil.rmtree(tmp_path / "pruned" / last)
    run_experiment(small(dataset, tmp_path / "pruned", keep_models="last", **changes))
    first, second = (load_weights(tmp_path / name / last / "model.pt")[0] for name in ("whole", "pruned"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_start_that_failed_leaves_the_folder_usable(dataset: Dataset, tmp_path: Path) -> None:
    changes = {"strategies": ["random"], "baselines": [], "schedule": {"counts": [2, 4]}, "seeds": [1]}
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "environment.json").write_text("{}")
    run_experiment(small(dataset, tmp_path / "e", **changes))
    wild = small(dataset, tmp_path / "f", training={"initial_learning_rate": 1e30}, **changes)
    with pytest.raises(CryoqueryError, match="lower the"):
        run_experiment(wild)
    run_experiment(small(dataset, tmp_path / "f", **changes))


def test_an_iteration_that_lost_its_metrics_is_named(dataset: Dataset, tmp_path: Path) -> None:
    changes = {"strategies": ["random"], "baselines": [], "schedule": {"counts": [2, 4]}, "seeds": [1]}
    run_experiment(small(dataset, tmp_path / "e", **changes))
    (tmp_path / "e" / "random_sampling" / "iteration_1" / "metrics.json").unlink()
    with pytest.raises(ExperimentError, match=r"iteration_1: has no metrics\.json; remove this folder"):
        run_experiment(small(dataset, tmp_path / "e", **changes))


def test_two_at_once_are_told_apart(dataset: Dataset, tmp_path: Path) -> None:
    with alone(tmp_path / "e"), pytest.raises(ExperimentError, match="is running this experiment"):
        run_experiment(small(dataset, tmp_path / "e"))
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ExperimentError, match="is a file"):
        run_experiment(small(dataset, tmp_path / "file"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no GPU that torch can use"):
        run_experiment(small(dataset, tmp_path / "e", device={"accelerator": "cuda"}))


def test_another_experiment_in_the_folder_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    changes = {"strategies": ["random"], "baselines": [], "schedule": {"counts": [2, 4]}}
    run_experiment(small(dataset, tmp_path / "e", **changes))
    with pytest.raises(ExperimentError, match="begun with another training"):
        run_experiment(small(dataset, tmp_path / "e", training={"epochs": 3}, **changes))
    with pytest.raises(ExperimentError, match="filed differently"):
        run_experiment(small(dataset, tmp_path / "e", seeds=[42], **changes))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(ExperimentError, match="holds other files"):
        run_experiment(small(dataset, tmp_path / "thesis", **changes))


def test_a_dataset_that_changed_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(dataset.path, copy)
    changes = {
        "strategies": ["random"],
        "baselines": [],
        "schedule": {"counts": [2, 4]},
        "dataset": str(copy),
    }
    run_experiment(small(dataset, tmp_path / "e", **changes))
    masks = np.load(copy / "masks.npy", mmap_mode="r+")
    masks[0, 0, 0] ^= 1
    masks.flush()
    with pytest.raises(DataError, match="files changed after it was written"):
        run_experiment(small(dataset, tmp_path / "e", **changes))
    shutil.rmtree(copy)
    make_dataset(copy, {"train": 20, "val": 4}, seed=9)
    with pytest.raises(DataError, match=r"changed since the experiment in .* began"):
        run_experiment(small(dataset, tmp_path / "e", **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochz": 3}, "epochz: unknown key"),
        ({"training": {"epoch": 3}}, "training.epoch: unknown key; did you mean 'epochs'"),
        ({"training": {"betas": [1.0, 0.999]}}, "training.betas.0=1.0"),
        ({"training": {"focal_weight": 0, "dice_weight": 0}}, "nothing would be learned"),
        ({"training": {"focal_gamma": 0.5}}, "must be 0 or at least 1"),
        ({"strategies": [], "baselines": []}, "name at least one"),
        ({"seeds": [2**64]}, "at least one seed"),
        ({"strategies": ["entropie"]}, "'entropie': unknown; choose from uncertainty, entropy"),
        ({"strategies": ["entropy", "entropy"]}, "twice"),
        ({"seeds": []}, "at least one seed"),
        ({"schedule": {"counts": [5, 30]}}, "30 images are to be labeled, the pool has 20"),
        ({"schedule": {"counts": [5, 5]}}, "must be positive and increase"),
        ({"schedule": {"counts": [5], "fractions": [0.5]}}, "either counts or fractions"),
        ({"schedule": {"fractions": [0.01, 0.02]}}, "use fewer or larger steps"),
        ({"schedule": {"fractions": [0.5, 1.5]}}, "must not exceed 1"),
        ({"report_split": "test"}, "has only val"),
        ({"image_size": 64}, "image_size=64"),
        ({"image_size": 750}, "image_size"),
        ({"training": {"epochs": 0}}, "greater than or equal to 1"),
        ({"dataset": "/nowhere/at/all"}, "no such dataset folder"),
    ],
)
def test_bad_configs_give_one_line_and_leave_nothing(
    dataset: Dataset, tmp_path: Path, changes: dict, message: str
) -> None:
    with pytest.raises(CryoqueryError) as caught:
        run_experiment(small(dataset, tmp_path / "e", **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "e").exists()


def test_config_files_name_themselves_in_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml: no such config file"):
        load_config(tmp_path / "missing.toml")
    (tmp_path / "bad.toml").write_text("dataset = ")
    with pytest.raises(ConfigError, match=r"bad\.toml: cannot be read as TOML"):
        load_config(tmp_path / "bad.toml")
    (tmp_path / "typo.toml").write_text("dataset = 'x'\nstrategie = ['random']")
    with pytest.raises(ConfigError, match=r"typo\.toml: strategie: unknown key; did you mean 'strategies'"):
        load_config(tmp_path / "typo.toml")


def test_the_protocol_verbatim() -> None:
    config = load_config(PROTOCOL)
    assert config.schedule.counts == (517, 1034, 1551, 2069, 2586, 3103, 3620, 4137, 4655, 5172)
    assert config.strategies == SAMPLING
    assert config.baselines == ("full_supervision", "progressive_supervised")
    assert config.seeds[0] == 42
    assert len(config.seeds) == 3
    assert (config.image_size, config.model.base_channels) == (768, 64)
    training = config.training
    assert (training.initial_epochs, training.epochs, training.batch_size) == (20, 10, 16)
    assert (training.initial_learning_rate, training.learning_rate) == (1e-3, 5e-4)
    assert training.betas == (0.9, 0.999)
    assert (training.focal_weight, training.dice_weight) == (0.7, 0.3)


def test_compare_tells_what_is_unfinished(undisturbed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(undisturbed, copy)
    shutil.rmtree(copy / "entropy_sampling" / "seed_43" / f"iteration_{LAST}")
    compare(copy)
    efficiency = json.loads((copy / "comparison_results" / "efficiency_analysis.json").read_text())
    assert efficiency["unfinished"] == [f"Entropy Sampling, seed 43: {LAST} of {LAST + 1} iterations"]
    others = {str(seed) for seed in SOME_SEEDS if seed != 43}
    assert set(efficiency["runs"]["entropy_sampling"]["by_seed"]) == others
