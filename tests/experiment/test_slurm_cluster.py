from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import submitit
from slurm_cluster import N_CPUS, SlurmCluster, SlurmError, slurm_cluster, wait_until
from tiers import second_tier

pytestmark = [pytest.mark.slurm, second_tier]

SAY_SIGNALS = """
say() { echo "$1 $2"; }
trap 'say shell USR1' USR1
trap 'say shell USR2' USR2
listen() {
    trap 'say step USR1' USR1
    trap 'say step USR2' USR2
    echo ready
    until [ -e stop ]; do sleep 0.1; done
}
export -f say listen
srun bash -c listen &
until [ -e stop ]; do sleep 0.1; done
wait
"""


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def wait_for(path: Path, words: str, timeout_s: float = 20) -> None:
    assert wait_until(lambda: words in text(path), timeout_s), f"no {words!r} in: {text(path)!r}"


def test_job_writes_a_file(slurm: SlurmCluster, tmp_path: Path) -> None:
    job = slurm.submit("echo $SLURM_JOB_ID > id", tmp_path / "log")
    assert slurm.wait(job) == "COMPLETED"
    assert (tmp_path / "id").read_text().strip() == job
    assert slurm.job(job, "ExitCode") == "0:0"


def test_failed_job(slurm: SlurmCluster, tmp_path: Path) -> None:
    job = slurm.submit("exit 3", tmp_path / "log")
    assert slurm.wait(job) == "FAILED"
    assert slurm.job(job, "ExitCode") == "3:0"


def test_jobs_run_side_by_side(slurm: SlurmCluster, tmp_path: Path) -> None:
    """Each of two jobs ends only when it has seen the other; memory does not keep them apart."""
    options = (f"--cpus-per-task={N_CPUS // 2}", "--mem=100G")
    meet = "touch {}; until [ -e {} ]; do sleep 0.1; done"
    jobs = [slurm.submit(meet.format(*names), tmp_path / "log", *options) for names in ("ab", "ba")]
    assert [slurm.wait(job) for job in jobs] == ["COMPLETED", "COMPLETED"]


def test_array(slurm: SlurmCluster, tmp_path: Path) -> None:
    job = slurm.submit("touch task_$SLURM_ARRAY_TASK_ID; sleep 1", tmp_path / "log", "--array=0-2%2")
    assert {name for name, _, _ in slurm.queue()} <= {f"{job}_{i}" for i in range(3)}
    assert [slurm.wait(f"{job}_{i}") for i in range(3)] == ["COMPLETED"] * 3
    assert sorted(path.name for path in tmp_path.glob("task_*")) == ["task_0", "task_1", "task_2"]


def test_who_receives_a_signal(slurm: SlurmCluster, tmp_path: Path) -> None:
    """Plain: the steps (what srun started). --batch: the script's shell. --full: both."""
    log = tmp_path / "log"
    job = slurm.submit(SAY_SIGNALS, log)
    wait_for(log, "ready")
    slurm.cancel("--signal=USR1", job)
    wait_for(log, "step USR1")
    assert "shell" not in text(log)
    slurm.cancel("--signal=USR1", "--batch", job)
    wait_for(log, "shell USR1")
    assert text(log).count("USR1") == 2
    slurm.cancel("--signal=USR2", "--full", job)
    wait_for(log, "step USR2")
    wait_for(log, "shell USR2")
    (tmp_path / "stop").touch()
    assert slurm.wait(job) == "COMPLETED"


