from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryoquery.errors import ProjectError
from cryoquery.project.events import VERSION, Command, Event, EventLog, number
from cryoquery.storage import leases as leases
from cryoquery.storage.leases import Owner

APPENDS = """
import sys
from pathlib import Path
from cryoquery.project.events import Command, EventLog
log = EventLog.open(Path(sys.argv[1]), write=True)
for i in range(100_000):
    log.append([Command(f"{sys.argv[2]}-{i}-{j}", "ana", "drafted", "1", {"i": i}) for j in range(3)])
    print(f"{sys.argv[2]}-{i}", flush=True)
"""
HALF_A_COMMAND = """
import os, sys
from pathlib import Path
from cryoquery.project.events import Command, EventLog
log = EventLog.open(Path(sys.argv[1]), write=True)
log.append([Command("a", "ana", "drafted", "1", {"i": "x" * 200_000})])
log._connection.execute("PRAGMA cache_size = 5")
log._connection.execute("BEGIN IMMEDIATE")
log._connection.execute("UPDATE events SET person = 'ben', body = ?", ('"' + "y" * 400_000 + '"',))
os._exit(0)
"""


def command(name: str, **body: object) -> Command:
    return Command(name, "ana", "drafted", "17", body)


def ids(log: EventLog) -> list[str]:
    return [event.id for event in log.read()]


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    with EventLog.open(path, write=True) as log:
        new = log.append(
            [command("a", y=0.1, op={"keys": ["p1"]}), Command("b", "Żółć ☃", "queued", None, {})], now=2.5
        )
        assert new[0] == Event(1, "a", 2.5, "ana", "drafted", "17", {"y": 0.1, "op": {"keys": ["p1"]}})
        assert [event.seq for event in new] == [1, 2]
        assert log.read() == new
        assert log.read(after=1) == new[1:]
        assert log.find(["b", "c"]) == {"b": new[1]}
        assert log.last_seq == 2
        with EventLog.open(path, write=False) as reader:
            assert reader.read() == new
            log.append([command("c")])
            assert [event.id for event in reader.read(after=2)] == ["c"], "a reader sees what comes later"
    with EventLog.open(path, write=True) as log:
        assert log.read()[:2] == new
    assert [file.name for file in tmp_path.iterdir()] == [path.name], "nothing stays beside it"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=15, deadline=None)
@given(
    bodies=st.lists(st.dictionaries(st.text(max_size=3), JSON, max_size=3), max_size=4),
    now=st.floats(0, 1e11),
)
def test_events_are_read_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[dict[str, object]], now: float
) -> None:
    commands = [Command(str(i), "ana", "drafted", None, body) for i, body in enumerate(bodies)]
    with EventLog.open(tmp_path_factory.mktemp("log") / "e", write=True) as log:
        assert log.append(commands, now=now) == log.read() == number(commands, 1, now)


def test_a_command_that_is_sent_again_is_recorded_once(tmp_path: Path) -> None:
    with EventLog.open(tmp_path / "e", write=True) as log:
        [first] = log.append([command("a", y=1.0)], now=1.0)
        assert log.append([command("b"), command("a", y=1.0), command("b")], now=2.0)[1] == first
        assert ids(log) == ["a", "b"]
        for other in (
            command("a", y=2.0),
            replace(command("a", y=1.0), person="ben"),
            Command("a", "ana", "undone", "17", {}),
        ):
            with pytest.raises(ProjectError, match=r"command 'a'.*other content"):
                log.append([command("c"), other])
        with pytest.raises(ProjectError, match=r"command 'd'.*other content"):
            log.append([command("d"), command("d", y=1)])
        assert ids(log) == ["a", "b"]


def test_what_the_server_fills_in_may_differ_the_second_time(tmp_path: Path) -> None:
    with EventLog.open(tmp_path / "e", write=True) as log:
        [first] = log.append([command("a", until=10.0, active_seconds=1.0)])
        assert log.append([command("a", until=20.0, active_seconds=1.0)]) == [first]
        with pytest.raises(ProjectError, match="other content"):
            log.append([command("a", until=10.0, active_seconds=2.0)])


@pytest.mark.parametrize(
    "bad",
    [
        command("nan", y=float("nan")),
        command("x", y=object()),
        command(""),
        command("i" * 101),
        Command("x", "\ud800", "drafted", None, {}),
    ],
)
def test_what_cannot_be_kept_is_refused(tmp_path: Path, bad: Command) -> None:
    with EventLog.open(tmp_path / "e", write=True) as log:
        with pytest.raises(ProjectError, match=r"^command .*"):
            log.append([command("good"), bad])
        assert ids(log) == []


def test_a_full_disk_takes_nothing_of_it(tmp_path: Path) -> None:
    with EventLog.open(tmp_path / "e", write=True) as log:
        log.append([command("a")])
        log._connection.execute("PRAGMA max_page_count = 8")
        with pytest.raises(ProjectError, match="full"):
            log.append([command("b"), command("c", text="x" * 100_000)])
        assert ids(log) == ["a"]
        log._connection.execute("PRAGMA max_page_count = 100000")
        log.append([command("b"), command("c", text="x" * 100_000)])
        assert ids(log) == ["a", "b", "c"]


