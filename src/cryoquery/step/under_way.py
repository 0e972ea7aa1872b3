"""Tells everybody that a step is under way: in ``PROJECT/stepping.json``, and whoever called it."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryoquery.claims import alone
from cryoquery.errors import DataError, ExperimentError, ProjectError
from cryoquery.progress import Progress, Silent
from cryoquery.records import read_json, remove_leftovers, write_json
from cryoquery.run_state import job_number

if TYPE_CHECKING:
    from cryoquery.run_state import RunState

FILE = "stepping.json"
WORK = "work"
"""Folder in a project for what a step needs while it works."""
SECONDS_BETWEEN = 1.0


class UnderWay:
    """A `Progress` that keeps `FILE` up to date, at most once a second, and passes on what it is told."""

    def __init__(self, project: Path, passed_on: Progress | None, say: Callable[[str], None]) -> None:
        self._path = project / FILE
        self._passed_on = passed_on or Silent()
        self._say = say
        self._since = time.time()
        self._phase = self._message = ""
        self._written = 0.0

    def phase(self, what: str) -> None:
        """Another part of the work begins."""
        self._phase = self._message = what
        self._say(what)
        self._write(at_once=True)

    def alive(self) -> None:
        """Still at it: who looks from another machine knows only how old the file is."""
        self._write()

    def begin(self, run: str, seed: int, iteration: int, n_iterations: int, n_labeled: int) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.begin(run, seed, iteration, n_iterations, n_labeled)

    def epoch(self, epoch: int, n_epochs: int, loss: float) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.epoch(epoch, n_epochs, loss)
        self._message = f"{self._phase}: epoch {epoch} of {n_epochs}"
        self._write()

    def trained(self, n_images: int) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.trained(n_images)
        self.alive()

    def predicted(self, n_images: int) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.predicted(n_images)
        self.alive()

    def waiting(self, owner: str) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.waiting(owner)
        self.phase(f"waits for {owner}")

    def end(self, f1: float, how: str) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.end(f1, how)

    def standing(self, states: Sequence[RunState]) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.standing(states)

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
    """Say that a step of the project waits as a job of Slurm; `forget_ended` finds that this has ended."""
    content = {"since": time.time(), "message": f"waits in Slurm's queue, job {job}", "job": job}
    with contextlib.suppress(OSError):
        write_json(project / FILE, content)


def forget_ended(project: Path, jobs: Callable[[], Container[str]]) -> None:
    """Remove what is said of a step whose job has ended; what is said of another one stays fresh.

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
def under_way(project: Path, passed_on: Progress | None, say: Callable[[str], None]) -> Iterator[UnderWay]:
    """Be the only step of a project while the block runs, and say so.

    Raises:
        ProjectError: another one is under way.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(
                alone(project / WORK, lambda owner: say(f"waits for a sign of life of {owner}"))
            )
        except ExperimentError:
            raise ProjectError(f"{project}: {_who(project)}; wait for it, or stop it first") from None
        remove_leftovers(project / WORK, alone=True)
        watch = UnderWay(project, passed_on, say)
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
