from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryoquery.errors import ProjectError
from cryoquery.project.document import MAX_PARTICLES, Document, Extent
from cryoquery.project.events import Command, Event, EventLog
from cryoquery.project.label_set import label_set_of
from cryoquery.project.labeling import LeaseError, UnknownTaskError, parse_task, task_id
from cryoquery.project.repository import ProjectRepository
from cryoquery.project.state import ProjectState, apply, labels, replay

GEOMETRY: dict[int, Any] = {0: (100, 200, None), 1: (100, 200, (40, 100, 32, 32)), 2: (100, 200, None)}
TRIANGLE = [[0, 0], [0, 50], [50, 0]]


class Play:
    """A state to which events are told one by one; each takes a second."""

    def __init__(self) -> None:
        self.state = ProjectState(GEOMETRY)
        self.now = 1000.0
        self.events: list[Event] = []

    def tell(self, kind: str, task: str | None = "0", person: str = "ana", **body: Any) -> None:
        self.now += 1
        seq = self.state.seq + 1
        event = Event(seq, str(seq), self.now, person, kind, task, body)
        before = replay(self.events, GEOMETRY)
        try:
            apply(self.state, event)
        except ProjectError:
            assert self.state == before, "a refused event leaves no trace"
            raise
        self.events.append(event)

    def lease(self, task: str = "0", person: str = "ana", seconds: float = 100.0, **body: Any) -> None:
        self.tell("leased", task, person, until=self.now + 1 + seconds, **body)

    def draft(self, op: str, task: str = "0", person: str = "ana", **fields: Any) -> None:
        self.tell("drafted", task, person, op={"op": op, **fields}, active_seconds=2.0)

    def submit(self, task: str = "0", person: str = "ana", kind: str = "submitted") -> None:
        self.tell(kind, task, person, active_seconds=1.0)

    def label(
        self, task: str, person: str = "ana", points: tuple[tuple[float, float], ...] = ((5, 6),)
    ) -> None:
        self.lease(task, person)
        for i, (y, x) in enumerate(points):
            self.draft("add", task, person, key=f"p{i}", y=y, x=x)
        self.submit(task, person)

    def document(self, task: str = "0") -> Document:
        return self.state.tasks[task].document

    def points(self, task: str = "0") -> dict[str, tuple[float, float, str]]:
        return {key: (p.y, p.x, p.origin) for key, p in self.document(task).particles.items()}

    def status(self, task: str = "0") -> str:
        return self.state.task(task).status(self.now)


@pytest.fixture
def play() -> Play:
    return Play()


def test_an_item_is_labeled(play: Play) -> None:
    play.tell(
        "queued",
        None,
        "cryoquery",
        step=2,
        model="step_2",
        entries=[
            {"item": 2, "rank": 1, "reason": "dense", "score": 0.5, "purpose": "train"},
            {"item": 0, "rank": 0, "reason": "unlike others", "score": None, "purpose": "measure"},
        ],
    )
    assert [entry.item for entry in play.state.queue.entries] == [0, 2], "by rank"
    assert play.status() == "waiting"
    play.lease(suggested=True)
    assert play.status() == "leased"
    play.tell("served", model="step_2", n_suggestions=3, suggested=True)
    picks = [{"key": "s1", "y": 30.5, "x": 7.25, "score": 0.9}, {"key": "s0", "y": 8, "x": 9, "score": 0.8}]
    play.draft("accept", picks=picks)
    assert play.status() == "drafted"
    play.draft("reject", keys=["s2"])
    play.draft("add", key="p1", y=-0.5, x=199.5)
    play.draft("move", key="s1", y=31, x=7)
    play.draft("region", key="r1", kind="ignore", polygon=TRIANGLE)
    play.draft("region", key="r2", kind="done", polygon=[[0, 0], [0, 9.5], [9, 9], [9, 0]])
    assert play.points() == {
        "s1": (31, 7, "suggestion"),
        "s0": (8, 9, "suggestion"),
        "p1": (-0.5, 199.5, "person"),
    }
    assert list(play.document().rejected) == ["s2"]
    assert labels(play.state) == {}, "a draft is no label"
    play.submit()
    assert play.status() == "submitted"
    [found] = labels(play.state).values()
    assert found.item == 0
    assert found.seq == play.state.seq
    np.testing.assert_array_equal(found.particles_yx, [[-0.5, 199.5], [8, 9], [31, 7]])
    np.testing.assert_array_equal(found.ignore, [TRIANGLE])
    np.testing.assert_array_equal(found.done, [[[0, 0], [0, 9.5], [9, 9], [9, 0]]])
    assert (found.person, found.empty, found.suggested, found.model) == ("ana", False, True, "step_2")
    assert found.active_seconds == 13.0, "six operations of two seconds, and one to submit"
    assert play.state.tasks["0"].submissions[0].n_rejected == 1


