"""The labeling server as its page uses it: leases, commands, pictures, steps, restarts."""

from __future__ import annotations

import io
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from label_project import DIAMETER_PX, Served, Signed, logged_in, make_project, served, truth_yx, write_step
from PIL import Image

from cryoquery import cli
from cryoquery.errors import CryoqueryError, DataError, ProjectError
from cryoquery.formats import read_coordinates
from cryoquery.label.pages import load_pages
from cryoquery.label.requests import CommandRequest
from cryoquery.label.serve import PORT_FILE, serve
from cryoquery.label.service import LabelService, open_service
from cryoquery.project.events import EventLog, LogError
from cryoquery.project.labeling import LeaseError, UnknownTaskError
from cryoquery.project.step_files import step_under_way
from cryoquery.project.summary import summarize


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "p")


@pytest.fixture
def server(project: Path) -> Iterator[Served]:
    with served(project) as server:
        yield server


class Clock:
    """Seconds since the epoch, as a test wants them."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(project: Path, clock: Clock) -> Iterator[LabelService]:
    opened = open_service(project)
    opened._clock = clock
    yield opened
    opened.close()


def command(name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "kind": kind, **more}


def add(name: str, y: float, x: float) -> dict[str, Any]:
    return command(name, "drafted", op={"op": "add", "key": name, "y": y, "x": x}, active_seconds=1.5)


def send(client: httpx.Client, task: str, *commands: dict[str, Any], expected: int = 200) -> dict[str, Any]:
    answer = client.post(f"/api/tasks/{task}/commands", json={"commands": commands})
    assert answer.status_code == expected, answer.text
    content: dict[str, Any] = answer.json()
    return content


def post(client: httpx.Client, path: str, **content: Any) -> dict[str, Any]:
    answer = client.post(path, json=content)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def get(client: httpx.Client, path: str) -> dict[str, Any]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_person_labels_and_the_export_holds_exactly_those_centers(server: Served) -> None:
    with logged_in(server, "anna") as anna:
        told = get(anna, "/api/session")
        assert (told["person"], told["n_items"], told["diameter_px"]) == ("anna", 8, DIAMETER_PX)
        document = post(anna, "/api/lease")
        task, item = document["task"], document["item"]
        assert document["mine"]
        assert document["document"] == {"particles": [], "regions": [], "empty": False, "rejected": []}
        assert document["lease_until"] > time.time() + 60
        centers = truth_yx(item)
        drafted = [add(f"p{i}", y, x) for i, (y, x) in enumerate(centers)]
        answer = send(anna, task, *drafted, command("u", "undone"), command("r", "redone"))
        assert answer["acknowledged"] == [*(f"p{i}" for i in range(len(centers))), "u", "r"]
        assert (answer["status"], answer["cursor"], answer["n_ops"]) == (
            "drafted",
            len(centers),
            len(centers),
        )
        again = get(anna, f"/api/tasks/{task}")
        assert [(p["y"], p["x"]) for p in again["document"]["particles"]] == [tuple(c) for c in centers]
        assert send(anna, task, command("s", "submitted"))["status"] == "submitted"
        queue = get(anna, "/api/queue")
        assert (queue["n_waiting"], queue["n_submitted"], queue["n_skipped"]) == (7, 1, 0)
        assert queue["hours"] == pytest.approx(1.5 * len(centers) / 3600)
        assert queue["entries"][0]["status"] == "waiting"
        assert queue["entries"][-1]["person"] == "anna"
        assert get(anna, "/api/status")["people"][0]["n_particles"] == len(centers)
        for suffix in ("star", "cs", "txt"):
            answer = anna.get(f"/api/export?what=labels&format={suffix}")
            assert answer.status_code == 200
            path = server.project / f"out.{suffix}"
            path.write_bytes(answer.content)
            found = read_coordinates(path, micrograph_shape=(192, 256)).centers_yx
            assert np.abs(np.sort(found, 0) - np.sort(centers, 0)).max() < 0.51
        packed = zipfile.ZipFile(io.BytesIO(anna.get("/api/export?format=box").content))
        assert len(packed.namelist()) == 1
        assert anna.get("/api/export?format=json").json()["labels"][0]["particles"]
        assert anna.get("/api/export?format=exe").status_code == 422


def test_acts_are_taken_all_or_none_and_once(server: Served) -> None:
    with logged_in(server, "anna") as anna, logged_in(server, "ben") as ben:
        task = post(anna, "/api/lease")["task"]
        refused = send(anna, task, add("a", 9, 9), add("b", 9999, 9), expected=422)
        assert "outside" in refused["error"]
        assert get(anna, f"/api/tasks/{task}")["n_ops"] == 0
        for _ in range(3):
            assert send(anna, task, add("a", 9, 9), command("n", "renewed"))["n_ops"] == 1
        assert "before" in send(anna, task, command("a", "undone"), expected=422)["error"]
        assert send(ben, task, add("a", 9, 9), expected=422)
        assert "anna" in send(ben, task, add("c", 9, 9), expected=409)["error"]
        assert send(anna, task, command("queued-step_1", "undone"), expected=422)
        assert send(anna, task, command("x", "undone", op={"op": "add"}), expected=422)
        assert send(anna, task, command("x", "drafted"), expected=422)
        assert send(anna, task, command("x", "drafted", op={"op": "explode"}), expected=422)
        assert send(anna, task, command("x", "drafted", op={**add("z", 1, 1)["op"], "more": 1}), expected=422)
        for number in ("NaN", "Infinity", "1e999"):
            op = '{"op": "add", "key": "z", "y": 1, "x": ' + number + "}"
            body = '{"commands": [{"id": "x", "kind": "drafted", "op": ' + op + "}]}"
            headers = {"content-type": "application/json"}
            answer = anna.post(f"/api/tasks/{task}/commands", content=body, headers=headers)
            assert answer.status_code in (400, 422)
        assert get(anna, f"/api/tasks/{task}")["n_ops"] == 1


def test_two_people_get_different_tasks_until_a_lease_ends(service: LabelService, clock: Clock) -> None:
    anna, ben = service.lease("anna", None)["task"], service.lease("ben", None)["task"]
    assert anna != ben
    with pytest.raises(LeaseError, match="anna"):
        service.lease("ben", anna)
    assert service.lease("anna", None)["task"] == anna
    assert not service.task("ben", anna)["mine"]
    clock.now += 29 * 60
    service.record("anna", anna, [CommandRequest.model_validate(add("a", 5.0, 5.0))])
    clock.now += 29 * 60
    with pytest.raises(LeaseError):
        service.lease("ben", anna)
    clock.now += 2 * 60
    assert service.task("ben", anna)["lease_until"] is None
    taken = service.lease("ben", anna)
    assert taken["mine"]
    assert [p["key"] for p in taken["document"]["particles"]] == ["a"]
    with pytest.raises(LeaseError):
        service.record("anna", anna, [CommandRequest.model_validate(add("b", 6.0, 6.0))])
    released = CommandRequest(id="r", kind="released", active_seconds=1.0)
    service.record("ben", anna, [released])
    assert service.lease("anna", anna)["mine"]


def test_skipped_bad_corrected_and_empty(service: LabelService) -> None:
    first = service.lease("anna", None)["task"]
    service.record(
        "anna", first, [CommandRequest(id="1", kind="skipped", reason="too thick", active_seconds=2.0)]
    )
    second = service.lease("anna", None)["task"]
    assert second != first
    service.record("anna", second, [CommandRequest(id="2", kind="skipped", reason="ice", bad=True)])
    third = service.lease("anna", None)["task"]
    with pytest.raises(ProjectError, match="no particles"):
        service.record("anna", third, [CommandRequest(id="3", kind="submitted")])
    empty = {"op": "empty", "value": True}
    service.record(
        "anna",
        third,
        [CommandRequest(id="4", kind="drafted", op=empty), CommandRequest(id="5", kind="submitted")],
    )
    corrected = [
        CommandRequest(id="6", kind="reopened"),
        CommandRequest.model_validate(add("7", 30.0, 30.0)),
        CommandRequest(id="8", kind="submitted"),
    ]
    for _ in range(2):
        assert service.record("anna", third, corrected)["status"] == "submitted"
    queue = service.queue("anna")
    assert (queue["n_waiting"], queue["n_submitted"], queue["n_skipped"]) == (5, 1, 2)
    assert len(service.state.tasks[third].submissions) == 2
    service.lease("ben", first)


def test_tasks_that_nobody_asked_for(tmp_path: Path) -> None:
    service = open_service(make_project(tmp_path / "p", n_queued=3))
    try:
        for task in ("5", "0.r1", "99"):
            with pytest.raises(UnknownTaskError):
                service.lease("anna", task)
            with pytest.raises(UnknownTaskError):
                service.task("anna", task)
        assert len(service.queue("anna")["entries"]) == 3
        for i in range(3):
            task = service.lease("anna", None)["task"]
            service.record("anna", task, [CommandRequest(id=f"{i}", kind="skipped")])
        assert service.lease("anna", None) == {"task": None}
    finally:
        service.close()


def kinds_of(value: Any) -> Any:
    """What an answer is made of, whatever it says."""
    if isinstance(value, dict):
        return {key: kinds_of(part) for key, part in value.items()}
    if isinstance(value, list):
        return [kinds_of(value[0])] if value else []
    return len(value) if isinstance(value, str) and set(value) <= set("0123456789abcdef") else type(value)


def test_nothing_in_the_answers_tells_a_blind_repeat(tmp_path: Path) -> None:
    path = make_project(tmp_path / "p", n_items=24, n_files=4, repeat_share=0.6, suggestion_share=0.0)
    with served(path) as server, logged_in(server, "anna") as anna, logged_in(server, "ben") as ben:
        repeats: list[int] = []
        first: dict[int, str] = {}
        kinds: list[Any] = []
        for i in range(12):
            if i == 8:  # now repeats are of items of an earlier query
                write_step(path, 1, range(12, 24))
                deadline = time.monotonic() + 60
                while get(anna, "/api/queue")["step"] != 1 and time.monotonic() < deadline:
                    time.sleep(0.2)
            before = get(anna, "/api/queue")
            check_ordinary(before["entries"])
            document = post(anna, "/api/lease")
            queue, task, item = get(anna, "/api/queue"), document["task"], document["item"]
            check_ordinary(queue["entries"])
            offered = next(e for e in before["entries"] if e["task"] == task)
            entry = next(e for e in queue["entries"] if e["task"] == task)
            assert entry["touched"] > 0
            assert offered | {"status": "leased", "person": "anna", "touched": entry["touched"]} == entry
            assert offered["status"] == "waiting"
            assert queue["n_waiting"] == before["n_waiting"] - 1
            assert document["reason"] == entry["reason"] != ""
            assert document["document"]["particles"] == document["suggestions"] == []
            if i == 8:
                kinds.clear()
            kinds.append((kinds_of(document), kinds_of(entry)))
            assert kinds[-1] == kinds[0]
            if item in first:
                repeats.append(item)
                assert task not in {e["task"] for e in get(ben, "/api/queue")["entries"]}
                assert first[item] not in {e["task"] for e in queue["entries"]}
                for name in (first[item], str(item)):
                    assert anna.get(f"/api/tasks/{name}").status_code == 404
                    assert anna.post("/api/lease", json={"task": name}).status_code == 404
                    send(anna, name, command(f"x{i}", "reopened"), expected=404)
                    assert get(ben, f"/api/tasks/{name}")["status"] == "submitted"
                send(anna, first[item], command(f"s{item}", "submitted"))
            first.setdefault(item, task)
            send(anna, task, add(f"p{i}", 20.0, 20.0))
            send(anna, task, command(f"q{i}" if item in repeats else f"s{item}", "submitted"))
            assert get(anna, f"/api/tasks/{first[item]}")["status"] == "submitted"
            assert get(anna, f"/api/tasks/{task}")["status"] == "submitted"
        assert {item for item in repeats if item < 12}
        assert len(repeats) >= 3


def check_ordinary(entries: list[dict[str, Any]]) -> None:
    assert len({entry["item"] for entry in entries}) == len(entries)
    assert {len(entry["task"]) for entry in entries} == {16}
    ranks = [entry["rank"] for entry in entries if entry["rank"] is not None]
    assert len(set(ranks)) == len(ranks)
    for entry in entries:
        assert entry["purpose"] == ("measure" if entry["item"] >= 18 else "train")
        if entry["status"] in ("waiting", "leased"):
            assert entry["reason"]
            assert entry["rank"] is not None
        assert (entry["rank"] is None) == (entry["reason"] == "")


def test_an_id_stands_for_one_content(service: LabelService) -> None:
    task = service.lease("anna", None)["task"]
    first = add("a", 9.0, 9.0)
    service.record("anna", task, [CommandRequest.model_validate(first)])
    others: list[dict[str, Any]] = [
        {**first, "op": {**first["op"], "y": 10.0}},
        {**first, "op": {"op": "delete", "keys": ["a"]}},
        {**first, "op": None},
        {**first, "active_seconds": 2.0},
        {**first, "reason": "r"},
        command("a", "undone", active_seconds=1.5),
    ]
    before = service.state
    for other in others:
        with pytest.raises(ProjectError, match="command a: the id was used before"):
            service.record("anna", task, [CommandRequest.model_validate(other)])
    skip = command("s", "skipped", reason="ice", bad=False, active_seconds=1.0)
    assert service.record("anna", task, [CommandRequest.model_validate(first)])["n_ops"] == 1
    assert service.state is before
    service.record("anna", task, [CommandRequest.model_validate(skip)])
    for other in ({**skip, "reason": "dense"}, {**skip, "bad": True}):
        with pytest.raises(ProjectError, match="command s: the id was used before"):
            service.record("anna", task, [CommandRequest.model_validate(other)])
    service.record("anna", task, [CommandRequest.model_validate(first), CommandRequest.model_validate(skip)])


def test_what_was_skipped_after_all_is_not_counted_as_done(service: LabelService) -> None:
    task = service.lease("anna", None)["task"]
    service.record(
        "anna",
        task,
        [CommandRequest.model_validate(add("a", 9.0, 9.0)), CommandRequest(id="s", kind="submitted")],
    )
    assert service.queue("anna")["n_submitted"] == 1
    service.record(
        "anna", task, [CommandRequest(id="r", kind="reopened"), CommandRequest(id="k", kind="skipped")]
    )
    found = service.queue("anna")
    assert (found["n_submitted"], found["n_skipped"]) == (0, 1)
    assert service.lease("ben", task)["mine"], "somebody else may be asked for it"


def test_items_of_earlier_queries_have_no_rank(tmp_path: Path) -> None:
    path = make_project(tmp_path / "p")
    service = open_service(path)
    try:
        for item in ("0", "7"):
            service.lease("anna", item)
            service.record("anna", item, [CommandRequest(id=f"k{item}", kind="skipped")])
        write_step(path, 1, [3, 6])
        service.notice_steps()
        found = {e["item"]: (e["rank"], e["reason"], e["purpose"]) for e in service.queue("anna")["entries"]}
    finally:
        service.close()
    unsure = "the model is unsure"
    assert found == {
        3: (0, unsure, "train"),
        6: (1, unsure, "measure"),
        0: (None, "", "train"),
        7: (None, "", "measure"),
    }


def test_a_done_region_has_room_for_a_particle(service: LabelService) -> None:
    task = service.lease("anna", None)["task"]
    side = 0.8 * DIAMETER_PX
    for kind, height, refused in (("done", side, True), ("ignore", side, False), ("done", 2 * side, False)):
        polygon = [[0.0, 0.0], [0.0, side], [height, side], [height, 0.0]]
        op = {"op": "region", "key": f"{kind}{height:.0f}", "kind": kind, "polygon": polygon}
        drawn = CommandRequest(id=f"{kind}{height:.0f}", kind="drafted", op=op)
        if refused:
            with pytest.raises(ProjectError, match="must have at least 452 px²"):
                service.record("anna", task, [drawn])
        else:
            service.record("anna", task, [drawn])
    with pytest.raises(ProjectError, match="expected a list"):
        service.record(
            "anna", task, [CommandRequest(id="x", kind="drafted", op={"op": "region", "kind": "done"})]
        )


def test_a_new_step_becomes_the_queue_with_its_suggestions(server: Served) -> None:
    with logged_in(server, "anna") as anna:
        write_step(server.project, 1, [3, 5], sentence="one more is worth it")
        deadline = time.monotonic() + 60
        while (queue := get(anna, "/api/queue"))["step"] != 1 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert queue["model"] == "step_1"
        assert queue["sentence"] == "one more is worth it"
        assert [entry["item"] for entry in queue["entries"]] == [3, 5]
        (step,) = get(anna, "/api/status")["steps"]
        assert (step["step"], step["particle_f1"]) == (1, 0.6)
        assert "f1" not in step, "that of pixels is another one"
        shown = [post(anna, "/api/lease", task=task) for task in ("3", "5")]
        for document in shown:
            assert document["model"] == "step_1"
        for document in shown:
            keys = [pick["key"] for pick in document["suggestions"]]
            if not keys:
                continue
            centers = truth_yx(document["item"])
            assert [[p["y"], p["x"]] for p in document["suggestions"]] == centers.tolist()
            task = document["task"]
            accepted = command(f"a{task}", "drafted", op={"op": "accept", "keys": keys[:2]})
            rejected = command(f"r{task}", "drafted", op={"op": "reject", "keys": keys[2:3]})
            unknown = command(f"u{task}", "drafted", op={"op": "accept", "keys": ["s999"]})
            send(anna, task, unknown, expected=422)
            for _ in range(2):
                send(anna, task, command(f"v{task}", "served"), accepted, rejected)
            found = get(anna, f"/api/tasks/{task}")["document"]
            assert [(p["key"], p["origin"]) for p in found["particles"]] == [
                (key, "suggestion") for key in keys[:2]
            ]
            assert found["rejected"] == keys[2:3]
    with EventLog.open(server.project / "events.sqlite", write=False) as log:
        assert sum(event.id == "queued-step_1" for event in log.read()) == 1
        served_events = [event for event in log.read() if event.kind == "served"]
        assert {event.body["model"] for event in served_events} == {"step_1"}


def test_the_share_without_suggestions_is_shown_none(tmp_path: Path) -> None:
    path = make_project(tmp_path / "p", n_items=40, n_files=4, suggestion_share=0.5)
    write_step(path, 1, range(40))
    service = open_service(path)
    try:
        service.notice_steps()
        service.notice_steps()
        shown = [bool(service.lease("anna", str(item))["suggestions"]) for item in range(40)]
    finally:
        service.close()
    assert 5 <= sum(shown) <= 25
    assert not any(shown[30:]), "held out"


def test_held_out_micrographs_are_shown_without_suggestions(tmp_path: Path) -> None:
    path = make_project(tmp_path / "p", suggestion_share=1.0)
    write_step(path, 1, range(8))
    service = open_service(path)
    try:
        service.notice_steps()
        shown = {item: service.lease("anna", str(item)) for item in range(8)}
        for item, document in shown.items():
            assert document["model"] == "step_1"
            assert bool(document["suggestions"]) == (service.project.items[item].split == "train")
        for item in (0, 7):
            commands = [
                CommandRequest.model_validate(add(f"p{item}", 20.0, 20.0)),
                CommandRequest(id=f"s{item}", kind="submitted"),
            ]
            service.record("anna", str(item), commands)
        compared = summarize(service.project, service.state)["anchoring"]
        assert compared["with_suggestions"]["n_tasks"] == 1
        assert compared["without_suggestions"]["n_tasks"] == 0, "not by chance"
    finally:
        service.close()


def test_suggestions_stay_those_of_the_model_that_was_shown(tmp_path: Path) -> None:
    path = make_project(tmp_path / "p", suggestion_share=1.0)
    write_step(path, 1, [0, 1])
    service = open_service(path)
    try:
        service.notice_steps()
        before = service.lease("anna", "0")
        op = {"op": "accept", "keys": ["s0"]}
        service.record("anna", "0", [CommandRequest(id="1", kind="drafted", op=op)])
        write_step(path, 2, [0, 1])
        service.notice_steps()
        assert (
            service.task("anna", "0")["model"]
            == service.lease("anna", "0")["model"]
            == before["model"]
            == "step_1"
        )
        assert service.lease("anna", "1")["model"] == "step_2"
        write_step(path, 3, [0])
        service.notice_steps()
        assert service.lease("anna", "1")["model"] == "step_2", "the new one has not looked at it"
    finally:
        service.close()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[{}]",
        '[{"item": 99, "rank": 0, "reason": "", "score": 1, "purpose": "train"}]',
        '[{"item": 0, "rank": 0, "reason": "", "score": 1e400, "purpose": "train"}]',
        '[{"item": 1e400, "rank": 0, "reason": "", "score": NaN, "purpose": "train"}]',
        "[" * 100_000,
        '[{"item": ' + "9" * 5000 + "}]",
    ],
)
def test_a_damaged_query_is_named_and_changes_nothing(service: LabelService, content: str) -> None:
    (write_step(service.project.path, 1, [0]) / "query.json").write_text(content)
    with pytest.raises(CryoqueryError, match="step_1"):
        service.notice_steps()
    assert service.queue("anna")["step"] == 0


def test_a_step_under_way_is_shown(service: LabelService) -> None:
    path = service.project.path / "stepping.json"
    assert service.queue("anna")["stepping"] is None
    path.write_text(
        json.dumps({"since": 1.0, "message": "training", "pid": os.getpid(), "host": socket.gethostname()})
    )
    assert service.queue("anna")["stepping"] == {"since": 1.0, "message": "training"}
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path.write_text(json.dumps({"since": 1.0, "pid": ended.pid, "host": socket.gethostname()}))
    assert step_under_way(service.project.path) is None
    for damaged in (
        "{",
        '{"since": NaN}',
        '{"since": 1e400}',
        '{"since": "x"}',
        '{"since": 1, "pid": 1e400}',
    ):
        path.write_text(damaged)
        assert service.queue("anna")["stepping"] is None or "pid" in damaged
        json.dumps(service.queue("anna"), allow_nan=False)


def test_a_failing_disk_is_no_fault_of_a_command(
    service: LabelService, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = service.lease("anna", None)["task"]

    def fail(*_: object) -> None:
        raise LogError("events.sqlite: disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(EventLog, "find", fail)
        with pytest.raises(LogError):
            service.record("anna", task, [CommandRequest.model_validate(add("a", 9.0, 9.0))])
    assert service.record("anna", task, [CommandRequest.model_validate(add("a", 9.0, 9.0))])["n_ops"] == 1


def test_steps_are_sent_for_undo_up_to_a_bound(
    service: LabelService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryoquery.label.documents.MOST_STEPS", 3)
    task = service.lease("anna", None)["task"]
    commands = [CommandRequest.model_validate(add(f"a{i}", 9.0 + i, 9.0)) for i in range(5)]
    service.record("anna", task, [*commands, CommandRequest(id="u", kind="undone")])
    steps = service.task("anna", task)["steps"]
    assert [len(steps["done"]), len(steps["undone"])] == [3, 1]
    ((table, _, before, after),) = steps["undone"][0]
    assert (table, before, after) == ("particles", None, {"y": 13.0, "x": 9.0, "origin": "person"})


def test_what_is_missing_is_said_before_anything_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="install cryoquery again"):
        load_pages(tmp_path)
    path = make_project(tmp_path / "p", 4)
    said: list[str] = []
    (path / "micrographs" / "m0001.mrc").unlink()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("uvicorn.Server.run", lambda *_, **__: None)
        serve(path, say=said.append)
    assert "1 of 4 micrographs are not there (m0001" in said[0]
    (path / "micrographs").rename(tmp_path / "gone")
    with pytest.raises(ProjectError, match="set micrographs_folder"):
        serve(path)


def test_pictures_are_kept_by_the_browser(server: Served) -> None:
    with logged_in(server, "anna") as anna:
        for path in (
            "/api/items/0/picture?size=128&lowpass=20",
            "/api/items/0/picture",
            "/api/items/0/thumbnail",
        ):
            answer = anna.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "image/jpeg"
            assert answer.headers["cache-control"].startswith("private, max-age=")
            with Image.open(io.BytesIO(answer.content)) as image:
                assert max(image.size) <= 320
                assert image.mode == "L"
            tag = answer.headers["etag"]
            again = anna.get(path, headers={"if-none-match": tag})
            assert (again.status_code, again.content) == (304, b"")
            assert anna.get(path, headers={"if-none-match": '"other"'}).status_code == 200
        tags = {
            anna.get(f"/api/items/{i}/picture?size={s}").headers["etag"] for i in (0, 1) for s in (64, 128)
        }
        assert len(tags) == 4
        (server.project / "micrographs" / "m0002.mrc").unlink()
        answer = anna.get("/api/items/2/picture")
        assert answer.status_code == 422
        assert "micrographs_folder" in answer.json()["error"]


def test_what_was_recorded_is_there_when_the_server_starts_again(server: Served) -> None:
    with logged_in(server, "anna") as anna:
        task = post(anna, "/api/lease")["task"]
        send(anna, task, add("a", 9, 9))
    for end in (server.stop, server.kill):
        end()
        server.start()
        with logged_in(server, "anna") as anna:
            assert get(anna, f"/api/tasks/{task}")["n_ops"] == 1
            send(anna, task, add("a", 9, 9))


def test_a_link_for_each_person_and_a_fresh_one_after_use(project: Path) -> None:
    with served(project, people=["anna", "ben"]) as server:
        assert len(server.links) == 2
        assert any(f"ssh -N -L {httpx.URL(server.url).port}:127.0.0.1:" in line for line in server.lines)
        with httpx.Client(base_url=server.url, auth=Signed(server.links[1])) as client:
            assert get(client, "/api/session")["person"] == "ben"
            assert client.post("/api/session", json={"person": "anna"}).status_code == 422
            assert server.link not in server.links[:2]
            assert len(server.links) == 3
        assert server.stop() == 0
        assert "ended" in server.lines[-1]


def test_who_has_no_name_cannot_label(server: Served) -> None:
    with logged_in(server) as nobody:
        assert get(nobody, "/api/session")["person"] is None
        assert get(nobody, "/api/queue")["entries"]
        assert nobody.post("/api/lease", json={}).status_code == 403
        assert get(nobody, "/api/session")["person"] is None
        assert post(nobody, "/api/session", person=" Anna ")["person"] == "Anna"
        assert post(nobody, "/api/lease")["mine"]


def test_a_second_server_of_a_project_says_who_has_it(server: Served) -> None:
    with pytest.raises(ProjectError, match=f"process {server.process.pid} "):
        serve(server.project, port=0)


def test_the_port_stays_that_of_the_project(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)

    def port_of(asked: int | None = None) -> int:
        said: list[str] = []
        serve(project, port=asked, say=said.append)
        (link,) = [line for line in said if "token=" in line]
        return httpx.URL(link.strip()).port or 0

    used = port_of(0)
    assert [port_of(), port_of()] == [used, used]
    with socket.create_server(("127.0.0.1", used)):
        other = port_of()
    assert other != used
    assert port_of() == other, "the last one that was used"
    for damaged in (b"", b"x", b"0", b"-1", b"99999", b"9" * 5000, b"\xff\x00"):
        (project / PORT_FILE).write_bytes(damaged)
        assert port_of() > 0
    capfd.readouterr()
    serve(project)
    assert "token=" in capfd.readouterr().out


def test_malformed_requests_are_no_news_at_the_terminal(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with served(project) as server:
        with socket.create_connection(("127.0.0.1", httpx.URL(server.url).port or 0)) as strange:
            strange.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
            assert b" 400 " in strange.recv(1000)
        with logged_in(server, "anna") as anna:
            assert get(anna, "/api/session")["person"] == "anna"
    assert "Invalid" not in "".join(capfd.readouterr())


def test_a_port_in_use_and_a_folder_without_a_project(project: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ProjectError, match="is in use"):
        serve(project, port=taken.getsockname()[1])
    open_service(project).close()
    with pytest.raises(ProjectError, match="no project"):
        serve(tmp_path / "nothing")
    with pytest.raises(CryoqueryError, match="each name once"):
        serve(project, people=["anna", "anna"])


def test_what_the_log_cannot_take_is_not_called_wrong(service: LabelService) -> None:
    task = service.lease("anna", None)["task"]
    with sqlite3.connect(service.project.events_path) as other:
        other.execute("INSERT INTO events VALUES (99, 'x', 0, 'x', 'x', NULL, '{}', '')")
    other.close()
    with pytest.raises(LogError, match="another process"):
        service.record("anna", task, [CommandRequest.model_validate(add("a", 9.0, 9.0))])


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["nothing"], 1), (["nothing", "--port", "0"], 2), (["nothing", "--people", "a,a"], 1)],
)
def test_mistakes_on_the_command_line_take_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    status: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cryoquery", "label", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == status
    assert "Traceback" not in capsys.readouterr().err


def test_the_queue_of_thousands_is_cut(tmp_path: Path) -> None:
    service = open_service(make_project(tmp_path / "p", n_items=1000, n_files=1))
    try:
        service.lease("anna", "700")
        service.record("anna", "700", [CommandRequest(id="s", kind="skipped", reason="r")])
        queue = service.queue("anna")
        assert len(queue["entries"]) == 200
        assert queue["n_waiting"] == 999
        assert [entry["rank"] for entry in queue["entries"]] == list(range(200))
    finally:
        service.close()


def test_only_files_of_the_page_have_names(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for name in ("index.html", "parts/view.js", "a.css", "secret.py", ".hidden"):
        (tmp_path / name).write_text(name)
    assert set(load_pages(tmp_path)) == {"index.html", "parts/view.js", "a.css"}
