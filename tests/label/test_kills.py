"""The labeling server is killed again and again while two people work: nothing that it confirmed is lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from label_project import Served, Signed, logged_in, make_project, served
from tiers import take, thorough

from cryoquery.label.documents import describe_document, describe_progress
from cryoquery.label.names import TaskNames
from cryoquery.label.service import open_service
from cryoquery.project.events import Event, EventLog
from cryoquery.project.folder import open_project
from cryoquery.project.state import replay

PEOPLE = ("anna", "ben")
N_COMMANDS = take(500, 2000)
N_BATCH = 20
N_KILLS = take(6, 20)
SHAPE = (192, 256)
PATIENCE_SECONDS = 120.0


@dataclass
class Client:
    """Somebody who commands at random, and sends again what was not confirmed."""

    person: str
    http: httpx.Client
    rng: np.random.Generator
    ended: threading.Event
    acknowledged: dict[str, dict[str, Any]] = field(default_factory=dict)
    n_retried: int = 0
    failure: BaseException | None = None

    def work(self) -> None:
        try:
            while len(self.acknowledged) < N_COMMANDS:
                self._work_on_a_task()
        except BaseException as error:
            self.failure = error
        finally:
            self.ended.set()

    def _ask(self, method: str, path: str, content: Any = None) -> httpx.Response:
        """The first answer, however often it must be asked for."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = self.http.request(method, path, json=content)
                # 401 after a restart, until there is a new link
                if answer.status_code not in (401, 429, 503):
                    return answer
            except httpx.TransportError:
                self.n_retried += 1
            assert time.monotonic() < until, "the server does not come back"
            time.sleep(0.02)

    def _work_on_a_task(self) -> None:
        document = self._ask("POST", "/api/lease", {}).json()
        if document["task"] is None:
            # All is done: go on with one's own.
            document = self._reopened()
        task = document["task"]
        known = [particle["key"] for particle in document["document"]["particles"]]
        n_done, n_left = document["cursor"], document["n_ops"] - document["cursor"]
        for _ in range(int(self.rng.integers(2, 6))):
            commands, known, n_done, n_left = self._random_commands(known, n_done, n_left)
            self._send(task, commands)
        if self.rng.random() < 0.7:
            commands = [self._command("drafted", op=self._add())] if not known else []
            self._send(task, [*commands, self._command("submitted")])

    def _reopened(self) -> dict[str, Any]:
        entries = self._ask("GET", "/api/queue").json()["entries"]
        own = [e for e in entries if e["status"] == "submitted" and e["person"] == self.person]
        assert own
        task = own[int(self.rng.integers(len(own)))]["task"]
        self._send(task, [self._command("reopened")])
        document: dict[str, Any] = self._ask("GET", f"/api/tasks/{task}").json()
        return document

    def _send(self, task: str, commands: list[dict[str, Any]]) -> None:
        answer = self._ask("POST", f"/api/tasks/{task}/commands", {"commands": commands})
        assert answer.status_code == 200, answer.text
        assert answer.json()["acknowledged"] == [command["id"] for command in commands]
        self.acknowledged |= {command["id"]: {**command, "task": task} for command in commands}
        if self.rng.random() < 0.1:  # as if the answer had been lost
            assert self._ask("POST", f"/api/tasks/{task}/commands", {"commands": commands}).status_code == 200

    def _command(self, kind: str, **more: Any) -> dict[str, Any]:
        seconds = float(self.rng.uniform(0, 3))
        return {"id": self.rng.bytes(16).hex(), "kind": kind, "active_seconds": seconds, **more}

    def _add(self) -> dict[str, Any]:
        y, x = self.rng.uniform(0, SHAPE[0] - 1), self.rng.uniform(0, SHAPE[1] - 1)
        return {"op": "add", "key": f"p{self.rng.bytes(6).hex()}", "y": y, "x": x}

    def _random_commands(
        self, known: list[str], n_done: int, n_left: int
    ) -> tuple[list[dict[str, Any]], list[str], int, int]:
        """Commands that can be done: all is known until the first undo, then only adding is safe."""
        commands: list[dict[str, Any]] = []
        for _ in range(N_BATCH):
            choice = self.rng.random()
            if choice < 0.12 and n_done:
                commands.append(self._command("undone"))
                known, n_done, n_left = [], n_done - 1, n_left + 1
            elif choice < 0.24 and n_left:
                commands.append(self._command("redone"))
                known, n_done, n_left = [], n_done + 1, n_left - 1
            elif choice < 0.4 and known:
                key = known[int(self.rng.integers(len(known)))]
                commands.append(self._command("drafted", op={**self._add(), "op": "move", "key": key}))
                n_done, n_left = n_done + 1, 0
            elif choice < 0.5 and known:
                key = known.pop(int(self.rng.integers(len(known))))
                commands.append(self._command("drafted", op={"op": "delete", "keys": [key]}))
                n_done, n_left = n_done + 1, 0
            elif choice < 0.55:
                commands.append(self._command("renewed"))
            else:
                op = self._add()
                commands.append(self._command("drafted", op=op))
                known = [*known, op["key"]]
                n_done, n_left = n_done + 1, 0
        return commands, known, n_done, n_left


