"""A project as the page sees it: what there is to label, who labels what, and what was done."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cryoquery
from cryoquery.errors import ProjectError
from cryoquery.label.documents import describe_progress, describe_row, describe_task
from cryoquery.label.listing import Row, rows
from cryoquery.label.requests import CommandRequest
from cryoquery.project.document import checked_region
from cryoquery.project.events import PROGRAM, Command, Event
from cryoquery.project.folder import Project, finished_steps, open_project
from cryoquery.project.labeling import TaskState, UnknownTaskError, parse_task, task_id
from cryoquery.project.people import total_seconds
from cryoquery.project.repository import ProjectRepository, check_area
from cryoquery.project.state import ProjectState
from cryoquery.project.step_files import (
    NONE,
    StepFiles,
    Suggestions,
    read_metrics,
    read_query,
    step_under_way,
)
from cryoquery.project.tasks import is_suggested, next_task, open_repeats

MOST_LISTED = 200
"""Entries of the queue that are sent."""
OWN_IDS = ("queued-", "lease-")
"""Beginnings of the ids of events that are recorded here; people's commands cannot take them."""


class RefusedCommandError(ProjectError):
    """A command that cannot be taken; those that came with it were not taken either."""


def open_service(path: Path) -> LabelService:
    """Open the project in folder ``path`` to label in it.

    Raises:
        ProjectError: there is no project, or another process serves it.
        ConfigError, DataError: it is damaged.
    """
    project = open_project(path)
    return LabelService(project, ProjectRepository.open(project.events_path, project.geometry))


