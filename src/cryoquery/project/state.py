"""The state of a project: what its events, replayed in order, come to.

An event is applied to the state in place and is refused without a trace where it cannot be. Replaying the
same events gives an equal state, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import ProjectError
from cryoquery.project.document import Extent, Particle, shown
from cryoquery.project.events import Event
from cryoquery.project.labeling import (
    COMMANDS,
    Submission,
    TaskState,
    UnknownTaskError,
    model_name,
    parse_task,
    task_id,
)

Purpose = Literal["train", "measure", "repeat"]
PURPOSES: tuple[Purpose, ...] = ("train", "measure", "repeat")
Geometry = Mapping[int, tuple[int, int, "tuple[int, int, int, int] | None"]]
"""Item → (height, width, region) of `Extent`, pixels of the original micrograph."""

MAX_NAME = 200
"""Characters in the name of a person."""


class QueueEntry(NamedTuple):
    """An item that a query names."""

    item: int
    rank: int
    """0: the first to label."""
    reason: str
    score: float | None
    purpose: Purpose


@dataclass(frozen=True)
class Queue:
    """What to label next; a new one replaces the one before."""

    seq: int = 0
    """Of the event that brought it; 0: there was none yet."""
    step: int = 0
    model: str | None = None
    """The step whose model made the query and the suggestions."""
    entries: tuple[QueueEntry, ...] = ()
    """By rank."""


@dataclass
class ProjectState:
    """Everything that the events of a project come to."""

    geometry: Geometry = field(compare=False, repr=False)
    seq: int = 0
    """Number of the last event that was applied."""
    queue: Queue = field(default_factory=Queue)
    tasks: dict[str, TaskState] = field(default_factory=dict)
    """Task → its state; a task that was never opened is not in it."""

    def extent(self, item: int) -> Extent:
        """Where item ``item`` lies.

        Raises:
            UnknownTaskError: there is no such item.
        """
        if item not in self.geometry:
            raise UnknownTaskError(f"item {item}: the project has no such item")
        return Extent(*self.geometry[item])

    def task(self, task: str) -> TaskState:
        """The state of ``task``, a fresh one where it was never opened; not to be changed.

        Raises:
            UnknownTaskError: no task of that name can be in the project.
        """
        found = self.tasks.get(task)
        return self._new(task) if found is None else found

    def branch(self, tasks: Iterable[str | None]) -> ProjectState:
        """A state to try events on that concern only ``tasks``; this one stays as it is."""
        own = dict(self.tasks)
        own.update({task: own[task].copy() for task in set(tasks) if task is not None and task in own})
        return ProjectState(self.geometry, self.seq, self.queue, own)

    def _new(self, task: str) -> TaskState:
        item, repeat = parse_task(task)
        self.extent(item)
        first = self.tasks.get(task_id(item))
        if repeat and (first is None or not first.submissions):
            raise UnknownTaskError(f"task {task}: item {item} has not been labeled yet")
        return TaskState(item, repeat)


@dataclass(frozen=True, eq=False)
class Label:
    """What people say of one item, as far as training and measuring go."""

    seq: int
    """Of the submission."""
    particles_yx: NDArray[np.float64]
    """(n, 2) pixels of the original micrograph; of a submission by y, then x."""
    ignore: tuple[NDArray[np.float64], ...] = ()
    """(k, 2) polygons that count neither as particle nor as background."""
    done: tuple[NDArray[np.float64], ...] = ()
    """(k, 2) polygons within which all is marked; none: everywhere is."""
    model: str | None = None
    """Whose suggestions there were when it was labeled, shown or not."""
    suggested: bool = False
    """Whether they were shown: what was not accepted was refused."""

    def is_counted(self) -> NDArray[np.bool_]:
        """(n,) whether a particle does not lie in a region to be ignored."""
        inside = np.zeros(len(self.particles_yx), dtype=bool)
        for polygon in self.ignore:
            inside |= within(polygon, self.particles_yx)
        return ~inside

    def covers(self, points_yx: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(n,) whether it says what is at the points: in a done region, if any is, and in none to ignore."""
        inside = np.full(len(points_yx), not self.done)
        for polygon in self.done:
            inside |= within(polygon, points_yx)
        for polygon in self.ignore:
            inside &= ~within(polygon, points_yx)
        return inside

    def said(self) -> dict[str, Any]:
        """Everything but when it was said and by whom it was suggested, as plain types."""
        return {
            "particles": self.particles_yx.tolist(),
            "ignore": [polygon.tolist() for polygon in self.ignore],
            "done": [polygon.tolist() for polygon in self.done],
            "suggested": self.suggested,
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class ItemLabels(Label):
    """What people say of one item, and who said it: its last submitted label."""

    item: int
    diameters_px: NDArray[np.float64]
    """(n,) of the particles that a file of labels stated and nobody moved; else NaN."""
    empty: bool
    person: str
    active_seconds: float


def replay(events: Iterable[Event], geometry: Geometry) -> ProjectState:
    """The state that ``events`` come to.

    Args:
        events: all of a log, in order.
        geometry: item → (height, width, region).

    Raises:
        ProjectError: an event that cannot follow those before it; it names the event.
    """
    state = ProjectState(geometry)
    event = None
    try:
        for event in events:  # named in the error
            apply(state, event)
    except ProjectError as error:
        assert event is not None
        raise ProjectError(
            f"event {event.seq} ({event.kind}) does not fit the project: {error}; "
            "is this the log of another project, or of a newer cryoquery?"
        ) from None
    return state


def labels(state: ProjectState) -> dict[int, ItemLabels]:
    """Item → its label: the last submission of its first task, unless it was skipped or called bad later."""
    found = {}
    for task in state.tasks.values():
        if task.repeat == 0 and (answer := task.answer) is not None:
            found[task.item] = _item_labels(task, answer)
    return dict(sorted(found.items()))


def _item_labels(task: TaskState, last: Submission) -> ItemLabels:
    def polygons(kind: str) -> tuple[NDArray[np.float64], ...]:
        return tuple(np.array(region.polygon) for region in last.regions if region.kind == kind)

    also = {name: getattr(last, name) for name in ("empty", "person", "active_seconds", "suggested", "model")}
    stated = [task.diameters_px.get((p.y, p.x), np.nan) for p in last.particles]
    return ItemLabels(
        last.seq,
        points_yx(last.particles),
        polygons("ignore"),
        polygons("done"),
        item=task.item,
        diameters_px=np.array(stated, dtype=np.float64),
        **also,
    )


def within(polygon: NDArray[np.float64], points_yx: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) whether points lie in a polygon (k, 2), by the even-odd rule; all in the same pixels."""
    inside = np.zeros(len(points_yx), dtype=bool)
    y, x = points_yx.T
    for (y0, x0), (y1, x1) in zip(polygon, np.roll(polygon, 1, axis=0), strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside


def points_yx(particles: Iterable[Particle]) -> NDArray[np.float64]:
    """(n, 2) centers, pixels."""
    return np.array([(p.y, p.x) for p in particles], dtype=np.float64).reshape(-1, 2)


def apply(state: ProjectState, event: Event) -> None:
    """Change ``state`` by one event.

    Raises:
        LeaseError: the task is another person's, or not leased.
        UnknownTaskError: there is no such task.
        ProjectError: the event cannot follow those before it; ``state`` has not changed.
    """
    if not isinstance(event.person, str) or not 0 < len(event.person) <= MAX_NAME:
        raise ProjectError(f"person {str(event.person)[:MAX_NAME]!r}: a name has 1 to {MAX_NAME} characters")
    if event.kind == "queued":
        state.queue = _queue(state, event)
    elif event.kind in COMMANDS:
        if event.task is None:
            raise ProjectError(f"{event.kind}: it must name a task")
        task = state.task(event.task)
        COMMANDS[event.kind](task, state.extent(task.item), event)
        task.touched = event.seq
        state.tasks[event.task] = task
    else:
        raise ProjectError(f"kind={shown(event.kind)}: expected one of queued, {', '.join(COMMANDS)}")
    state.seq = event.seq


def _queue(state: ProjectState, event: Event) -> Queue:
    entries = event.body.get("entries")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ProjectError("entries: expected a list of objects")
    made = [_queue_entry(state, entry) for entry in entries]
    if len({entry.item for entry in made}) < len(made):
        raise ProjectError("entries: an item stands there twice")
    step, model = event.body.get("step", 0), event.body.get("model")
    if not _is_count(step):
        raise ProjectError(f"step={shown(step)}: expected a number from 0 on")
    return Queue(
        event.seq, step, model_name(model), tuple(sorted(made, key=lambda entry: (entry.rank, entry.item)))
    )


def _queue_entry(state: ProjectState, entry: Mapping[str, Any]) -> QueueEntry:
    item, rank, score = entry.get("item"), entry.get("rank"), entry.get("score")
    if not _is_count(item) or not _is_count(rank):
        raise ProjectError(f"entry {shown(dict(entry))}: expected an item and a rank, numbers from 0 on")
    state.extent(item)
    if score is not None and (isinstance(score, bool) or not isinstance(score, (int, float))):
        raise ProjectError(f"item {item}: score={shown(score)}, expected a number or null")
    purpose = entry.get("purpose", "train")
    if purpose not in PURPOSES:
        raise ProjectError(f"item {item}: purpose={shown(purpose)}, expected one of {', '.join(PURPOSES)}")
    return QueueEntry(item, rank, str(entry.get("reason", "")), score, purpose)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
