"""What the labeling server refuses over real connections; it lives on and records nothing."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from label_project import Served, logged_in, make_project, served

from cryoquery.label.security import LOOPBACK, MOST_BODY_BYTES, RATES, TokenBucket
from cryoquery.label.serve import SESSIONS_FILE
from cryoquery.label.sessions import PersonError, Sessions, checked_name
from cryoquery.project.events import EventLog


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(make_project(tmp_path_factory.mktemp("p") / "p")) as server:
        yield server


@pytest.fixture(scope="module")
def anna(server: Served) -> Iterator[httpx.Client]:
    with logged_in(server, "anna") as client:
        yield client


@pytest.fixture(autouse=True)
def unchanged(request: pytest.FixtureRequest) -> Iterator[None]:
    """What is refused is not recorded, and the server answers afterwards."""
    if "server" not in request.fixturenames:
        yield
        return
    anna = request.getfixturevalue("anna")
    path = request.getfixturevalue("server").project / "events.sqlite"

    def n_events() -> int:
        with EventLog.open(path, write=False) as log:
            return log.last_seq

    before = n_events()
    yield
    assert n_events() == before
    answer = anna.get("/api/session")
    while answer.status_code == 429:
        answer = anna.get("/api/session")
    assert answer.json()["person"] == "anna"


def error_of(answer: httpx.Response) -> str:
    content = answer.json()
    assert list(content) == ["error"]
    assert content["error"]
    assert "\n" not in content["error"]
    return str(content["error"])


PATHS = ("/api/session", "/api/queue", "/api/tasks/0", "/api/status", "/api/items/0/picture", "/static/a.js")


@pytest.mark.parametrize("path", [*PATHS, "/", "/api/nothing", "/../etc/passwd"])
@pytest.mark.parametrize("cookie", [None, "wrong", "ü; ;=,", '"'])
def test_without_a_session_everything_is_refused(
    server: Served, anna: httpx.Client, path: str, cookie: str | None
) -> None:
    name = next(iter(anna.cookies))
    headers = {} if cookie is None else {"cookie": f"{name}={cookie}".encode()}
    with httpx.Client(base_url=server.url, verify=False) as stranger:
        for method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
            assert stranger.request(method, path, headers=headers).status_code == 401
        assert "open the link" in stranger.get(path).text


@pytest.mark.parametrize(
    "around",
    [
        'prefs={"a":1}; {ours}',
        '{ours}; prefs={"a":1}',
        "a b; =; ;;x; {ours}",
        'q="unclosed; {ours}',
        "{name}=old; {ours}",
        "$Version=1; ü=ü;{ours};",
    ],
)
def test_cookies_of_others_do_not_hide_ours(server: Served, anna: httpx.Client, around: str) -> None:
    ours = cookie_of(anna)
    cookie = around.replace("{ours}", ours).replace("{name}", ours.partition("=")[0])
    with httpx.Client(base_url=server.url, verify=False) as client:
        answer = client.get("/api/session", headers={"cookie": cookie.encode()})
    assert answer.status_code == 200
    assert answer.json()["person"] == "anna"


def test_a_link_works_once_and_its_cookie_is_kept_from_scripts_and_other_pages(server: Served) -> None:
    link = server.link
    answer = httpx.get(link)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=Strict", "Path=/"):
        assert part in cookie
    assert "token" not in cookie
    again = httpx.get(link)
    assert again.status_code in (403, 429)
    assert "used already" in again.text or again.status_code == 429


def test_who_opens_a_used_link_again_in_the_same_browser_is_let_in(server: Served) -> None:
    with httpx.Client() as client:
        link = server.link
        while client.get(link).status_code != 303:
            link = server.link
        assert client.get(link).status_code != 403


def test_wrong_tokens_are_slowed_down_and_keep_nobody_out(server: Served) -> None:
    answers = [httpx.get(f"{server.url}/?token={'x' * 43}") for _ in range(15)]
    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) <= {403, 429}
    assert counts[429] >= 5
    assert int(answers[-1].headers["retry-after"]) > 0
    with logged_in(server) as client:
        assert client.get("/api/session").status_code == 200


@pytest.mark.parametrize("token", ["", "%00", "%ff", "ü", "a" * 5000, "&token=" * 20, "%F0%9F"])
def test_odd_tokens(server: Served, token: str) -> None:
    assert httpx.get(f"{server.url}/?token={token}").status_code in (400, 401, 403, 429)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:{port}", True),
        ("localhost:{port}", True),
        ("LOCALHOST:9999", True),
        ("[::1]:80", True),
        ("localhost", True),
        ("evil.example", False),
        ("evil.example:{port}", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.", False),
        ("127.0.0.1:{port}@evil.example", False),
        ("127.0.0.2:{port}", False),
        ("0.0.0.0:{port}", False),
        ("", False),
        ("localhost:", False),
        ("localhost:١", False),
    ],
)
def test_only_names_of_loopback_are_answered(anna: httpx.Client, host: str, allowed: bool) -> None:
    stated = host.format(port=anna.base_url.port)
    assert (LOOPBACK.fullmatch(stated) is not None) == allowed
    answer = anna.get("/api/session", headers={"host": stated.encode()})
    assert answer.status_code == (200 if allowed else 403)
    # Not even a right link is opened.
    if not allowed:
        assert anna.get("/?token=x", headers={"host": stated.encode()}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://127.0.0.1:{port}"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "http://localhost:{port}"},
        {"origin": "http://127.0.0.1:{port}.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
    ],
)
def test_requests_from_other_pages_are_refused(anna: httpx.Client, headers: dict[str, str]) -> None:
    stated = {name: value.format(port=anna.base_url.port) for name, value in headers.items()}
    assert anna.get("/api/session", headers=stated).status_code == 403
    answer = anna.post("/api/lease", json={}, headers=stated)
    assert answer.status_code == 403
    error_of(answer)


def test_the_page_itself_may_ask(anna: httpx.Client) -> None:
    origin = {"origin": f"http://127.0.0.1:{anna.base_url.port}", "sec-fetch-site": "same-origin"}
    assert anna.get("/api/session", headers=origin).status_code == 200
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert anna.get("/", headers=followed).status_code in (200, 404)
    assert anna.get("/api/session", headers=followed).status_code == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", None), ("/api/session", 200), ("/api/queue", 200), ("/nothing", 404), ("/api/tasks/999999", 404)],
)
def test_every_answer_says_what_a_browser_may_do_with_it(
    anna: httpx.Client, path: str, status: int | None
) -> None:
    answer = anna.get(path)
    assert status in (None, answer.status_code)
    policy = answer.headers["content-security-policy"]
    for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert part in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    if path.startswith("/api/"):
        assert answer.headers["cache-control"] == "no-store"
    assert "server" not in answer.headers


async def raw(server: Served, request: bytes, read: int = 65536) -> bytes:
    """The answer to bytes that no client would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(server.url).port)
    writer.write(request)
    await writer.drain()
    answer = await asyncio.wait_for(reader.read(read), 10)
    writer.close()
    return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def cookie_of(client: httpx.Client) -> str:
    return "; ".join(f"{name}={value}" for name, value in client.cookies.items())


