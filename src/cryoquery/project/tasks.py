"""Which task a person gets next, and which of them are shown without suggestions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection

from cryoquery.project.labeling import TaskState, task_id
from cryoquery.project.state import ProjectState

REPEAT_AFTER_ITEMS = 5
"""A blind repeat comes after so many other items, or after `REPEAT_AFTER_SECONDS`."""
REPEAT_AFTER_SECONDS = 30 * 60.0


def next_task(
    state: ProjectState,
    person: str,
    now: float,
    *,
    repeat_share: float,
    seed: int,
    besides: Collection[str] = (),
) -> str | None:
    """The task that ``person`` is to do next.

    First what this person has begun, then the queue by rank; what others have begun and left comes last.
    Left out are tasks that another person has leased, that this person skipped, that are bad or done.
    Between the items of the queue, and looking like one of them, comes a blind repeat when one is due;
    entries of the queue that ask for a repeat are passed over.

    Args:
        state: of the project.
        person: who asks.
        now: seconds since the epoch.
        repeat_share: of all tasks of a person, how many are to be blind repeats, in [0, 1).
        seed: of the project; decides which items are repeated, and after how many the first one comes.
        besides: tasks that are passed over.

    Returns:
        None where nothing is left for this person.

    Raises:
        ValueError: a share outside of [0, 1).
    """
    if not 0 <= repeat_share < 1:
        raise ValueError(f"repeat_share={repeat_share}: must be at least 0 and below 1")
    begun = _begun(state, person, now, besides)
    if begun is not None:
        return begun
    waiting = _waiting(state, person, now, besides)
    if waiting is None:
        return None  # a lone repeat in an empty queue would not be blind
    repeat = _repeat(state, person, now, repeat_share, seed)
    return waiting if repeat is None or repeat in besides else repeat


def open_repeats(
    state: ProjectState, person: str, now: float, *, repeat_share: float, seed: int
) -> list[str]:
    """The blind repeats that ``person`` is at, or else the one that is due; arguments as of `next_task`.

    Meanwhile the first labelings of their items are not to be seen by this person.
    """
    begun = [name for name, task in state.tasks.items() if task.repeat and _has_begun(task, person)]
    if begun or _waiting(state, person, now) is None:
        return begun
    due = _repeat(state, person, now, repeat_share, seed)
    return [] if due is None else [due]


def _has_begun(task: TaskState, person: str) -> bool:
    if task.phase != "open":
        return False
    return (
        task.lease.person == person if task.lease is not None else (task.has_draft and task.drafter == person)
    )


def is_suggested(seed: int, task: str, share: float, *, held_out: bool = False) -> bool:
    """Whether suggestions are shown in ``task``; never in a blind repeat, nor where F1 is measured.

    Args:
        seed: of the project.
        task: its id.
        share: of first tasks to train on, how many are shown with suggestions, in [0, 1].
        held_out: the item is only measured on; labels that lean on a model's picks would flatter it.
    """
    return not held_out and "." not in task and _uniform(seed, "suggested", task) < share


def _begun(state: ProjectState, person: str, now: float, besides: Collection[str]) -> str | None:
    """What this person holds or has drafted, and no other has taken; what was begun first comes first."""
    mine = [
        (task.touched, name)
        for name, task in state.tasks.items()
        if task.phase == "open"
        and name not in besides
        and (
            task.holder(now) == person or (task.has_draft and task.drafter == person and not task.holder(now))
        )
    ]
    return min(mine)[1] if mine else None


def _waiting(state: ProjectState, person: str, now: float, besides: Collection[str] = ()) -> str | None:
    left_by_others = None
    for entry in state.queue.entries:
        name = task_id(entry.item)
        task = state.tasks.get(name)
        if entry.purpose == "repeat" or name in besides:
            continue
        if task is not None and not _is_free(task, person, now):
            continue
        if task is None or not task.has_draft:
            return name
        left_by_others = left_by_others or name
    return left_by_others


def _is_free(task: TaskState, person: str, now: float) -> bool:
    return (
        task.phase in ("open", "skipped")
        and person not in task.skipped_by
        and task.holder(now) in (None, person)
    )


def _repeat(state: ProjectState, person: str, now: float, share: float, seed: int) -> str | None:
    """The blind repeat that is due, if one is.

    Repeats are evenly spread over the tasks of a person, from a start that differs between persons.
    """
    first = sorted(
        (min(mine), task.item)
        for task in state.tasks.values()
        if task.repeat == 0 and (mine := [(s.seq, s.time) for s in task.submissions if s.person == person])
    )
    repeated = {task.item for task in state.tasks.values() if task.repeat and person in _people(task)}
    due = math.floor(len(first) * share / (1 - share) + _uniform(seed, "repeats", person))
    if len(repeated) >= due:
        return None
    old = [
        item
        for i, ((_, time), item) in enumerate(first)
        if item not in repeated
        and state.tasks[task_id(item)].phase == "submitted"
        and (len(first) - 1 - i >= REPEAT_AFTER_ITEMS or now - time >= REPEAT_AFTER_SECONDS)
    ]
    if not old:
        return None
    item = min(old, key=lambda item: _uniform(seed, "repeat", person, item))
    number = 1
    while (task := state.tasks.get(task_id(item, number))) and not _is_untouched(task, now):
        number += 1
    return task_id(item, number)


def _people(task: TaskState) -> set[str]:
    """Who answered a task, or skipped it."""
    return {*task.skipped_by, *(submission.person for submission in task.submissions)}


def _is_untouched(task: TaskState, now: float) -> bool:
    return task.status(now) == "waiting" and not task.skipped_by


def _uniform(*key: object) -> float:
    """A number in [0, 1) that depends on ``key`` alone."""
    digest = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
