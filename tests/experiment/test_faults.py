from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import faults as faults_module
import numpy as np
import pytest
import tomli_w
import torch
from conftest import make_dataset
from faults import EIO, ENOSPC, KILL, MEMORY
from forks import Forked
from leases_of_others import write_lease
from small_protocol import SAMPLING, iterations, small
from tiers import take, thorough

from cryoquery import cli, run_experiment
from cryoquery.active.progress import Event, Waiting
from cryoquery.data.dataset import Dataset
from cryoquery.errors import CryoqueryError, DataError, explain
from cryoquery.network.checkpoint import load_model, load_weights
from cryoquery.storage import leases as leases
from cryoquery.storage.atomic import SupersededError, remove_leftovers, staged_directory, write_file
from cryoquery.storage.cache import Cache
from cryoquery.storage.leases import Owner

MEAN_GAP = 40
"""Operations between two faults. Much less than a training makes, and nothing would ever be finished."""
SHORT = {
    "strategies": take(["uncertainty", "hybrid"], list(SAMPLING)),
    "seeds": take([42], [42, 43]),
    "schedule": {"fractions": take([0.25, 0.5, 1.0], [0.25, 0.5, 0.75, 1.0])},
}
TINY: dict[str, Any] = {
    "strategies": ["entropy"],
    "baselines": [],
    "seeds": [1],
    "schedule": {"counts": [2, 4, 6]},
}
JSON_FILES = ("labeled_indices.json", "query.json", "metrics.json")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "discs", {"train": 20, "val": 4})