@pytest.mark.parametrize("encode", [str, lambda p: p.replace(".", "%2e"), lambda p: p.replace("/", "%2f")])
@pytest.mark.parametrize("again", [str, lambda p: p.replace("%", "%25")])
@pytest.mark.parametrize(
    "path",
    [
        "../../../../etc/passwd",
        "/etc/passwd",
        "../server.py",
        "..\\server.py",
        "../sessions.py\0.js",
        "....//server.py",
    ],
)
def test_no_path_leads_out_of_the_page(
    server: Served, anna: httpx.Client, path: str, encode: Callable[[str], str], again: Callable[[str], str]
) -> None:
    sent = again(encode(path)).replace("\0", "%00").replace("\\", "%5c")
    for prefix in ("/static/", "/", "/api/tasks/", "/api/items/", "/api/items/0/"):
        request = f"GET {prefix}{sent} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie_of(anna)}\r\n\r\n"
        answer = asyncio.run(raw(server, request.encode()))
        assert status_of(answer) in (400, 404)
        assert b"root:" not in answer
        assert b"import" not in answer


def test_an_absolute_target_and_strange_lines(server: Served, anna: httpx.Client) -> None:
    cookie = cookie_of(anna)
    for first in (
        "GET http://localhost/etc/passwd",
        "GET file:///etc/passwd",
        "GET *",
        "OPTIONS *",
        "BREW /",
    ):
        request = f"{first} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n"
        assert status_of(asyncio.run(raw(server, request.encode()))) in (400, 404, 405)
    for request in (
        b"GET /api/session HTTP/1.0\r\n\r\n",
        b"GET /api/session HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    ):
        answer = asyncio.run(raw(server, request))
        assert not answer or status_of(answer) in (400, 401, 403, 431)


def test_bodies_that_are_too_large_stated_or_not(anna: httpx.Client) -> None:
    body = b'{"commands": "' + b"a" * (2 * MOST_BODY_BYTES) + b'"}'
    headers = {"content-type": "application/json"}
    answer = anna.post("/api/tasks/0/commands", content=body, headers=headers)
    assert answer.status_code == 413
    assert "1,000,000" in error_of(answer)
    pieces = (body[i : i + 50_000] for i in range(0, len(body), 50_000))
    assert anna.post("/api/tasks/0/commands", content=pieces, headers=headers).status_code == 413


def test_a_stated_length_is_not_waited_for(server: Served, anna: httpx.Client) -> None:
    request = f"POST /api/lease HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie_of(anna)}\r\n"
    request += "Content-Type: application/json\r\nContent-Length: 99999999999999\r\n\r\nx"
    assert status_of(asyncio.run(raw(server, request.encode()))) == 413


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"task": NaN}',
        b'{"task": "0"',
        b"[" * 100_000,
        b'{"task": ' + b"9" * 100_000 + b"}",
        b'{"task": "\\ud800"}',
        b"__import__('os')",
    ],
)
@pytest.mark.parametrize("path", ["/api/lease", "/api/tasks/0/commands", "/api/session"])
def test_malformed_json(anna: httpx.Client, path: str, body: bytes) -> None:
    answer = anna.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    error_of(answer)
    if body in (b"{", b"\xff\xfe", b'{"task": "0"'):
        assert answer.status_code == 400


