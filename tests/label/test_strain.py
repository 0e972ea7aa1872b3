"""The labeling server while others misuse it, the disk is full, or nobody waits for it to end."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest
import uvicorn
from forks import Forked
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


HIDDEN = """import sys
from pathlib import Path
from cryoquery.label import serve
serve(Path(sys.argv[1]), by_socket=True, hide_links=True)
"""


def test_sigterm_leaves_no_link_and_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, sockets = make_project(tmp_path / "p", 1), tmp_path / "sockets"
    sockets.mkdir()
    monkeypatch.setenv("TMPDIR", str(sockets))
    process = Forked([sys.executable, "-c", HIDDEN, str(project)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = process.stdout.read1(1)  # type: ignore[attr-defined]
    deadline = time.monotonic() + 60
    while b"Ctrl-C" not in said and time.monotonic() < deadline:
        said += process.stdout.read1()  # type: ignore[attr-defined]
    assert (project / LINKS_FILE).exists()
    assert list(sockets.glob("cryoquery-*/socket"))
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == -signal.SIGTERM
    process.stdout.close()
    assert not (project / LINKS_FILE).exists()
    assert not list(sockets.iterdir())


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


@pytest.fixture
def failing_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None], Callable[[], None]]]:
    """A disk; what makes it fail so that the system lets nobody write to it; and what mends it."""
    folder, image = tmp_path / "disk", tmp_path / "image"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    mount = ["mount", "-o", "loop,errors=remount-ro", str(image), str(folder)]

    def does(*command: str) -> bool:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def device() -> str:
        lines = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        return Path(next(source for source, where, *_ in lines if where == str(folder))).name

    def fail() -> None:
        Path(f"/sys/fs/ext4/{device()}/trigger_fs_error").write_text("1")
        with pytest.raises(OSError, match="Read-only"):
            (folder / "any").touch()

    def mend() -> None:
        assert does("umount", str(folder))
        does("e2fsck", "-p", str(image))
        assert does(*mount)

    if os.getuid() or shutil.which("mkfs.ext4") is None or not does("mkfs.ext4", "-qF", str(image)):
        pytest.skip("no disk can be made here: not root, or no mkfs.ext4")
    if not does(*mount):
        pytest.skip("no disk can be mounted here")
    if not Path(f"/sys/fs/ext4/{device()}/trigger_fs_error").exists():
        does("umount", str(folder))
        pytest.skip("this kernel cannot be told that a disk fails")
    yield folder, fail, mend
    subprocess.run(["umount", "-l", folder], check=True)


def mark(person: httpx.Client, task: str, name: str) -> httpx.Response:
    """One particle marked."""
    act = {
        "id": name * 32,
        "kind": "drafted",
        "active_seconds": 1.0,
        "op": {"op": "add", "key": f"p{name}", "y": 20.0, "x": 20.0 + int(name, 16)},
    }
    return person.post(f"/api/tasks/{task}/commands", json={"commands": [act]})


def test_a_disk_that_becomes_read_only_costs_no_act(
    failing_disk: tuple[Path, Callable[[], None], Callable[[], None]], capfd: pytest.CaptureFixture[str]
) -> None:
    folder, fail, mend = failing_disk
    with served(make_project(folder / "p", 1)) as running:
        with logged_in(running, "anna") as anna:
            task = anna.post("/api/lease", json={}).json()["task"]
            assert mark(anna, task, "a").status_code == 200
            fail()
            refused = mark(anna, task, "b")
            assert refused.status_code == 503, refused.text
            assert "may be written to" in refused.json()["error"]
            assert len(anna.get(f"/api/tasks/{task}").json()["document"]["particles"]) == 1
            with logged_in(running, "ben") as ben:
                assert ben.get("/api/queue").status_code == 200
        running.stop()
        mend()
        running.start()
        with logged_in(running, "anna") as anna:
            assert [mark(anna, task, name).status_code for name in "ab"] == [200, 200]
    with EventLog.open(folder / "p" / "events.sqlite", write=False) as log:
        assert [event.id for event in log.read() if event.kind == "drafted"] == ["a" * 32, "b" * 32]
    assert "Traceback" not in capfd.readouterr().err


JUMPING = """import time, pathlib
now, ahead = time.time, pathlib.Path({!r})
time.time = lambda: now() + float(ahead.read_text())
"""


@pytest.mark.parametrize("days", [2, -2])
def test_clock_jumps_cost_no_act_and_no_session(tmp_path: Path, days: int) -> None:
    ahead = tmp_path / "ahead"
    ahead.write_text("0")
    project = make_project(tmp_path / "p", 3)
    with (
        served(project, before=JUMPING.format(str(ahead))) as running,
        logged_in(running, "anna") as anna,
        logged_in(running, "ben") as ben,
    ):
        task = anna.post("/api/lease", json={}).json()["task"]
        for name, jump in zip("abcd", (0, days, 0, -days), strict=True):
            (tmp_path / "new").write_text(str(jump * 86400))
            (tmp_path / "new").rename(ahead)
            assert mark(anna, task, name).status_code == 200
            assert anna.get("/api/queue").status_code == ben.get("/api/queue").status_code == 200
        (tmp_path / "new").write_text("0")
        (tmp_path / "new").rename(ahead)
        assert ben.post("/api/lease", json={}).json()["task"] not in (None, task)
        done = {"id": "e" * 32, "kind": "submitted", "active_seconds": 1.0}
        assert anna.post(f"/api/tasks/{task}/commands", json={"commands": [done]}).status_code == 200
    with EventLog.open(project / "events.sqlite", write=False) as log:
        kinds = [event.kind for event in log.read()]
    assert (kinds.count("drafted"), kinds.count("submitted")) == (4, 1)


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
