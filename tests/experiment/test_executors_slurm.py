"""The same runs through a real Slurm: sbatch, requeue, and a node that is lost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from four_runs import four_runs, results
from slurm_cluster import SlurmCluster, wait_until
from tiers import second_tier

from cryoquery import slurm as slurm_module
from cryoquery.cli.status import experiment_states
from cryoquery.data.dataset import Dataset
from cryoquery.errors import SlurmError, UnfinishedRunsError
from cryoquery.experiment.executors import run_experiment
from cryoquery.experiment.executors.slurm import FOLDER
from cryoquery.slurm import queue

pytestmark = pytest.mark.slurm

ASKED = {"cpus": 1, "memory_gb": 1, "hours": 0.5}
ONE_LONG = {
    "strategies": ["entropy"],
    "baselines": [],
    "training": {"initial_epochs": 250, "epochs": 2},
}
"""Training long enough to be disturbed."""


@pytest.fixture(scope="module")
def long_alone(few_discs: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The long run in this process."""
    return run_experiment(four_runs(few_discs, tmp_path_factory.mktemp("long") / "e", workers=1, **ONE_LONG))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_module, "POLL_SECONDS", 0.2)


def on_slurm(few_discs: Dataset, out: Path, **changes: Any) -> dict[str, Any]:
    return four_runs(few_discs, out, executor="slurm", slurm=ASKED, **changes)


def in_background(work: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def job_at_work(out: Path) -> str:
    """The number of a job that is in the middle of a training."""
    found: list[str] = []

    def some() -> bool:
        found[:] = [s.job for s in experiment_states(out) if s.state == "running" and s.epoch > 3 and s.job]
        return bool(found)

    assert wait_until(lambda: (out / "config.toml").is_file() and some(), 90), experiment_states(out)
    return found[0]


def test_jobs_give_the_bits_of_the_local_executor(
    slurm: SlurmCluster, few_discs: Dataset, alone: Path, tmp_path: Path
) -> None:
    run_experiment(on_slurm(few_discs, tmp_path / "jobs"))
    assert results(tmp_path / "jobs") == results(alone)
    states = experiment_states(tmp_path / "jobs")
    assert [state.state for state in states] == ["finished"] * 4
    assert all(state.job for state in states)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "jobs").rglob("iteration_*/*")}
    jobs = json.loads((tmp_path / "jobs" / FOLDER / "jobs.json").read_text())
    run_experiment(on_slurm(few_discs, tmp_path / "jobs"))
    assert {path: path.stat().st_mtime_ns for path in before} == before, "a second call finds all done"
    assert json.loads((tmp_path / "jobs" / FOLDER / "jobs.json").read_text()) == jobs


@second_tier
def test_a_signal_in_the_middle_puts_the_run_into_the_queue_again(
    slurm: SlurmCluster, few_discs: Dataset, long_alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "jobs"
    thread, errors = in_background(lambda: run_experiment(on_slurm(few_discs, out, **ONE_LONG)))
    job = job_at_work(out)
    slurm.cancel("--signal=USR1", job)
    assert wait_until(lambda: slurm.job(job, "Restarts") == "1", 60)
    thread.join(120)
    assert not thread.is_alive()
    assert not errors
    assert "stopped by SIGUSR1" in (out / "entropy_sampling" / "run.log").read_text()
    assert results(out) == results(long_alone)


@second_tier
def test_a_lost_node_costs_nothing_but_time(
    slurm: SlurmCluster, few_discs: Dataset, long_alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "jobs"
    thread, errors = in_background(lambda: run_experiment(on_slurm(few_discs, out, **ONE_LONG)))
    job = job_at_work(out)
    slurm.kill_node()
    time.sleep(1)
    slurm.start_slurmd()
    assert wait_until(lambda: slurm.job(job, "Restarts") != "0" and not thread.is_alive(), 180)
    assert not errors
    assert results(out) == results(long_alone)


@second_tier
def test_a_canceled_job_does_not_come_back_by_itself(
    slurm: SlurmCluster, few_discs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "jobs"
    run_experiment(on_slurm(few_discs, out, **ONE_LONG), wait=False)
    job = job_at_work(out)
    run_experiment(on_slurm(few_discs, out, **ONE_LONG), wait=False)
    assert queue() == {job}, "what is in the queue is not submitted again"
    slurm.cancel(job)
    assert wait_until(lambda: not queue(), 60)
    assert [state.state for state in experiment_states(out)] == ["stopped"]
    assert slurm.job(job, "Restarts") == "0"


@second_tier
def test_a_run_that_fails_is_not_tried_forever(
    slurm: SlurmCluster, few_discs: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "jobs"
    broken = out / "entropy_sampling" / "iteration_0"
    run_experiment(on_slurm(few_discs, out, strategies=["random"], baselines=[]))
    broken.mkdir(parents=True)
    (broken / "query.json").write_text("[]")
    again = on_slurm(few_discs, out, strategies=["random", "entropy"], baselines=[])
    with pytest.raises(UnfinishedRunsError, match=r"(?s)1 of 2 runs .* entropy_sampling seed 1: .*no metr"):
        run_experiment(again)


def test_what_slurm_refuses_is_said_in_one_line(
    slurm: SlurmCluster, few_discs: Dataset, tmp_path: Path
) -> None:
    asked = on_slurm(few_discs, tmp_path / "e") | {"slurm": ASKED | {"partition": "nowhere"}}
    with pytest.raises(SlurmError, match=r"Slurm refuses the job \(.*[Pp]artition"):
        run_experiment(asked)