def test_undo_and_redo(play: Play) -> None:
    play.lease()
    play.draft("add", key="p1", y=1, x=2)
    play.draft("add", key="p2", y=3, x=4)
    play.draft("delete", keys=["p2", "p1"])
    assert (play.points(), play.document().cursor) == ({}, 3)
    play.tell("undone")
    assert play.points() == {"p1": (1, 2, "person"), "p2": (3, 4, "person")}
    play.tell("undone")
    play.tell("undone")
    assert (play.points(), play.document().cursor, play.document().n_ops) == ({}, 0, 3)
    with pytest.raises(ProjectError, match="nothing to undo"):
        play.tell("undone")
    play.tell("redone")
    assert play.points() == {"p1": (1, 2, "person")}
    play.draft("empty", value=False)
    assert play.document().n_ops == 2, "a new operation drops what was undone"
    with pytest.raises(ProjectError, match="nothing to redo"):
        play.tell("redone")


def test_a_rejected_suggestion_can_still_be_accepted(play: Play) -> None:
    play.lease()
    play.draft("reject", keys=["s0", "s1"])
    play.draft("reject", keys=["s1", "s2", "s2"])
    assert list(play.document().rejected) == ["s0", "s1", "s2"]
    play.draft("accept", picks=[{"key": "s1", "y": 2, "x": 3, "score": 0.5}])
    assert (list(play.document().rejected), play.points()) == (["s0", "s2"], {"s1": (2, 3, "suggestion")})
    play.tell("undone")
    assert (set(play.document().rejected), play.points()) == ({"s0", "s1", "s2"}, {})
    play.tell("undone")
    assert list(play.document().rejected) == ["s0", "s1"]


def test_no_particles_here(play: Play) -> None:
    play.lease()
    with pytest.raises(
        ProjectError, match="nothing is marked; say “no particles here”, or mark a region as done"
    ):
        play.submit()
    play.draft("region", key="r1", kind="ignore", polygon=TRIANGLE)
    with pytest.raises(ProjectError, match="nothing is marked"):
        play.submit()
    play.draft("empty", value=True)
    play.draft("add", key="p1", y=1, x=1)
    assert not play.document().empty, "a particle says that it is not empty"
    with pytest.raises(ProjectError, match="there are 1 particles; delete them"):
        play.draft("empty", value=True)
    play.tell("undone")
    assert play.document().empty
    play.submit()
    assert labels(play.state)[0].empty
    assert labels(play.state)[0].particles_yx.shape == (0, 2)
    play.lease("2")
    play.draft("region", "2", key="r1", kind="done", polygon=TRIANGLE)
    play.submit("2")
    assert len(labels(play.state)[2].done) == 1