COMMAND = {"id": "a", "kind": "renewed", "active_seconds": 1.0}


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/api/lease", {"task": "0", "person": "ben"}),
        ("/api/lease", {"task": 0}),
        ("/api/lease", {"task": "../0"}),
        ("/api/lease", {"task": "x" * 1000}),
        ("/api/session", {"person": "anna", "fixed": True}),
        ("/api/session", {}),
        ("/api/session", {"person": "cryoquery"}),
        ("/api/session", {"person": "a\nb"}),
        ("/api/session", {"person": " "}),
        ("/api/session", {"person": "a" * 100}),
        ("/api/tasks/0/commands", {"commands": []}),
        ("/api/tasks/0/commands", {"commands": [COMMAND] * 501}),
        ("/api/tasks/0/commands", {"commands": [COMMAND], "person": "ben"}),
        ("/api/tasks/0/commands", {"commands": [{**COMMAND, "person": "ben"}]}),
        ("/api/tasks/0/commands", {"commands": [{**COMMAND, "until": 1e12}]}),
        ("/api/tasks/0/commands", {"commands": [{**COMMAND, "kind": "queued"}]}),
        ("/api/tasks/0/commands", {"commands": [{**COMMAND, "kind": "leased"}]}),
        ("/api/tasks/0/commands", {"commands": [{**COMMAND, "id": ""}]}),
        ("/api/tasks/0/commands", {"commands": [{**COMMAND, "id": "a" * 65}]}),
        ("/api/tasks/0/commands", {"commands": [{**COMMAND, "id": "a\n"}]}),
        ("/api/tasks/0/commands", {"commands": [{**COMMAND, "active_seconds": -1}]}),
        ("/api/tasks/0/commands", {"commands": [{**COMMAND, "active_seconds": "1"}]}),
        ("/api/tasks/0/commands", {"commands": [{**COMMAND, "active_seconds": 1e300}]}),
        ("/api/tasks/-1/commands", {"commands": [COMMAND]}),
        ("/api/tasks/0.r/commands", {"commands": [COMMAND]}),
        ("/api/tasks/99999999999999999999/commands", {"commands": [COMMAND]}),
    ],
)
def test_what_is_not_known_is_refused_in_a_sentence(anna: httpx.Client, path: str, content: object) -> None:
    answer = anna.post(path, json=content)
    assert answer.status_code in (404, 422)
    error_of(answer)


