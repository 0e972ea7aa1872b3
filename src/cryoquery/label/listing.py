"""What a person finds in the queue: a blind repeat is listed as if its item had never been labeled."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cryoquery.project.labeling import TaskState, parse_task, task_id
from cryoquery.project.state import ProjectState, QueueEntry

LISTED = ("waiting", "drafted", "leased", "submitted", "skipped", "bad")
"""The order of the queue by status."""


class Row(NamedTuple):
    """A line of the queue."""

    task: str
    state: TaskState
    rank: int | None
    """None: it is not in the present query."""
    reason: str
    score: float | None
    held_out: bool
    """Whether it measures F1."""


def rows(state: ProjectState, repeats: list[str], held_out: Callable[[int], bool], now: float) -> list[Row]:
    """The lines of the queue for one person, those that wait first, then by rank.

    Args:
        state: of the project.
        repeats: see `tasks.open_repeats`: they take the places of the first labelings of their items.
        held_out: whether an item is only measured on.
        now: seconds since the epoch.
    """
    entries = {e.item: e for e in state.queue.entries if e.purpose != "repeat"}
    hidden = {parse_task(task)[0]: task for task in repeats}
    place = _place(state, now)
    listed = []
    for item in {**entries, **{t.item: None for t in state.tasks.values() if not t.repeat}}:
        task = hidden.get(item) or task_id(item)
        entry = entries.get(item)
        if entry is None and item in hidden:
            entry = _like(state, place, item, held_out)
        rank = None if entry is None else entry.rank + _shift(entry, item, place, entries, hidden)
        reason, score = ("", None) if entry is None else (entry.reason, entry.score)
        listed.append(Row(task, state.task(task), rank, reason, score, held_out(item)))
    last = len(entries) + len(hidden)
    listed.sort(
        key=lambda row: (
            LISTED.index(row.state.status(now)),
            last if row.rank is None else row.rank,
            row.state.item,
        )
    )
    return listed


def _place(state: ProjectState, now: float) -> int:
    """The rank before which a repeat stands: that of the first entry that waits."""
    for entry in state.queue.entries:
        task = state.tasks.get(task_id(entry.item))
        if entry.purpose != "repeat" and (task is None or task.status(now) == "waiting"):
            return entry.rank
    return max((entry.rank for entry in state.queue.entries), default=0)


def _like(state: ProjectState, place: int, item: int, held_out: Callable[[int], bool]) -> QueueEntry:
    """An entry at ``place`` for an item of an earlier query, with the reason of the next one of its kind."""
    entries = [entry for entry in state.queue.entries if entry.purpose != "repeat"]
    after = [entry for entry in entries if entry.rank >= place] + entries[::-1]
    alike = [entry for entry in after if held_out(entry.item) == held_out(item)] or after
    if not alike:
        return QueueEntry(item, place, "", None, "train")
    return alike[0]._replace(item=item, rank=place)


def _shift(
    entry: QueueEntry, item: int, place: int, entries: dict[int, QueueEntry], hidden: dict[int, str]
) -> int:
    """By how much a rank grows, since repeats that are in no query stand among those that are."""
    extra = sorted(other for other in hidden if other not in entries)
    if item in extra:
        return extra.index(item)
    return len(extra) if entry.rank >= place else 0