OPEN = [
    ("add", {"key": "p1", "y": 1, "x": 1}),
    ("accept", {"picks": [{"key": "s7", "y": 2, "x": 2, "score": 1}]}),
    ("reject", {"keys": ["s8"]}),
    ("region", {"key": "r1", "kind": "ignore", "polygon": TRIANGLE}),
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"op": "paint"}, "expected one of add, move"),
    ({"op": ["add"]}, "expected one of add, move"),
    ({}, "expected one of add, move"),
    ({"op": "add", "key": "p2", "y": 1}, "expected.*'key', 'y', 'x'"),
    ({"op": "add", "key": "p2", "y": 1, "x": 1, "z": 1}, "fields"),
    ({"op": "add", "key": "p1", "y": 1, "x": 1}, "particle p1: is there already"),
    ({"op": "add", "key": "p 2", "y": 1, "x": 1}, "characters"),
    ({"op": "add", "key": "p" * 41, "y": 1, "x": 1}, "characters"),
    ({"op": "add", "key": "../p", "y": 1, "x": 1}, "characters"),
    ({"op": "add", "key": "p2\n", "y": 1, "x": 1}, "characters"),
    ({"op": "add", "key": 2, "y": 1, "x": 1}, "characters"),
    ({"op": "add", "key": "p2", "y": float("nan"), "x": 1}, "y=nan: expected a finite number"),
    ({"op": "add", "key": "p2", "y": 1, "x": float("inf")}, "x=inf"),
    ({"op": "add", "key": "p2", "y": 10**400, "x": 1}, "finite"),
    ({"op": "add", "key": "p2", "y": "1", "x": 1}, "expected a number"),
    ({"op": "add", "key": "p2", "y": True, "x": 1}, "expected a number"),
    ({"op": "add", "key": "p2", "y": 99.6, "x": 1}, r"y=99\.6, x=1: lies outside"),
    ({"op": "add", "key": "p2", "y": 1, "x": -0.6}, "lies outside"),
    ({"op": "move", "key": "p2", "y": 1, "x": 1}, "particle p2: there is none"),
    ({"op": "move", "key": "p1", "y": 1, "x": 200}, "lies outside"),
    ({"op": "delete", "keys": ["p1", "p2"]}, "particle p2: there is none"),
    ({"op": "delete", "keys": ["p1", "p1"]}, "twice"),
    ({"op": "delete", "keys": "p1"}, "expected a list"),
    ({"op": "accept", "picks": [{"key": "s7", "y": 2, "x": 2, "score": 1}]}, "is there already"),
    ({"op": "accept", "picks": [{"key": "s1", "y": 2, "x": 2, "score": 1}] * 2}, "s1: is accepted twice"),
    ({"op": "accept", "picks": [{"key": "p9", "y": 2, "x": 2, "score": 1}]}, "expected s0, s1"),
    ({"op": "accept", "picks": [{"key": "s1", "y": 2, "x": 2}]}, "expected key, y, x and score"),
    ({"op": "accept", "picks": [{"key": "s1", "y": 2, "x": 2, "score": None}]}, "score=None"),
    ({"op": "accept", "picks": ["s1"]}, "expected key, y, x and score"),
    ({"op": "reject", "keys": ["s7"]}, "s7: is a particle already"),
    ({"op": "reject", "keys": [f"s{i}" for i in range(9, MAX_PARTICLES + 9)]}, "at most 20000"),
    ({"op": "region", "key": "r1", "kind": "done", "polygon": TRIANGLE}, "region r1: is there already"),
    (
        {"op": "region", "key": "r2", "kind": "carbon", "polygon": TRIANGLE},
        "kind='carbon': expected one of ignore",
    ),
    ({"op": "region", "key": "r2", "kind": ["done"], "polygon": TRIANGLE}, "expected one of ignore"),
    (
        {"op": "region", "key": "r2", "kind": "done", "polygon": TRIANGLE[:2]},
        "2 vertices: expected at least 3",
    ),
    ({"op": "region", "key": "r2", "kind": "done", "polygon": TRIANGLE * 334}, "1002, at most 1000"),
    ({"op": "region", "key": "r2", "kind": "done", "polygon": [[0, 0], [0, 5], [5, 300]]}, "lies outside"),
    ({"op": "region", "key": "r2", "kind": "done", "polygon": [[0, 0], [0, 5], [5]]}, r"expected \[y, x\]"),
    ({"op": "delete_region", "keys": ["r2"]}, "region r2: there is none"),
    ({"op": "empty", "value": 1}, "expected true or false"),
    ({"op": "empty", "value": True}, "2 particles"),
]


@pytest.mark.parametrize(("op", "message"), REFUSED)
def test_operations_that_cannot_be_done(play: Play, op: dict[str, Any], message: str) -> None:
    play.lease()
    for name, fields in OPEN:
        play.draft(name, **fields)
    with pytest.raises(ProjectError, match=message):
        play.tell("drafted", op=op)


def test_at_most_so_many_particles(play: Play) -> None:
    play.lease()
    picks = [{"key": f"s{i}", "y": 1, "x": 1, "score": 0.5} for i in range(MAX_PARTICLES)]
    play.draft("accept", picks=picks)
    with pytest.raises(ProjectError, match="20001 particles: at most 20000"):
        play.draft("add", key="p1", y=1, x=1)


def test_a_field_takes_only_what_lies_in_it(play: Play) -> None:
    play.lease("1")
    play.draft("add", "1", key="corner", y=39.5, x=131.5)
    for y, x in ((39.4, 110), (71.6, 110), (50, 99.4), (50, 131.6)):
        with pytest.raises(ProjectError, match="outside"):
            play.draft("add", "1", key="p", y=y, x=x)


def test_suggestions_that_were_not_shown_cannot_be_accepted(play: Play) -> None:
    play.lease(suggested=False)
    with pytest.raises(ProjectError, match="no suggestions are shown"):
        play.draft("accept", picks=[{"key": "s7", "y": 2, "x": 2, "score": 1}])


def test_a_lease_keeps_others_out(play: Play) -> None:
    play.lease(seconds=10)
    play.draft("add", key="p1", y=1, x=1)
    for kind, body in (
        ("drafted", {"op": {"op": "empty", "value": False}}),
        ("undone", {}),
        ("submitted", {}),
        ("skipped", {}),
        ("released", {}),
        ("renewed", {"until": 1e9}),
        ("leased", {"until": 1e9}),
        ("served", {}),
    ):
        with pytest.raises(LeaseError, match="ana is working on this one") as refused:
            play.tell(kind, person="ben", **body)
        assert refused.value.holder == "ana"
    with pytest.raises(LeaseError, match="is not leased to ben; open it again") as refused:
        play.draft("add", "2", "ben", key="p1", y=1, x=1)
    assert refused.value.holder is None


