"""What is checked of every request before anything else uses it.

The server listens on loopback only. That keeps the network out, but not other users of the machine, nor
other pages in the browser: so a request needs the signature of a session, a Host that is a name of loopback
(DNS rebinding), no foreign Origin, a path that is plainly one of ours and a body of moderate size. Only the
page's own files are sent to anybody. Every other answer is signed too, so that the page can tell it from
what another program at its address says; ``docs/dev/security.md`` has the whole of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import math
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cryoquery.label.sessions import SCHEME, Session, Sessions, signature

LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.ASCII | re.IGNORECASE)
"""Any port: ``ssh -L`` may lead here from another one."""
_AUTHORIZATION = re.compile(SCHEME + r" ([0-9a-f]{64}) ([0-9a-f]{32}) ([0-9a-f]{64}) ([0-9a-f]{64})")
PROOF = "Cryoquery-Proof"
"""The header of an answer: the request's nonce, and the signature of the answer."""
LINK_PATH = "/open/"
"""How the paths of links begin; the page is there, too."""
MOST_BODY_BYTES = 1_000_000
MOST_DRAINED_BYTES = 16_000_000
"""So much of a too large body is read on: a browser that is still sending does not read the answer."""
BODY_SECONDS = 20.0
DRAIN_SECONDS = 2.0
MOST_AT_ONCE = 256
"""Requests under way."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class RefusedError(HTTPException):
    """A request that is answered with a status and one sentence, and has no effect."""

    def __init__(self, status: int, sentence: str, retry_after: float | None = None) -> None:
        wait = None if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}
        super().__init__(status, sentence, wait)


RATES = {"commands": (50.0, 200.0), "reads": (50.0, 200.0), "pictures": (50.0, 400.0)}
"""Requests of a session per second, and at once. A list of 200 thumbnails is asked for at once."""
MOST_BUCKETS = 1000


class TokenBucket:
    """At most ``burst`` at once, and ``rate`` per second in the long run."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._at = burst, clock()

    def take(self) -> float:
        """0.0, or the seconds to wait before one more is allowed."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / self._rate
        self._left -= 1
        return 0.0


class Limits:
    """The buckets of each session, one per kind of request."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[tuple[str, str], TokenBucket] = OrderedDict()

    def check(self, session: Session, kind: str) -> None:
        """Raises: RefusedError: 429, too many requests of this kind."""
        key = (session.id, kind)
        bucket = self._buckets.pop(key, None) or TokenBucket(*RATES[kind])
        self._buckets[key] = bucket
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        if wait := bucket.take():
            raise RefusedError(429, "too many requests; wait a moment", wait)


class SignedRequest(NamedTuple):
    """A request whose signature is right."""

    session: Session
    method: str
    target: str
    nonce: str
    digest: str
    """SHA-256 of the body that belongs to it."""

    def proof(self, status: int, body: bytes) -> str:
        """What shows the browser that the answer is this server's, to this request."""
        digest = hashlib.sha256(body).hexdigest()
        words = (status, self.method, self.target, self.nonce, digest)
        return f"{self.nonce} {signature(self.session.key, *words)}"


class Guard:
    """ASGI middleware that refuses what it should, signs answers, and adds the headers that browsers heed.

    What passes has its session in ``scope["state"]["session"]``, and its body was read; files of the page
    have neither.

    Args:
        app: what is guarded.
        sessions: who is let in.
        opened: called when a link was used, with the person it was made for.
        admitted: called with each request that a session has signed.
    """

    def __init__(
        self,
        app: ASGIApp,
        sessions: Sessions,
        opened: Callable[[str | None], None],
        admitted: Callable[[Scope], None],
    ) -> None:
        self._app = app
        self._sessions = sessions
        self._opened = opened
        self._admitted = admitted
        self._limits = Limits()
        self._n_under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no WebSockets are spoken
        send = _with_headers(send)
        try:
            _check_origin(scope)
            _check_path(scope)
            if _is_of_page(scope):
                await self._app(scope, receive, send)
                return
            request = self._signed(scope)
        except RefusedError as refusal:
            await _refusal(refusal)(scope, receive, send)
            return
        self._admitted(scope)
        send = _with_proof(send, request)
        self._n_under_way += 1
        try:
            self._admit(scope, request)
            body = await _read_body(Headers(scope=scope), receive)
            if hashlib.sha256(body).hexdigest() != request.digest:
                raise RefusedError(429, "the body was changed on its way; send it again")
            scope.setdefault("state", {})["session"] = request.session
            await self._app(scope, _replay(body, receive), send)
        except RefusedError as refusal:
            await _refusal(refusal)(scope, receive, send)
        finally:
            self._n_under_way -= 1

    def _signed(self, scope: Scope) -> SignedRequest:
        """Raises: RefusedError: 401, it is not signed with the key of a session."""
        stranger = RefusedError(401, "not logged in; open the link that the terminal shows")
        parts = _AUTHORIZATION.fullmatch(Headers(scope=scope).get("authorization", ""))
        if parts is None:
            raise stranger
        name, nonce, digest, given = parts.groups()
        session = self._sessions.find(name)
        target = (
            scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        ).decode("latin-1")
        method = scope["method"]
        if session is None or not hmac.compare_digest(
            given, signature(session.key, method, target, nonce, digest)
        ):
            raise stranger
        if self._sessions.open(session):
            self._opened(session.person)
        return SignedRequest(session, method, target, nonce, digest)

    def _admit(self, scope: Scope, request: SignedRequest) -> None:
        if scope["method"] not in ("GET", "POST"):
            raise RefusedError(405, f"{scope['method']}: only GET and POST are answered")
        if self._n_under_way > MOST_AT_ONCE:
            raise RefusedError(429, "too many requests at once; wait a moment", 1.0)
        if self._sessions.is_repeated(request.session, request.nonce):
            raise RefusedError(429, "this request was answered before; sign it anew")
        self._limits.check(request.session, _kind(scope))
        if scope["method"] == "POST":
            content_type = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
            if content_type != "application/json":
                raise RefusedError(415, "the body must be application/json")


