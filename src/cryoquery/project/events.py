"""The log of a project: every command of a person and every new queue, in one file, append only.

The file is SQLite with a rollback journal, since a write-ahead log needs memory that machines on a network
file system do not share. A commit is on the disk, the folder's entry too, before an append returns. Each
event carries a checksum of itself and of all before it, so that a damaged file is noticed, not replayed.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryoquery.errors import ProjectError
from cryoquery.storage.atomic import write_file
from cryoquery.storage.leases import Owner, leased

VERSION = 2
"""Of the table; a file with a higher number was written by a newer cryoquery, 1 had no checksums."""
APPLICATION_ID = 0x43515259
"""Marks the file as ours ("CQRY")."""
BUSY_SECONDS = 20.0
"""How long one process waits for another that reads or writes."""
MAX_ID = 100
"""Characters in the id of a command."""
PROGRAM = "cryoquery"
"""The name in the log for what the program itself did; no person may have it."""
MADE_ON_ARRIVAL = frozenset({"until", "model", "suggested", "n_suggestions"})
"""Fields of a body that may differ when a command is sent again: they are filled in on arrival."""

_TABLE = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    time REAL NOT NULL,
    person TEXT NOT NULL,
    kind TEXT NOT NULL,
    task TEXT,
    body TEXT NOT NULL,
    checksum TEXT NOT NULL
)
"""
_COLUMNS = "seq, id, time, person, kind, task, body"


class LogError(ProjectError):
    """The log cannot be read or written at the moment, whatever the commands are: ask again later."""


@dataclass(frozen=True)
class Command:
    """What a person, or the program, asks to be recorded."""

    id: str
    """Chosen by the sender, unique: a command that is sent again is not recorded again."""
    person: str
    kind: str
    task: str | None
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """A command as it was recorded."""

    seq: int
    """1, 2, 3 … in the order of the log."""
    id: str
    time: float
    """Seconds since the epoch, UTC."""
    person: str
    kind: str
    task: str | None
    body: Mapping[str, Any]

    def repeats(self, command: Command) -> bool:
        """Whether ``command`` is the one that this event recorded, sent again; see `MADE_ON_ARRIVAL`."""
        same = all(getattr(self, name) == getattr(command, name) for name in ("id", "person", "kind", "task"))
        return same and _as_sent(self.body) == _as_sent(_read_back(command))