def test_a_lease_ends_by_itself_and_is_taken_or_renewed(play: Play) -> None:
    play.lease(seconds=10)
    play.now += 60
    assert play.status() == "waiting"
    play.draft("add", key="p1", y=1, x=1)
    assert play.state.tasks["0"].holder(play.now + 9) == "ana", "nobody took it: the command renews it"
    assert play.state.tasks["0"].holder(play.now + 10) is None
    play.now += 60
    play.lease(person="ben")
    assert play.status() == "drafted", "what ana did is kept"
    with pytest.raises(LeaseError, match="ben is working on this one"):
        play.tell("undone")
    play.tell("released", person="ben", active_seconds=3.0)
    assert play.state.tasks["0"].seconds == {"ana": 2.0, "ben": 3.0}


def test_a_submission_is_corrected(play: Play) -> None:
    play.label("0")
    first = labels(play.state)[0]
    with pytest.raises(LeaseError):
        play.draft("add", key="p9", y=1, x=1)
    play.lease(person="ben")
    with pytest.raises(ProjectError, match="it is submitted; reopen it first"):
        play.draft("add", person="ben", key="p9", y=1, x=1)
    play.tell("reopened", person="ben")
    assert play.status() == "drafted"
    assert labels(play.state)[0].seq == first.seq, "the old answer counts until there is a new one"
    play.tell("undone", person="ben")
    play.draft("add", person="ben", key="p9", y=7, x=8)
    with pytest.raises(ProjectError, match="expected 'corrected'"):
        play.submit(person="ben")
    play.submit(person="ben", kind="corrected")
    found = labels(play.state)[0]
    assert (found.person, found.particles_yx.tolist()) == ("ben", [[7, 8]])
    assert found.seq > first.seq
    assert [s.person for s in play.state.tasks["0"].submissions] == ["ana", "ben"]
    play.tell("reopened")
    with pytest.raises(ProjectError, match="open already"):
        play.tell("reopened")


def test_repeats_do_not_touch_the_label(play: Play) -> None:
    with pytest.raises(UnknownTaskError, match="item 0 has not been labeled yet"):
        play.lease("0.r1")
    play.label("0")
    play.label("0.r1", points=((50, 50),))
    assert labels(play.state)[0].particles_yx.tolist() == [[5, 6]]
    assert play.points("0.r1") == {"p0": (50, 50, "person")}, "it began empty"
    with pytest.raises(ProjectError, match="without suggestions"):
        play.lease("0.r2", suggested=True)


def test_skipped_and_bad(play: Play) -> None:
    play.label("0")
    play.lease("0")
    play.tell("reopened")
    play.tell("skipped", reason="ice", bad=True, active_seconds=1.0)
    assert play.status() == "bad"
    assert labels(play.state) == {}, "a bad item has no label"
    play.tell("reopened")
    assert labels(play.state) == {}, "not before it is submitted again"
    play.submit(kind="corrected")
    assert list(labels(play.state)) == [0]
    play.lease("2")
    play.tell("skipped", "2", reason="too dense", bad=False)
    assert play.status("2") == "skipped"
    assert play.state.tasks["2"].skipped_by == {"ana": "too dense"}
    play.lease("2", "ben")
    assert play.status("2") == "leased"


def test_labels_from_a_file(play: Play) -> None:
    play.tell("imported", "0", source="picks.star", labels={"particles": [[5, 6], [1, 2]]})
    assert play.status() == "submitted"
    found = labels(play.state)[0]
    assert (found.person, found.particles_yx.tolist()) == ("imported: picks.star", [[1, 2], [5, 6]])
    play.tell("imported", "0", source="better.star", labels={"particles": [[9, 9]]})
    assert labels(play.state)[0].person == "imported: better.star"
    play.tell("reopened")
    assert play.points() == {"i0": (9, 9, "imported")}
    with pytest.raises(ProjectError, match="a person works on it"):
        play.tell("imported", "0", source="other.star", labels={"particles": [[9, 9]]})
    play.draft("delete", keys=["i0"])
    play.draft("add", key="p1", y=3, x=3)
    play.submit(kind="corrected")
    assert (labels(play.state)[0].person, labels(play.state)[0].particles_yx.tolist()) == ("ana", [[3, 3]])
    with pytest.raises(ProjectError, match="item 0: ana has labeled it; leave it out"):
        play.tell("imported", "0", source="other.star", labels={"particles": [[9, 9]]})
    with pytest.raises(ProjectError, match="outside"):
        play.tell("imported", "2", source="other.star", labels={"particles": [[9, 999]]})
    with pytest.raises(ProjectError, match="nothing is marked"):
        play.tell("imported", "2", source="other.star", labels={"particles": []})
    play.tell(
        "imported",
        "2",
        source="other.star",
        labels={"particles": [], "empty": True, "regions": [{"kind": "ignore", "polygon": TRIANGLE}]},
    )
    assert labels(play.state)[2].empty
    np.testing.assert_array_equal(labels(play.state)[2].ignore, [TRIANGLE])


