from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from label_project import make_project
from tiers import take, thorough

from cryoquery.errors import CryoqueryError
from cryoquery.project import backups
from cryoquery.project.backups import FOLDER, back_up, back_up_by_itself
from cryoquery.project.events import Command, EventLog, LogError
from cryoquery.project.folder import open_project


def command(name: str) -> Command:
    return Command(name, "ana", "drafted", "17", {"text": "ä" * 50})


@thorough
def test_copies_that_are_made_while_it_is_written_are_whole(tmp_path: Path) -> None:
    project = open_project(make_project(tmp_path / "p", 1))
    stop, n = threading.Event(), take(3, 10)

    def write() -> None:
        with EventLog.open(project.events_path, write=True) as log:
            while not stop.is_set():
                first = log.last_seq
                log.append([command(f"{first}-{i}") for i in range(20)])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        counts = [back_up(project, tmp_path / f"copy_{i}.sqlite") for i in range(n)]
    finally:
        stop.set()
        writer.join()
    for i, n_events in enumerate(counts):
        with EventLog.open(tmp_path / f"copy_{i}.sqlite", write=False) as log:
            assert [event.seq for event in log.read()] == list(range(1, n_events + 1))
    with EventLog.open(tmp_path / f"copy_{n - 1}.sqlite", write=True) as log:
        log.append([command("more")])
    assert not list(tmp_path.glob("*.partial"))
    with pytest.raises(CryoqueryError, match="exists already"):
        back_up(project, tmp_path / "copy_0.sqlite")


def test_a_few_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = open_project(make_project(tmp_path / "p", 1))
    said: list[str] = []
    for day in range(1, 13):
        monkeypatch.setattr(backups.time, "strftime", lambda _, day=day: f"2026-11-{day:02d}")
        for i in range(3):
            with EventLog.open(project.events_path, write=True) as log:
                log.append([command(f"{day}-{i}")])
            back_up_by_itself(project, said.append, daily=i == 2)
            back_up_by_itself(project, said.append)
            if i == 0:
                back_up_by_itself(project, said.append, daily=True)
    days = [path.name.split("_")[1][-2:] for path in sorted((project.path / FOLDER).iterdir())]
    assert days == ["06", "07", "08", "09", "10", "11", "11", "12", "12", "12"]
    assert said == []
    (project.path / FOLDER).rename(tmp_path / "kept")
    (project.path / FOLDER).write_text("in the way")
    back_up_by_itself(project, said.append)
    assert "no backup was made" in said[0]


def test_a_byte_that_is_not_what_was_recorded_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    for change in (
        "UPDATE events SET body = '{}' WHERE seq = 2",
        "UPDATE events SET body = x'7bff' WHERE seq = 2",
        "UPDATE events SET person = 'eve' WHERE seq = 2",
        "DELETE FROM events WHERE seq = 2",
        "DELETE FROM events WHERE seq = 1",
        "UPDATE events SET checksum = '' WHERE seq = 3",
    ):
        path.unlink(missing_ok=True)
        with EventLog.open(path, write=True) as log:
            log.append([command(name) for name in "abc"])
        with sqlite3.connect(path) as other:
            other.execute(change)
        other.close()
        with (
            EventLog.open(path, write=False) as log,
            pytest.raises(LogError, match=r"events\.sqlite: .*backup"),
        ):
            log.read()
        with EventLog.open(path, write=False) as log, pytest.raises(LogError):
            log.copy(tmp_path / "copy.sqlite")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["events.sqlite"]


def test_a_log_without_checksums_gets_them(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    with EventLog.open(path, write=True) as log:
        events = log.append([command(name) for name in "abc"])
    with sqlite3.connect(path) as older:
        older.execute("ALTER TABLE events DROP COLUMN checksum")
        older.execute("PRAGMA user_version = 1")
    older.close()
    with EventLog.open(path, write=False) as log:
        assert log.read() == events
    with EventLog.open(path, write=True) as log:
        assert log.read() == events
        log.append([command("d")])
    with EventLog.open(path, write=False) as log:
        assert len(log.read()) == 4
        assert log.read(after=3)[0].id == "d"


def test_pages_of_a_file_that_were_lost_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    with EventLog.open(path, write=True) as log:
        log.append([command(f"{i}") for i in range(200)])
    content = path.read_bytes()
    for place in range(4096, len(content) - 4096, 8192):
        path.write_bytes(content[:place] + bytes(4096) + content[place + 4096 :])
        with pytest.raises(LogError), EventLog.open(path, write=False) as log:
            log.read()