@pytest.mark.parametrize(
    "query",
    [
        "size=0",
        "size=-1",
        "size=x",
        "size=1e9",
        "lowpass=-1",
        "lowpass=nan",
        "lowpass=inf",
        "lowpass=x",
        "size=",
    ],
)
def test_pictures_of_sizes_that_cannot_be(anna: httpx.Client, query: str) -> None:
    assert anna.get(f"/api/items/0/picture?{query}").status_code == 422


@pytest.mark.parametrize("item", ["8", "999999999999", "-1", "x", ""])
def test_pictures_of_items_that_are_not_there(anna: httpx.Client, item: str) -> None:
    for what in ("picture", "thumbnail"):
        assert anna.get(f"/api/items/{item}/{what}").status_code in (404, 422)


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"]
)
def test_forms_of_other_pages_are_refused(anna: httpx.Client, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    assert anna.post("/api/lease", content=b"{}", headers=headers).status_code == 415


def test_a_thousand_requests_at_once(server: Served) -> None:
    with logged_in(server, "many") as client:
        cookie = cookie_of(client)
    request = f"GET /api/queue HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"

    async def ask() -> int:
        return status_of(await raw(server, request.encode()))

    async def ask_all() -> list[int]:
        return await asyncio.gather(*(ask() for _ in range(1000)))

    soft, hard = _open_files()
    try:
        counts = Counter(asyncio.run(ask_all()))
    finally:
        _set_open_files(soft, hard)
    assert set(counts) <= {200, 429}
    assert sum(counts.values()) == 1000
    assert counts[200] >= 1
    assert counts[429] >= 1


def _open_files() -> tuple[int, int]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    _set_open_files(max(soft, most), hard)
    return soft, hard


def _set_open_files(soft: int, hard: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_acts_are_limited_too(server: Served) -> None:
    with logged_in(server, "fast") as client:
        statuses: list[int] = []
        while (
            429 not in statuses and len(statuses) < 2000
        ):  # a busy machine takes them hardly faster than allowed
            statuses.append(client.post("/api/lease", json={"task": "77"}).status_code)
    assert set(statuses) == {404, 429}
    assert len(statuses) >= RATES["commands"][1]


def test_nothing_that_the_server_says_holds_a_used_token_or_a_session(
    server: Served, anna: httpx.Client
) -> None:
    secret = next(iter(anna.cookies.values()))
    assert not any(secret in line for line in server.lines)
    assert secret not in (server.project / SESSIONS_FILE).read_text()


def test_sessions_outlive_the_server_in_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "sessions"
    old_mask = os.umask(0)
    try:
        sessions = Sessions(path)
        opened = sessions.open(sessions.new_link("anna"))
    finally:
        os.umask(old_mask)
    assert opened is not None
    secret, session = opened
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Sessions(path)
    assert again.cookie == sessions.cookie
    assert again.find(secret) == session
    assert again.find(secret + "x") is None
    assert again.open("") is None
    with pytest.raises(PersonError, match="made for anna"):
        again.rename(session, "ben")
    path.write_text("{")
    assert Sessions(path).find(secret) is None
    content = {
        "cookie": "c",
        "sessions": [{"digest": session.digest, "person": "a", "fixed": True, "since": 0.0}],
    }
    path.write_text(json.dumps(content))
    assert Sessions(path).find(secret) is None, "long over"


def test_names_of_people() -> None:
    assert checked_name("  Anna Müller ") == "Anna Müller"
    for name in ("", " ", "a\tb", "a" * 65, "Cryoquery", "\u202e"):
        with pytest.raises(PersonError):
            checked_name(name)


def test_a_bucket_allows_its_burst_and_then_its_rate() -> None:
    now = 0.0
    bucket = TokenBucket(rate=2.0, burst=5.0, clock=lambda: now)
    assert [bucket.take() == 0 for _ in range(7)] == [True] * 5 + [False] * 2
    assert bucket.take() == pytest.approx(0.5)
    now = 0.5
    assert bucket.take() == 0
    assert bucket.take() > 0
    now = 100.0
    assert sum(bucket.take() == 0 for _ in range(20)) == 5
