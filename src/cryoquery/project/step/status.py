"""Shows that a step is under way: in ``PROJECT/stepping.json``, and to the caller."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryoquery.active.progress import EpochEnded, Event, ImagesPassed, IterationStarted, PhaseStarted, Waiting
from cryoquery.errors import DataError, ExperimentError, ProjectError
from cryoquery.project.step_files import UNDER_WAY as FILE
from cryoquery.slurm import job_number
from cryoquery.storage.atomic import read_json, remove_leftovers, write_json
from cryoquery.storage.leases import alone

WORK = "work"
"""Folder in a project for what a step needs while it works."""
SECONDS_BETWEEN = 1.0


class StepUnderWayError(ProjectError):
    """Another process does a step of the project."""


class StepStatus:
    """A `Progress` that keeps `FILE` up to date, at most once a second."""

    def __init__(self, project: Path, say: Callable[[str], None], unit: str) -> None:
        self._path = project / FILE
        self._say = say
        self._unit, self._n_labeled = unit, 0
        self._since = time.time()
        self._phase = self._message = ""
        self._written = 0.0

    def phase(self, what: str) -> None:
        """Another part of the work begins."""
        self._phase = self._message = what
        self._say(what)
        self._write(at_once=True)

    def alive(self) -> None:
        """Still at work: from another machine only the age of the file can be seen."""
        self._write()

    def __call__(self, event: Event) -> None:
        """Keep the file up to date; a `cryoquery.active.progress.Progress`."""
        match event:
            case IterationStarted():
                self._n_labeled = event.n_labeled
            case PhaseStarted(phase="training"):
                self.phase(f"trains on {self._n_labeled} {self._unit}")
            case PhaseStarted(phase="evaluation"):
                self.phase("measures F1 on the held-out micrographs")
            case PhaseStarted(phase="query"):
                self.phase("chooses what to label next")
            case EpochEnded():
                self._message = f"{self._phase}: epoch {event.epoch} of {event.n_epochs}"
                self._write()
            case ImagesPassed():
                self.alive()
            case Waiting():
                self.phase(f"waits for {event.owner}")

    def _write(self, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._written < SECONDS_BETWEEN:
            return
        self._written = now
        content = {
            "since": self._since,
            "message": self._message,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "job": job_number() or None,
        }
        # What is shown decides nothing: where it cannot be written the step goes on.
        with contextlib.suppress(OSError):
            write_json(self._path, content)


def tell_waiting(project: Path, job: str) -> None:
    """Show that a step waits as a job of Slurm, until `forget_ended` finds that the job has ended."""
    content = {"since": time.time(), "message": f"waits in Slurm's queue, job {job}", "job": job}
    with contextlib.suppress(OSError):
        write_json(project / FILE, content)


def forget_ended(project: Path, jobs: Callable[[], Container[str]]) -> None:
    """Remove the status of a step whose job has ended; keep that of another one up to date.

    Args:
        project: the folder.
        jobs: asked for those in Slurm's queue, waiting or running; may raise ExperimentError.
    """
    path = project / FILE
    with contextlib.suppress(DataError, ExperimentError, OSError, LookupError, TypeError):
        job = read_json(path)["job"]
        if job is None:
            return
        if job in jobs():
            os.utime(path)
        else:
            path.unlink()


@contextmanager
def exclusive_step(project: Path, say: Callable[[str], None], unit: str) -> Iterator[StepStatus]:
    """Be the only step of a project while the block runs, and show it.

    Raises:
        StepUnderWayError: another one is.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(alone(project / WORK, lambda owner: say(f"waits for a heartbeat of {owner}")))
        except ExperimentError:
            raise StepUnderWayError(f"{project}: {_who(project)}; wait for it, or stop it first") from None
        remove_leftovers(project / WORK, alone=True)
        watch = StepStatus(project, say, unit)
        try:
            yield watch
        finally:
            with contextlib.suppress(OSError):
                (project / FILE).unlink(missing_ok=True)


def _who(project: Path) -> str:
    try:
        found: Any = read_json(project / FILE)
        return f"process {found['pid']} on {found['host']} is doing a step of this project"
    except (DataError, LookupError, TypeError):
        return "another process is doing a step of this project"
