"""What the labeling server refuses over real connections; it lives on and records nothing."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from label_project import Served, Signed, logged_in, make_project, served

from cryoquery.label.security import LOOPBACK, MOST_BODY_BYTES, PROOF, Limits, RefusedError, TokenBucket
from cryoquery.label.sessions import PersonError, Session, Sessions, checked_name, session_of
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


PICTURES = ("picture", "thumbnail", "tile?factor=1&row=0&column=0", "cutouts?at=1,1", "heat?model=step_1")
PATHS = (
    *(
        "/api/session",
        "/api/queue",
        "/api/ahead",
        "/api/tasks/0",
        "/api/status",
        "/api/export",
        "/api/nothing",
    ),
    *(f"/api/items/0/{picture}" for picture in PICTURES),
)


def signed_by(client: httpx.Client) -> Signed:
    assert isinstance(client.auth, Signed)
    return client.auth


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["none", "odd", "other key", "other target", "other method", "other body"])
def test_without_the_signature_of_a_session_everything_is_refused(
    server: Served, anna: httpx.Client, path: str, kind: str
) -> None:
    auth = signed_by(anna)
    other = Signed(f"#token={'x' * 43}")
    other.id = auth.id
    with httpx.Client(base_url=server.url, verify=False) as stranger:
        for method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
            given = {
                "none": None,
                "odd": "Cryoquery \xff",
                "other key": other.header(method, path),
                "other target": auth.header(method, f"{path}&a=1"),
                "other method": auth.header("PATCH", path),
                "other body": auth.header(method, path, b"{}").replace(
                    hashlib.sha256(b"{}").hexdigest(), "0" * 64
                ),
            }[kind]
            headers = {} if given is None else {"authorization": given.encode("latin-1")}
            answer = stranger.request(method, path, headers=headers)
            assert answer.status_code == 401
            assert PROOF not in answer.headers
        assert "open the link" in stranger.get(path).text


def test_a_request_is_taken_once(server: Served, anna: httpx.Client) -> None:
    header = {"authorization": signed_by(anna).header("GET", "/api/session")}
    answers = [httpx.get(f"{server.url}/api/session", headers=header) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert "before" in error_of(answers[1])


def test_a_body_that_was_changed_on_its_way_is_not_taken(server: Served, anna: httpx.Client) -> None:
    header = {
        "authorization": signed_by(anna).header("POST", "/api/session", b'{"person": "anna"}'),
        "content-type": "application/json",
    }
    answer = httpx.post(f"{server.url}/api/session", headers=header, content=b'{"person": "eve"}')
    assert answer.status_code == 429


def test_a_link_works_once_and_its_secret_is_never_sent(server: Served) -> None:
    with logged_in(server) as client:
        link = server.links[-1] if server.link == server.links[-1] else server.link
        first = signed_by(client)
    secrets = [part.partition("#token=")[2] for part in server.links]
    assert not any(secret in first.header("GET", "/api/session") for secret in secrets)
    assert "#" in link, "browsers do not send what stands after it"
    opened = Signed(link)
    again = Signed(link)
    assert httpx.get(f"{server.url}/api/session", auth=opened).status_code == 200
    assert httpx.get(f"{server.url}/api/session", auth=again).status_code == 401
    assert httpx.get(f"{server.url}/api/session", auth=opened).status_code == 200


def test_a_session_ends_with_the_server(tmp_path: Path) -> None:
    with served(make_project(tmp_path / "p", 1)) as server, logged_in(server, "anna") as anna:
        for end in (server.stop, server.kill):
            end()
            server.start()
            assert anna.get("/api/session").status_code == 401
            anna.auth = Signed(server.link)
            assert anna.get("/api/session").status_code == 200
        assert not list(server.project.glob(".sessions*"))


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
    # Not even the page is shown.
    if not allowed:
        assert anna.get("/", headers={"host": stated.encode()}).status_code == 403


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
    answer = await asyncio.wait_for(reader.read(read), 60)
    writer.close()
    return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def request_of(client: httpx.Client, method: str, target: str, *more: str, body: bytes = b"") -> bytes:
    """A request as bytes, signed."""
    signed = f"Authorization: {signed_by(client).header(method, target, body)}"
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", signed, *more]
    return "\r\n".join([*lines, "", ""]).encode() + body


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
    for prefix in ("/static/", "/static/x/", "/", "/api/tasks/", "/api/items/", "/api/items/0/"):
        answer = asyncio.run(raw(server, request_of(anna, "GET", f"{prefix}{sent}")))
        assert status_of(answer) in (400, 404)
        assert b"root:" not in answer
        assert b"import" not in answer


def test_an_absolute_target_and_strange_lines(server: Served, anna: httpx.Client) -> None:
    for first in (
        "GET http://localhost/etc/passwd",
        "GET file:///etc/passwd",
        "GET *",
        "OPTIONS *",
        "BREW /",
    ):
        request = request_of(anna, *first.split(" "))
        assert status_of(asyncio.run(raw(server, request))) in (400, 404, 405)
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
    more = ("Content-Type: application/json", "Content-Length: 99999999999999")
    request = request_of(anna, "POST", "/api/lease", *more, body=b"x")
    assert status_of(asyncio.run(raw(server, request))) == 413


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
        "lowpass=1e5",
        "lowpass=1e6",
        "size=",
    ],
)
def test_pictures_of_sizes_that_cannot_be(anna: httpx.Client, query: str) -> None:
    assert anna.get(f"/api/items/0/picture?{query}").status_code == 422
    if query.startswith("lowpass"):
        assert anna.get(f"/api/items/0/cutouts?at=1,1&{query}").status_code == 422


@pytest.mark.parametrize(
    "query",
    [
        *(
            "cutouts",
            "cutouts?at=",
            "cutouts?at=1",
            "cutouts?at=1,2,3",
            "cutouts?at=1e9,1",
            "cutouts?at=--,1",
        ),
        *(
            "cutouts?at=9999999,1",
            f"cutouts?at={';'.join(['1,1'] * 101)}",
            "tile",
            "tile?factor=1&row=0&column=0",
        ),
        *("tile?factor=3&row=0&column=0", "tile?factor=1e9&row=0&column=0", "tile?factor=1&row=-1&column=0"),
        *("heat", "heat?model=../../x", "heat?model=step_", "heat?model=pick_1"),
    ],
)
def test_parts_that_cannot_be(anna: httpx.Client, query: str) -> None:
    error_of(answer := anna.get(f"/api/items/0/{query}"))
    assert answer.status_code == 422


@pytest.mark.parametrize("item", ["8", "999999999999", "-1", "x", ""])
def test_pictures_of_items_that_are_not_there(anna: httpx.Client, item: str) -> None:
    for what in PICTURES:
        assert anna.get(f"/api/items/{item}/{what}").status_code in (404, 422)


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"]
)
def test_forms_of_other_pages_are_refused(anna: httpx.Client, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    assert anna.post("/api/lease", content=b"{}", headers=headers).status_code == 415


def test_a_thousand_requests_at_once(server: Served) -> None:
    with logged_in(server, "many") as client:
        auth = client

    async def ask() -> int:
        return status_of(await raw(server, request_of(auth, "GET", "/api/queue", "Connection: close")))

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


def test_acts_are_limited_too() -> None:
    limits, session = Limits(), Session("0" * 64, b"", "fast", True)

    def hurry() -> None:
        for _ in range(10_000):
            limits.check(session, "commands")

    with pytest.raises(RefusedError, match="too many requests") as refused:
        hurry()
    assert refused.value.status_code == 429
    limits.check(session, "reads")
    limits.check(Session("1" * 64, b"", "other", True), "commands")


def test_nothing_that_the_server_says_holds_a_session(server: Served, anna: httpx.Client) -> None:
    auth = signed_by(anna)
    assert not any(auth.id in line or auth.key.hex() in line for line in server.lines)
    assert auth.key.hex() not in repr(Session(auth.id, auth.key, None, False))


def test_a_link_made_for_a_person_keeps_the_name() -> None:
    sessions = Sessions()
    name, _ = session_of(sessions.new_link("anna"), "0" * 32)
    session = sessions.find(name)
    assert session is not None
    assert sessions.open(session)
    assert not sessions.open(session)
    with pytest.raises(PersonError, match="made for anna"):
        sessions.rename(session, "ben")
    assert sessions.find(name[:-1] + "1") is None, "the link was used"
    assert sessions.find("") is sessions.find("0" * 64) is sessions.find("x" * 64) is None


def test_nonces_are_forgotten_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryoquery.label.sessions.MOST_NONCES", 2)
    sessions = Sessions()
    session = sessions.find(session_of(sessions.new_link(None), "0" * 32)[0])
    assert session is not None
    sessions.open(session)
    assert [sessions.is_repeated(session, nonce) for nonce in "abbcda"] == [False, False, True, *[False] * 3]


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
