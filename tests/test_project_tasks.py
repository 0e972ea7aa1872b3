from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from cryoquery.project.events import Event
from cryoquery.project.state import ProjectState, apply, parse_task, task_id
from cryoquery.project.tasks import REPEAT_AFTER_ITEMS, REPEAT_AFTER_SECONDS, is_suggested, next_task

LEASE_SECONDS = 100.0


class Desk:
    """People who ask for tasks and do them; labeling one takes a minute."""

    def __init__(self, n_items: int = 400, queue: Sequence[int] = (), repeat_share: float = 0.0) -> None:
        self.state = ProjectState(dict.fromkeys(range(n_items), (100, 100, None)))
        self.now = 1000.0
        self.repeat_share = repeat_share
        self.queue(queue or range(n_items))

    def tell(self, kind: str, task: str | None = None, person: str = "ana", **body: Any) -> None:
        seq = self.state.seq + 1
        apply(self.state, Event(seq, str(seq), self.now, person, kind, task, body))

    def queue(self, items: Sequence[int], **fields: Any) -> None:
        self.tell(
            "queued",
            None,
            "cryoquery",
            entries=[{"item": i, "rank": k, **fields} for k, i in enumerate(items)],
        )

    def next(self, person: str = "ana") -> str | None:
        return next_task(self.state, person, self.now, repeat_share=self.repeat_share, seed=3)

    def lease(self, task: str, person: str = "ana") -> None:
        self.tell("leased", task, person, until=self.now + LEASE_SECONDS)

    def take(self, person: str = "ana") -> str | None:
        task = self.next(person)
        if task is not None:
            self.lease(task, person)
        return task

    def draft(self, task: str, person: str = "ana") -> None:
        self.tell("drafted", task, person, op={"op": "add", "key": "p", "y": 1, "x": 1})

    def label(self, task: str, person: str = "ana", seconds: float = 60.0) -> None:
        self.lease(task, person)
        self.draft(task, person)
        self.now += seconds
        self.tell("submitted", task, person)

    def work(self, n: int, person: str = "ana", seconds: float = 60.0) -> list[str]:
        done = []
        for _ in range(n):
            task = self.next(person)
            assert task is not None
            self.label(task, person, seconds)
            done.append(task)
        return done


def test_the_queue_is_worked_off_by_rank() -> None:
    desk = Desk(queue=[5, 3, 4])
    assert desk.work(3) == ["5", "3", "4"]
    assert desk.next() is None


def test_two_people_get_different_tasks() -> None:
    desk = Desk(queue=[5, 3, 4])
    assert (desk.take("ana"), desk.take("ben")) == ("5", "3")
    assert desk.next("ana") == "5", "what she has is given back to her"
    desk.now += LEASE_SECONDS
    assert desk.next("cleo") == "5", "leases have ended"


def test_what_one_has_begun_comes_first() -> None:
    desk = Desk(queue=[5, 3, 4])
    desk.lease("3")
    desk.draft("3")
    desk.now += LEASE_SECONDS
    assert desk.next("ana") == "3"
    assert desk.work(2, "ben") == ["5", "4"], "the drafts of others come last"
    assert desk.take("ben") == "3"
    assert desk.next("ana") is None


def test_a_new_queue_replaces_the_old_one_but_not_drafts() -> None:
    desk = Desk(queue=[5, 3, 4])
    desk.lease("4")
    desk.draft("4")
    desk.queue([7, 3])
    assert desk.next("ana") == "4"
    assert desk.work(2, "ben") == ["7", "3"]
    assert desk.next("ben") is None


def test_skipped_is_for_others_and_bad_for_nobody() -> None:
    desk = Desk(queue=[5, 3, 4])
    desk.lease("5")
    desk.tell("skipped", "5", reason="dense")
    desk.lease("3")
    desk.tell("skipped", "3", reason="ice", bad=True)
    assert desk.next("ana") == "4"
    assert desk.next("ben") == "5"
    assert desk.work(2, "ben") == ["5", "4"]