@pytest.mark.parametrize(
    ("kind", "task", "body", "message"),
    [
        ("painted", "0", {}, "kind='painted'"),
        ("leased", "3", {"until": 1e9}, "item 3: the project has no such item"),
        ("leased", "00", {"until": 1e9}, "task '00'"),
        ("leased", "0.r0", {"until": 1e9}, "task '0.r0'"),
        ("leased", "../0", {"until": 1e9}, "such as 17"),
        ("leased", None, {"until": 1e9}, "must name a task"),
        ("leased", "0", {}, "until=None"),
        ("leased", "0", {"until": 5.0}, "must end after it begins"),
        ("leased", "0", {"until": float("inf")}, "finite"),
        ("leased", "0", {"until": 1e9, "suggested": "yes"}, "suggested='yes'"),
        ("released", "0", {"active_seconds": -1}, "active_seconds=-1"),
        ("released", "0", {"active_seconds": 1e6}, "from 0 to 86400"),
        ("released", "0", {"active_seconds": 10**400}, "finite"),
        ("served", "0", {"n_suggestions": -1}, "n_suggestions=-1"),
        ("served", "0", {"model": 3}, "model=3"),
        ("queued", None, {"entries": {}}, "expected a list"),
        ("queued", None, {"entries": [{"item": 3, "rank": 0}]}, "item 3: the project has no such item"),
        ("queued", None, {"entries": [{"item": 0}]}, "an item and a rank"),
        ("queued", None, {"entries": [{"item": 0, "rank": 0}] * 2}, "twice"),
        ("queued", None, {"entries": [{"item": 0, "rank": 0, "purpose": "fun"}]}, "purpose='fun'"),
        ("queued", None, {"entries": [], "step": "x"}, "step='x'"),
        ("imported", "0", {"labels": {"particles": [[1, 1]]}}, "source=None"),
        ("imported", "0", {"source": "a", "labels": {"points": [[1, 1]]}}, "expected particles"),
    ],
)
def test_events_that_cannot_be(
    play: Play, kind: str, task: str | None, body: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProjectError, match=message):
        play.tell(kind, task, **body)
    for person in ("", "x" * 201):
        with pytest.raises(ProjectError, match="a name has 1 to 200 characters"):
            play.lease(person=person)


def test_names_of_tasks() -> None:
    for item, repeat in ((0, 0), (17, 0), (17, 1), (999_999_999, 12)):
        assert parse_task(task_id(item, repeat)) == (item, repeat)


def test_replay_names_the_event_that_does_not_fit() -> None:
    events = [
        Event(1, "a", 1.0, "ana", "leased", "0", {"until": 9.0}),
        Event(2, "b", 2.0, "ana", "undone", "0", {}),
    ]
    with pytest.raises(
        ProjectError, match=r"event 2 \(undone\) does not fit the project: there is nothing to undo"
    ):
        replay(events, GEOMETRY)


KEYS = st.sampled_from(["a", "b", "c"])
SUGGESTIONS = st.sampled_from(["s0", "s1", "s2"])
COORDINATE = st.floats(-1, 101)
OPS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["add", "move"]), "key": KEYS, "y": COORDINATE, "x": COORDINATE}
    ),
    st.fixed_dictionaries({"op": st.just("delete"), "keys": st.lists(KEYS | SUGGESTIONS, max_size=2)}),
    st.fixed_dictionaries({"op": st.just("reject"), "keys": st.lists(SUGGESTIONS, max_size=2)}),
    st.fixed_dictionaries(
        {
            "op": st.just("accept"),
            "picks": st.lists(
                st.fixed_dictionaries(
                    {"key": SUGGESTIONS, "y": COORDINATE, "x": COORDINATE, "score": st.floats(0, 1)}
                ),
                max_size=2,
            ),
        }
    ),
    st.fixed_dictionaries(
        {
            "op": st.just("region"),
            "key": KEYS,
            "kind": st.sampled_from(["ignore", "done"]),
            "polygon": st.just(TRIANGLE),
        }
    ),
    st.fixed_dictionaries({"op": st.just("delete_region"), "keys": st.lists(KEYS, max_size=2)}),
    st.fixed_dictionaries({"op": st.just("empty"), "value": st.booleans()}),
)


