"""A step as a job of Slurm. The job reads the labels from a file, and never opens the log of events."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch

from cryoquery import slurm
from cryoquery.errors import CryoqueryError, DataError, ProjectError, Stopped, explain
from cryoquery.project.folder import Project, finished_steps, open_project
from cryoquery.project.label_set import LabelSet, read_label_set
from cryoquery.project.settings import SETTINGS_FILE
from cryoquery.project.step.run import do_step
from cryoquery.project.step.status import WORK, forget_ended, tell_waiting
from cryoquery.signals import stoppable
from cryoquery.storage.atomic import read_json, write_json

FOLDER = ".slurm"
"""Of the jobs' files, in `WORK`."""
LABEL_SET, JOB, FAILURE = "label_set.json", "job.json", "failure.json"
"""In the project's folder `WORK`."""


def step_on_slurm(
    project: Project, label_set: LabelSet, wait: bool, say: Callable[[str], None] = lambda line: None
) -> Path | None:
    """Put the next step of a project into Slurm's queue; its folder, or None where it was not waited for.

    Raises:
        ProjectError: a step is in the queue already, or the job failed.
        SlurmError: there is no Slurm here, it does not answer, or it refuses the job.
    """
    slurm.check_slurm()
    work = project.path / WORK
    work.mkdir(exist_ok=True)
    if (job := queued_job(project.path)) is not None:
        raise ProjectError(
            f"{project.path}: a step is in Slurm's queue (job {job}); wait for it, or cancel it"
        )
    before = finished_steps(project.steps_path)
    (work / FAILURE).unlink(missing_ok=True)
    write_json(work / LABEL_SET, label_set.as_json())
    settings, columns = str(project.path / SETTINGS_FILE), [str(project.path.resolve())]
    (job,) = slurm.submit(work / FOLDER, project.config.slurm, settings, work_on, columns)
    write_json(work / JOB, job)
    tell_waiting(project.path, job)
    say(f"job {job} is in Slurm's queue")
    if not wait:
        return None
    while job in (jobs := slurm.queue()):
        forget_ended(project.path, lambda: jobs)
        time.sleep(slurm.POLL_SECONDS)
    look_after(project.path)
    done = finished_steps(project.steps_path)
    if len(done) > len(before):
        return done[max(done)]
    raise ProjectError(f"{project.path}: {_reason(work, job)}")


def look_after(project: Path) -> None:
    """Where there is Slurm: see whether the job that a step is said to be has ended; see `forget_ended`."""
    if shutil.which("squeue") is not None:
        forget_ended(project, lambda: slurm.queue(patience=()))


def queued_job(project: Path) -> str | None:
    """The job that does a step of the project, waiting or running; None: there is none."""
    try:
        job = str(read_json(project / WORK / JOB))
        return job if job in slurm.queue() else None
    except (DataError, FileNotFoundError):
        return None


def work_on(path: str) -> str:
    """What the job does; the name of the step. It ends the process where it goes into the queue again."""
    folder = Path(path) / WORK
    try:
        with stoppable():
            project = open_project(path)
            if project.config.device.threads is None:
                torch.set_num_threads(project.config.slurm.cpus)
            return do_step(project, read_label_set(folder / LABEL_SET)).name
    except Stopped as stopped:
        asked = open_project(path).config.slurm
        slurm.leave(stopped, asked.max_requeues, lambda: tell_waiting(Path(path), slurm.job_number()))
    except Exception as error:
        write_json(folder / FAILURE, explain(error) or f"{type(error).__name__}: {error}")
        raise


def _reason(work: Path, job: str) -> str:
    try:
        return str(read_json(work / FAILURE))
    except (DataError, CryoqueryError):
        return f"job {job} ended without a step; see {work / FOLDER}"