def test_imported_labels_are_not_asked_for() -> None:
    desk = Desk(queue=[5, 3])
    desk.tell("imported", "5", "cryoquery", source="picks.star", labels={"particles": [[1, 1]]})
    assert desk.next() == "3"


def test_repeats_are_mixed_in_by_their_share() -> None:
    desk = Desk(repeat_share=0.1)
    done = desk.work(200)
    repeats = [i for i, task in enumerate(done) if parse_task(task)[1]]
    assert abs(len(repeats) - 20) <= 1
    assert len({done[i] for i in repeats}) == len(repeats)
    for i in repeats:
        item, number = parse_task(done[i])
        assert number == 1
        before = [task for task in done[:i] if not parse_task(task)[1]]
        assert len(before) - 1 - before.index(str(item)) >= min(REPEAT_AFTER_ITEMS, REPEAT_AFTER_SECONDS / 60)
    assert done == Desk(repeat_share=0.1).work(200), "the same every time"


def test_only_what_oneself_has_labeled_is_repeated() -> None:
    desk = Desk(repeat_share=0.3)
    own: dict[str, set[int]] = {"ana": set(), "ben": set()}
    for _ in range(40):
        for person, items in own.items():
            [task] = desk.work(1, person)
            item, number = parse_task(task)
            assert (item in items) == (number > 0)
            items.add(item)
    assert any(task.repeat for task in desk.state.tasks.values())


def test_a_repeat_waits() -> None:
    desk = Desk(repeat_share=0.9)
    assert desk.work(REPEAT_AFTER_ITEMS, seconds=1.0) == [str(i) for i in range(REPEAT_AFTER_ITEMS)]
    soon = Desk(repeat_share=0.9)
    soon.work(1, seconds=1.0)
    assert soon.next() == "1"
    soon.now += REPEAT_AFTER_SECONDS
    assert soon.next() == "0.r1"


def test_a_repeat_that_was_let_go_comes_again_and_one_that_was_skipped_does_not() -> None:
    desk = Desk(repeat_share=0.9)
    desk.work(1)
    desk.now += REPEAT_AFTER_SECONDS
    assert desk.take() == "0.r1"
    assert desk.next() == "0.r1"
    desk.tell("released", "0.r1")
    assert desk.take() == "0.r1"
    desk.tell("skipped", "0.r1", reason="again?")
    assert desk.next() == "1"


def test_an_item_that_turned_out_bad_is_not_repeated() -> None:
    desk = Desk(repeat_share=0.9)
    desk.work(1)
    desk.now += REPEAT_AFTER_SECONDS
    desk.lease("0")
    desk.tell("reopened", "0")
    desk.tell("skipped", "0", reason="ice", bad=True)
    assert desk.next() == "1"


def test_no_repeats_without_a_share_or_a_queue() -> None:
    desk = Desk(n_items=20)
    assert not any(parse_task(task)[1] for task in desk.work(20))
    desk.repeat_share = 0.5
    desk.now += REPEAT_AFTER_SECONDS
    assert desk.next() is None, "a lone repeat would show what it is"
    for share in (1.0, -0.1):
        desk.repeat_share = share
        with pytest.raises(ValueError, match="repeat_share"):
            desk.next()


def test_suggestions_by_chance_and_the_same_every_time() -> None:
    tasks = [task_id(item) for item in range(4000)]
    shown = [is_suggested(1, task, 0.8) for task in tasks]
    assert abs(sum(shown) / 4000 - 0.8) < 0.03
    assert shown == [is_suggested(1, task, 0.8) for task in tasks]
    assert shown != [is_suggested(2, task, 0.8) for task in tasks]
    assert all(is_suggested(1, task, 0.9) for task, was in zip(tasks, shown, strict=True) if was)
    assert all(is_suggested(1, task, 1.0) for task in tasks)
    assert not any(is_suggested(1, task, 0.0) for task in tasks)
    assert not any(is_suggested(1, task_id(item, 1), 1.0) for item in range(100))
    assert not any(is_suggested(1, task, 1.0, held_out=True) for task in tasks)
