"""Slurm, for experiments and for projects: what a job asks for, how it is submitted, watched and requeued.

Slurm's queue is the only thing that is asked; accounting is not needed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import Field

from cryoquery.config import CheckedModel
from cryoquery.errors import SlurmError, Stopped

POLL_SECONDS = 5.0
"""Between two looks at the queue."""
WARNING_SECONDS = 120
"""Slurm tells a job to stop this long before its time limit."""


class SlurmConfig(CheckedModel):
    """What each job asks of Slurm; an experiment has one job per run, a project one per step."""

    partition: str | None = None
    account: str | None = None
    gpus: int = Field(default=0, ge=0)
    """GPUs per job."""
    cpus: int = Field(default=4, ge=1)
    memory_gb: float = Field(default=32, gt=0)
    hours: float = Field(default=24, gt=0)
    """Time limit; a job that needs more is put into the queue again, and goes on where it was."""
    array_parallelism: int = Field(default=64, ge=1)
    """Jobs of an experiment that may run at the same time."""
    max_requeues: int = Field(default=50, ge=0)
    """How often a job goes back into the queue before it counts as failed."""
    setup: tuple[str, ...] = ()
    """Shell lines before the job, such as ``module load cuda``."""
    extra: dict[str, str | int | bool] = Field(default_factory=dict)
    """More options of sbatch by their long names, such as ``constraint = "a100"``."""


def check_slurm() -> None:
    """Refuse to submit where there is no Slurm.

    Raises:
        SlurmError: this machine has no ``sbatch``.
    """
    if shutil.which("sbatch") is None:
        raise SlurmError("executor='slurm': no sbatch on this machine; log in to one that has Slurm")


def submit(
    folder: Path, config: SlurmConfig, settings: str, work: Callable[..., Any], *columns: Sequence[Any]
) -> list[str]:
    """Submit one call of ``work`` per row of ``columns``, as an array; the numbers of the jobs.

    Args:
        folder: for the files of submitit.
        config: what each job asks for.
        settings: where ``config`` comes from, for the message.
        work: a function that a new process can import.
        columns: its arguments, one sequence each.

    Raises:
        SlurmError: Slurm refuses the jobs.
    """
    import submitit  # takes a second, and only those who use Slurm need it

    executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
    executor.update_parameters(**submitit_parameters(config))
    try:
        jobs = executor.map_array(work, *columns)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise SlurmError(f"Slurm refuses the job ({reason}); correct [slurm] in {settings}") from None
    return [str(job.job_id) for job in jobs]


def submitit_parameters(config: SlurmConfig) -> dict[str, Any]:
    """What a job asks for, by the names that submitit uses."""
    # Slurm 22.05 and later do not hand the number of cores from the job on to srun.
    parameters: dict[str, Any] = {
        "name": "cryoquery",
        "timeout_min": max(1, round(60 * config.hours)),
        "cpus_per_task": config.cpus,
        "mem_gb": config.memory_gb,
        "slurm_array_parallelism": config.array_parallelism,
        "slurm_signal_delay_s": WARNING_SECONDS,
        "slurm_srun_args": [f"--cpus-per-task={config.cpus}"],
        "slurm_setup": list(config.setup),
        "slurm_additional_parameters": {"requeue": True}
        | {name: value for name, value in config.extra.items() if value is not False},
    }
    if config.gpus:
        parameters["gpus_per_node"] = config.gpus
    if config.partition:
        parameters["slurm_partition"] = config.partition
    if config.account:
        parameters["slurm_account"] = config.account
    return parameters


def queue(patience: Sequence[float] = (1, 5, 30)) -> set[str]:
    """Numbers of this user's jobs that wait, run, or come to an end; ``12_3`` for tasks of arrays.

    Args:
        patience: seconds before each further attempt where Slurm does not answer.

    Raises:
        SlurmError: Slurm does not answer.
    """
    command = ["squeue", "-h", "--array", "--me", "-o", "%i"]
    for seconds in (*patience, 0):
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return set(found.stdout.split())
        time.sleep(seconds)
    raise SlurmError(f"Slurm does not answer ({found.stderr.strip()}); run again when it does")


def job_number(environment: Callable[[str], str | None] = os.environ.get) -> str:
    """Slurm's number of this job, ``12_3`` for a task of an array; empty outside Slurm."""
    array, task = environment("SLURM_ARRAY_JOB_ID"), environment("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environment("SLURM_JOB_ID") or ""


def leave(stopped: Stopped, max_requeues: int, before: Callable[[], None] = lambda: None) -> NoReturn:
    """End the process of a job that was told to stop, and put it back into the queue unless it was canceled.

    Args:
        stopped: by which signal.
        max_requeues: how often a job goes back.
        before: called just before it does.
    """
    if wants_requeue(stopped) and int(os.environ.get("SLURM_RESTART_COUNT", "0")) < max_requeues:
        before()
        subprocess.run(["scontrol", "requeue", job_number()], check=False)
    # Skips what Python does at its end: submitit would take the job for done.
    os._exit(0)


def wants_requeue(stopped: Stopped) -> bool:
    """Whether the job goes back into the queue: not when its owner has canceled it.

    A preempted job is told by SIGTERM as well; Slurm itself puts that one into the queue again.
    """
    if stopped.signal != signal.SIGTERM:
        return True
    command = ["squeue", "-h", "-t", "all", "-j", job_number(), "-o", "%T"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() == "RUNNING"