@pytest.fixture(scope="module")
def undisturbed(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small protocol with four iterations and two seeds: several strategies, both baselines."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (only,) = attempts(folder, small(dataset, folder / "e", **SHORT), [{}])
    assert (only["status"], only["said"]) == (0, "")
    return folder / "e"


def attempts(folder: Path, config: dict[str, Any], faults: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How attempts at the same experiment ended, one for each of the ``faults`` (see faults.py)."""
    file, plan = folder / "config.toml", folder / "plan.json"
    file.write_text(tomli_w.dumps(config))
    plan.write_text(
        json.dumps({"command": ["experiment", str(file)], "folder": config["out"], "faults": faults})
    )
    command = [sys.executable, faults_module.__file__, str(plan)]
    with Forked(command, stdout=subprocess.PIPE, text=True) as process:
        told, _ = process.communicate()
    assert process.returncode == 0
    return [json.loads(line) for line in told.splitlines()]


def gaps(n: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).geometric(1 / MEAN_GAP, n).tolist()


def same_results(first: Path, second: Path) -> None:
    """Everything that describes a result is equal, weights and predictions to the last bit."""
    a, b = iterations(first), iterations(second)
    assert a.keys() == b.keys()
    for name, folder in a.items():
        for file in JSON_FILES:
            results = [json.loads((path / file).read_text()) for path in (folder, b[name])]
            if file == "metrics.json":
                # How long it took, and which of the runs that share a training came first.
                results = [{k: v for k, v in r.items() if k not in ("seconds", "reused")} for r in results]
            assert results[0] == results[1], f"{name}/{file}"
        weights, others = (load_weights(path / "model.pt")[0] for path in (folder, b[name]))
        assert all(torch.equal(weights[key], others[key]) for key in weights), name
        with np.load(folder / "examples.npz") as mine, np.load(b[name] / "examples.npz") as theirs:
            assert all(np.array_equal(mine[key], theirs[key]) for key in mine.files), name
    for path in first.glob("comparison_results/*"):
        if path.name != "report.html":  # which names its folder
            assert path.read_bytes() == (second / "comparison_results" / path.name).read_bytes(), path.name


def leftovers(experiment: Path) -> list[str]:
    signs = (".partial", ".lease", ".discarded", ".running")
    return [str(path) for path in experiment.rglob("*") if any(sign in path.name for sign in signs)]


@thorough
@pytest.mark.timeout(900)
def test_killed_at_many_moments_it_ends_the_same(undisturbed: Path, dataset: Dataset, tmp_path: Path) -> None:
    """SIGKILL before, in the middle of and after any operation that changes a file, and in trainings."""
    n = take(8, 100)
    faults = [{"kind": KILL, "at": gap} for gap in gaps(n, seed=0)]
    *killed, last = attempts(tmp_path, small(dataset, tmp_path / "e", **SHORT), [*faults, {}])
    assert [attempt["status"] for attempt in killed] == [-9] * n, "it was over before it was disturbed"
    kinds = {attempt["hit"].split()[0] for attempt in killed}
    assert kinds >= take({"write", "fsync"}, {"open", "write", "fsync", "os.rename", "os.mkdir"})
    assert (last["status"], last["said"]) == (0, "")
    same_results(undisturbed, tmp_path / "e")
    assert not leftovers(tmp_path / "e")


def test_killed_while_it_compares_it_ends_the_same(dataset: Dataset, tmp_path: Path) -> None:
    config = small(dataset, tmp_path / "e", **TINY)
    whole, *killed, last = attempts(tmp_path, config, [{}, {"at": 25}, {"at": 40}, {}])
    assert [attempt["status"] for attempt in killed] == [-9, -9]
    assert whole["status"] == last["status"] == 0
    assert not leftovers(tmp_path / "e")
    assert len(list((tmp_path / "e" / "comparison_results").iterdir())) == 8


@thorough
@pytest.mark.timeout(900)
def test_failing_disks_end_in_one_line_and_the_rest_comes_out_the_same(
    undisturbed: Path, dataset: Dataset, tmp_path: Path
) -> None:
    """Writes that fail once or from then on, halfway through; beats of leases always fail."""
    faults = [
        {"kind": (ENOSPC, EIO)[i % 2], "at": gap, "lasting": i % 4 >= 2}
        for i, gap in enumerate(gaps(take(4, 40), seed=1))
    ]
    *failed, last = attempts(tmp_path, small(dataset, tmp_path / "e", **SHORT), [*faults, {}])
    for attempt in failed:
        said = attempt["said"]
        assert attempt["status"] == 1, attempt
        assert said.startswith(f"cryoquery: {tmp_path / 'e'}"), attempt
        assert said.count("\n") == 1, attempt
        reason = "no space left on device; free some" if "space" in said else "input/output error; see that"
        assert reason in said, attempt
        assert "and run again; what is finished is kept" in said, attempt
        assert "partial" not in said, attempt
    assert (last["status"], last["said"]) == (0, "")
    same_results(undisturbed, tmp_path / "e")
    assert not leftovers(tmp_path / "e")


def test_an_output_that_cannot_be_written(dataset: Dataset, tmp_path: Path) -> None:
    faults = [{"kind": kind, "at": 1, "lasting": True} for kind in ("EROFS", "EACCES")]
    read_only, forbidden = attempts(tmp_path, small(dataset, tmp_path / "e", **TINY), faults)
    place = f"cryoquery: {tmp_path / 'e'}"
    expected = f"{place}: read-only file system; choose a folder that can be written to\n"
    assert (read_only["status"], read_only["said"]) == (1, expected)
    expected = f"{place}: permission denied; ask for access, or choose another folder\n"
    assert (forbidden["status"], forbidden["said"]) == (1, expected)


def test_out_of_memory(dataset: Dataset, tmp_path: Path) -> None:
    config = small(dataset, tmp_path / "e", **TINY, model={"base_channels": 32})
    first, second = attempts(tmp_path, config, [{"kind": MEMORY, "megabytes": n} for n in (60, 130)])
    for attempt in (first, second):
        assert attempt["status"] == 1, attempt
        assert ": out of memory; use a smaller batch_size" in attempt["said"], attempt
        assert attempt["said"].count("\n") == 1
    assert not leftovers(tmp_path / "e")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("could not create a primitive"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_lack_of_memory_is_told_from_mistakes_of_ours(error: Exception) -> None:
    assert "smaller batch_size" in str(explain(error))
    assert explain(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny experiment."""
    return run_experiment(small(dataset, tmp_path_factory.mktemp("whole") / "e", **TINY))


@pytest.fixture
def begun(whole: Path, tmp_path: Path) -> Path:
    """The tiny experiment without its last iteration."""
    shutil.copytree(whole, tmp_path / "e")
    shutil.rmtree(tmp_path / "e" / "entropy_sampling" / "iteration_2")
    return tmp_path / "e"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@thorough
@pytest.mark.parametrize("in_store", take([False], [True, False]))
@pytest.mark.parametrize("name", ["model.pt", "examples.npz"])
@pytest.mark.parametrize("harm", take([cut, flip], [cut, flip, Path.unlink]))
def test_a_damaged_parent_is_never_built_upon(
    dataset: Dataset, whole: Path, begun: Path, harm: Callable[[Path], None], name: str, in_store: bool
) -> None:
    parent = begun / "entropy_sampling" / "iteration_1"
    harm(parent / name)
    if not in_store:
        shutil.rmtree(begun / ".cache")
    run_experiment(small(dataset, begun, **TINY))
    if name == "model.pt" and harm is cut:
        with pytest.raises(DataError, match="not a model written by cryoquery"):
            load_model(parent / name)
    shutil.copy(whole / "entropy_sampling" / "iteration_1" / name, parent)
    same_results(whole, begun)


@thorough
@pytest.mark.parametrize("harm", take([flip], [cut, flip, Path.unlink]))
@pytest.mark.parametrize("name", ["model.pt", "examples.npz", "scores.json", "entry.json"])
def test_a_damaged_store_is_made_again(
    dataset: Dataset, whole: Path, begun: Path, harm: Callable[[Path], None], name: str
) -> None:
    for file in (begun / ".cache").rglob(name):
        harm(file)
    run_experiment(small(dataset, begun, **TINY))
    same_results(whole, begun)


@thorough
@pytest.mark.parametrize(
    "content", take(["cut", '[{"index": "a"}]'], ["cut", "[]", "{}", "null", "[1]", '[{"index": "a"}]'])
)
@pytest.mark.parametrize("name", JSON_FILES)
def test_damaged_records_are_named_with_the_way_out(
    dataset: Dataset, whole: Path, begun: Path, name: str, content: str
) -> None:
    folder = begun / "entropy_sampling" / "iteration_1"
    if content == "cut":
        cut(folder / name)
    else:
        (folder / name).write_text(content)
    with pytest.raises(CryoqueryError) as caught:
        run_experiment(small(dataset, begun, **TINY))
    said = str(caught.value)
    assert str(folder) in said
    assert "remove th" in said
    assert "run again" in said
    assert "\n" not in said
    shutil.rmtree(folder)
    run_experiment(small(dataset, begun, **TINY))
    same_results(whole, begun)


def test_claims_of_a_machine_that_died_are_waited_for_and_taken(
    dataset: Dataset, whole: Path, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(leases, "POLL_SECONDS", 0.05)
    dead = replace(Owner.myself(), host="node-7", boot="another")
    write_lease(begun / ".running", dead)
    shutil.rmtree(begun / "entropy_sampling" / "iteration_1")
    for entry in list((begun / ".cache").glob("*/*")):
        write_lease(entry.with_name(f"{entry.name}.lease"), dead)
        shutil.rmtree(entry)
        (entry.with_name(f".{entry.name}.0123abcd-1-1-01234567.partial")).mkdir()
    told: list[Event] = []
    run_experiment(small(dataset, begun, **TINY), told.append)
    assert Waiting(f"process {os.getpid()} on node-7") in told
    assert not leftovers(begun)
    same_results(whole, begun)


def test_nothing_depends_on_the_clock(
    dataset: Dataset, whole: Path, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: jumps.uniform(0, 4e9))
    monkeypatch.setattr(time, "time_ns", lambda: jumps.randrange(4 * 10**18))
    for file in begun.rglob("*.json"):
        os.utime(file, (jumps.randrange(2**31), jumps.randrange(2**31)))
    run_experiment(small(dataset, begun, **TINY))
    same_results(whole, begun)


@pytest.mark.timeout(300)
def test_two_people_start_the_same_at_once(dataset: Dataset, whole: Path, begun: Path) -> None:
    out = begun.parent / "twice"
    config = begun.parent / "twice.toml"
    config.write_text(tomli_w.dumps(small(dataset, out, **TINY)))
    start = [sys.executable, "-c", "from cryoquery.cli import main; main()", "experiment", str(config)]
    both = [Forked(start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=240)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said
    other, refused = both if both[1].returncode else both[::-1]
    expected = f"cryoquery: {out}: process {other.pid} on "
    assert said[both.index(refused)].startswith(expected)
    assert "is running this experiment; wait for it, or stop it first\n" in said[both.index(refused)]
    same_results(whole, out)
    assert not leftovers(out)


def test_a_loss_that_is_not_a_number_keeps_what_was_finished(dataset: Dataset, tmp_path: Path) -> None:
    wild = small(dataset, tmp_path / "e", **TINY, training={"learning_rate": 1e30, "initial_epochs": 2})
    for _ in range(2):
        with pytest.raises(CryoqueryError, match=r"training: .* lower the learning rate \(now 1e\+30\)"):
            run_experiment(wild)
        assert list(iterations(tmp_path / "e")) == ["entropy_sampling/iteration_0"]
        assert not leftovers(tmp_path / "e")


def test_the_command_line_shows_mistakes_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(standalone_mode: bool) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_a_folder_that_appeared_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "d"
    staged = staged_directory(path)
    staged.__enter__()
    path.mkdir()
    (path / "theirs").touch()
    with pytest.raises(SupersededError, match="another process made it meanwhile"):
        staged.__exit__(None, None, None)
    assert [file.name for file in tmp_path.rglob("*")] == ["d", "theirs"]


def test_an_entry_that_appeared_meanwhile_is_taken(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def slow(folder: Path) -> None:
        (folder / "model.pt").write_bytes(b"the same")
        for file in tmp_path.rglob("*.lease"):
            file.unlink()
        assert Cache(tmp_path).obtain("ab", fast)[1]

    def fast(folder: Path) -> None:
        (folder / "model.pt").write_bytes(b"the same")

    entry, made = cache.obtain("ab", slow)
    assert not made
    assert (entry / "model.pt").read_bytes() == b"the same"
    assert [path.name for path in entry.parent.iterdir()] == ["ab"]


def test_only_what_belongs_to_nobody_is_removed(tmp_path: Path) -> None:
    """A living process keeps its part, also of a folder whose name begins alike."""
    dead = replace(Owner.myself(), started="12").tag
    elsewhere = replace(Owner.myself(), host="node-7").tag
    for tag in (dead, elsewhere):
        (tmp_path / f".file.{tag}-01234567.partial").touch()
        (tmp_path / f".dir.{tag}-01234567.partial").mkdir()
    with staged_directory(tmp_path / "dir.2") as other, staged_directory(tmp_path / "dir") as mine:
        with staged_directory(tmp_path / "dir"):
            assert other.exists()
            assert mine.exists()
            names = sorted(path.name for path in tmp_path.glob(".dir.*partial"))
            assert [name for name in names if dead in name or elsewhere in name] == []
        (mine / "file").touch()
        shutil.rmtree(tmp_path / "dir")
    with write_file(tmp_path / "file"):
        remove_leftovers(tmp_path)
        assert len(list(tmp_path.glob(".file.*"))) == 2, "mine, and that of another machine"
        remove_leftovers(tmp_path, alone=True)
        assert len(list(tmp_path.glob(".file.*"))) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dir", "dir.2", "file"]
