"""The log of a project together with its live state: it records what can be done and refuses the rest."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cryoquery.errors import ProjectError
from cryoquery.project.events import Command, Event, EventLog, fresh_commands, number
from cryoquery.project.state import Geometry, ProjectState, apply, replay


class ProjectRepository:
    """One writer's log and state, for all threads of its process."""

    def __init__(self, log: EventLog, geometry: Geometry) -> None:
        self.log = log
        self.lock = threading.RLock()
        """Hold it around a look at `state` and a `record` that depends on it."""
        self._state = replay(log.read(), geometry)
        self._in_doubt = False

    @classmethod
    def open(cls, path: Path, geometry: Geometry) -> ProjectRepository:
        """Open the log at ``path`` to write it, and replay it.

        Raises:
            ProjectError: as `EventLog.open` and `replay`.
        """
        log = EventLog.open(path, write=True)
        try:
            return cls(log, geometry)
        except BaseException:
            log.close()
            raise

    @property
    def state(self) -> ProjectState:
        """The state after the last event; it never changes, the next record brings another one."""
        return self._state

    def record(self, commands: Sequence[Command], now: float) -> list[Event]:
        """Record ``commands`` if each can follow those before it; all or none.

        A command whose id is known is answered and not looked at again. ``submitted`` is recorded as
        ``corrected`` where the task was submitted before.

        Args:
            commands: in order.
            now: seconds since the epoch, UTC; it decides which leases have ended.

        Returns:
            One event per command, on the disk when this returns.

        Raises:
            LeaseError: a task of theirs is another person's, or not leased.
            UnknownTaskError: there is no such task.
            LogError: the log cannot be read or written.
            ProjectError: a command cannot be done; nothing was recorded and `state` is what it was.
        """
        with self.lock:
            self._catch_up()
            known = self.log.find(command.id for command in commands)
            commands = [_as_known(command, known) for command in commands]
            trial = self._state.branch(command.task for command in commands)
            kept = []
            for command in fresh_commands(commands, known):
                command = _as_correction(command, trial)
                apply(trial, number([command], trial.seq + 1, now)[0])
                _check_regions(command, trial)
                kept.append(command)
            if kept:
                self._in_doubt = True
                known |= {event.id: event for event in self.log.append(kept, now=now)}
                self._in_doubt = False
                self._state = trial
            return [known[command.id] for command in commands]

    def _catch_up(self) -> None:
        """After a failure of the disk: look whether the events were recorded all the same."""
        if self._in_doubt:
            state = self._state
            missed = self.log.read(after=state.seq)
            state = state.branch(event.task for event in missed)
            for event in missed:
                apply(state, event)
            self._state, self._in_doubt = state, False

    def close(self) -> None:
        """Close the log."""
        with self.lock:
            self.log.close()

    def __enter__(self) -> ProjectRepository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_FINAL = ("submitted", "corrected")


def _as_known(command: Command, known: Mapping[str, Event]) -> Command:
    """A submission that is sent again is the one that was recorded, under whichever kind."""
    old = known.get(command.id)
    return replace(command, kind=old.kind) if old and {old.kind, command.kind} <= set(_FINAL) else command


def _check_regions(command: Command, state: ProjectState) -> None:
    """Check that the regions of a command that was just tried have an area.

    Raises:
        ProjectError: one has none.
    """
    if command.task is None:
        return
    op = command.body.get("op") if command.kind == "drafted" else None
    if op is not None and op["op"] == "region":
        check_area(op["kind"], op["polygon"])
    if command.kind in (*_FINAL, "imported"):
        for region in state.task(command.task).document.regions.values():
            check_area(region.kind, region.polygon)


def _as_correction(command: Command, state: ProjectState) -> Command:
    if command.kind in _FINAL and command.task is not None:
        return replace(command, kind="corrected" if state.task(command.task).submissions else "submitted")
    return command


def check_area(kind: str, polygon: Sequence[Sequence[float]], smallest: float = 1.0) -> None:
    """See that a region covers something, by the shoelace formula.

    Logs of earlier versions may hold regions without area, so that a replay does not ask.

    Args:
        kind: of the region.
        polygon: its (y, x) vertices, pixels.
        smallest: pixels².

    Raises:
        ProjectError: it is smaller.
    """
    y0, x0 = polygon[0]
    turned = [(y - y0, x - x0) for y, x in polygon]
    pairs = zip(turned, turned[1:] + turned[:1], strict=True)
    area = abs(math.fsum(y * b - x * a for (y, x), (a, b) in pairs)) / 2
    if area < smallest:
        raise ProjectError(
            f"a region {kind!r} of {area:.3g} px²: must have at least {smallest:.3g} px²; draw it around more"
        )
