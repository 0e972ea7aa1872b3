"""Runs in a pool of processes: the same results as in one, whatever happens to the processes."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from forks import Forked, forked_by
from four_runs import four_runs, results
from rich.console import Console

from cryoquery.cli.status import experiment_states, show_status, summary
from cryoquery.data.dataset import Dataset, open_dataset
from cryoquery.errors import UnfinishedRunsError
from cryoquery.experiment import executors
from cryoquery.experiment import run as work
from cryoquery.experiment.config import ExperimentConfig, plan_runs
from cryoquery.experiment.executors import run_experiment, schedule_order
from cryoquery.experiment.executors.local import n_workers
from cryoquery.experiment.folder import enter
from cryoquery.experiment.run import RunOutcome, is_run_finished
from cryoquery.experiment.run_log import read_state


def runs_of(out: Path, dataset: Dataset) -> list:
    return plan_runs(enter(out), len(dataset.rows("train")))


def test_a_pool_gives_the_bits_of_one_process(few_discs: Dataset, alone: Path, tmp_path: Path) -> None:
    out = run_experiment(four_runs(few_discs, tmp_path / "e", workers=2))
    assert results(out) == results(alone)
    for run in runs_of(out, few_discs):
        state = read_state(run.folder, run.name, run.seed)
        assert (state.state, state.n_finished) == ("finished", len(run.counts))
        lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["f1"] for line in lines if "f1" in line]
        assert "F1" in (run.folder / "run.log").read_text()
    assert summary(experiment_states(out)) == "4 runs: 4 finished"


def test_one_failing_run_stops_no_other(forked: None, few_discs: Dataset, tmp_path: Path) -> None:
    config = ExperimentConfig(**four_runs(few_discs, tmp_path / "e", workers=2))
    broken = tmp_path / "e" / "entropy_sampling" / "iteration_0"
    broken.mkdir(parents=True)
    (broken / "query.json").write_text("[]")
    (tmp_path / "e" / "config.toml").write_text(
        tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
    )
    with pytest.raises(UnfinishedRunsError) as caught:
        run_experiment(config)
    message = str(caught.value)
    assert "1 of 4 runs are not finished; entropy_sampling seed 1: " in message
    assert "has no metrics.json" in message
    left = [run.name for run in runs_of(tmp_path / "e", few_discs) if not is_run_finished(run)]
    assert left == ["entropy_sampling"]


DIES = """
import os, signal, sys
from cryoquery.experiment import run as work
from cryoquery.experiment.executors import worker

learn, marks = work.active_learning, sys.argv.pop()