class EventLog:
    """The log, open; one process writes, any number read. Threads of a process may share it."""

    def __init__(self, path: Path, connection: sqlite3.Connection, held: ExitStack, *, write: bool) -> None:
        self.path = path
        self.writes = write
        self._connection = connection
        self._lock = threading.RLock()
        self._checked = write or _pragma(connection, "user_version") > 1
        self._last = _last(connection) if write else None
        """Number of the last event that this writer knows of; None: not known after a failure."""
        self._held = held.pop_all()

    @classmethod
    def open(cls, path: Path, *, write: bool) -> EventLog:
        """Open the log at ``path``; a writer makes it where there is none, and keeps other writers out.

        A writer that was killed on this machine is replaced at once; one on another machine when it has
        had no heartbeat for two minutes.

        Raises:
            ProjectError: another process writes it, it is missing (for a reader) or its folder is, it is of
                a newer version, or no log of a project.
            LogError: the disk fails, or the file is no database.
        """
        with ExitStack() as held:
            if write and not path.parent.is_dir():
                raise ProjectError(f"{path.parent}: no such folder; make the project with cryoquery init")
            if write:
                lease = path.with_name(f"{path.name}.writer")
                held.enter_context(leased(lease, refusal=lambda owner: _refusal(path, owner)))
            elif not path.is_file():
                raise ProjectError(f"{path}: no such file; make the project with cryoquery init")
            with _named(path):
                connection = _connect(path.absolute(), write=write)
                held.callback(connection.close)
                return cls(path, connection, held, write=write)

    def append(self, commands: Sequence[Command], *, now: float | None = None) -> list[Event]:
        """Record ``commands`` in order, all or none; they are on the disk when this returns.

        Args:
            commands: a command whose id is in the log already is answered with the old event.
            now: seconds since the epoch, UTC; None: the clock's.

        Returns:
            One event per command, in their order.

        Raises:
            ProjectError: an id is in the log with other content, or a body is not JSON.
            LogError: the disk is full or fails, or another process has written meanwhile.
        """
        assert self.writes, "a log that was opened to be read"
        now = time.time() if now is None else now
        with self._lock, _named(self.path):
            known = self.find(command.id for command in commands)
            fresh = fresh_commands(commands, known)
            if fresh:
                with self._transaction() as last:
                    new = number(fresh, last + 1, now)
                    rows = [(e.seq, e.id, e.time, e.person, e.kind, e.task, _text(e.body)) for e in new]
                    sums = _checksums(self._checksum_of(last), rows)
                    self._connection.executemany(
                        f"INSERT INTO events ({_COLUMNS}, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                        [(*row, checksum) for row, checksum in zip(rows, sums, strict=True)],
                    )
                self._last = new[-1].seq
                known |= {event.id: event for event in new}
            return [known[command.id] for command in commands]

    @contextmanager
    def _transaction(self) -> Iterator[int]:
        """A transaction that is committed at the end; gives the number of the last event."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            last = _last(self._connection)
            if self._last is not None and last != self._last:
                raise LogError(f"{self.path}: another process has written to it; start this one again")
            self._last = None  # until it is known how this ends
            yield last

    def read(self, after: int = 0) -> list[Event]:
        """The events with numbers above ``after``, in order.

        Raises:
            LogError: the file cannot be read, or an event is not what was recorded.
        """
        checksum = "checksum" if self._checked else "NULL"
        with self._lock, _named(self.path):
            rows = self._connection.execute(
                f"SELECT {_COLUMNS}, {checksum} FROM events WHERE seq > ? ORDER BY seq", (after,)
            ).fetchall()
            before = self._checksum_of(after) if self._checked else ""
        events = [_event(self.path, row[:-1]) for row in rows]
        sums = _checksums(before, [row[:-1] for row in rows])
        for row, number_, checksum in zip(rows, range(after + 1, after + 1 + len(rows)), sums, strict=True):
            if row[0] != number_ or row[-1] not in (checksum, None):
                raise _damaged(self.path, f"event {number_}")
        return events

    def _checksum_of(self, seq: int) -> str:
        found = self._connection.execute("SELECT checksum FROM events WHERE seq = ?", (seq,)).fetchone()
        return str(found[0]) if found else ""

    def copy(self, path: Path) -> int:
        """Copy the log to ``path``, also while another process writes it; checked. The number of events.

        Raises:
            LogError: the disk fails, or the log is damaged.
            OSError: the folder cannot be written to.
        """
        with write_file(path) as stream:
            partial = Path(stream.name)
            with self._lock, _named(self.path), closing(sqlite3.connect(partial)) as target:
                self._connection.backup(target)
            with EventLog.open(partial, write=False) as copied:
                return len(copied.read())

    def find(self, ids: Iterable[str]) -> dict[str, Event]:
        """The events with these ids, of those that are there.

        Raises:
            LogError: the file cannot be read.
        """
        question = f"SELECT {_COLUMNS} FROM events WHERE id IN (SELECT value FROM json_each(?))"
        with self._lock, _named(self.path):
            rows = self._connection.execute(question, (json.dumps(list(ids)),)).fetchall()
        return {row[1]: _event(self.path, row) for row in rows}

    @property
    def last_seq(self) -> int:
        """Number of the last event; 0: none yet."""
        with self._lock, _named(self.path):
            return _last(self._connection)

    def close(self) -> None:
        """Close the file, and let others write."""
        with self._lock:
            self._held.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def number(commands: Sequence[Command], first: int, now: float) -> list[Event]:
    """The events that ``commands`` become: numbered from ``first``, their bodies as they are read back.

    Raises:
        ProjectError: an id or a body that cannot be kept.
    """
    return [
        Event(
            first + i, command.id, float(now), command.person, command.kind, command.task, _read_back(command)
        )
        for i, command in enumerate(commands)
    ]


def fresh_commands(commands: Sequence[Command], known: Mapping[str, Event]) -> list[Command]:
    """The commands that are not among the ``known`` ones; one that stands there twice is kept once.

    Raises:
        ProjectError: an id is known, or stands there twice, with other content.
    """
    fresh: dict[str, Command] = {}
    for command in commands:
        old = known.get(command.id)
        same = old.repeats(command) if old is not None else fresh.setdefault(command.id, command) == command
        if not same:
            raise ProjectError(f"command {command.id!r}: was recorded with other content; use a new id")
    return list(fresh.values())


def _as_sent(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in MADE_ON_ARRIVAL}


def _read_back(command: Command) -> dict[str, Any]:
    """The body of ``command`` as it is read from the log; refuses what cannot be kept."""
    if not 0 < len(command.id) <= MAX_ID:
        raise ProjectError(f"command {command.id[:MAX_ID]!r}: an id has 1 to {MAX_ID} characters")
    try:
        for text in (command.id, command.person, command.kind, command.task or ""):
            text.encode()
        body = json.loads(_text(command.body))
    except (TypeError, ValueError, RecursionError) as error:
        raise ProjectError(f"command {command.id!r}: cannot be kept as JSON in UTF-8 ({error})") from None
    assert isinstance(body, dict)
    return body


def _text(body: Mapping[str, Any]) -> str:
    return json.dumps(dict(body), allow_nan=False, separators=(",", ":"))


def _event(path: Path, row: Sequence[Any]) -> Event:
    seq, name, when, person, kind, task, body = row
    try:
        return Event(seq, name, when, person, kind, task, json.loads(body))
    except (TypeError, ValueError, RecursionError):
        raise _damaged(path, f"event {seq}") from None


def _checksums(before: str, rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """One per row, of the row and of the checksum ``before`` it."""
    for row in rows:
        before = hashlib.blake2b(json.dumps([before, *row]).encode(), digest_size=16).hexdigest()
        yield before


def _damaged(path: Path, what: str) -> LogError:
    return LogError(f"{path}: {what} is not what was recorded; put a backup in its place (see backups/)")


def _last(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])


def _refusal(path: Path, writer: Owner | None) -> ProjectError:
    return ProjectError(f"{path}: {writer} is writing it; stop that first, or use it there")


def _connect(path: Path, *, write: bool) -> sqlite3.Connection:
    if write:
        return _prepared(path, "rwc", write=True)
    try:
        return _prepared(path, "ro", write=False)
    except sqlite3.OperationalError:
        # A killed writer left its journal behind; a process that may write rolls the unfinished command back.
        if not path.with_name(f"{path.name}-journal").exists():
            raise
        return _prepared(path, "rw", write=False)


def _prepared(path: Path, mode: str, *, write: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        if write:
            # EXTRA is FULL, and flushes the folder too: a commit is the removal of the journal from it.
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("PRAGMA synchronous = EXTRA")
        else:
            connection.execute("PRAGMA query_only = ON")
        _check_version(path, connection, write=write)
    except BaseException:
        connection.close()
        raise
    return connection


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _check_version(path: Path, connection: sqlite3.Connection, *, write: bool) -> None:
    def pragma(name: str) -> int:
        return _pragma(connection, name)

    n_tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    if write and n_tables == 0 and pragma("application_id") == 0 and pragma("user_version") == 0:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        return
    if pragma("application_id") != APPLICATION_ID:
        raise ProjectError(f"{path}: is not the log of a cryoquery project; move it away")
    if pragma("user_version") > VERSION:
        raise ProjectError(
            f"{path}: was written by a newer cryoquery (version {pragma('user_version')} of the log, "
            f"this one knows {VERSION}); update cryoquery"
        )
    if (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise _damaged(path, f"the file ({found})")
    if write and pragma("user_version") == 1:
        _add_checksums(connection)


def _add_checksums(connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ALTER TABLE events ADD COLUMN checksum TEXT NOT NULL DEFAULT ''")
        rows = connection.execute(f"SELECT {_COLUMNS} FROM events ORDER BY seq").fetchall()
        sums = zip(_checksums("", rows), (row[0] for row in rows), strict=True)
        connection.executemany("UPDATE events SET checksum = ? WHERE seq = ?", list(sums))
        connection.execute(f"PRAGMA user_version = {VERSION}")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of SQLite in one line that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        if "not a database" in str(error):
            way_out = "move it away"
        else:
            way_out = "see that the disk has room, works and may be written to; nothing half is recorded"
        raise LogError(f"{path}: {error}; {way_out}") from None