def content(document: Document) -> tuple[Mapping[str, Any], ...]:
    return dict(document.particles), dict(document.regions), dict(document.rejected), dict(document.flags)


@settings(max_examples=200, deadline=None)
@given(st.lists(OPS | st.sampled_from(["undo", "redo"]), max_size=30))
def test_undo_is_the_document_of_the_operations_before(moves: list[Any]) -> None:
    document, extent = Document(), Extent(100, 100)
    seen = [content(document)]
    cursor = 0
    for move in moves:
        before = document.copy()
        try:
            if isinstance(move, str):
                getattr(document, move)()
                cursor += -1 if move == "undo" else 1
            else:
                document.apply(move, extent)
                cursor += 1
                seen[cursor:] = [content(document)]
        except ProjectError:
            assert document == before, "a refused operation leaves no trace"
        assert (document.cursor, document.n_ops) == (cursor, len(seen) - 1)
        assert content(document) == seen[cursor]


COMMAND = st.one_of(
    st.tuples(
        st.just("leased"), st.fixed_dictionaries({"until": st.floats(1, 400), "suggested": st.booleans()})
    ),
    st.tuples(st.just("drafted"), st.fixed_dictionaries({"op": OPS, "active_seconds": st.floats(0, 100)})),
    st.tuples(st.just("drafted"), st.fixed_dictionaries({"op": OPS, "active_seconds": st.floats(0, 100)})),
    st.tuples(
        st.sampled_from(["undone", "redone", "submitted", "released"]),
        st.fixed_dictionaries({"active_seconds": st.floats(0, 100)}),
    ),
    st.tuples(st.just("reopened"), st.just({})),
    st.tuples(
        st.just("skipped"), st.fixed_dictionaries({"reason": st.text(max_size=3), "bad": st.booleans()})
    ),
    st.tuples(st.just("served"), st.fixed_dictionaries({"model": st.sampled_from([None, "step_1"])})),
    st.tuples(st.just("imported"), st.just({"source": "f", "labels": {"particles": [[1.5, 2]]}})),
)
MOVES = st.lists(
    st.one_of(
        st.just("reopen"),
        st.lists(
            st.tuples(st.sampled_from(["ana", "ben"]), st.sampled_from(["0", "1", "0.r1", "7"]), COMMAND),
            max_size=12,
        ),
    ),
    max_size=8,
)


