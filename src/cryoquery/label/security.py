"""What is checked of every request before anything else uses it.

The server listens on loopback only. That keeps the network out, but not other users of the machine, nor
other pages in the browser: so a request needs a session's cookie, a Host that is a name of loopback
(DNS rebinding), no foreign Origin, a path that is plainly one of ours and a body of moderate size.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cryoquery.label.sessions import LIFETIME_SECONDS, Session, Sessions

LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.ASCII | re.IGNORECASE)
"""Any port: ``ssh -L`` may lead here from another one."""
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
        self._wrong_tokens = TokenBucket(10 / 60, 10)

    def check(self, session: Session, kind: str) -> None:
        """Raises: RefusedError: 429, too many requests of this kind."""
        key = (session.digest, kind)
        bucket = self._buckets.pop(key, None) or TokenBucket(*RATES[kind])
        self._buckets[key] = bucket
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        if wait := bucket.take():
            raise RefusedError(429, "too many requests; wait a moment", wait)

    def refuse_token(self) -> RefusedError:
        """What a wrong token is answered with: 403, and 429 after ten in a minute.

        Right tokens are not counted and always let in: they cannot be guessed (256 bits), and otherwise
        another user of the machine could keep people out by sending wrong ones.
        """
        if wait := self._wrong_tokens.take():
            return RefusedError(429, "too many wrong links; wait a moment", wait)
        return RefusedError(403, "this link was used already or is wrong; the terminal shows a fresh one")


class Guard:
    """ASGI middleware that refuses what it should, and adds the headers that browsers heed.

    What passes has its session in ``scope["state"]["session"]``, and its body was read.

    Args:
        app: what is guarded.
        sessions: who is let in.
        opened: called when a link was used, with the person it was made for.
    """

    def __init__(
        self, app: ASGIApp, sessions: Sessions, opened: Callable[[str | None], None] = lambda person: None
    ) -> None:
        self._app = app
        self._sessions = sessions
        self._opened = opened
        self._limits = Limits()
        self._n_under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no WebSockets are spoken
        guarded = _with_headers(send)
        self._n_under_way += 1
        try:
            if cookie := self._open_link(scope):
                answer = Response(status_code=303, headers={"Location": "/", "Set-Cookie": cookie})
                await answer(scope, receive, guarded)
                return
            session = self._admit(scope)
            body = await _read_body(Headers(scope=scope), receive)
            scope.setdefault("state", {})["session"] = session
            await self._app(scope, _replay(body, receive), guarded)
        except RefusedError as refusal:
            await _refusal(refusal, wants_page=scope["path"] == "/")(scope, receive, guarded)
        finally:
            self._n_under_way -= 1

    def _open_link(self, scope: Scope) -> str | None:
        """The Set-Cookie of a link that is right; None: this is no link, or its browser is in already."""
        _check_origin(scope)
        if scope["path"] != "/" or scope["method"] != "GET":
            return None
        try:
            tokens = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=10).get("token")
        except ValueError:
            raise RefusedError(400, "too much after the question mark") from None
        if not tokens:
            return None
        opened = self._sessions.open(tokens[0])
        if opened is None:
            if self._session(scope) is not None:
                return None
            raise self._limits.refuse_token()
        secret, session = opened
        self._opened(session.person)
        return (
            f"{self._sessions.cookie}={secret}; Path=/; Max-Age={LIFETIME_SECONDS:.0f}; "
            "HttpOnly; SameSite=Strict"
        )

    def _session(self, scope: Scope) -> Session | None:
        # http.cookies stops at the first malformed cookie, and other programs at this address may set some.
        parts = [
            part.partition("=") for line in Headers(scope=scope).getlist("cookie") for part in line.split(";")
        ]
        values = [value.strip() for name, _, value in parts if name.strip() == self._sessions.cookie]
        return next((found for value in values if (found := self._sessions.find(value))), None)

    def _admit(self, scope: Scope) -> Session:
        session = self._session(scope)
        if session is None:
            raise RefusedError(401, "not logged in; open the link that the terminal shows")
        raw = scope.get("raw_path") or scope["path"].encode()
        if b"%" in raw or b".." in raw or b"\\" in raw or b"//" in raw or not scope["path"].startswith("/"):
            raise RefusedError(404, "there is nothing here")
        if scope["method"] not in ("GET", "POST"):
            raise RefusedError(405, f"{scope['method']}: only GET and POST are answered")
        if self._n_under_way > MOST_AT_ONCE:
            raise RefusedError(429, "too many requests at once; wait a moment", 1.0)
        self._limits.check(session, _kind(scope))
        if scope["method"] == "POST":
            content_type = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
            if content_type != "application/json":
                raise RefusedError(415, "the body must be application/json")
        return session


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
    followed = scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
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


def _refusal(refusal: RefusedError, wants_page: bool) -> Response:
    if not wants_page:
        return JSONResponse({"error": refusal.detail}, refusal.status_code, refusal.headers)
    page = f'<!doctype html><html lang="en"><title>cryoquery</title><p>{refusal.detail}.</p>'
    # A browser that came from another page sends the cookie only with the next request.
    page += '<p><a href="/">Continue</a></p></html>' if refusal.status_code == 401 else "</html>"
    return HTMLResponse(page, refusal.status_code, refusal.headers)
