from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from cryoquery.project.events import Event
from cryoquery.project.state import ProjectState, apply, parse_task, task_id
from cryoquery.project.tasks import REPEAT_AFTER_ITEMS, REPEAT_AFTER_SECONDS, is_suggested, next_task

LEASE_SECONDS = 100.0


class LabelService:
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
    service = LabelService(queue=[5, 3, 4])
    assert service.work(3) == ["5", "3", "4"]
    assert service.next() is None


def test_two_people_get_different_tasks() -> None:
    service = LabelService(queue=[5, 3, 4])
    assert (service.take("ana"), service.take("ben")) == ("5", "3")
    assert service.next("ana") == "5", "what she has is given back to her"
    service.now += LEASE_SECONDS
    assert service.next("cleo") == "5", "leases have ended"


def test_what_one_has_begun_comes_first() -> None:
    service = LabelService(queue=[5, 3, 4])
    service.lease("3")
    service.draft("3")
    service.now += LEASE_SECONDS
    assert service.next("ana") == "3"
    assert service.work(2, "ben") == ["5", "4"], "the drafts of others come last"
    assert service.take("ben") == "3"
    assert service.next("ana") is None


def test_a_new_queue_replaces_the_old_one_but_not_drafts() -> None:
    service = LabelService(queue=[5, 3, 4])
    service.lease("4")
    service.draft("4")
    service.queue([7, 3])
    assert service.next("ana") == "4"
    assert service.work(2, "ben") == ["7", "3"]
    assert service.next("ben") is None


def test_skipped_is_for_others_and_bad_for_nobody() -> None:
    service = LabelService(queue=[5, 3, 4])
    service.lease("5")
    service.tell("skipped", "5", reason="dense")
    service.lease("3")
    service.tell("skipped", "3", reason="ice", bad=True)
    assert service.next("ana") == "4"
    assert service.next("ben") == "5"
    service.queue([6, 5, 7])
    assert service.work(2, "ana") == ["6", "7"], "also in later queries"
    assert service.next("ana") is None
    assert service.work(1, "ben") == ["5"]


def test_imported_labels_are_not_asked_for() -> None:
    service = LabelService(queue=[5, 3])
    service.tell("imported", "5", "cryoquery", source="picks.star", labels={"particles": [[1, 1]]})
    assert service.next() == "3"


def test_repeats_are_mixed_in_by_their_share() -> None:
    service = LabelService(repeat_share=0.1)
    done = service.work(200)
    repeats = [i for i, task in enumerate(done) if parse_task(task)[1]]
    assert abs(len(repeats) - 20) <= 1
    assert len({done[i] for i in repeats}) == len(repeats)
    for i in repeats:
        item, number = parse_task(done[i])
        assert number == 1
        before = [task for task in done[:i] if not parse_task(task)[1]]
        assert len(before) - 1 - before.index(str(item)) >= min(REPEAT_AFTER_ITEMS, REPEAT_AFTER_SECONDS / 60)
    assert done == LabelService(repeat_share=0.1).work(200), "the same every time"


def test_only_what_oneself_has_labeled_is_repeated() -> None:
    service = LabelService(repeat_share=0.3)
    own: dict[str, set[int]] = {"ana": set(), "ben": set()}
    for _ in range(40):
        for person, items in own.items():
            [task] = service.work(1, person)
            item, number = parse_task(task)
            assert (item in items) == (number > 0)
            items.add(item)
    assert any(task.repeat for task in service.state.tasks.values())


def test_a_repeat_waits() -> None:
    service = LabelService(repeat_share=0.9)
    assert service.work(REPEAT_AFTER_ITEMS, seconds=1.0) == [str(i) for i in range(REPEAT_AFTER_ITEMS)]
    soon = LabelService(repeat_share=0.9)
    soon.work(1, seconds=1.0)
    assert soon.next() == "1"
    soon.now += REPEAT_AFTER_SECONDS
    assert soon.next() == "0.r1"


def test_a_repeat_that_was_let_go_comes_again_and_one_that_was_skipped_does_not() -> None:
    service = LabelService(repeat_share=0.9)
    service.work(1)
    service.now += REPEAT_AFTER_SECONDS
    assert service.take() == "0.r1"
    assert service.next() == "0.r1"
    service.tell("released", "0.r1")
    assert service.take() == "0.r1"
    service.tell("skipped", "0.r1", reason="again?")
    assert service.next() == "1"


def test_an_item_that_turned_out_bad_is_not_repeated() -> None:
    service = LabelService(repeat_share=0.9)
    service.work(1)
    service.now += REPEAT_AFTER_SECONDS
    service.lease("0")
    service.tell("reopened", "0")
    service.tell("skipped", "0", reason="ice", bad=True)
    assert service.next() == "1"


def test_no_repeats_without_a_share_or_a_queue() -> None:
    service = LabelService(n_items=20)
    assert not any(parse_task(task)[1] for task in service.work(20))
    service.repeat_share = 0.5
    service.now += REPEAT_AFTER_SECONDS
    assert service.next() is None, "a lone repeat would show what it is"
    for share in (1.0, -0.1):
        service.repeat_share = share
        with pytest.raises(ValueError, match="repeat_share"):
            service.next()


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


def test_a_clock_that_was_ahead_gives_no_lease_of_days() -> None:
    service = LabelService(2)
    service.now += 2 * 86_400
    service.lease("0")
    service.draft("0")
    assert service.next("ben") == "1"
    service.now -= 2 * 86_400
    service.lease("0", "ben")
    service.now -= 30  # a clock that is put right by seconds ends nothing
    assert service.state.task("0").holder(service.now) == "ben"
    service.now += LEASE_SECONDS + 31
    assert service.state.task("0").holder(service.now) is None
    service.now += 2 * 86_400
    service.lease("1")
    service.now -= 2 * 86_400
    service.tell("drafted", "1", op={"op": "add", "key": "q", "y": 1, "x": 1}, active_seconds=1.0)
    assert service.state.task("1").holder(service.now) == "ana", "who goes on has it again"
    assert service.state.task("1").holder(service.now + LEASE_SECONDS + 1) is None
