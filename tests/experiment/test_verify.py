from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_dataset
from tiers import take, thorough

from cryoquery import cli, run_experiment
from cryoquery.data.dataset import Dataset
from cryoquery.errors import ExperimentError
from cryoquery.experiment.verify import verify
from cryoquery.storage import provenance

SMALL = {
    "strategies": ["entropy", "hybrid", "stratified_random"],
    "baselines": ["full_supervision"],
    "seeds": [1, 2],
    "schedule": {"counts": [2, 4, 7]},
    "model": {"base_channels": 2},
    "training": {"initial_epochs": 1, "epochs": 1},
    "workers": 1,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "discs", {"train": 10, "val": 3, "test": 2})


@pytest.fixture(scope="module")
def sound(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sound") / "experiment"
    return run_experiment(SMALL | {"dataset": str(dataset.path), "out": str(out)})


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    """A copy to damage. Models share their files with the original: replace them, never write into them."""

    def link_models(source: str, target: str) -> None:
        (os.link if source.endswith(".pt") else shutil.copy2)(source, target)

    return Path(shutil.copytree(sound, tmp_path / "copy", copy_function=link_models))


def change(file: Path, how: Callable[[Any], Any]) -> Path:
    """Replace the content of a JSON file; returns the file."""
    content = json.loads(file.read_text())
    replaced = how(content)
    file.write_text(json.dumps(content if replaced is None else replaced))
    return file


def flip(file: Path) -> Path:
    """Flip a bit in the middle of a file, under this name alone."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    file.write_bytes(content)
    return file


def test_an_undisturbed_experiment_holds(sound: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sound.rglob("*")}
    found = verify(sound)
    assert [str(problem) for problem in found.problems] == []
    assert found.holds
    assert found.unfinished == ()
    assert found.not_checked == (), "signals of all queries are in the cache, the dataset is there"
    assert found.n_checks > 1000
    assert found.summary() == f"{found.n_checks:,} checks: all hold"
    assert {path: path.stat().st_mtime_ns for path in sound.rglob("*")} == before, "nothing is written"


def test_the_environment_says_where_results_come_from(sound: Path) -> None:
    environment = json.loads((sound / "environment.json").read_text())
    assert {"packages", "commit", "device", "config_sha256", "training_version"} <= environment.keys()
    assert environment["commit"] is None or len(environment["commit"].removesuffix("-dirty")) == 40


def of_another_strategy(query: Path) -> Path:
    """Put the query of another strategy in, made of the same labels by the same network."""
    other = query.parents[3] / "hybrid_sampling" / query.relative_to(query.parents[2])
    assert json.loads(query.read_text()) != json.loads(other.read_text())
    query.write_text(other.read_text())
    return query


def replace_unlabeled(file: Path) -> Path:
    """Put an image in that nobody asked for, and one out that was."""

    def other(labeled: list[int]) -> list[int]:
        new = next(i for i in range(10) if i not in labeled)
        return sorted([*labeled[1:], new])

    return change(file, other)


def change_a_count(metrics: dict[str, Any]) -> None:
    metrics["per_micrograph"][0]["pixel_tp"] += 1


def change_a_score(metrics: dict[str, Any]) -> None:
    metrics["test"]["per_group"]["A"]["iou"] += 0.01


def prepend(file: Path) -> Path:
    file.write_bytes(b"\xff" + file.read_bytes())
    return file


def truncate(file: Path) -> Path:
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2])
    return file


def remove(file: Path) -> Path:
    shutil.rmtree(file) if file.is_dir() else file.unlink()
    return file


def add_another(iteration: Path) -> Path:
    return Path(shutil.copytree(iteration, iteration.with_name("iteration_3")))


def replace_text(file: Path, old: str, new: str) -> Path:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    return file


def spoil_signals(file: Path) -> Path:
    with np.load(file) as kept:
        columns = dict(kept)
    columns["entropy"][0] = np.nan
    np.savez(file, **columns)
    return file


def text(old: str, new: str) -> Callable[[Path], Path]:
    return lambda file: replace_text(file, old, new)


def content(how: Callable[[Any], Any]) -> Callable[[Path], Path]:
    return lambda file: change(file, how)


def setting(key: str, value: Any) -> Callable[[Path], Path]:
    return content(lambda found: found.update({key: value}))


def in_query(rank: int, key: str, value: Any) -> Callable[[Path], Path]:
    return content(lambda choices: choices[rank].update({key: value}))


FIRST, SECOND, LAST = (f"entropy_sampling/seed_1/iteration_{i}" for i in range(3))
DRAWN = "stratified_random_sampling/seed_2/iteration_0"
ASKED_AT_THE_END = [{"index": 0, "score": 1.0, "rank": 0, "reason": ""}]

TAMPERING: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "another first draw": (f"{FIRST}/labeled_indices.json", replace_unlabeled),
    "an image nobody asked for": (f"{SECOND}/labeled_indices.json", replace_unlabeled),
    "an image twice": (f"{LAST}/labeled_indices.json", content(lambda x: [x[0], *x[:-1]])),
    "an index out of range": (f"{LAST}/labeled_indices.json", content(lambda x: [*x[:-1], 99])),
    "an image too few": (f"{LAST}/labeled_indices.json", content(lambda x: x[:-1])),
    "half a JSON": (f"{SECOND}/labeled_indices.json", truncate),
    "not UTF-8": (f"{SECOND}/metrics.json", prepend),
    "JSON of another kind": (f"{SECOND}/query.json", content(lambda _: {"a": 1})),
    "a query of another strategy": (f"{FIRST}/query.json", of_another_strategy),
    "a query that asks twice": (f"{FIRST}/query.json", content(lambda q: [q[0], q[0]])),
    "a query in another order": (f"{FIRST}/query.json", content(lambda q: q[::-1])),
    "another score": (f"{SECOND}/query.json", in_query(2, "score", 1e-3)),
    "another rank": (f"{SECOND}/query.json", in_query(2, "rank", 5)),
    "a query at the end": (f"{LAST}/query.json", content(lambda _: ASKED_AT_THE_END)),
    "another random score": (f"{DRAWN}/query.json", in_query(1, "score", 0.0)),
    "an F1 that its counts do not give": (f"{SECOND}/metrics.json", setting("f1", 0.987)),
    "other counts": (f"{SECOND}/metrics.json", content(change_a_count)),
    "an AUC above 1": (f"{SECOND}/metrics.json", setting("auc", 1.5)),
    "a score on the other split": (f"{SECOND}/metrics.json", content(change_a_score)),
    "another number of particles": (f"{SECOND}/metrics.json", setting("n_labeled_particles", 1)),
    "another fraction": (f"{SECOND}/metrics.json", setting("labeled_fraction", 0.5)),
    "another seed": (f"{SECOND}/metrics.json", setting("seed", 2)),
    "another training": (f"{SECOND}/metrics.json", setting("training_key", "0" * 64)),
    "another dataset": (f"{SECOND}/metrics.json", setting("dataset_fingerprint", "0" * 64)),
    "a list for the protocol": (f"{SECOND}/metrics.json", setting("protocol", [])),
    "a flipped bit in a model": (f"{SECOND}/model.pt", flip),
    "a lost model": (f"{SECOND}/model.pt", remove),
    "half the examples": (f"{SECOND}/examples.npz", truncate),
    "a lost iteration": (SECOND, remove),
    "an iteration too many": (LAST, add_another),
    "other epochs": ("config.toml", text("\nepochs = 1", "\nepochs = 2")),
    "not TOML": ("config.toml", text("seeds = [", "seeds = ")),
    "another fingerprint": ("environment.json", setting("dataset_fingerprint", "0" * 64)),
    "another device": ("environment.json", setting("device_type", "abacus")),
    "another number of images": ("environment.json", setting("n_train_images", 11)),
    "no environment": ("environment.json", remove),
    "a flipped bit in the cache": (".cache/*/*/scores.json", flip),
    "a lost manifest": (".cache/*/*/entry.json", remove),
    "signals that are no numbers": (".cache/*/*/signals/*.npz", spoil_signals),
    "half a file of signals": (".cache/*/*/signals/*.npz", truncate),
}


@pytest.mark.parametrize(("pattern", "tamper"), TAMPERING.values(), ids=TAMPERING.keys())
def test_the_file_that_was_tampered_with_is_named(
    copy: Path, pattern: str, tamper: Callable[[Path], Path]
) -> None:
    file = tamper(min(copy.glob(pattern)))
    found = verify(copy)
    assert {problem.file for problem in found.problems} == {file}, [str(p) for p in found.problems]
    assert all("\n" not in str(problem) for problem in found.problems)


ODD: tuple[Any, ...] = take((None, {"a": []}), (None, "x", [None], {"a": []}, 2**80, float("nan")))


@thorough
@pytest.mark.parametrize(
    "pattern",
    ["environment.json", f"{SECOND}/metrics.json", f"{SECOND}/query.json", ".cache/*/*/entry.json"],
)
def test_odd_values_are_no_traceback(copy: Path, pattern: str) -> None:
    """Each of the odd values in the place of some key, of some record."""
    file = min(copy.glob(pattern))
    before = json.loads(file.read_text())
    rng = np.random.default_rng(0)
    for odd in ODD:
        spoiled = json.loads(json.dumps(before))
        record = spoiled[int(rng.integers(len(spoiled)))] if isinstance(spoiled, list) else spoiled
        record[list(record)[int(rng.integers(len(record)))]] = odd
        file.write_text(json.dumps(spoiled))
        assert all(problem.file.parent == file.parent for problem in verify(copy).problems)


def test_a_query_whose_signals_changed_is_named(copy: Path) -> None:
    for file in (copy / ".cache").glob("*/*/signals/*.npz"):
        with np.load(file) as kept:
            columns = dict(kept)
        columns["entropy"] = columns["entropy"][::-1]
        np.savez(file, **columns)
    found = verify(copy)
    assert {problem.file.name for problem in found.problems} == {"query.json"}
    assert {problem.file.parts[-4] for problem in found.problems} == {"entropy_sampling"}
    assert "does not follow from its signals: at rank 0 it has" in found.problems[0].text


def test_a_dataset_that_changed_is_named(copy: Path, dataset: Dataset, tmp_path: Path) -> None:
    other = Path(shutil.copytree(dataset.path, tmp_path / "data"))
    replace_text(copy / "config.toml", str(dataset.path), str(other))
    assert verify(copy).holds, "where the dataset is may change"
    flip(other / "masks.npy")
    assert {problem.file for problem in verify(copy).problems} == {other}


def test_without_the_dataset_everything_else_is_checked(copy: Path, dataset: Dataset) -> None:
    replace_text(copy / "config.toml", str(dataset.path), "/nowhere/at/all")
    found = verify(copy)
    assert found.holds
    assert "what needs the dataset, since it is not at /nowhere/at/all" in found.not_checked
    assert any("stratified_random" in what for what in found.not_checked)
    file = in_query(0, "score", 0.3)(copy / "hybrid_sampling/seed_1/iteration_1/query.json")
    assert {problem.file for problem in verify(copy).problems} == {file}


def test_without_its_store_the_rest_is_checked(copy: Path) -> None:
    shutil.rmtree(copy / ".cache")
    found = verify(copy)
    assert found.holds
    assert any("the cache, since it is not at" in what for what in found.not_checked)
    assert any("queries of entropy" in what for what in found.not_checked)
    file = of_another_strategy(copy / "stratified_random_sampling/seed_1/iteration_0/query.json")
    assert {problem.file for problem in verify(copy).problems} == {file}, "a draw needs no cache"


def test_unfinished_runs_are_listed(copy: Path) -> None:
    shutil.rmtree(copy / LAST)
    shutil.rmtree(copy / "hybrid_sampling" / "seed_2")
    found = verify(copy)
    assert found.holds
    assert found.unfinished == (
        "entropy_sampling, seed 1: 2 of 3 iterations",
        "hybrid_sampling, seed 2: 0 of 3 iterations",
    )


def test_it_holds_after_something_was_added(dataset: Dataset, tmp_path: Path) -> None:
    config = SMALL | {"dataset": str(dataset.path), "out": str(tmp_path / "e"), "baselines": []}
    run_experiment(config | {"strategies": ["random"], "keep_models": "last"})
    run_experiment(config | {"strategies": ["random", "core_set"], "keep_models": "last"})
    found = verify(tmp_path / "e")
    assert [str(problem) for problem in found.problems] == []
    assert any("not to be kept" in what for what in found.not_checked)


def test_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="holds no experiment"):
        verify(tmp_path)


def command(monkeypatch: pytest.MonkeyPatch, experiment: Path) -> int:
    monkeypatch.setattr(sys, "argv", ["cryoquery", "verify", str(experiment)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sound: Path, copy: Path
) -> None:
    assert command(monkeypatch, sound) == 0
    assert "checks: all hold" in capsys.readouterr().out
    file = setting("f1", 0.987)(copy / SECOND / "metrics.json")
    assert command(monkeypatch, copy) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{file}: f1 is 0.987, ")
    assert lines[-1].endswith("1 do not hold")


def test_the_commit_is_that_of_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package that somebody installed inside a checkout of something else has none."""
    source = tmp_path / "package" / "provenance.py"
    source.parent.mkdir()
    source.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(source))

    def git(*arguments: str) -> str:
        own = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        answer = subprocess.run(
            ["git", *own, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return answer.stdout.strip()

    assert provenance.source_commit() is None
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "Begin")
    assert provenance.source_commit() is None
    git("add", ".")
    git("commit", "-q", "-m", "Add")
    assert provenance.source_commit() == git("rev-parse", "HEAD")
    source.write_text("changed = True")
    assert provenance.source_commit() == git("rev-parse", "HEAD") + "-dirty"
