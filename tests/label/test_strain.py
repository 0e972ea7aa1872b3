"""The labeling server while others misuse it, the disk is full, or nobody waits for it to end."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest
import uvicorn
from label_project import Signed, logged_in, make_project, served, write_step

from cryoquery.label import serve, server
from cryoquery.label.connections import MOST_STRANGERS, Connections
from cryoquery.label.serve import LINKS_FILE
from cryoquery.project.events import EventLog

N_IDLE = 2050


class Transport:
    """A connection as far as it is counted."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_strangers_make_room_and_people_stay() -> None:
    async def come() -> None:
        connections = Connections(most=2, seconds=0.05)
        all_of_them = [Transport() for _ in range(5)]
        for i, transport in enumerate(all_of_them):
            connections.come(("127.0.0.1", i), transport)  # type: ignore[arg-type]
            if i == 0:
                connections.know(("127.0.0.1", 0))
        assert [t.aborted for t in all_of_them] == [False, True, True, False, False]
        connections.know(("127.0.0.1", 4))
        connections.know(("127.0.0.1", 77))
        await asyncio.sleep(0.2)
        assert [t.aborted for t in all_of_them] == [False, True, True, True, False]

    asyncio.run(come())


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_idle_connections_lock_nobody_out(tmp_path: Path) -> None:
    with served(make_project(tmp_path / "p", 1)) as running, logged_in(running, "anna") as anna:
        port = httpx.URL(running.url).port or 0
        with ExitStack() as stack:
            for i in range(N_IDLE):
                idle = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
                if i % 3 == 0:  # a header that never ends
                    idle.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
            assert anna.get("/api/session").status_code == 200
            with logged_in(running, "ben") as ben:
                assert ben.get("/api/queue").status_code == 200
            assert N_IDLE > MOST_STRANGERS + 500


SLOW_PICTURES = """import time
from cryoquery.label import pictures
pictures.picture = lambda *_: time.sleep(60)
"""


@pytest.mark.parametrize("n_signals", [1, 2])
def test_ctrl_c_ends_it_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str], n_signals: int) -> None:
    with served(make_project(tmp_path / "p", 1), before=SLOW_PICTURES) as running:
        with logged_in(running, "anna") as anna:
            with pytest.raises(httpx.ReadTimeout):
                anna.get("/api/items/0/picture", timeout=0.5)
            for _ in range(n_signals):
                running.process.send_signal(signal.SIGINT)
                time.sleep(0.2)
            running.process.wait(20)  # the picture takes 60 s; two are enough where the machine is idle
        assert running.process.returncode == 0
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.getuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_costs_no_link_and_no_act(small_disk: Path) -> None:
    with served(make_project(small_disk / "p", 1)) as running:
        (small_disk / "full").touch()
        with (small_disk / "full").open("wb", buffering=0) as full:
            try:
                while True:
                    full.write(bytes(1 << 12))
            except OSError:
                pass
        with logged_in(running, "anna") as anna:
            assert anna.post("/api/session", json={"person": "ann"}).json()["person"] == "ann"
            refused = anna.post("/api/lease", json={})
            assert refused.status_code == 503
            assert "disk" in refused.json()["error"]
            (small_disk / "full").unlink()
            assert anna.post("/api/lease", json={}).json()["mine"]


def test_a_damaged_step_does_not_stop_the_next(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "POLL_SECONDS", 0.05)
    project = make_project(tmp_path / "p")
    damaged = write_step(project, 1, [0]) / "query.json"
    damaged.write_text(damaged.read_text().replace("0.5", "1e400"))
    with served(project) as running, logged_in(running, "anna") as anna:
        write_step(project, 2, [3])
        deadline = time.monotonic() + 30
        while (queue := anna.get("/api/queue").json())["step"] != 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert queue["step"] == 2
    assert "Traceback" not in capfd.readouterr().err


def test_a_backup_is_made_each_day(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", 1)
    with served(project):
        deadline = time.monotonic() + 30
        while not (made := list((project / "backups").glob("*.sqlite"))) and time.monotonic() < deadline:
            time.sleep(0.05)
    with EventLog.open(made[0], write=False) as copied:
        assert copied.last_seq == 1


def test_links_that_others_could_read_go_to_a_private_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, said, seen = make_project(tmp_path / "p", 1), [], []  # type: ignore[var-annotated]
    links = project / LINKS_FILE
    links.touch(0o666)

    def run(*_: object, **__: object) -> None:
        seen.append((links.read_text(), links.stat().st_mode & 0o777))

    monkeypatch.setattr("uvicorn.Server.run", run)
    mask = os.umask(0)
    try:
        serve(project, people=["anna", "ben"], say=said.append, hide_links=True)
    finally:
        os.umask(mask)
    ((content, mode),) = seen
    assert content.count("#token=") == 2
    assert mode == 0o600
    assert not any("token" in line for line in said)
    assert any(str(links) in line for line in said)
    assert not links.exists()


def test_by_a_socket_only_its_owner_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "p", 1)
    running, said = threading.Event(), []  # type: ignore[var-annotated]

    def say(line: str) -> None:
        said.append(line)
        if "Ctrl-C" in line:
            running.set()

    class Stoppable(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            made.append(self)

    made: list[uvicorn.Server] = []
    monkeypatch.setattr("uvicorn.Server", Stoppable)
    thread = threading.Thread(target=partial(serve, project, by_socket=True, say=say))
    thread.start()
    assert running.wait(60)
    (forward,) = [line.split()[3] for line in said if "ssh -N -L" in line]
    path = Path(forward.partition(":")[2])
    assert path.parent.stat().st_mode & 0o777 == 0o700
    (link,) = [line.strip() for line in said if "#token" in line]
    assert link.startswith("http://127.0.0.1:8765/open/")
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(path)), base_url="http://127.0.0.1:8765", auth=Signed(link)
    ) as client:
        assert client.post("/api/session", json={"person": "anna"}).json()["person"] == "anna"
    if os.getuid() == 0:
        as_another = (
            f"import socket,os; os.setuid(65534); socket.socket(socket.AF_UNIX).connect({str(path)!r})"
        )
        refused = subprocess.run([sys.executable, "-c", as_another], check=False, capture_output=True)
        assert b"PermissionError" in refused.stderr
    made[0].should_exit = True
    thread.join(30)
    assert not path.parent.exists()
