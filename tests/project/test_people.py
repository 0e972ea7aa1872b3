from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cryoquery.project.events import Event
from cryoquery.project.people import anchoring, consistency, efforts, picks_to_compare, total_seconds
from cryoquery.project.state import ProjectState, apply

SIZE = 1000
RADIUS_PX = 10.0
UPPER_HALF = [[0, 0], [0, SIZE - 1], [SIZE / 2, SIZE - 1], [SIZE / 2, 0]]


class Room:
    def __init__(self, n_items: int = 200) -> None:
        self.state = ProjectState(dict.fromkeys(range(n_items), (SIZE, SIZE, None)))

    def tell(self, kind: str, task: str, person: str, **body: Any) -> None:
        seq = self.state.seq + 1
        apply(self.state, Event(seq, str(seq), float(seq), person, kind, task, body))

    def label(
        self,
        task: str,
        points: Any,
        person: str = "ana",
        seconds: float = 60.0,
        model: str | None = None,
        suggested: bool = False,
        regions: tuple[tuple[str, Any], ...] = (),
    ) -> None:
        again = bool(self.state.task(task).submissions)
        self.tell("leased", task, person, until=1e9)
        if again:
            self.tell("reopened", task, person)
        self.tell("served", task, person, model=model, suggested=suggested)
        document = self.state.tasks[task].document
        for op in (
            {"op": "delete", "keys": list(document.particles)},
            *(
                {"op": "add", "key": f"{self.state.seq}.{i}", "y": y, "x": x}
                for i, (y, x) in enumerate(points)
            ),
            *(
                {"op": "region", "key": f"{self.state.seq}.{i}", "kind": kind, "polygon": polygon}
                for i, (kind, polygon) in enumerate(regions)
            ),
        ):
            self.tell("drafted", task, person, op=op)
        if len(points) == 0:
            self.tell("drafted", task, person, op={"op": "empty", "value": True})
        self.tell("corrected" if again else "submitted", task, person, active_seconds=seconds)


