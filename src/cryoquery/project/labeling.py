"""One task, the act of labeling an item: what is known of it, and what each kind of event makes of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from cryoquery.errors import ProjectError
from cryoquery.project.document import (
    Document,
    Extent,
    Particle,
    Region,
    check_answer,
    finite_number,
    imported_document,
    shown,
)
from cryoquery.project.events import Event

Status = Literal["waiting", "leased", "drafted", "submitted", "skipped", "bad"]
MAX_REASON = 1_000
"""Characters in the reason of a skip, and in the source of an import."""
MAX_ACTIVE_SECONDS = 86_400.0
"""That one command can report."""

_TASK = re.compile(r"(0|[1-9][0-9]{0,8})(?:\.r([1-9][0-9]{0,5}))?")


class UnknownTaskError(ProjectError):
    """A task that the project does not have."""


CLOCK_SECONDS = 60.0
"""By so much a clock may be put back without a lease being ended."""


class LeaseError(ProjectError):
    """The task is not this person's at the moment."""

    def __init__(self, message: str, holder: str | None) -> None:
        super().__init__(message)
        self.holder = holder
        """The person who has it; None: it is free."""


class Lease(NamedTuple):
    """Who has a task, and until when (seconds since the epoch)."""

    person: str
    until: float


@dataclass(frozen=True)
class Submission:
    """One final answer to a task; a later one corrects it."""

    seq: int
    time: float
    person: str
    imported: bool
    active_seconds: float
    """Spent on the task up to then, by all people together."""
    suggested: bool
    """Whether suggestions were shown."""
    model: str | None
    particles: tuple[Particle, ...]
    """By y, then x."""
    regions: tuple[Region, ...]
    empty: bool
    n_rejected: int
    """Suggestions that were rejected one by one."""


@dataclass
class TaskState:
    """One act of labeling an item: its document, who has it, and what became of it."""

    item: int
    repeat: int
    """0: the first labeling; 1, 2, …: blind repeats."""
    document: Document = field(default_factory=Document)
    phase: Literal["open", "submitted", "skipped", "bad"] = "open"
    reopened: bool = False
    """Being edited after it was submitted, skipped or bad."""
    lease: Lease | None = None
    lease_seconds: float = 0.0
    """Length of the last lease; every command of its holder makes it that long again."""
    drafter: str | None = None
    """Who edited it last."""
    suggested: bool | None = None
    """Whether suggestions are shown; None: not decided yet."""
    model: str | None = None
    """Whose picks were shown last."""
    n_suggestions: int = 0
    skipped_by: dict[str, str] = field(default_factory=dict)
    """Person → reason."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Person → seconds of activity."""
    submissions: list[Submission] = field(default_factory=list)
    withdrawn: bool = False
    """Skipped after it was submitted, and not submitted again."""
    touched: int = 0
    """Number of the last event."""
    diameters_px: dict[tuple[float, float], float] = field(default_factory=dict)
    """Diameters that a file of labels stated, by (y, x) of the particle."""

    @property
    def answer(self) -> Submission | None:
        """The last submission, unless it was withdrawn."""
        return self.submissions[-1] if self.submissions and not self.withdrawn else None

    @property
    def active_seconds(self) -> float:
        """Seconds that all people together spent on it."""
        return math.fsum(self.seconds.values())

    @property
    def has_draft(self) -> bool:
        """Whether it holds work that is not submitted."""
        return self.phase == "open" and (self.reopened or self.document.n_ops > 0)

    def holder(self, now: float) -> str | None:
        """Who has a lease at ``now``, seconds since the epoch."""
        if self.lease is None:
            return None
        # One that begins later was given by a clock that was ahead, and would last as long as that.
        begun = self.lease.until - self.lease_seconds <= now + CLOCK_SECONDS
        return self.lease.person if begun and now < self.lease.until else None

    def status(self, now: float) -> Status:
        """What it is at ``now``, seconds since the epoch."""
        if self.phase != "open":
            return self.phase
        if self.has_draft:
            return "drafted"
        return "waiting" if self.holder(now) is None else "leased"

    def copy(self) -> TaskState:
        """Another one with the same content, that can be changed alone."""
        copy = TaskState(**{**vars(self), "document": self.document.copy()})
        copy.skipped_by, copy.seconds = dict(self.skipped_by), dict(self.seconds)
        copy.submissions = list(self.submissions)
        return copy


def task_id(item: int, repeat: int = 0) -> str:
    """``"17"``: the first labeling of item 17; ``"17.r1"``: its first blind repeat."""
    return f"{item}.r{repeat}" if repeat else str(item)


