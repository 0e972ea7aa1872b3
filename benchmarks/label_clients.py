"""How many acts of how many people the labeling server takes, and how long each waits.

    python benchmarks/label_clients.py [--clients 50] [--seconds 20]

Each client has a session and a connection of its own and sends its next act as soon as the one before is
confirmed, which is when it is on the disk. The clients share the machine with the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from label_pictures import CONTEXT, make_project

from cryoquery.label import serve
from cryoquery.label.sessions import authorization, session_of
from cryoquery.project.events import EventLog

SIDE = 256


class Client:
    """Somebody who never pauses."""

    def __init__(self, link: str) -> None:
        self._host = urlsplit(link).netloc
        self._session = session_of(link.partition("#token=")[2], secrets.token_hex(16))
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, content: object = None) -> object:
        """The answer's JSON.

        Raises:
            RuntimeError: it is refused.
        """
        if self._streams is None:
            host, port = self._host.split(":")
            self._streams = await asyncio.open_connection(host, int(port))
        reader, writer = self._streams
        body = b"" if content is None else json.dumps(content).encode()
        signed = authorization(*self._session, method, path, body)
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: {signed}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        answer = await reader.readexactly(int(headers.get("content-length", 0)))
        if status.split()[1] != "200":
            raise RuntimeError(f"{method} {path}: {status} {answer.decode()}")
        return json.loads(answer)

    async def act(self, until: float) -> list[float]:
        """Seconds that each act took."""
        answer = await self.ask("POST", "/api/lease", {})
        assert isinstance(answer, dict)
        taken: list[float] = []
        while (started := time.perf_counter()) < until:
            name = secrets.token_hex(16)
            op = {"op": "add", "key": name, "y": 5.0, "x": 5.0}
            command = {"id": name, "kind": "drafted", "active_seconds": 0.0, "op": op}
            await self.ask("POST", f"/api/tasks/{answer['task']}/commands", {"commands": [command]})
            taken.append(time.perf_counter() - started)
        return taken


async def work(links: Sequence[str], seconds: float) -> list[float]:
    """Seconds that each act of all clients took."""
    clients = [Client(link) for link in links]
    for client in clients:
        await client.ask("GET", "/api/session")
    until = time.perf_counter() + seconds
    return [one for own in await asyncio.gather(*(client.act(until) for client in clients)) for one in own]


def main(argv: Sequence[str] | None = None) -> None:
    """Print acts per second, the median and the 99th percentile of what each took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args(argv)
    people = [f"person{i}" for i in range(args.clients)]
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder) / "project", SIDE, args.clients)
        lines, theirs = CONTEXT.Pipe(duplex=False)
        options = {"port": 0, "people": people, "say": theirs.send}
        process = CONTEXT.Process(target=serve, args=(project,), kwargs=options, daemon=True)
        process.start()
        theirs.close()
        try:
            links: list[str] = []
            while len(links) < args.clients:
                links += [word for word in lines.recv().split() if "#token=" in word]
            taken = np.array(asyncio.run(work(links, args.seconds)))
        finally:
            process.terminate()
            process.join()
        with EventLog.open(project / "events.sqlite", write=False) as log:
            n_kept = sum(event.kind == "drafted" for event in log.read())
    median, late = np.percentile(taken, [50, 99]) * 1000
    print(f"{args.clients} clients: {len(taken) / args.seconds:.0f} acts per second, all on the disk")
    print(
        f"an act takes {median:.0f} ms, one in a hundred {late:.0f} ms or more, at most {taken.max():.2f} s"
    )
    assert n_kept == len(taken), f"{len(taken)} were confirmed, {n_kept} are in the log"


if __name__ == "__main__":
    main()
