"""The state of a run, in files that other programs may read while it works.

::

    entropy_sampling/seed_42/
      state.json      where it stands, rewritten at most once a second
      run.log         what a person reads: a line per epoch and iteration, warnings, tracebacks
      metrics.jsonl   what a program reads: a JSON object per epoch and per iteration

They are for reading only: nothing that is decided depends on them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryoquery.active.progress import (
    EpochEnded,
    Event,
    ImagesPassed,
    IterationEnded,
    IterationStarted,
    RunState,
    Standing,
    Waiting,
)
from cryoquery.active.run import Run
from cryoquery.errors import DataError
from cryoquery.slurm import job_number
from cryoquery.storage.atomic import read_json, remove_leftovers, write_json
from cryoquery.storage.leases import LeaseObserver

STATE, LOG, METRICS = "state.json", "run.log", "metrics.jsonl"
LEASE = ".running"
"""The lease of the process that works on a run, in its folder."""
SECONDS_BETWEEN = 1.0

_watches: dict[Path, LeaseObserver] = {}
"""Kept between looks: a lease on another machine counts as abandoned when it stood still for a while."""


def read_state(folder: Path, run: str, seed: int) -> RunState:
    """What the folder of a run says; ``lost`` where it was at work and its process is seen to be gone.

    A run that has not begun is ``waiting``.
    """
    try:
        state = RunState(**read_json(folder / STATE))
    except (DataError, TypeError):
        return RunState(run, seed)
    if state.state == "running":
        watch = _watches.setdefault(folder, LeaseObserver(folder / LEASE))
        if watch.is_abandoned() or not (folder / LEASE).exists():
            return dataclasses.replace(state, state="lost", message="its process is gone")
    return state


def states(runs: Sequence[Run]) -> list[RunState]:
    """How each of ``runs`` stands, from its folder."""
    return [read_state(run.folder, run.name, run.seed) for run in runs]


class RunLog:
    """Keeps the files of one run up to date while it works."""

    def __init__(self, folder: Path, run: str, seed: int, planned: list[int]) -> None:
        """``planned``: the work that each iteration will take."""
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        self.folder = folder
        self._planned = planned
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

    def __call__(self, event: Event) -> None:
        """Note an event; a `cryoquery.active.progress.Progress`."""
        match event:
            case IterationStarted():
                self._change(epoch=0, n_epochs=0, message="", n_finished=event.iteration)
                self._now = {"iteration": event.iteration, "n_labeled_images": event.n_labeled}
            case EpochEnded():
                self._change(epoch=event.epoch, n_epochs=event.n_epochs)
                self._record({**self._now, "epoch": event.epoch, "loss": event.loss})
                where = f"iteration {self._now['iteration']}: epoch {event.epoch}/{event.n_epochs}"
                self.log(f"{where}, loss {event.loss:.5f}")
            case ImagesPassed():
                self._worked += event.work
                self._change(done=min(self._state.done + event.work, self._state.total))
            case Waiting():
                self._change(at_once=True, message=f"waits for {event.owner}")
                self.log(f"waits for {event.owner}")
            case IterationEnded():
                n_finished = self._now["iteration"] + 1
                done = sum(self._planned[:n_finished])
                self._change(at_once=True, done=done, n_finished=n_finished, f1=event.f1, message="")
                if event.how != "found":
                    self._record({**self._now, "f1": event.f1, "how": event.how})
                    self.log(f"iteration {self._now['iteration']}: {event.how}, F1 {event.f1:.4f}")

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
        # A log that cannot be written, on a full disk say, ends no run.
        with contextlib.suppress(OSError), (self.folder / name).open("a", encoding="utf-8") as stream:
            stream.write(text)

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
