"""Runs as jobs of Slurm, one task of an array for each, through submitit.

Where a run stands is judged by the files that it writes and by Slurm's queue; accounting is not needed. A
job that is told to stop before its time limit, or to make room, lets its training go at the last
checkpoint and puts itself into the queue again. One that vanishes is submitted again, a few times at most.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit
import torch

from cryoquery.errors import ConfigError, DataError, ExperimentError, Stopped, explain
from cryoquery.executors.local import MAX_ATTEMPTS
from cryoquery.experiment import ExperimentConfig, SlurmConfig, plan_runs, run_folder
from cryoquery.experiment_folder import enter, equip, n_threads
from cryoquery.loop import Run
from cryoquery.progress import Progress
from cryoquery.records import read_json, write_json
from cryoquery.run_state import Diary, job_number, read_state, states
from cryoquery.work import Outcome, do_run, is_finished, stoppable

FOLDER = ".slurm"
"""Of the jobs' files, in the experiment's folder."""
LOOK_SECONDS = 5.0
WARNING_SECONDS = 120
"""So long before the time limit Slurm tells a job to stop."""


def do_on_slurm(
    config: ExperimentConfig, runs: Sequence[Run], progress: Progress, wait: bool
) -> list[Outcome]:
    """Put what is left of ``runs`` into Slurm's queue; how each came out, as far as it is known.

    Runs whose jobs are still in the queue are not submitted again.

    Raises:
        ExperimentError: there is no Slurm here, or it refuses the jobs.
    """
    if shutil.which("sbatch") is None:
        raise ExperimentError("executor='slurm': no sbatch on this machine; log in to one that has Slurm")
    n_gpus, n_needed = config.slurm.gpus, config.device.n_devices
    if n_gpus < n_needed and (n_gpus or config.device.accelerator == "cuda"):
        raise ConfigError(
            f"slurm.gpus={n_gpus}: a run is to use {n_needed} (device.n_devices); ask for as many"
        )
    book = _Book(config.out / FOLDER / "jobs.json")
    attempts: dict[Run, int] = {}
    queue(patience=())  # where Slurm does not answer at all, say so at once
    while True:
        queued = queue()
        left = [run for run in runs if not is_finished(run) and book.job(run) not in queued]
        failed = [run for run in left if attempts.get(run) and _has_failed(run)]
        again = [run for run in left if run not in failed and attempts.get(run, 0) < MAX_ATTEMPTS]
        if again:
            book.enter(again, submit(config, again))
            for run in again:
                attempts[run] = attempts.get(run, 0) + 1
        progress.standing(states(runs))
        if not wait:
            return []
        if not again and all(is_finished(run) or run in left for run in runs):
            return [Outcome(run.name, run.seed, _reason(run)) for run in left]
        time.sleep(LOOK_SECONDS)


def submit(config: ExperimentConfig, runs: Sequence[Run]) -> list[str]:
    """Submit ``runs`` as an array; their job numbers.

    Raises:
        ExperimentError: Slurm refuses them.
    """
    asked = config.slurm
    executor = submitit.AutoExecutor(folder=config.out / FOLDER, cluster="slurm")
    executor.update_parameters(**parameters(asked))
    out = str(config.out.resolve())
    try:
        jobs = executor.map_array(
            work, [out] * len(runs), [run.name for run in runs], [run.seed for run in runs]
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ExperimentError(f"Slurm refuses the jobs ({reason}); correct [slurm] in the config") from None
    return [str(job.job_id) for job in jobs]


def parameters(asked: SlurmConfig) -> dict[str, Any]:
    """What a job asks for, as submitit calls it."""
    # Slurm 22.05 and later do not hand the number of cores from the job on to srun.
    parameters: dict[str, Any] = {
        "name": "cryoquery",
        "timeout_min": max(1, round(60 * asked.hours)),
        "cpus_per_task": asked.cpus,
        "mem_gb": asked.memory_gb,
        "slurm_array_parallelism": asked.array_parallelism,
        "slurm_signal_delay_s": WARNING_SECONDS,
        "slurm_srun_args": [f"--cpus-per-task={asked.cpus}"],
        "slurm_setup": list(asked.setup),
        "slurm_additional_parameters": {"requeue": True}
        | {name: value for name, value in asked.extra.items() if value is not False},
    }
    if asked.gpus:
        parameters["gpus_per_node"] = asked.gpus
    if asked.partition:
        parameters["slurm_partition"] = asked.partition
    if asked.account:
        parameters["slurm_account"] = asked.account
    return parameters


def work(out: str, name: str, seed: int) -> str:
    """What a job does: one run. It ends the process where it puts itself into the queue again."""
    try:
        with stoppable():
            config = enter(Path(out))
            torch.set_num_threads(n_threads(config, config.slurm.cpus))
            try:
                lab = equip(config)
            except Exception as error:
                Diary(run_folder(config, name, seed), name, seed, []).close(
                    "failed", explain(error) or repr(error)
                )
                raise
            run = next(r for r in plan_runs(config, len(lab.pool)) if (r.name, r.seed) == (name, seed))
            return do_run(config, lab, run).error
    except Stopped as stopped:
        n_restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if wants_to_go_on(stopped) and n_restarts < enter(Path(out)).slurm.max_requeues:
            subprocess.run(["scontrol", "requeue", job_number()], check=False)
        # Without what Python does at its end: submitit would take the job for done.
        os._exit(0)


def wants_to_go_on(stopped: Stopped) -> bool:
    """Whether the job goes back into the queue: not when somebody has canceled it.

    One that Slurm preempts is told by SIGTERM as well; Slurm itself puts it into the queue again.
    """
    if stopped.signal != signal.SIGTERM:
        return True
    command = ["squeue", "-h", "-t", "all", "-j", job_number(), "-o", "%T"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() == "RUNNING"


def queue(patience: Sequence[float] = (1, 5, 30)) -> set[str]:
    """Numbers of this user's jobs that wait, run, or come to an end; ``12_3`` for tasks of arrays.

    Args:
        patience: seconds before each further attempt where Slurm does not answer.

    Raises:
        ExperimentError: Slurm does not answer.
    """
    command = ["squeue", "-h", "--array", "--me", "-o", "%i"]
    for seconds in (*patience, 0):
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return set(found.stdout.split())
        time.sleep(seconds)
    raise ExperimentError(f"Slurm does not answer ({found.stderr.strip()}); run again when it does")


class _Book:
    """Which job does which run, in a file, for the next call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._jobs: dict[str, str] = read_json(path)
        except DataError:
            self._jobs = {}

    def job(self, run: Run) -> str | None:
        """The number of the last job of a run."""
        return self._jobs.get(self._key(run))

    def enter(self, runs: Sequence[Run], jobs: Sequence[str]) -> None:
        """Note the jobs of some runs."""
        self._jobs |= dict(zip(map(self._key, runs), jobs, strict=True))
        write_json(self._path, self._jobs)

    @staticmethod
    def _key(run: Run) -> str:
        return json.dumps([run.name, run.seed])


def _has_failed(run: Run) -> bool:
    return read_state(run.folder, run.name, run.seed).state == "failed"


def _reason(run: Run) -> str:
    state = read_state(run.folder, run.name, run.seed)
    return state.message or f"its job ended ({state.state}); see {run.folder / 'run.log'} and {FOLDER}/"
