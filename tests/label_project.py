"""A small project to label in, and its server in a process of its own.

::

    project = make_project(tmp_path / "p")
    with served(project) as server, logged_in(server, "anna") as anna:
        task = anna.post("/api/lease", json={}).json()

``server.link`` is what a browser opens (it works once), ``server.url`` where the server listens.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from conftest import disc_mask
from forks import Forked

from cryoquery.data.dataset import ImageRecord, encode, new_dataset
from cryoquery.formats import write_micrograph
from cryoquery.label.security import PROOF
from cryoquery.label.sessions import authorization, session_of, signature
from cryoquery.project.events import Command, EventLog
from cryoquery.project.micrographs import MICROGRAPHS_FILE, MicrographRow, write_rows
from cryoquery.project.settings import SETTINGS_FILE, ProjectConfig, write_settings

DIAMETER_PX = 24.0
IMAGE_SIZE = 64
START_SECONDS = 60.0
# For what `multiprocessing` starts: processes that need not import torch again.
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["cryoquery.label", "cryoquery.network.distributed", "httpx", "pytest"])
SERVE = """import sys
from pathlib import Path
from cryoquery.label import serve
serve(Path(sys.argv[1]), port=int(sys.argv[2]), learning=sys.argv[3] == "learning", people=sys.argv[4:])
"""


def truth_yx(item: int, shape: tuple[int, int] = (192, 256)) -> np.ndarray:
    """Where the particles of an item are: (n, 2) pixels of its micrograph."""
    rng = np.random.default_rng(item)
    grid = np.stack(np.meshgrid(np.arange(24, shape[0] - 24, 48), np.arange(24, shape[1] - 24, 48)), -1)
    chosen = grid.reshape(-1, 2)[rng.permutation(grid.size // 2)[:6]]
    return np.asarray(chosen + rng.uniform(-6, 6, chosen.shape), dtype=float)


def make_project(
    path: Path,
    n_items: int = 8,
    *,
    n_files: int | None = None,
    shape: tuple[int, int] = (192, 256),
    n_queued: int | None = None,
    n_held_out: int | None = None,
    **settings: Any,
) -> Path:
    """A project of micrographs with dark discs at `truth_yx`.

    Args:
        path: its folder.
        n_items: micrographs.
        n_files: so many are written, and those of other items are the same ones again.
        shape: (height, width) of a micrograph.
        n_queued: items of the first query; None: all.
        n_held_out: items that are never trained on; None: a quarter.
        settings: of `ProjectConfig`.
    """
    folder = path / "micrographs"
    folder.mkdir(parents=True)
    n_files = n_files or n_items
    for i in range(n_files):
        noise = np.random.default_rng([1, i]).normal(100, 5, shape)
        pixels = noise - 10 * disc_mask(shape, truth_yx(i, shape), DIAMETER_PX)
        write_micrograph(folder / f"m{i:04d}.mrc", pixels.astype(np.float32), 2.0)
    values = {"name": "toy", "micrographs_folder": "micrographs", "pixel_size": 2.0, "image_size": IMAGE_SIZE}
    settings = {**values, "diameter_px": DIAMETER_PX, **settings}
    write_settings(path / SETTINGS_FILE, ProjectConfig(**settings))
    rows = [
        MicrographRow(
            f"m{i:04d}", f"m{i % n_files:04d}.mrc", *shape, 2.0, "AB"[i % 2], None, None, f"m{i:04d}.mrc"
        )
        for i in range(n_items)
    ]
    write_rows(path / MICROGRAPHS_FILE, rows)
    _write_dataset(path / "dataset", rows, len(rows) // 4 if n_held_out is None else n_held_out)
    entries = [
        {"item": i, "rank": i, "reason": "unlike the others", "score": None, "purpose": "train"}
        for i in range(n_items if n_queued is None else n_queued)
    ]
    with EventLog.open(path / "events.sqlite", write=True) as log:
        log.append(
            [
                Command(
                    "queued-start",
                    "cryoquery",
                    "queued",
                    None,
                    {"step": 0, "entries": entries, "model": None},
                )
            ]
        )
    return path


def _write_dataset(path: Path, rows: Sequence[MicrographRow], n_held_out: int) -> None:
    records = []
    scale = IMAGE_SIZE / max(rows[0].height_px, rows[0].width_px)
    height, width = round(rows[0].height_px * scale), round(rows[0].width_px * scale)
    with new_dataset(path, len(rows), IMAGE_SIZE, IMAGE_SIZE) as writer:
        for i, row in enumerate(rows):
            noise = np.random.default_rng([2, i % 16]).normal(0, 1, (height, width))
            writer.put(i, encode(noise), np.zeros((height, width), np.uint8))
            records.append(
                ImageRecord(
                    id=row.name,
                    micrograph=row.name,
                    group=row.group,
                    split="val" if i >= len(rows) - n_held_out else "train",
                    height_px=row.height_px,
                    width_px=row.width_px,
                    scale=scale,
                    top=0,
                    left=0,
                    content_height=height,
                    content_width=width,
                    pixel_size=row.pixel_size,
                    diameter_px=DIAMETER_PX,
                    field_of_view=row.name,
                    center=0.0,
                    spread=1.0,
                )
            )
        writer.finish(records, {}, {"config": {"disc_fraction": 1.0}})


def write_step(project: Path, step: int, items: Sequence[int], **metrics: Any) -> Path:
    """What a step leaves that suggests the true particles of ``items``, and appears at once."""
    folder, partial = project / "steps" / f"step_{step}", project / "steps" / f".step_{step}.partial"
    partial.mkdir(parents=True)
    query = [
        {"item": item, "rank": rank, "reason": "the model is unsure", "score": 0.5, "purpose": "train"}
        for rank, item in enumerate(items)
    ]
    suggestions = {
        str(item): {
            "threshold": 0.4,
            "picks": [[y, x, 0.9 - 0.1 * i] for i, (y, x) in enumerate(truth_yx(item))],
        }
        for item in items
    }
    contents = {
        "query": query,
        "suggestions": suggestions,
        "metrics": {"f1": 0.5, "particle_f1": 0.6, "sentence": "more is expected", **metrics},
        "labels": {},
    }
    for name, content in contents.items():
        (partial / f"{name}.json").write_text(json.dumps(content))
    partial.rename(folder)
    return folder


class Served:
    """A server that runs in a process of its own."""

    def __init__(self, project: Path, port: int, people: Sequence[str], before: str, learning: bool) -> None:
        self.project = project
        self._learning = "learning" if learning else "alone"
        self._before = before
        self.people = people
        self._unfinished = ""  # line
        self.lines: list[str] = []
        """What it has said so far."""
        self.links: list[str] = []
        """Those that it has shown, in order; each can be opened once."""
        self.url = f"http://127.0.0.1:{port}"
        self.start()

    @property
    def link(self) -> str:
        """The latest one."""
        self._listen(0.0)
        return self.links[-1]

    def start(self) -> None:
        """Start it, on the same port where it had one."""
        port = httpx.URL(self.url).port or 0
        program = f"{self._before}\n{SERVE}"
        command = [sys.executable, "-c", program, str(self.project), str(port), self._learning, *self.people]
        self.process = Forked(command, stdout=subprocess.PIPE)
        n_links = len(self.links) + max(1, len(self.people))
        deadline = time.monotonic() + START_SECONDS
        while len(self.links) < n_links:
            if time.monotonic() > deadline or not self._listen(0.2):
                raise AssertionError("\n".join(["the server did not start", *self.lines]))
        self.url = self.links[-1].partition("/open/")[0]

    def _listen(self, seconds: float) -> bool:
        """Take in what it says meanwhile; False: it will say no more."""
        said = self.process.stdout
        assert said is not None
        while not said.closed and select.select([said], [], [], seconds)[0]:
            chunk = os.read(said.fileno(), 1 << 16).decode()
            if not chunk:
                said.close()
            *lines, self._unfinished = (self._unfinished + chunk).split("\n")
            self.lines += lines
            self.links += [word for line in lines for word in line.split() if "#token=" in word]
        return not said.closed

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()
        self._listen(0.0)

    def stop(self) -> int:
        """Ctrl-C; its exit status."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
        self._listen(0.0)
        return self.process.returncode