def die_at_first(run, *rest):
    if run.name == "entropy_sampling" and len(os.listdir(marks)) < int(os.environ["N_DEATHS"]):
        open(os.path.join(marks, str(os.getpid())), "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return learn(run, *rest)

work.active_learning = die_at_first
sys.exit(worker.main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("n_deaths", [2, 3])
def test_a_dying_worker_is_replaced_a_few_times(
    few_discs: Dataset, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_deaths: int
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()

    def start(command: list[str], **options: object) -> object:
        return Forked([sys.executable, "-c", DIES, *command[3:], str(marks)], **options)

    monkeypatch.setattr("cryoquery.experiment.executors.local.subprocess.Popen", start)
    monkeypatch.setenv("N_DEATHS", str(n_deaths))
    config = four_runs(few_discs, tmp_path / "e", workers=2)
    if n_deaths == 2:
        assert results(run_experiment(config)) == results(alone)
    else:
        with pytest.raises(UnfinishedRunsError, match=r"its process died 3 times \(signal 9\); see"):
            run_experiment(config)
        assert len(list((tmp_path / "e").glob("*/iteration_2"))) == 2, "the others are finished"
    assert len(list(marks.iterdir())) == n_deaths


FORKS_WORKERS = """
import subprocess
from forks import Forked
subprocess.Popen = Forked
from cryoquery.cli import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_stopped_it_leaves_nobody_behind_and_goes_on(
    forked: None, few_discs: Dataset, alone: Path, tmp_path: Path, number: int
) -> None:
    out = tmp_path / "e"
    (tmp_path / "c.toml").write_text(tomli_w.dumps(four_runs(few_discs, out, workers=2)))
    command = [sys.executable, "-c", FORKS_WORKERS, "experiment", str(tmp_path / "c.toml")]
    process = Forked(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(out.glob("*/iteration_0")) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = forked_by(process.pid)
    assert len(workers) == 2
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (130, 143, -signal.SIGKILL)
    if number != signal.SIGKILL:
        assert "run the same command again" in errors
    deadline = time.monotonic() + 30
    while any(is_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_alive(pid) for pid in workers)
    assert results(run_experiment(four_runs(few_discs, out, workers=2))) == results(alone)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_runs_that_repeat_others_come_late(tmp_path: Path) -> None:
    config = ExperimentConfig(dataset=tmp_path, seeds=(1, 2))
    names = [(run.name, run.seed) for run in schedule_order(plan_runs(config, 100))]
    assert names[:2] == [("uncertainty_sampling", 1), ("uncertainty_sampling", 2)]
    assert {name for name, _ in names[-4:]} == {"margin_sampling", "progressive_supervised"}


def test_workers_fit_the_machine(few_discs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = plan_runs(ExperimentConfig(dataset=tmp_path, schedule={"counts": (2, 4)}), 10)

    def n(**changes: object) -> int:
        return n_workers(ExperimentConfig(dataset=tmp_path, **changes), few_discs, runs)

    monkeypatch.setattr("cryoquery.experiment.executors.local._on_gpu", lambda config: False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr("cryoquery.experiment.executors.local._free_memory", lambda: 64e9)
    assert n(model={"base_channels": 2}) == 8
    assert n(model={"base_channels": 2}, device={"threads": 4}) == 2
    assert n(workers=3) == 3
    assert n(workers=100) == len(runs)
    monkeypatch.setattr("cryoquery.experiment.executors.local._free_memory", lambda: 2e9)
    assert n(model={"base_channels": 2}) == 3
    assert n() == 1


def test_logs_are_not_taken_for_results(alone: Path) -> None:
    assert open_dataset(enter(alone).dataset)
    assert not [path for path in alone.rglob("*") if path.name in (".running", ".environment.lease")]


def test_this_process_has_its_threads_again_afterwards(
    few_discs: Dataset, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    during: list[int] = []

    def do_run(*arguments: Any) -> RunOutcome:
        during.append(torch.get_num_threads())
        return work.do_run(*arguments)

    monkeypatch.setattr(executors, "do_run", do_run)
    out, before = shutil.copytree(alone, tmp_path / "e"), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run_experiment(four_runs(few_discs, out, workers=1))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert during == [1] * 4


@pytest.mark.filterwarnings("ignore")
def test_events_for_tensorboard(few_discs: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    out = run_experiment(
        four_runs(few_discs, tmp_path / "e", workers=1, strategies=["random"], baselines=[], tensorboard=True)
    )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "random_sampling" / "tensorboard"))
    events.Reload()
    f1 = [json.loads(path.read_text())["f1"] for path in sorted(out.glob("*/iteration_*/metrics.json"))]
    found = events.Scalars("F1 by labeled images")
    assert [event.step for event in found] == [2, 4, 6]
    assert [event.value for event in found] == pytest.approx(f1, abs=1e-6)
    assert len(events.Scalars("loss by epoch")) == 2 + 1 + 1


def test_a_table_of_the_runs(alone: Path) -> None:
    console = Console(file=io.StringIO(), width=120)
    show_status(alone, console, live=True)
    lines = console.file.getvalue().splitlines()
    assert lines[0].split() == ["run", "seed", "iterations", "F1", "state", "node", "left"]
    assert sum("finished" in line for line in lines) == 5
    assert any(line.startswith("entropy_sampling") and " 3/3 " in line for line in lines)
    assert lines[-1] == "4 runs: 4 finished"
