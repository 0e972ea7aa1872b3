"""Where the next step of a project is done: in this process, or in a job of Slurm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryoquery.active.progress import Progress, silent
from cryoquery.errors import DataError
from cryoquery.project.backups import back_up_by_itself
from cryoquery.project.folder import Project, finished_steps, open_project
from cryoquery.project.label_set import LabelSet, current_labels
from cryoquery.project.settings import settings_digest
from cryoquery.project.step.run import LABELS, SETTINGS, check_enough, do_step
from cryoquery.project.step.slurm import step_on_slurm
from cryoquery.project.step_files import read_metrics
from cryoquery.storage.atomic import read_json


def step(
    path: Path | str,
    progress: Progress = silent,
    *,
    force: bool = False,
    wait: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Path | None:
    """Do the next step of the project in ``path``, here or on Slurm as its settings say.

    Args:
        path: of the project. A server may be writing its log.
        progress: called with each event of the work.
        force: also where nothing was labeled since the last step, and its settings are the same.
        wait: with Slurm, stay until the job has ended.
        say: called with sentences about what is going on.

    Returns:
        The folder of the step, of the last one where there is nothing new, or None for one that was put
        into Slurm's queue.

    Raises:
        StepUnderWayError: another step is.
        ProjectError: there is no project, too little is labeled, or the job failed.
        SlurmError: there is no Slurm here, it does not answer, or it refuses the job.
        DataError: a file of the project or of a micrograph is damaged.
        ConfigError: a setting cannot be used.
    """
    project = open_project(path)
    label_set = current_labels(project)
    if not force and (last := nothing_new(project, label_set)):
        say(f"nothing was labeled since {last.name}, with the same settings; label more, or use --force")
        return last
    check_enough(project, label_set)
    back_up_by_itself(project, say)
    if project.config.executor == "slurm":
        return step_on_slurm(project, label_set, wait, say)
    return do_step(project, label_set, progress, say)


def nothing_new(project: Project, label_set: LabelSet) -> Path | None:
    """The last step, where it knew all of the labels and had these settings; None where something is new."""
    done = list(finished_steps(project.steps_path).values())
    try:
        same_labels = bool(done) and read_json(done[-1] / LABELS) == label_set.seqs
    except DataError:
        return None
    same = same_labels and read_metrics(done[-1]).get(SETTINGS) == settings_digest(project.config)
    return done[-1] if same else None
