"""A step as a job of Slurm. The job reads the labels from a file, and never opens the log of events."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import submitit
import torch

from cryoquery.errors import DataError, ExperimentError, ProjectError, Stopped, explain
from cryoquery.executors.slurm import FOLDER, LOOK_SECONDS, parameters, queue, wants_to_go_on
from cryoquery.project.folder import Project, finished_steps, open_project
from cryoquery.project.snapshot import Snapshot, read_snapshot
from cryoquery.records import read_json, write_json
from cryoquery.run_state import job_number
from cryoquery.step.run import do_step
from cryoquery.step.under_way import WORK, forget_ended, tell_waiting
from cryoquery.work import stoppable

SNAPSHOT, JOB, FAILURE = "snapshot.json", "job.json", "failure.json"
"""In the project's folder `WORK`."""


def step_on_slurm(
    project: Project, snapshot: Snapshot, wait: bool, say: Callable[[str], None] = lambda line: None
) -> Path | None:
    """Put the next step of a project into Slurm's queue; its folder, or None where it was not waited for.

    Raises:
        ProjectError: there is no Slurm here, one is in the queue already, or the job failed.
    """
    if shutil.which("sbatch") is None:
        raise ProjectError("executor='slurm': no sbatch on this machine; log in to one that has Slurm")
    work = project.path / WORK
    work.mkdir(exist_ok=True)
    if (job := queued_job(project.path)) is not None:
        raise ProjectError(
            f"{project.path}: a step is in Slurm's queue (job {job}); wait for it, or cancel it"
        )
    before = finished_steps(project.steps_path)
    (work / FAILURE).unlink(missing_ok=True)
    write_json(work / SNAPSHOT, snapshot.as_json())
    job = _submit(project)
    write_json(work / JOB, job)
    tell_waiting(project.path, job)
    say(f"job {job} is in Slurm's queue")
    if not wait:
        return None
    while job in (jobs := queue()):
        forget_ended(project.path, lambda: jobs)
        time.sleep(LOOK_SECONDS)
    look_after(project.path)
    done = finished_steps(project.steps_path)
    if len(done) > len(before):
        return done[max(done)]
    raise ProjectError(f"{project.path}: {_reason(work, job)}")


def look_after(project: Path) -> None:
    """Where there is Slurm: see whether the job that a step is said to be has ended; see `forget_ended`."""
    if shutil.which("squeue") is not None:
        forget_ended(project, lambda: queue(patience=()))


def queued_job(project: Path) -> str | None:
    """The job that does a step of the project, waiting or running; None: there is none."""
    try:
        job = str(read_json(project / WORK / JOB))
        return job if job in queue() else None
    except (DataError, FileNotFoundError):
        return None


def _submit(project: Project) -> str:
    executor = submitit.AutoExecutor(folder=project.path / WORK / FOLDER, cluster="slurm")
    executor.update_parameters(**parameters(project.config.slurm))
    try:
        return str(executor.submit(work_on, str(project.path.resolve())).job_id)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ProjectError(
            f"Slurm refuses the job ({reason}); correct [slurm] in {project.path / 'project.toml'}"
        ) from None


def work_on(path: str) -> str:
    """What the job does; the name of the step. It ends the process where it goes into the queue again."""
    folder = Path(path) / WORK
    try:
        with stoppable():
            project = open_project(path)
            if project.config.device.threads is None:
                torch.set_num_threads(project.config.slurm.cpus)
            return do_step(project, read_snapshot(folder / SNAPSHOT)).name
    except Stopped as stopped:
        n_restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if wants_to_go_on(stopped) and n_restarts < open_project(path).config.slurm.max_requeues:
            tell_waiting(Path(path), job_number())
            subprocess.run(["scontrol", "requeue", job_number()], check=False)
        # Without what Python does at its end: submitit would take the job for done.
        os._exit(0)
    except Exception as error:
        write_json(folder / FAILURE, explain(error) or f"{type(error).__name__}: {error}")
        raise


def _reason(work: Path, job: str) -> str:
    try:
        return str(read_json(work / FAILURE))
    except (DataError, ExperimentError):
        return f"job {job} ended without a step; see {work / FOLDER}"