def _is_of_page(scope: Scope) -> bool:
    """Whether a file of the page is asked for, which nothing secret is in."""
    path: str = scope["path"]
    return scope["method"] == "GET" and (path == "/" or path.startswith(("/static/", LINK_PATH)))


def _check_path(scope: Scope) -> None:
    raw = scope["raw_path"]
    if b"%" in raw or b".." in raw or b"\\" in raw or b"//" in raw or not scope["path"].startswith("/"):
        raise RefusedError(404, "there is nothing here")


def _kind(scope: Scope) -> str:
    if scope["method"] == "POST":
        return "commands"
    return "pictures" if scope["path"].startswith("/api/items/") else "reads"


def _check_origin(scope: Scope) -> None:
    """Raises: RefusedError: 403, the request came from another page, or by another name than loopback's."""
    headers = Headers(scope=scope)
    hosts = headers.getlist("host")
    if len(hosts) != 1 or LOOPBACK.fullmatch(hosts[0]) is None:
        raise RefusedError(403, "wrong Host; open the page at 127.0.0.1 or localhost")
    origins = headers.getlist("origin")
    if any(origin.lower() != f"http://{hosts[0]}".lower() for origin in origins):
        raise RefusedError(403, "requests from other pages are refused")
    # Browsers send this where they send no Origin, and count other ports of localhost as "same-site".
    site = headers.get("sec-fetch-site", "none")
    followed = (scope["path"] == "/" or scope["path"].startswith(LINK_PATH)) and headers.get(
        "sec-fetch-mode"
    ) == "navigate"
    if site not in ("none", "same-origin") and not followed:
        raise RefusedError(403, "requests from other pages are refused")


async def _read_body(headers: Headers, receive: Receive) -> bytes:
    """Raises: RefusedError: 413 too large, 408 too slow, 400 the client went away."""
    stated = headers.get("content-length", "0")
    if not stated.isdecimal():
        raise RefusedError(400, "the Content-Length is no number")
    arriving = _chunks(receive)
    chunks: list[bytes] = []
    try:
        too_large = int(stated) > MOST_BODY_BYTES or await asyncio.wait_for(
            _read(arriving, MOST_BODY_BYTES, chunks), BODY_SECONDS
        )
    except asyncio.TimeoutError:
        raise RefusedError(408, "the body did not arrive in time") from None
    if too_large:
        with contextlib.suppress(asyncio.TimeoutError, RefusedError):
            await asyncio.wait_for(_read(arriving, MOST_DRAINED_BYTES), DRAIN_SECONDS)
        raise RefusedError(413, f"the body is larger than {MOST_BODY_BYTES:,} bytes")
    return b"".join(chunks)


async def _read(arriving: AsyncIterator[bytes], most: int, chunks: list[bytes] | None = None) -> bool:
    """Read to the end, into ``chunks`` if given; True: it stopped since more than ``most`` bytes came."""
    n_bytes = 0
    async for chunk in arriving:
        n_bytes += len(chunk)
        if n_bytes > most:
            return True
        if chunks is not None:
            chunks.append(chunk)
    return False


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "the request was broken off")
        more = message.get("more_body", False)
        yield message.get("body", b"")


def _replay(body: bytes, receive: Receive) -> Receive:
    is_sent = False

    async def replayed() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _with_headers(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return guarded


def _with_proof(send: Send, request: SignedRequest) -> Send:
    """Answers are sent whole, with their signature in front."""
    start: Message = {}
    parts: list[bytes] = []

    async def signing(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            return
        parts.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        body = b"".join(parts)
        if start["status"] != 304:  # what the browser has keeps the proof that came with it
            MutableHeaders(scope=start)[PROOF] = request.proof(start["status"], body)
        await send(start)
        await send({"type": "http.response.body", "body": body})

    return signing


def _refusal(refusal: RefusedError) -> Response:
    return JSONResponse({"error": refusal.detail}, refusal.status_code, refusal.headers)
