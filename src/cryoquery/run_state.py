"""How a run stands, in files that anybody may read while it works.

::

    entropy_sampling/seed_42/
      state.json      where it stands, rewritten at most once a second
      run.log         what a person reads: a line per epoch and iteration, warnings, tracebacks
      metrics.jsonl   what a program reads: a JSON object per epoch and per iteration

They are a diary: nothing that is decided depends on them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cryoquery.claims import Watch
from cryoquery.errors import DataError
from cryoquery.loop import Run
from cryoquery.progress import TRAINING_WEIGHT, Progress, Silent
from cryoquery.records import read_json, remove_leftovers, write_json

STATE, LOG, METRICS = "state.json", "run.log", "metrics.jsonl"
CLAIM = ".running"
"""The claim of the process that works on a run, in its folder."""
SECONDS_BETWEEN = 1.0

Standing = Literal["waiting", "running", "finished", "stopped", "failed", "lost"]


@dataclass(frozen=True)
class RunState:
    """Where a run stands."""

    run: str
    seed: int
    state: Standing = "waiting"
    n_finished: int = 0
    """Finished iterations."""
    n_iterations: int = 0
    epoch: int = 0
    """Of the training under way."""
    n_epochs: int = 0
    f1: float | None = None
    """Of the last finished iteration."""
    done: int = 0
    """Work done, as `cryoquery.plan.Cost.work` counts it."""
    total: int = 0
    seconds_left: float | None = None
    node: str = ""
    pid: int = 0
    job: str = ""
    """Slurm's number, where it is one of its jobs."""
    message: str = ""
    """Why it failed, or what it waits for."""
    updated: float = 0.0
    """Wall clock, in seconds; for display only."""


_watches: dict[Path, Watch] = {}
"""Kept between looks: a claim on another machine counts as abandoned when it stood still for a while."""


def read_state(folder: Path, run: str, seed: int) -> RunState:
    """What the folder of a run says; ``lost`` where it was at work and its process is seen to be gone.

    A run that nobody has begun is ``waiting``.
    """
    try:
        values = read_json(folder / STATE)
        state = RunState(**values)
    except (DataError, TypeError):
        return RunState(run, seed)
    if state.state == "running":
        watch = _watches.setdefault(folder, Watch(folder / CLAIM))
        if watch.is_abandoned() or not (folder / CLAIM).exists():
            return dataclasses.replace(state, state="lost", message="its process is gone")
    return state


def states(runs: Sequence[Run]) -> list[RunState]:
    """How each of ``runs`` stands, from its folder."""
    return [read_state(run.folder, run.name, run.seed) for run in runs]


class Diary:
    """Keeps the files of one run, and passes on what it is told."""

    def __init__(
        self, folder: Path, run: str, seed: int, planned: list[int], passed_on: Progress | None = None
    ) -> None:
        """``planned``: the work that each iteration will take."""
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        self.folder = folder
        self._planned = planned
        self._passed_on = passed_on or Silent()
        self._state = RunState(
            run,
            seed,
            state="running",
            n_iterations=len(planned),
            total=sum(planned),
            node=socket.gethostname(),
            pid=os.getpid(),
            job=job_number(),
        )
        self._worked = 0
        self._started = time.monotonic()
        self._written = -SECONDS_BETWEEN
        self._write(at_once=True)

    def begin(self, run: str, seed: int, iteration: int, n_iterations: int, n_labeled: int) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.begin(run, seed, iteration, n_iterations, n_labeled)
        self._change(epoch=0, n_epochs=0, message="", n_finished=iteration)
        self._now = {"iteration": iteration, "n_labeled_images": n_labeled}

    def epoch(self, epoch: int, n_epochs: int, loss: float) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.epoch(epoch, n_epochs, loss)
        self._change(epoch=epoch, n_epochs=n_epochs)
        self._record({**self._now, "epoch": epoch, "loss": loss})
        self.log(f"iteration {self._now['iteration']}: epoch {epoch}/{n_epochs}, loss {loss:.5f}")

    def trained(self, n_images: int) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.trained(n_images)
        self._work(TRAINING_WEIGHT * n_images)

    def predicted(self, n_images: int) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.predicted(n_images)
        self._work(n_images)

    def waiting(self, owner: str) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.waiting(owner)
        self._change(at_once=True, message=f"waits for {owner}")
        self.log(f"waits for {owner}")

    def end(self, f1: float, how: str) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.end(f1, how)
        n_finished = self._now["iteration"] + 1
        self._state = dataclasses.replace(self._state, done=sum(self._planned[:n_finished]))
        self._change(at_once=True, n_finished=n_finished, f1=f1, message="")
        if how != "found":
            self._record({**self._now, "f1": f1, "how": how})
            self.log(f"iteration {self._now['iteration']}: {how}, F1 {f1:.4f}")

    def standing(self, states: Sequence[RunState]) -> None:
        """See `cryoquery.progress.Progress`."""
        self._passed_on.standing(states)

    def close(self, state: Standing, message: str = "") -> None:
        """The run has ended, or is given up for now."""
        self.log(f"{state}: {message}" if message else state)
        self._change(at_once=True, state=state, message=message, seconds_left=None)

    def log(self, line: str) -> None:
        """Add a line to `run.log`."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        self._append(LOG, f"{stamp}  {line}\n")

    def _record(self, values: dict[str, Any]) -> None:
        self._append(METRICS, json.dumps({"time": round(time.time(), 1), **values}) + "\n")

    def _append(self, name: str, text: str) -> None:
        # A diary that cannot be kept, on a full disk say, ends no run.
        with contextlib.suppress(OSError), (self.folder / name).open("a") as stream:
            stream.write(text)

    def _work(self, amount: int) -> None:
        self._worked += amount
        self._change(done=min(self._state.done + amount, self._state.total))

    def _change(self, at_once: bool = False, **changes: Any) -> None:
        self._state = dataclasses.replace(self._state, **changes)
        self._write(at_once)

    def _write(self, at_once: bool) -> None:
        now = time.monotonic()
        if not at_once and now - self._written < SECONDS_BETWEEN:
            return
        self._written = now
        left = None
        if self._worked and self._state.state == "running":
            left = (self._state.total - self._state.done) * (now - self._started) / self._worked
        self._state = dataclasses.replace(self._state, seconds_left=left, updated=time.time())
        with contextlib.suppress(OSError):
            write_json(self.folder / STATE, dataclasses.asdict(self._state))


def job_number(environment: Callable[[str], str | None] = os.environ.get) -> str:
    """Slurm's number of this job, ``12_3`` for a task of an array; empty outside Slurm."""
    array, task = environment("SLURM_ARRAY_JOB_ID"), environment("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environment("SLURM_JOB_ID") or ""