def test_requeue(slurm: SlurmCluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = slurm.submit("echo run ${SLURM_RESTART_COUNT:-0}; [ $SLURM_RESTART_COUNT ] || sleep 60", log)
    wait_for(log, "run 0")
    slurm.requeue(job)
    assert slurm.wait(job) == "COMPLETED"
    wait_for(log, "run 1")
    assert slurm.job(job, "Restarts") == "1"


def test_job_outlives_slurmd(slurm: SlurmCluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = slurm.submit("echo begin; until [ -e stop ]; do sleep 0.1; done; echo end", log)
    wait_for(log, "begin")
    slurm.kill_slurmd()
    slurm.start_slurmd()
    (tmp_path / "stop").touch()
    assert slurm.wait(job) == "COMPLETED"
    assert text(log).split() == ["begin", "end"]
    assert slurm.job(job, "Restarts") == "0"


def test_job_of_a_dead_node_runs_again(slurm: SlurmCluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = slurm.submit("echo run ${SLURM_RESTART_COUNT:-0}; [ $SLURM_RESTART_COUNT ] || sleep 60", log)
    wait_for(log, "run 0")
    slurm.kill_node()
    assert slurm.node_state() == "down"
    assert slurm.state(job) == "PENDING"
    slurm.start_slurmd()
    assert slurm.wait(job, timeout_s=60) == "COMPLETED"
    first, again = text(log).splitlines()
    assert (first, again != first) == ("run 0", True)


def processes_of(folder: Path) -> list[str]:
    """The command lines that name a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if str(folder) in line:
            lines.append(line)
    return lines


def test_nothing_is_left_when_the_tests_are_killed(slurm: SlurmCluster, tmp_path: Path) -> None:
    """A second cluster beside the first; its owner gets SIGKILL while a process runs outside its session."""
    program = (
        "import os, signal, sys, time; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from slurm_cluster import slurm_cluster, wait_until\n"
        "with slurm_cluster() as cluster:\n"
        "    folder = Path(sys.argv[2])\n"
        "    cluster.submit(f'setsid tail -f {folder}/log & wait', folder / 'log')\n"
        "    cluster.submit('touch started', folder / 'log')\n"
        "    wait_until((folder / 'started').exists, 20)\n"
        "    (folder / 'where').write_text(str(cluster.folder))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parents[1]), str(tmp_path)]
    assert subprocess.run(command, timeout=60).returncode == -9
    folder = Path((tmp_path / "where").read_text())
    assert folder != slurm.folder
    assert wait_until(lambda: not folder.exists() and not processes_of(folder), 20)
    assert not processes_of(tmp_path / "log")
    assert slurm.node_state() == "idle"


def test_daemon_that_does_not_start_shows_its_log(
    slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fixture only makes sure that the other programs are there."""
    broken = tmp_path / "slurmctld"
    broken.write_text("#!/bin/sh\necho fatal: out of order >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(SlurmError, match="out of order"), slurm_cluster():
        pass


def executor(folder: Path, **parameters: Any) -> submitit.AutoExecutor:
    made = submitit.AutoExecutor(folder=folder, cluster="slurm")
    made.update_parameters(
        timeout_min=20,
        mem_gb=1,
        cpus_per_task=1,
        slurm_partition="main",
        slurm_signal_delay_s=10,
        **parameters,
    )
    return made


def test_submitit_runs_a_function(slurm: SlurmCluster, tmp_path: Path) -> None:
    """The state must come from Slurm: without accounting submitit only ever knows UNKNOWN."""
    job = executor(tmp_path / "jobs").submit(pow, 2, 10)
    assert slurm.wait(job.job_id) == "COMPLETED"
    assert job.result() == 1024
    assert job.state == "UNKNOWN"
    assert (tmp_path / "jobs" / f"{job.job_id}_0_log.out").is_file()


def test_submitit_array_with_a_task_requeued(
    slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On USR2 submitit's process asks for its own task to be requeued; the other task goes on."""
    for folder in Path(__file__).parents[:2]:  # jobs inherit it
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    jobs = executor(tmp_path / "jobs", slurm_array_parallelism=2).map_array(
        wait_in_first_run, [tmp_path / "a", tmp_path / "b"]
    )
    wait_for(tmp_path / "a", "run 0")
    wait_for(tmp_path / "b", "run 0")
    slurm.cancel("--signal=USR2", jobs[1].job_id)
    slurm.wait(jobs[1].job_id, "PENDING")
    assert slurm.state(jobs[0].job_id) == "RUNNING"
    (tmp_path / "a.stop").touch()
    assert [slurm.wait(job.job_id) for job in jobs] == ["COMPLETED", "COMPLETED"]
    assert [job.result() for job in jobs] == [0, 1]


def wait_in_first_run(path: Path) -> int:
    """The number of times that the job was requeued."""
    n_restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    path.write_text(f"run {n_restarts}")
    while n_restarts == 0 and not path.with_suffix(".stop").exists():
        time.sleep(0.1)
    return n_restarts
