"""The log of a project together with its live state: what can be done is recorded, what cannot is refused."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cryoquery.project.areas import check_area
from cryoquery.project.events import Act, Event, EventLog, fresh_acts, number
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

    def record(self, acts: Sequence[Act], now: float) -> list[Event]:
        """Record ``acts`` if each can follow those before it; all or none.

        An act whose id is known is answered and not looked at again. ``submitted`` is recorded as
        ``corrected`` where the task was submitted before.

        Args:
            acts: in order.
            now: seconds since the epoch, UTC; it decides which leases have ended.

        Returns:
            One event per act, on the disk when this returns.

        Raises:
            LeaseError: a task of theirs is another person's, or nobody's.
            UnknownTaskError: there is no such task.
            LogError: the log cannot be read or written.
            ProjectError: an act cannot be done; nothing was recorded and `state` is what it was.
        """
        with self.lock:
            self._catch_up()
            known = self.log.find(act.id for act in acts)
            acts = [_as_known(act, known) for act in acts]
            trial = self._state.branch(act.task for act in acts)
            kept = []
            for act in fresh_acts(acts, known):
                act = _as_correction(act, trial)
                apply(trial, number([act], trial.seq + 1, now)[0])
                _check_regions(act, trial)
                kept.append(act)
            if kept:
                self._in_doubt = True
                known |= {event.id: event for event in self.log.append(kept, now=now)}
                self._in_doubt = False
                self._state = trial
            return [known[act.id] for act in acts]

    def _catch_up(self) -> None:
        """After a failure of the disk: see whether what was to be recorded is there after all."""
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


def _as_known(act: Act, known: Mapping[str, Event]) -> Act:
    """A submission that is sent again is the one that was recorded, under whichever kind."""
    old = known.get(act.id)
    return replace(act, kind=old.kind) if old and {old.kind, act.kind} <= set(_FINAL) else act


def _check_regions(act: Act, state: ProjectState) -> None:
    """See that the regions of an act that was just tried have an area.

    Raises:
        ProjectError: one has none.
    """
    if act.task is None:
        return
    op = act.body.get("op") if act.kind == "drafted" else None
    if op is not None and op["op"] == "region":
        check_area(op["kind"], op["polygon"])
    if act.kind in (*_FINAL, "imported"):
        for region in state.task(act.task).document.regions.values():
            check_area(region.kind, region.polygon)


def _as_correction(act: Act, state: ProjectState) -> Act:
    if act.kind in _FINAL and act.task is not None:
        return replace(act, kind="corrected" if state.task(act.task).submissions else "submitted")
    return act
