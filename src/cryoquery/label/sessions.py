"""Who is let in: one-time links become sessions, which end with the server.

A link holds a secret that is never sent: the browser makes the session's key of it and of a random part
of its own, signs each request with the key, and checks that the answer is signed with it too.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field, replace

from cryoquery.errors import CryoqueryError
from cryoquery.project.events import PROGRAM

SCHEME = "Cryoquery"
"""Of the header ``Authorization: Cryoquery SESSION NONCE DIGEST SIGNATURE``; the digest is the body's."""
LONGEST_NAME = 64
MOST_NONCES = 100_000
"""So many of the last requests of a session are known again."""
_ID = re.compile(r"[0-9a-f]{64}")
_LINK_DIGITS = 32


class PersonError(CryoqueryError):
    """A name that a person cannot have."""


@dataclass(frozen=True)
class Session:
    """A browser that was let in."""

    id: str
    """64 hexadecimal digits: 32 tell the link, 32 the browser."""
    key: bytes = field(repr=False)
    person: str | None
    """None until a name was given."""
    fixed: bool
    """The name came with the link and stays."""


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


def signature(key: bytes, *words: object) -> str:
    """HMAC-SHA-256 of the ``words`` with spaces between them, hexadecimal; `session.js` makes the same."""
    return hmac.new(key, " ".join(map(str, words)).encode(), hashlib.sha256).hexdigest()


def session_of(secret: str, browser: str) -> tuple[str, bytes]:
    """Id and key of the session of a link's ``secret`` in a ``browser`` (32 random hexadecimal digits)."""
    link = signature(secret.encode(), "link")[:_LINK_DIGITS]
    return link + browser, bytes.fromhex(signature(secret.encode(), "session", browser))


def authorization(
    session: str, key: bytes, method: str, target: str, body: bytes = b"", nonce: str | None = None
) -> str:
    """The header that signs a request, as `session.js` makes it; ``nonce``: None for a random one."""
    words = (nonce or secrets.token_hex(16), hashlib.sha256(body).hexdigest())
    return " ".join((SCHEME, session, *words, signature(key, method, target, *words)))


class Sessions:
    """Links that may be opened once, and the sessions that came of them. Not for several threads."""

    def __init__(self) -> None:
        self._links: dict[str, tuple[str, str | None]] = {}
        self._sessions: dict[str, Session] = {}
        self._nonces: dict[str, OrderedDict[str, None]] = {}

    def new_link(self, person: str | None) -> str:
        """A secret that opens one session, for ``person``, or for a person who gives a name there."""
        secret = secrets.token_urlsafe(32)
        link = session_of(secret, "")[0]
        self._links[link] = (secret, person)
        return secret

    def find(self, name: str) -> Session | None:
        """The session of that id, or the one that its link would open; None: there is neither."""
        if name in self._sessions or not _ID.fullmatch(name):
            return self._sessions.get(name)
        link, browser = name[:_LINK_DIGITS], name[_LINK_DIGITS:]
        if link not in self._links:
            return None
        secret, person = self._links[link]
        return Session(*session_of(secret, browser), person, person is not None)

    def open(self, session: Session) -> bool:
        """Use the link of a session up; whether it was one until now."""
        if self._links.pop(session.id[:_LINK_DIGITS], None) is None:
            return False
        self._sessions[session.id] = session
        self._nonces[session.id] = OrderedDict()
        return True

    def is_repeated(self, session: Session, nonce: str) -> bool:
        """Whether an opened session has sent a request with this ``nonce`` before."""
        nonces = self._nonces[session.id]
        if nonce in nonces:
            return True
        nonces[nonce] = None
        if len(nonces) > MOST_NONCES:
            nonces.popitem(last=False)
        return False

    def rename(self, session: Session, person: str) -> Session:
        """Give the session its person.

        Raises:
            PersonError: it cannot be a name, or the link was made for another person.
        """
        person = checked_name(person)
        if session.fixed and person != session.person:
            raise PersonError(f"this link was made for {session.person}; ask for one of your own")
        session = replace(session, person=person)
        self._sessions[session.id] = session
        return session