@settings(max_examples=25, deadline=None)
@given(moves=MOVES)
def test_the_live_state_is_the_replay_of_the_log(
    tmp_path_factory: pytest.TempPathFactory, moves: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("project") / "events.sqlite"
    journal = ProjectRepository.open(path, GEOMETRY)
    n_commands, now = 0, 0.0
    for move in moves:
        if move == "reopen":
            live = journal.state
            journal.close()
            journal = ProjectRepository.open(path, GEOMETRY)
            assert journal.state == live
            continue
        now += 40
        commands = [
            Command(f"{n_commands + i}", who, kind, task, body)
            for i, (who, task, (kind, body)) in enumerate(move)
        ]
        n_commands += len(commands)
        before, trial, possible = journal.state, journal.state.branch(GEOMETRY), []
        try:
            journal.record(commands, now)
        except ProjectError:
            assert journal.state is before
            assert journal.log.last_seq == before.seq
            trial = replay(journal.log.read(), GEOMETRY)
            for command in commands:
                if (
                    command.kind == "submitted"
                    and command.task in trial.tasks
                    and trial.tasks[command.task].submissions
                ):
                    command = Command(command.id, command.person, "corrected", command.task, command.body)
                try:
                    apply(
                        trial,
                        Event(
                            trial.seq + 1,
                            command.id,
                            now,
                            command.person,
                            command.kind,
                            command.task,
                            command.body,
                        ),
                    )
                    possible.append(command)
                except ProjectError:
                    pass
            journal.record(possible, now)
            assert journal.state == trial
        assert before == replay(journal.log.read()[: before.seq], GEOMETRY), "an old state never changes"
    assert journal.state == replay(journal.log.read(), GEOMETRY)
    journal.close()


def leased(name: str, person: str = "ana", task: str = "0", until: float = 100.0) -> Command:
    return Command(name, person, "leased", task, {"until": until, "suggested": True})


def add(name: str, key: str, person: str = "ana", y: float = 1.0) -> Command:
    return Command(
        name, person, "drafted", "0", {"op": {"op": "add", "key": key, "y": y, "x": 2.0}, "active_seconds": 1}
    )


def test_a_batch_is_recorded_whole_or_not_at_all(tmp_path: Path) -> None:
    with ProjectRepository.open(tmp_path / "e", GEOMETRY) as journal:
        with pytest.raises(ProjectError, match="outside"):
            journal.record([leased("1"), add("2", "p1"), add("3", "p2", y=1e6)], 1.0)
        assert journal.log.read() == []
        assert journal.state == ProjectState(GEOMETRY)
        first = journal.record([leased("1"), add("2", "p1"), add("3", "p2")], 1.0)
        assert [event.seq for event in first] == [1, 2, 3]
        again = journal.record(
            [leased("1", until=200.0), add("2", "p1"), add("4", "p3"), add("4", "p3")], 2.0
        )
        assert again[:2] == first[:2], "known commands are answered, and not done again"
        assert again[2] == again[3]
        assert list(journal.state.tasks["0"].document.particles) == ["p1", "p2", "p3"]
        with pytest.raises(ProjectError, match="other content"):
            journal.record([add("4", "p4")], 3.0)
        with pytest.raises(LeaseError):
            journal.record([add("5", "p5", person="ben")], 3.0)


def test_a_known_act_is_answered_when_it_could_no_longer_be_done(tmp_path: Path) -> None:
    submit = Command("s", "ana", "submitted", "0", {"active_seconds": 1})
    with ProjectRepository.open(tmp_path / "e", GEOMETRY) as journal:
        events = journal.record([leased("1"), add("2", "p1"), submit], 1.0)
        journal.record([leased("3", person="ben")], 2.0)
        assert journal.record([leased("1"), add("2", "p1"), submit], 3.0) == events
        assert journal.log.last_seq == 4


def test_a_later_submission_is_recorded_as_a_correction(tmp_path: Path) -> None:
    with ProjectRepository.open(tmp_path / "e", GEOMETRY) as journal:
        commands = [
            leased("1"),
            add("2", "p1"),
            Command("3", "ana", "submitted", "0"),
            Command("4", "ana", "reopened", "0"),
            add("5", "p2"),
            Command("6", "ana", "submitted", "0"),
        ]
        kinds = [event.kind for event in journal.record(commands, 1.0)]
        assert kinds == ["leased", "drafted", "submitted", "reopened", "drafted", "corrected"]
        assert [e.kind for e in journal.record(commands, 2.0)] == kinds, "sent again it is the same"
        assert journal.log.last_seq == 6
        assert len(labels(journal.state)[0].particles_yx) == 2


def test_after_a_failure_of_the_disk_the_state_is_that_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ProjectRepository.open(tmp_path / "e", GEOMETRY) as journal:
        journal.record([leased("1")], 1.0)
        append = EventLog.append

        def fails_late(log: EventLog, commands: Any, *, now: float | None = None) -> Any:
            append(log, commands, now=now)
            raise ProjectError("the disk gave no answer")

        monkeypatch.setattr(EventLog, "append", fails_late)
        with pytest.raises(ProjectError, match="no answer"):
            journal.record([add("2", "p1")], 2.0)
        monkeypatch.undo()
        journal.record([add("2", "p1"), add("3", "p2")], 3.0)
        assert [event.id for event in journal.log.read()] == ["1", "2", "3"]
        assert journal.state == replay(journal.log.read(), GEOMETRY)


def test_threads_share_a_journal(tmp_path: Path) -> None:
    def label(task: str, person: str) -> None:
        journal.record([leased(f"{task}.", person, task)], 1.0)
        for i in range(8):
            op = {"op": "add", "key": f"p{i}", "y": 50.0, "x": 110.0}
            journal.record([Command(f"{task}.{i}", person, "drafted", task, {"op": op})], 2.0)
            seen.append((journal.state, journal.state.seq))

    seen: list[tuple[ProjectState, int]] = []
    with ProjectRepository.open(tmp_path / "e", GEOMETRY) as journal:
        threads = [
            threading.Thread(target=label, args=pair) for pair in (("0", "ana"), ("1", "ben"), ("2", "cleo"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        events = journal.log.read()
        assert len(events) == 27
        assert journal.state == replay(events, GEOMETRY)
    for state, seq in seen:
        assert state == replay(events[:seq], GEOMETRY), "what was seen once stays as it was"


def test_a_log_of_another_project_is_refused_and_let_go(tmp_path: Path) -> None:
    with ProjectRepository.open(tmp_path / "e", GEOMETRY) as journal:
        journal.record([leased("1", task="2")], 1.0)
    for _ in range(2):
        with pytest.raises(ProjectError, match=r"event 1 \(leased\) does not fit the project: item 2"):
            ProjectRepository.open(tmp_path / "e", {0: (10, 10, None)})


@pytest.mark.parametrize("kind", ["ignore", "done"])
@pytest.mark.parametrize(
    "polygon", [[[5, 5], [5, 5], [5, 5]], [[0, 0], [5, 5], [9, 9]], [[0, 0], [0, 1], [1, 0]]]
)
def test_regions_without_area_are_refused_and_old_logs_that_hold_them_are_not(
    tmp_path: Path, kind: str, polygon: list[list[float]]
) -> None:
    drawn = {"op": {"op": "region", "key": "r", "kind": kind, "polygon": polygon}}
    leased = Command("1", "ana", "leased", "0", {"until": 9.0})
    with ProjectRepository(EventLog.open(tmp_path / "new.sqlite", write=True), GEOMETRY) as journal:
        journal.record([leased], 1.0)
        with pytest.raises(ProjectError, match="px²"):
            journal.record([Command("2", "ana", "drafted", "0", drawn)], 2.0)
        regions = [{"kind": kind, "polygon": polygon}]
        labels_of_file = {"particles": [[1, 1]], "regions": regions}
        with pytest.raises(ProjectError, match="px²"):
            journal.record(
                [Command("3", "ana", "imported", "2", {"source": "f", "labels": labels_of_file})], 2.0
            )
        square = [[0, 0], [0, 2], [2, 2], [2, 0]]
        fine = {"op": {"op": "region", "key": "r", "kind": kind, "polygon": square}}
        journal.record([Command("4", "ana", "drafted", "0", fine)], 3.0)
    with EventLog.open(tmp_path / "old.sqlite", write=True) as log:
        log.append([leased, Command("2", "ana", "drafted", "0", drawn)], now=1.0)
    with ProjectRepository.open(tmp_path / "old.sqlite", GEOMETRY) as journal:
        add = {"op": {"op": "add", "key": "p", "y": 1, "x": 1}}
        journal.record([Command("3", "ana", "drafted", "0", add)], 2.0)
        with pytest.raises(ProjectError, match="px²"):
            journal.record([Command("4", "ana", "submitted", "0", {})], 2.0)
        journal.record(
            [Command("5", "ana", "drafted", "0", {"op": {"op": "delete_region", "keys": ["r"]}})], 3.0
        )
        journal.record([Command("4", "ana", "submitted", "0", {})], 4.0)


def test_a_label_is_withdrawn_by_skipping_until_somebody_submits_again(play: Play) -> None:
    play.label("0")
    play.label("2")
    play.tell("reopened", "0")
    assert list(labels(play.state)) == [0, 2], "the old label counts while a new one is made"
    play.tell("skipped", "0", reason="not sure", active_seconds=1.0)
    assert list(labels(play.state)) == [2]
    assert play.state.tasks["0"].answer is None
    taken = label_set_of(play.state)
    assert (list(taken.labels), taken.left_out) == ([2], (0,))
    play.lease("0", "ben")
    assert list(labels(play.state)) == [2], "to look at it again brings no label back"
    assert label_set_of(play.state).left_out == (0,), "ben may label it; no strategy chooses it anew"
    play.submit("0", "ben", kind="corrected")
    assert labels(play.state)[0].person == "ben"
    assert replay(play.events, GEOMETRY) == play.state


def test_a_skip_is_of_one_person_and_bad_of_all(play: Play) -> None:
    def skip(task: str, person: str, bad: bool = False) -> None:
        play.lease(task, person)
        play.tell("skipped", task, person, reason="dense", bad=bad, active_seconds=1.0)

    def left_out() -> tuple[tuple[int, ...], tuple[int, ...]]:
        found = label_set_of(play.state)
        return found.left_out, found.for_others

    skip("0", "ana")
    skip("2", "ana", bad=True)
    assert left_out() == ((0, 2), ()), "there is nobody else"
    play.label("1", "ben", ((41, 101),))
    assert left_out() == ((0, 2), (0,)), "also after the next step"
    play.lease("0", "ben")
    play.tell("released", "0", "ben", active_seconds=1.0)
    assert left_out() == ((0, 2), (0,)), "ben looked at it, and left it"
    skip("0", "ben")
    assert left_out() == ((0, 2), ()), "everybody has skipped it"
    play.label("0", "eve")
    assert left_out() == ((2,), ())


def test_a_skipped_import_is_withdrawn_until_it_is_imported_again(play: Play) -> None:
    said = {"source": "a.star", "labels": {"particles": [[1, 1]]}}
    play.tell("imported", "0", "cryoquery", **said)
    play.tell("reopened", "0")
    play.tell("skipped", "0", reason="", active_seconds=0.0)
    assert labels(play.state) == {}
    play.tell("imported", "0", "cryoquery", **said)
    assert list(labels(play.state)) == [0]
    assert replay(play.events, GEOMETRY) == play.state