@contextmanager
def served(
    project: Path, *, port: int = 0, people: Sequence[str] = (), before: str = "", learning: bool = False
) -> Iterator[Served]:
    """A server of ``project``; port 0: any free one; the program ``before`` is run first in its process."""
    server = Served(project, port, people, before, learning)
    try:
        yield server
    finally:
        server.stop()


class Signed(httpx.Auth):
    """Signs requests as the page does, and sees that what is answered is the server's own."""

    requires_request_body = True
    requires_response_body = True

    def __init__(self, link: str) -> None:
        self.id, self.key = session_of(link.partition("#token=")[2], secrets.token_hex(16))

    def header(self, method: str, target: str, body: bytes = b"", nonce: str | None = None) -> str:
        return authorization(self.id, self.key, method, target, body, nonce)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        method, target = request.method, request.url.raw_path.decode()
        request.headers["Authorization"] = self.header(method, target, request.content)
        nonce = request.headers["Authorization"].split()[2]
        answer = yield request
        if answer.status_code not in (304, 401):
            words = (answer.status_code, method, target, nonce, hashlib.sha256(answer.content).hexdigest())
            proof = answer.headers.get(PROOF, "")
            is_of_page = method == "GET" and (target == "/" or target.startswith("/static/"))
            unsigned = answer.status_code in (400, 403, 404) or is_of_page
            assert proof == f"{nonce} {signature(self.key, *words)}" or (unsigned and not proof)


@contextmanager
def logged_in(server: Served, person: str | None = None) -> Iterator[httpx.Client]:
    """A client with a session of its own, named unless the link had a name."""
    with httpx.Client(base_url=server.url, timeout=30.0, verify=False) as client:
        deadline = time.monotonic() + 30
        while True:
            client.auth = Signed(server.link)
            answer = client.get("/api/session")
            if answer.status_code != 401 or time.monotonic() > deadline:
                break
            time.sleep(0.05)  # the fresh link is on its way
        assert answer.status_code == 200, answer.text
        if person is not None:
            client.post("/api/session", json={"person": person}).raise_for_status()
        yield client