def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    with EventLog.open(tmp_path / "e", write=True) as log:
        assert log._connection.execute("PRAGMA synchronous").fetchone() == (3,)
        assert log._connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_only_our_own_logs_are_opened(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"missing.*no such file.*cryoquery init"):
        EventLog.open(tmp_path / "missing", write=False)
    with pytest.raises(ProjectError, match=r"nowhere: no such folder.*cryoquery init"):
        EventLog.open(tmp_path / "nowhere" / "events.sqlite", write=True)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "text").write_text("no database at all, but long enough to look like something else\n" * 20)
    with sqlite3.connect(tmp_path / "other") as other:
        other.execute("CREATE TABLE things (a)")
    other.close()
    EventLog.open(tmp_path / "newer", write=True).close()
    with sqlite3.connect(tmp_path / "newer") as newer:
        newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    newer.close()
    for write in (True, False):
        with pytest.raises(ProjectError, match=r"text: .*not a database; move it away"):
            EventLog.open(tmp_path / "text", write=write)
        with pytest.raises(ProjectError, match=r"other: is not the log of a cryoquery project"):
            EventLog.open(tmp_path / "other", write=write)
        with pytest.raises(ProjectError, match=r"newer: .*newer cryoquery \(version 3 .*update"):
            EventLog.open(tmp_path / "newer", write=write)
    assert not list(tmp_path.glob("*.writer"))


def test_names_of_files_with_odd_characters(tmp_path: Path) -> None:
    path = tmp_path / "a?b#c%20 d.sqlite"
    with EventLog.open(path, write=True) as log:
        log.append([command("a")])
    with EventLog.open(path, write=False) as log:
        assert ids(log) == ["a"]
    assert path.is_file()


def test_one_writer(tmp_path: Path) -> None:
    with EventLog.open(tmp_path / "e", write=True):
        with pytest.raises(ProjectError, match=rf"e: process {os.getpid()} on .* is writing it; stop"):
            EventLog.open(tmp_path / "e", write=True)
        EventLog.open(tmp_path / "e", write=False).close()
    EventLog.open(tmp_path / "e", write=True).close()


def test_a_writer_on_another_machine_is_seen_by_its_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(leases, "SILENT_SECONDS", 0.3)
    there = asdict(replace(Owner.myself(), host="another-machine"))
    lease = tmp_path / "e.writer"
    lease.write_text(f"{0:12d}\n{json.dumps({'token': 't', **there})}\n")
    EventLog.open(tmp_path / "e", write=True).close()

    lease.write_text(f"{0:12d}\n{json.dumps({'token': 't', **there})}\n")
    beat = threading.Timer(0.1, lambda: lease.write_text(f"{1:12d}\n{json.dumps({'token': 't', **there})}\n"))
    beat.start()
    with pytest.raises(ProjectError, match="on another-machine is writing it"):
        EventLog.open(tmp_path / "e", write=True)
    beat.join()


def test_somebody_who_writes_behind_its_back_is_noticed(tmp_path: Path) -> None:
    with EventLog.open(tmp_path / "e", write=True) as log:
        log.append([command("a")])
        with sqlite3.connect(tmp_path / "e") as other:
            other.execute("INSERT INTO events VALUES (2, 'x', 0, 'eve', 'drafted', NULL, '{}', '')")
        other.close()
        for _ in range(2):
            with pytest.raises(ProjectError, match="another process has written"):
                log.append([command("b")])


def test_threads_share_a_log(tmp_path: Path) -> None:
    def append(name: str) -> None:
        for i in range(10):
            log.append([command(f"{name}{i}"), command("shared")])

    with EventLog.open(tmp_path / "e", write=True) as log:
        threads = [threading.Thread(target=append, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        events = log.read()
    assert [event.seq for event in events] == list(range(1, 42))
    for name in "abcd":
        assert [e.id for e in events if e.id.startswith(name)] == [f"{name}{i}" for i in range(10)]


def test_what_was_acknowledged_survives_kills(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    acknowledged: list[str] = []
    for turn in range(5):
        arguments = [sys.executable, "-c", APPENDS, str(path), str(turn)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            acknowledged.append(process.stdout.readline().strip())
            time.sleep(0.03 * turn)
            process.kill()
            acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
        with EventLog.open(path, write=False) as reader:
            events = reader.read()
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        found = [event.id for event in events]
        assert len(set(found)) == len(found)
        assert {f"{name}-{j}" for name in acknowledged for j in range(3)} <= set(found)
        assert len(found) % 3 == 0, "no batch is there in part"
    with EventLog.open(path, write=True) as log:
        log.append([command("last")])
        assert log.read()[:-1] == events


@pytest.mark.parametrize("write", [True, False])
def test_half_a_command_is_taken_back(tmp_path: Path, write: bool) -> None:
    path = tmp_path / "events.sqlite"
    subprocess.run([sys.executable, "-c", HALF_A_COMMAND, str(path)], check=True)
    assert path.with_name(f"{path.name}-journal").stat().st_size > 0, "the writer stopped in the middle"
    with EventLog.open(path, write=write) as log:
        [event] = log.read()
    assert (event.person, event.body) == ("ana", {"i": "x" * 200_000})