def parse_task(task: str) -> tuple[int, int]:
    """Item and repeat of a task.

    Raises:
        UnknownTaskError: it is not written as a task is.
    """
    match = _TASK.fullmatch(task) if isinstance(task, str) else None
    if match is None:
        raise UnknownTaskError(
            f"task {str(task)[:40]!r}: expected the number of an item, such as 17 or 17.r1"
        )
    return int(match[1]), int(match[2] or 0)


def model_name(value: Any) -> str | None:
    """The name of a model in a body, or None.

    Raises:
        ProjectError: neither text nor null.
    """
    if value is not None and (not isinstance(value, str) or len(value) > MAX_REASON):
        raise ProjectError(f"model={shown(value)}: expected the name of a step or null")
    return value


def _lease(task: TaskState, _: Extent, event: Event) -> None:
    holder = task.holder(event.time)
    if holder not in (None, event.person):
        raise _not_yours(task, event)
    until = _until(event)
    suggested = _is_suggested(task, event)
    task.lease, task.lease_seconds = Lease(event.person, until), until - event.time
    task.suggested = suggested
    if task.phase == "skipped":
        task.phase = "open"


def _renew(task: TaskState, _: Extent, event: Event) -> None:
    seconds = _seconds(event)
    _check_holder(task, event)
    until = _until(event)
    task.lease, task.lease_seconds = Lease(event.person, until), until - event.time
    _spend(task, event, seconds)


def _release(task: TaskState, _: Extent, event: Event) -> None:
    seconds = _seconds(event)
    if task.lease is not None:
        _check_holder(task, event)
    task.lease = None
    _spend(task, event, seconds)


def _serve(task: TaskState, _: Extent, event: Event) -> None:
    if task.holder(event.time) not in (None, event.person):
        raise _not_yours(task, event)
    n_suggestions = event.body.get("n_suggestions", 0)
    if not isinstance(n_suggestions, int) or isinstance(n_suggestions, bool) or n_suggestions < 0:
        raise ProjectError(f"n_suggestions={shown(n_suggestions)}: expected a number from 0 on")
    suggested = _is_suggested(task, event)
    task.model = model_name(event.body.get("model"))
    task.n_suggestions, task.suggested = n_suggestions, suggested


def _draft(task: TaskState, extent: Extent, event: Event) -> None:
    seconds = _check_edit(task, event)
    op = event.body.get("op", {})
    if event.kind == "undone":
        task.document.undo()
    elif event.kind == "redone":
        task.document.redo()
    elif isinstance(op, Mapping) and op.get("op") == "accept" and task.suggested is False:
        raise ProjectError("no suggestions are shown in this task; add the particles")
    else:
        task.document.apply(op, extent)
    _spend(task, event, seconds)
    task.drafter = event.person


def _submit(task: TaskState, _: Extent, event: Event) -> None:
    seconds = _check_edit(task, event)
    if bool(task.submissions) != (event.kind == "corrected"):
        expected = "corrected" if task.submissions else "submitted"
        raise ProjectError(f"kind={event.kind!r}: expected {expected!r} here")
    check_answer(task.document)
    model = model_name(event.body.get("model", task.model))
    _spend(task, event, seconds)
    task.submissions.append(_submission(task, event, event.person, model))
    task.withdrawn = False
    _close(task, "submitted")


def _skip(task: TaskState, _: Extent, event: Event) -> None:
    seconds = _check_edit(task, event)
    reason, bad = event.body.get("reason") or "", event.body.get("bad", False)
    if not isinstance(reason, str) or len(reason) > MAX_REASON or not isinstance(bad, bool):
        raise ProjectError(f"a skip has a reason of at most {MAX_REASON} characters, and bad true or false")
    _spend(task, event, seconds)
    task.skipped_by[event.person] = reason
    task.withdrawn = bool(task.submissions)
    _close(task, "bad" if bad else "skipped")


def _reopen(task: TaskState, _: Extent, event: Event) -> None:
    if task.holder(event.time) not in (None, event.person):
        raise _not_yours(task, event)
    if task.phase == "open":
        raise ProjectError("it is open already")
    seconds = _until(event) - event.time if "until" in event.body else task.lease_seconds
    task.lease, task.lease_seconds = Lease(event.person, event.time + seconds), seconds
    task.phase, task.reopened, task.drafter = "open", True, event.person