@thorough
def test_what_was_confirmed_is_there_once_whenever_the_server_is_killed(tmp_path: Path) -> None:
    path = make_project(tmp_path / "p", n_items=24, n_files=2, repeat_share=0.2)
    with served(path, people=[*PEOPLE, "cleo"]) as server:
        clients = _work_under_kills(server)
        # Blind repeats hide first labelings from those who are at them: a third person sees all.
        with logged_in(server) as cleo:
            clients[0].http, anna = cleo, clients[0].http
            documents = _documents(clients[0], path / "events.sqlite")
            clients[0].http = anna
        for client in clients:
            client.http.close()
    sent = {name: command for client in clients for name, command in client.acknowledged.items()}
    assert len(sent) >= len(PEOPLE) * N_COMMANDS
    assert sum(client.n_retried for client in clients) > 0, "no kill was noticed"
    with EventLog.open(path / "events.sqlite", write=False) as log:
        events = log.read()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    counts = Counter(event.id for event in events)
    assert max(counts.values()) == 1
    by_id = {event.id: event for event in events}
    service = open_service(path)
    names = TaskNames(service.project.id, len(service.project.items))
    tasks = {event.task for event in events if event.task is not None}
    for name, command in sent.items():
        _check_kept(by_id[name], {**command, "task": names.task(command["task"], tasks)})
    own = {event.id for event in events if not event.id.startswith(("lease-", "queued-"))}
    assert own == set(sent), "only what was sent is there; all of it was confirmed in the end"
    try:
        state = replay(events, service.project.geometry)
        assert state == service.state
    finally:
        service.close()
    assert set(documents) == set(state.tasks)
    for task, document in documents.items():
        found = state.tasks[task]
        assert document["document"] == _as_json(describe_document(found))
        progress = describe_progress(found, time.time())
        assert (document["cursor"], document["n_ops"]) == (progress["cursor"], progress["n_ops"])
        assert document["status"] == progress["status"]


def _work_under_kills(server: Served) -> list[Client]:
    clients = []
    for i, person in enumerate(PEOPLE):
        http = httpx.Client(base_url=server.url, timeout=20.0, verify=False, auth=Signed(server.links[i]))
        assert http.get("/api/session").status_code == 200
        clients.append(Client(person, http, np.random.default_rng([7, i]), threading.Event()))
    threads = [threading.Thread(target=client.work, name=client.person) for client in clients]
    for thread in threads:
        thread.start()
    rng = np.random.default_rng(11)
    for _ in range(N_KILLS):
        _wait_for_progress(clients, int(rng.integers(20, 160)))
        time.sleep(float(rng.uniform(0, 0.1)))
        server.kill()
        server.start()
        for client, link in zip(clients, server.links[-len(server.people) :], strict=False):
            client.http.auth = Signed(link)
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    for client in clients:
        if client.failure is not None:
            raise client.failure
        assert client.ended.is_set()
    return clients


def _wait_for_progress(clients: list[Client], n_commands: int) -> None:
    """Until so many more commands were confirmed, so that kills are spread over the work."""

    def n_done() -> int:
        return sum(len(client.acknowledged) for client in clients)

    until, before = time.monotonic() + PATIENCE_SECONDS, n_done()
    while n_done() < before + n_commands and not all(client.ended.is_set() for client in clients):
        assert time.monotonic() < until
        time.sleep(0.005)


def _documents(client: Client, path: Path) -> dict[str, Any]:
    """All tasks that were touched, as the server shows them."""
    with EventLog.open(path, write=False) as log:
        tasks = {event.task for event in log.read() if event.task is not None}
    project = open_project(path.parent)
    names = TaskNames(project.id, len(project.items))
    return {task: client._ask("GET", f"/api/tasks/{names.public(task)}").json() for task in sorted(tasks)}


def _check_kept(event: Event, command: dict[str, Any]) -> None:
    kind = "corrected" if event.kind == "corrected" else command["kind"]
    assert (event.kind, event.task) == (kind, command["task"])
    if command["kind"] == "drafted":
        assert event.body["op"] == command["op"]
    if command["kind"] != "reopened":
        assert event.body["active_seconds"] == command["active_seconds"]


def _as_json(document: dict[str, Any]) -> dict[str, Any]:
    regions = [{**region, "polygon": [list(p) for p in region["polygon"]]} for region in document["regions"]]
    return {**document, "regions": regions}
