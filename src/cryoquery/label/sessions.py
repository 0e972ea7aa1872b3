"""Logins: one-time links become sessions, which are kept when the server stops."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from cryoquery.errors import CryoqueryError
from cryoquery.project.events import PROGRAM

LIFETIME_SECONDS = 14 * 24 * 3600.0
"""A session ends so long after its link was opened."""
MOST_SESSIONS = 200
"""The oldest are forgotten beyond that."""
LONGEST_NAME = 64


class PersonError(CryoqueryError):
    """A name that a person cannot have."""


@dataclass(frozen=True)
class Session:
    """A browser that was let in."""

    digest: str
    """SHA-256 of what its cookie holds; the cookie itself is kept nowhere."""
    person: str | None
    """None until a name was given."""
    fixed: bool
    """The name came with the link and stays."""
    since: float
    """Seconds since the epoch."""


def checked_name(name: str) -> str:
    """A person's name without spaces around it.

    Raises:
        PersonError: it is empty, too long, holds control characters, or is the program's own.
    """
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise PersonError(f"{name[:LONGEST_NAME]!r}: a name has 1 to {LONGEST_NAME} printable characters")
    if name.lower() == PROGRAM:
        raise PersonError(f"{name!r}: is the program's own name; choose another")
    return name


class Sessions:
    """Links that may be opened once, and the sessions that came of them.

    Not for several threads.

    Args:
        path: the private file that keeps the sessions and the port. Without it, or if it cannot be read,
            people need a new link.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._links: dict[str, str | None] = {}
        kept = _read(path)
        self.cookie = kept.cookie
        """The cookie's name. Browsers do not tell ports apart, and each project needs its own."""
        self.port = kept.port
        """Where the project was served last; None: not known."""
        self._sessions = {session.digest: session for session in kept.sessions}

    def remember_port(self, port: int) -> None:
        """Keep the port: what a browser has not sent yet belongs to an address, with its port."""
        if port != self.port:
            self.port = port
            self._write()

    def new_link(self, person: str | None) -> str:
        """A token that opens one session, for ``person``, or for a person who gives a name there."""
        token = secrets.token_urlsafe(32)
        self._links[token] = person
        return token

    def open(self, token: str) -> tuple[str, Session] | None:
        """Use a link up: what the cookie shall hold, and the session. None: wrong, or used before."""
        given = token.encode()
        # All are compared, so that the time it takes gives no hint.
        found = [known for known in self._links if hmac.compare_digest(known.encode(), given)]
        if not found:
            return None
        person = self._links.pop(found[0])
        secret = secrets.token_urlsafe(32)
        session = Session(_digest(secret), person, person is not None, time.time())
        self._sessions[session.digest] = session
        self._write()
        return secret, session

    def find(self, secret: str) -> Session | None:
        """The session of a cookie; None: unknown or ended."""
        session = self._sessions.get(_digest(secret))
        return session if session is not None and _lives(session) else None

    def rename(self, session: Session, person: str) -> Session:
        """Give the session its person.

        Raises:
            PersonError: it cannot be a name, or the link was made for another person.
        """
        person = checked_name(person)
        if session.fixed and person != session.person:
            raise PersonError(f"this link was made for {session.person}; ask for one of your own")
        if person != session.person:
            session = replace(session, person=person)
            self._sessions[session.digest] = session
            self._write()
        return session

    def _write(self) -> None:
        living = sorted(filter(_lives, self._sessions.values()), key=lambda session: session.since)
        self._sessions = {session.digest: session for session in living[-MOST_SESSIONS:]}
        kept = _Kept(cookie=self.cookie, port=self.port, sessions=living)
        _write_private(self._path, kept.model_dump_json().encode())


class _Kept(BaseModel):
    cookie: str
    sessions: list[Session]
    port: Annotated[int, Field(gt=0, lt=65536)] | None = None


def _read(path: Path) -> _Kept:
    try:
        return _Kept.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return _Kept(cookie=f"cryoquery_{secrets.token_hex(4)}", sessions=[])


def _write_private(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        # Private from the start: between making a file and closing it to others, it could be opened.
        with os.fdopen(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _lives(session: Session) -> bool:
    return time.time() - session.since < LIFETIME_SECONDS


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