def _import(task: TaskState, extent: Extent, event: Event) -> None:
    source = event.body.get("source")
    if not isinstance(source, str) or not 0 < len(source) <= MAX_REASON:
        raise ProjectError(f"source={shown(source)}: expected where the labels are from")
    if task.repeat:
        raise ProjectError("labels from a file cannot be those of a blind repeat")
    if task.holder(event.time) is not None or task.has_draft or task.phase == "bad":
        raise ProjectError(f"item {task.item}: a person works on it, or it is bad; import others, or later")
    if any(not submission.imported for submission in task.submissions):
        raise ProjectError(f"item {task.item}: {task.submissions[-1].person} has labeled it; leave it out")
    document = imported_document(event.body.get("labels", {}), extent)
    task.diameters_px = _stated_diameters(document, event.body.get("diameters_px"))
    task.document = document
    task.submissions.append(_submission(task, event, f"imported: {source}", None))
    task.withdrawn = False
    _close(task, "submitted")


def _stated_diameters(document: Document, stated: object) -> dict[tuple[float, float], float]:
    if stated is None:
        return {}
    if not isinstance(stated, list) or len(stated) != len(document.particles):
        raise ProjectError(f"diameters_px={shown(stated)}: expected one for each particle, or null")
    pairs = zip(document.particles.values(), stated, strict=True)
    return {(p.y, p.x): finite_number(d, "diameters_px") for p, d in pairs if d is not None}


COMMANDS: dict[str, Callable[[TaskState, Extent, Event], None]] = {
    "leased": _lease,
    "renewed": _renew,
    "released": _release,
    "served": _serve,
    "drafted": _draft,
    "undone": _draft,
    "redone": _draft,
    "submitted": _submit,
    "corrected": _submit,
    "reopened": _reopen,
    "skipped": _skip,
    "imported": _import,
}
"""Kind of event → what it makes of a task; each refuses before it changes anything."""


def _submission(task: TaskState, event: Event, person: str, model: str | None) -> Submission:
    document = task.document
    return Submission(
        event.seq,
        event.time,
        person,
        event.kind == "imported",
        task.active_seconds,
        bool(task.suggested) and event.kind != "imported",
        model,
        tuple(sorted(document.particles.values(), key=lambda p: (p.y, p.x, p.origin))),
        tuple(document.regions.values()),
        document.empty,
        len(document.rejected),
    )


def _check_edit(task: TaskState, event: Event) -> float:
    """The seconds of a command that only the holder of an open task may do."""
    seconds = _seconds(event)
    _check_holder(task, event)
    if task.phase != "open":
        raise ProjectError(f"it is {task.phase}; reopen it first")
    return seconds


def _check_holder(task: TaskState, event: Event) -> None:
    if task.lease is None or task.lease.person != event.person:
        raise _not_yours(task, event)


def _not_yours(task: TaskState, event: Event) -> LeaseError:
    holder = task.holder(event.time)
    if holder is None:
        return LeaseError(f"this is not leased to {event.person}; open it again", None)
    return LeaseError(f"{holder} is working on this one; take another", holder)


def _spend(task: TaskState, event: Event, seconds: float) -> None:
    """Count the seconds; the holder's lease is as long again as it was."""
    if seconds:
        task.seconds[event.person] = task.seconds.get(event.person, 0.0) + seconds
    if task.lease is not None:
        until = event.time + task.lease_seconds
        held = task.holder(event.time) is not None
        task.lease = Lease(event.person, max(task.lease.until, until) if held else until)


def _close(task: TaskState, phase: Literal["submitted", "skipped", "bad"]) -> None:
    task.phase, task.reopened, task.lease = phase, False, None


def _seconds(event: Event) -> float:
    """Seconds of activity since this person's command before on the same task."""
    seconds = finite_number(event.body.get("active_seconds", 0.0), "active_seconds")
    if not 0 <= seconds <= MAX_ACTIVE_SECONDS:
        raise ProjectError(f"active_seconds={seconds:g}: must be from 0 to {MAX_ACTIVE_SECONDS:g}")
    return seconds


def _until(event: Event) -> float:
    until = finite_number(event.body.get("until"), "until")
    if not until > event.time:
        raise ProjectError(f"until={until:.0f}: a lease must end after it begins ({event.time:.0f})")
    return until


def _is_suggested(task: TaskState, event: Event) -> bool | None:
    suggested = event.body.get("suggested", task.suggested)
    if suggested not in (None, True, False):
        raise ProjectError(f"suggested={shown(suggested)}: expected true or false")
    if suggested and task.repeat:
        raise ProjectError(f"item {task.item}: a blind repeat is shown without suggestions")
    return None if suggested is None else bool(suggested)