def grid(n: int) -> list[tuple[float, float]]:
    return [(50.0 + 100 * (i // 9), 50.0 + 100 * (i % 9)) for i in range(n)]


def shifted(points: list[tuple[float, float]], n_far: int) -> list[tuple[float, float]]:
    """The first ``n_far`` points too far away to be the same."""
    return [(y + 30, x) if i < n_far else (y + 3, x) for i, (y, x) in enumerate(points)]


@pytest.fixture
def room() -> Room:
    return Room()


def test_seconds_per_item_and_per_particle(room: Room) -> None:
    room.label("0", grid(10), seconds=50.0)
    room.label("1", grid(30), seconds=150.0)
    room.label("0.r1", grid(9), seconds=1000.0)
    room.label("1", grid(20), seconds=100.0)
    room.label("2", grid(5), "ben", seconds=10.0)
    room.tell("leased", "3", "ben", until=1e9)
    room.tell("skipped", "3", "ben", reason="ice", bad=True, active_seconds=7.0)
    room.tell("imported", "4", "cryoquery", source="f", labels={"particles": [[1, 1]]})
    found = efforts(room.state)
    assert list(found) == ["ana", "ben"]
    ana, ben = found["ana"], found["ben"]
    assert (ana.n_items, ana.n_repeats, ana.n_particles, ana.n_skipped, ana.seconds) == (2, 1, 30, 0, 1300.0)
    assert (ana.seconds_per_item, ana.seconds_per_particle) == (150.0, 10.0)
    assert (ben.n_items, ben.n_skipped, ben.seconds, ben.seconds_per_item) == (1, 1, 17.0, 10.0)
    assert total_seconds(room.state) == 1317.0


def test_nothing_to_say_of_nobody(room: Room) -> None:
    assert efforts(room.state) == {}
    assert consistency(room.state, RADIUS_PX) == {}
    found = anchoring(room.state, {}, RADIUS_PX)
    assert (found.with_suggestions.n_tasks, found.f1_difference.value) == (0, None)
    room.tell("leased", "0", "ana", until=1e9)
    room.tell("skipped", "0", "ana", active_seconds=5.0)
    assert efforts(room.state)["ana"].seconds_per_item is None


def test_f1_with_oneself(room: Room) -> None:
    for i, n_far in enumerate((0, 5, 10)):
        room.label(str(i), grid(10))
        room.label(f"{i}.r1", shifted(grid(10), n_far))
    found = consistency(room.state, RADIUS_PX)["ana"]
    assert (found.n, found.value) == (3, pytest.approx(0.5))
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low < 0.5 < found.high <= 1
    assert consistency(room.state, RADIUS_PX)["ana"] == found


def test_one_repeat_has_no_interval_and_an_empty_one_no_f1(room: Room) -> None:
    room.label("0", grid(10))
    room.label("0.r1", grid(10))
    room.label("1", [])
    room.label("1.r1", [])
    found = consistency(room.state, RADIUS_PX)["ana"]
    assert (found.n, found.value, found.low) == (1, 1.0, None)


def test_only_with_oneself_and_with_what_one_said_before(room: Room) -> None:
    room.label("0", grid(10))
    room.label("0", grid(20), "ben")
    room.label("0.r1", grid(10))
    room.label("0", grid(40))
    room.label("0.r2", grid(20), "ben")
    room.label("0.r3", grid(20), "cleo")
    found = consistency(room.state, RADIUS_PX)
    assert {person: (f.n, f.value) for person, f in found.items()} == {
        "ana": (1, 1.0),
        "ben": (1, 1.0),
        "cleo": (0, None),
    }


def test_only_where_both_answers_say_something(room: Room) -> None:
    room.label("0", grid(81))
    room.label("0.r1", grid(45), regions=(("done", UPPER_HALF),))
    assert consistency(room.state, RADIUS_PX)["ana"].value == 1.0
    room.label("1", grid(81))
    room.label("1.r1", grid(81)[45:], regions=(("ignore", UPPER_HALF),))
    assert consistency(room.state, RADIUS_PX)["ana"].value == 1.0


def test_a_person_who_follows_suggestions_is_found_out(room: Room) -> None:
    picks = {("step_1", item): np.array(grid(20)) for item in range(60)}
    draw = np.random.default_rng(5)
    for item in range(60):
        suggested = item % 2 == 0
        n_far = int(draw.integers(0, 3)) if suggested else int(draw.integers(8, 13))
        points = shifted(grid(20), n_far) + ([(901.0, 901.0)] if suggested else [])
        room.label(
            str(item), points, model="step_1", suggested=suggested, seconds=30.0 if suggested else 90.0
        )
    assert picks_to_compare(room.state) == set(picks)
    found = anchoring(room.state, picks, RADIUS_PX)
    shown, alone = found.with_suggestions, found.without_suggestions
    assert (shown.n_tasks, alone.n_tasks) == (30, 30)
    assert (shown.seconds, alone.seconds) == (30.0, 90.0)
    assert (shown.particles, alone.particles) == (21.0, 20.0)
    assert shown.f1.value is not None
    assert alone.f1.value is not None
    assert 0.85 < shown.f1.value <= 1
    assert 0.3 < alone.f1.value < 0.6
    assert found.f1_difference.value == pytest.approx(shown.f1.value - alone.f1.value)
    assert found.f1_difference.low is not None
    assert found.f1_difference.low > 0.3
    assert found == anchoring(room.state, picks, RADIUS_PX)


def test_the_interval_covers_a_difference_of_nothing() -> None:
    covered = 0
    for trial in range(40):
        room, draw = Room(40), np.random.default_rng([7, trial])
        picks = {("m", item): np.array(grid(10)) for item in range(40)}
        for item in range(40):
            room.label(
                str(item), shifted(grid(10), int(draw.integers(0, 6))), model="m", suggested=item % 2 == 0
            )
        found = anchoring(room.state, picks, RADIUS_PX).f1_difference
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
    assert covered >= 34, "of 40; a 95 % interval misses two on average"


def test_what_anchoring_leaves_out(room: Room) -> None:
    room.label("0", grid(10), model="m", suggested=True)
    room.label("0", grid(30), model="m", suggested=True)
    room.label("1", grid(10))
    room.tell("imported", "2", "cryoquery", source="f", labels={"particles": [[1, 1]]})
    room.label("2", grid(10), model="m")
    room.label("0.r1", grid(10), model="m")
    room.label("3", grid(10), model="unknown")
    picks = {("m", item): grid(10) for item in range(4)}
    assert picks_to_compare(room.state) == {("m", 0), ("unknown", 3)}
    found = anchoring(room.state, picks, RADIUS_PX)
    assert (found.with_suggestions.n_tasks, found.without_suggestions.n_tasks) == (1, 0)
    assert found.with_suggestions.f1.value == 1.0, "the first answer counts"
    assert found.f1_difference.value is None


def test_picks_count_only_where_the_label_says_something(room: Room) -> None:
    room.label("0", grid(45), model="m", regions=(("done", UPPER_HALF),))
    room.label("1", [], model="m")
    found = anchoring(room.state, {("m", 0): grid(81), ("m", 1): []}, RADIUS_PX).without_suggestions
    assert (found.n_tasks, found.f1.n, found.f1.value) == (2, 1, 1.0)