class LabelService:
    """Answers the page's questions and records what people do. For one thread.

    Args:
        project: the project.
        repository: of the project; closed with the service.
        clock: seconds since the epoch.
    """

    def __init__(
        self, project: Project, repository: ProjectRepository, clock: Callable[[], float] = time.time
    ) -> None:
        self.project = project
        self._repository = repository
        self._clock = clock
        self._steps = StepFiles(project.path)
        self._sentence: tuple[int, str] = (-1, "")

    def close(self) -> None:
        """Close the log, and let others write."""
        self._repository.close()

    @property
    def state(self) -> ProjectState:
        """After the last command; it never changes, the next command brings another one."""
        return self._repository.state

    def session(self, person: str | None) -> dict[str, Any]:
        """What the page must know before it shows anything."""
        config = self.project.config
        return {
            "person": person,
            "project": config.name,
            "id": self.project.id,
            "n_items": len(self.project.items),
            "unit": config.unit,
            "pixel_size": config.pixel_size,
            "diameter_px": self.project.median_diameter_px,
            "diameter_angstrom": config.diameter_angstrom,
            "n_waiting": self._counts(person)["n_waiting"],
            "version": cryoquery.__version__,
        }

    def queue(self, person: str | None) -> dict[str, Any]:
        """What to label next, and why: at most `MOST_LISTED` entries, those that wait first."""
        now, state = self._clock(), self.state
        listed = self._rows(person, now)
        return {
            "step": state.queue.step,
            "model": state.queue.model,
            "sentence": self._last_sentence(),
            "entries": [describe_row(self.project, row, now) for row in listed[:MOST_LISTED]],
            **self._counts(person),
            "hours": total_seconds(state) / 3600,
            "stepping": step_under_way(self.project.path),
            "now": now,
        }

    def _rows(self, person: str | None, now: float) -> list[Row]:
        return rows(self.state, self._repeats(person, now), self._is_held_out, now)

    def _repeats(self, person: str | None, now: float) -> list[str]:
        config = self.project.config
        if person is None:
            return []
        return open_repeats(self.state, person, now, repeat_share=config.repeat_share, seed=config.seed)

    def _counts(self, person: str | None) -> dict[str, int]:
        now, state = self._clock(), self.state
        repeats = {parse_task(name)[0]: name for name in self._repeats(person, now)}
        queued = {task_id(e.item) for e in state.queue.entries if e.purpose != "repeat"}
        queued = {repeats.get(parse_task(name)[0], name) for name in queued} | set(repeats.values())
        firsts = [task for task in state.tasks.values() if task.repeat == 0 and task.item not in repeats]
        return {
            "n_waiting": sum(state.task(name).status(now) == "waiting" for name in queued),
            "n_submitted": sum(task.answer is not None for task in firsts),
            "n_skipped": sum(task.phase in ("skipped", "bad") for task in firsts),
        }

    def lease(self, person: str, task: str | None) -> dict[str, Any]:
        """Give ``person`` a task for some time, and its document.

        Args:
            person: who asks.
            task: which; None: the next one.

        Raises:
            LeaseError: another person has it.
            UnknownTaskError: it is not to be labeled.
        """
        now, config = self._clock(), self.project.config
        if task is None:
            task = next_task(self.state, person, now, repeat_share=config.repeat_share, seed=config.seed)
            if task is None:
                return {"task": None}
        else:
            self._check_known(person, task, now)
        state = self.state.task(task)
        if state.phase in ("open", "skipped"):
            self._record_lease(person, task, self._as_served(task, state), now)
        return self.task(person, task)

    def ahead(self, person: str, besides: Sequence[str]) -> dict[str, Any]:
        """The document of the task that ``person`` gets next, besides some; nothing is given or recorded.

        The page has it ready when it is wanted, and asks for a lease then.
        """
        now, config = self._clock(), self.project.config
        task = next_task(
            self.state, person, now, repeat_share=config.repeat_share, seed=config.seed, besides=besides
        )
        if task is None:
            return {"task": None}
        return self._describe(person, task, self._as_served(task, self.state.task(task)), now)

    def _as_served(self, task: str, state: TaskState) -> TaskState:
        """The task as whoever opens it now sees it: until the first edit, with the newest suggestions."""
        if state.document.n_ops > 0 or state.submissions:
            return state
        model = self.state.queue.model or self._steps.newest_picks()
        if state.model is not None and not self._steps.knows(model, state.item):
            model = state.model
        config, held_out = self.project.config, self._is_held_out(state.item)
        suggested = model is not None and is_suggested(
            config.seed, task, config.suggestion_share, held_out=held_out
        )
        return replace(state, model=model, suggested=suggested)

    def _record_lease(self, person: str, task: str, state: TaskState, now: float) -> None:
        leased = {"until": self._lease_end(now), "suggested": bool(state.suggested)}
        served = {
            "model": state.model,
            "n_suggestions": len(self._shown(state).picks),
            "suggested": bool(state.suggested),
        }
        token = uuid.uuid4().hex
        self._repository.record(
            [
                Command(f"lease-{token}-0", person, "leased", task, leased),
                Command(f"lease-{token}-1", person, "served", task, served),
            ],
            now,
        )

    def task(self, person: str, task: str) -> dict[str, Any]:
        """The document of a task.

        Raises:
            UnknownTaskError: there is no such task.
        """
        now = self._clock()
        self._check_known(person, task, now)
        return self._describe(person, task, self.state.task(task), now)

    def _describe(self, person: str, task: str, state: TaskState, now: float) -> dict[str, Any]:
        reason = next((row.reason for row in self._rows(person, now) if row.task == task), "")
        scores = self._steps.scores(state.model)
        return describe_task(self.project, task, state, person, reason, self._shown(state), scores, now)

    def _check_known(self, person: str, task: str, now: float) -> None:
        """Check that ``person`` may know of the task: it is in a query, and no blind repeat hides it.

        Raises:
            UnknownTaskError: there is none.
        """
        item, repeat = parse_task(task)
        repeats = self._repeats(person, now)
        queued = any(e.item == item and e.purpose != "repeat" for e in self.state.queue.entries)
        there = task in self.state.tasks or task in repeats or (queued and not repeat)
        if not there or (not repeat and any(parse_task(other)[0] == item for other in repeats)):
            raise UnknownTaskError("there is no such task at the moment")

    def record(self, person: str, task: str, requests: Sequence[CommandRequest]) -> dict[str, Any]:
        """Record what ``person`` did in a task; all of it is on the disk when this returns, or nothing.

        A command that was recorded before is acknowledged again.

        Raises:
            LeaseError: the task is not this person's at the moment.
            UnknownTaskError: there is no such task.
            RefusedCommandError: a command's id is another one's, or a field does not belong to it.
            ProjectError: a command cannot be done.
            LogError: the log cannot be read or written.
        """
        now = self._clock()
        state = self.state.task(task)
        known = self._repository.log.find(request.id for request in requests)
        if len(known) < len({request.id for request in requests}):
            self._check_known(person, task, now)
        commands = []
        for request in requests:
            if (old := known.get(request.id)) is None:
                commands.append(
                    Command(request.id, person, request.kind, task, self._body(request, state, now))
                )
            elif (old.person, old.task) != (person, task) or not _repeats(old, request):
                raise RefusedCommandError(f"command {request.id}: the id was used before; choose another")
            if request.id.startswith(OWN_IDS):
                raise RefusedCommandError(
                    f"command {request.id}: an id must not begin with {' or '.join(OWN_IDS)}"
                )
        self._repository.record(commands, now)
        return {
            "acknowledged": [request.id for request in requests],
            **describe_progress(self.state.task(task), now),
        }

    def _body(self, request: CommandRequest, state: TaskState, now: float) -> dict[str, Any]:
        """What is recorded of a command."""
        for name in request.foreign:
            raise RefusedCommandError(f"command {request.id}: {name} does not belong to {request.kind!r}")
        active = {"active_seconds": request.active_seconds}
        if request.kind == "drafted":
            if request.op is None:
                raise RefusedCommandError(f"command {request.id}: op is missing")
            self._check_done(request.op, state)
            return {"op": self._with_places(request.op, state), **active}
        if request.kind in ("renewed", "reopened"):
            body = {"until": self._lease_end(now)}
            return body | active if request.kind == "renewed" else body
        if request.kind == "submitted":
            return {**active, "model": state.model}
        if request.kind == "skipped":
            return {"reason": request.reason or "", "bad": bool(request.bad), **active}
        if request.kind == "served":
            shown = self._shown(state)
            return {
                "model": state.model,
                "n_suggestions": len(shown.picks),
                "suggested": bool(state.suggested),
            }
        return active

    def _with_places(self, op: Mapping[str, Any], state: TaskState) -> Mapping[str, Any]:
        """An operation whose suggestions are written out, since the log must do without the step's files."""
        keys = op.get("keys")
        if op.get("op") != "accept" or set(op) != {"op", "keys"} or not isinstance(keys, list):
            return op
        picks = {pick.key: pick._asdict() for pick in self._shown(state).picks}
        unknown = next((key for key in keys if not isinstance(key, str) or key not in picks), None)
        if unknown is not None:
            raise ProjectError(f"suggestion {str(unknown)[:40]!r}: is not among those that are shown")
        return {"op": "accept", "picks": [picks[key] for key in keys]}

    def _check_done(self, op: Mapping[str, Any], state: TaskState) -> None:
        """Check that a region of the kind ``done`` has room for one particle.

        Raises:
            ProjectError: it is smaller.
        """
        if op.get("op") == "region" and op.get("kind") == "done":
            region = checked_region("done", op.get("polygon"), self.state.extent(state.item))
            radius = self.project.diameter_px(state.item) / 2
            check_area("done", region.polygon, max(1.0, math.pi * radius**2))

    def _shown(self, state: TaskState) -> Suggestions:
        return self._steps.suggestions(state.model, state.item) if state.suggested else NONE

    def _is_held_out(self, item: int) -> bool:
        return self.project.items[item].split != "train"

    def _lease_end(self, now: float) -> float:
        return now + 60 * self.project.config.lease_minutes

    def notice_steps(self) -> None:
        """Put the query of the last finished step into the queue, once.

        Raises:
            ProjectError, DataError: its files do not fit the project.
        """
        steps = finished_steps(self.project.steps_path)
        if not steps or max(steps) <= self.state.queue.step:
            return
        name = f"step_{max(steps)}"
        entries = read_query(self.project.steps_path / name, len(self.project.items))
        body = {"step": max(steps), "entries": entries, "model": name}
        self._repository.record([Command(f"queued-{name}", PROGRAM, "queued", None, body)], self._clock())

    def _last_sentence(self) -> str:
        """What the last step expects of another one."""
        step = self.state.queue.step
        if self._sentence[0] != step:
            metrics = read_metrics(self.project.steps_path / f"step_{step}")
            self._sentence = (step, str(metrics.get("sentence", "")))
        return self._sentence[1]


def _repeats(old: Event, request: CommandRequest) -> bool:
    """Whether a request is the one that was recorded, sent again; what was made on arrival does not count."""
    if old.kind != request.kind and (old.kind, request.kind) != ("corrected", "submitted"):
        return False
    if request.foreign:
        return False
    sent = {
        "active_seconds": request.active_seconds,
        "op": request.op,
        "reason": request.reason or "",
        "bad": bool(request.bad),
    }
    return all(_as_sent(old.body[name], sent[name]) == sent[name] for name in sent if name in old.body)


def _as_sent(recorded: Any, sent: Any) -> Any:
    """An accepted suggestion is recorded with its place, also where only its key was sent."""
    if isinstance(sent, dict) and "keys" in sent and isinstance(recorded, dict) and "picks" in recorded:
        return {"op": recorded["op"], "keys": [pick["key"] for pick in recorded["picks"]]}
    return recorded
