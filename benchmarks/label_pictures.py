"""How long the labeling page waits: for pictures, for the queue, and for a command while pictures are made.

    python benchmarks/label_pictures.py [--side 4096] [--items 3000] [--rounds 5]

A project of noise with dark discs is served by a process of its own, and each request is timed from its
start to the last byte of the answer. A picture is not cached when the project's previews were removed. The
queue is timed beside that of a project with 30 items, and a command beside one while nobody wants pictures.
"""

from __future__ import annotations

import argparse
import multiprocessing
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx
import numpy as np
from measuring import ratio

from cryoquery.data.dataset import ImageRecord, encode, new_dataset
from cryoquery.data.preprocess import draw_mask
from cryoquery.formats import write_micrograph
from cryoquery.label import serve
from cryoquery.label.sessions import authorization, session_of
from cryoquery.project.events import Command, EventLog
from cryoquery.project.micrographs import MICROGRAPHS_FILE, MicrographRow, write_rows
from cryoquery.project.settings import SETTINGS_FILE, ProjectConfig, write_settings

IMAGE_SIZE = 64
FEW = 30
PIXEL_SIZE = 1.0
CONTEXT = multiprocessing.get_context("spawn")


def make_project(path: Path, side: int, n_items: int) -> Path:
    """A project whose items are all the same micrograph of ``side``² pixels."""
    diameter = side / 25
    rng = np.random.default_rng(0)
    centers = rng.uniform(0, side, (200, 2))
    discs = draw_mask((side, side), centers, np.full(200, diameter))
    (path / "micrographs").mkdir(parents=True)
    pixels = rng.normal(1000, 50, discs.shape).astype(np.float32) - np.float32(20) * discs
    write_micrograph(path / "micrographs" / "m.mrc", pixels, PIXEL_SIZE)
    records = write_dataset(path / "dataset", side, n_items, diameter)
    config = ProjectConfig(
        name="timed", micrographs_folder="micrographs", diameter_px=diameter, image_size=IMAGE_SIZE
    )
    write_settings(path / SETTINGS_FILE, config)
    rows = [
        MicrographRow(record.micrograph, "m.mrc", side, side, PIXEL_SIZE, record.group, None, None, "m.mrc")
        for record in records
    ]
    write_rows(path / MICROGRAPHS_FILE, rows)
    entries = [{"item": i, "rank": i, "reason": "timed", "score": None} for i in range(n_items)]
    body = {"step": 0, "entries": entries, "model": None}
    with EventLog.open(path / "events.sqlite", write=True) as log:
        log.append([Command("queued-start", "cryoquery", "queued", None, body)])
    return path


def write_dataset(path: Path, side: int, n_items: int, diameter: float) -> list[ImageRecord]:
    """The project's images: of noise, and all of them the same."""
    records = []
    levels = encode(np.random.default_rng(1).normal(size=(IMAGE_SIZE, IMAGE_SIZE)))
    with new_dataset(path, n_items, IMAGE_SIZE, IMAGE_SIZE) as writer:
        for row in range(n_items):
            writer.put(row, levels, np.zeros_like(levels))
            records.append(
                ImageRecord(
                    id=f"m{row:05d}",
                    micrograph=f"m{row:05d}",
                    group="A",
                    split="train",
                    height_px=side,
                    width_px=side,
                    scale=IMAGE_SIZE / side,
                    top=0,
                    left=0,
                    content_height=IMAGE_SIZE,
                    content_width=IMAGE_SIZE,
                    pixel_size=PIXEL_SIZE,
                    diameter_px=diameter,
                    field_of_view=f"m{row:05d}",
                    center=1000.0,
                    spread=50.0,
                )
            )
        writer.finish(records, {}, {"config": {"disc_fraction": 1.0}})
    return records


class Signed(httpx.Auth):
    """Signs requests as the page does."""

    requires_request_body = True

    def __init__(self, link: str) -> None:
        self._id, self._key = session_of(link.partition("#token=")[2], secrets.token_hex(16))

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header."""
        target = request.url.raw_path.decode()
        signed = authorization(self._id, self._key, request.method, target, request.content)
        request.headers["Authorization"] = signed
        yield request


def client_of(url: httpx.URL | str, auth: httpx.Auth | None) -> httpx.Client:
    """Somebody at the page at ``url``."""
    return httpx.Client(base_url=url, auth=auth, timeout=60.0, verify=False)


@contextmanager
def served(project: Path) -> Iterator[httpx.Client]:
    """A session of somebody at the page of a project."""
    lines, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(
        target=serve, args=(project,), kwargs={"port": 0, "people": ["anna"], "say": theirs.send}, daemon=True
    )
    process.start()
    theirs.close()
    try:
        link = next(word for line in iter(lines.recv, "") for word in line.split() if "#token=" in word)
        with client_of(link.partition("/open/")[0], Signed(link)) as client:
            yield client
    finally:
        process.terminate()
        process.join()


def seconds(client: httpx.Client, path: str) -> float:
    """Until the last byte of the answer."""
    started = time.perf_counter()
    client.get(path).raise_for_status()
    return time.perf_counter() - started


def time_pictures(client: httpx.Client, project: Path, side: int, n_rounds: int) -> None:
    """Print how long the first picture takes, cached and not."""
    first, full = (f"/api/items/0/picture?size={size}&lowpass=2" for size in (min(side, 2048), side))
    fresh, kept, whole = [], [], []
    seconds(client, first)
    for _ in range(n_rounds):
        shutil.rmtree(project / "previews", ignore_errors=True)
        fresh.append(seconds(client, first))
        kept.append(seconds(client, first))
        whole.append(seconds(client, full))
    for what, taken in (("not cached", fresh), ("cached", kept), ("in full", whole)):
        print(
            f"picture of {side}², {what:10}  {1000 * median(taken):6.0f} ms, at most {1000 * max(taken):.0f}"
        )
    print(f"not cached takes {ratio(fresh, kept)} times as long as cached")


def time_queues(many: httpx.Client, few: httpx.Client, n_items: int, n_rounds: int) -> None:
    """Print how long the queue takes, long and short."""
    long, short = [], []
    for _ in range(n_rounds):
        long.append(seconds(many, "/api/queue"))
        short.append(seconds(few, "/api/queue"))
    print(f"queue of {n_items:,}  {1000 * median(long):6.1f} ms, of {FEW} {1000 * median(short):.1f} ms")
    print(f"the long one takes {ratio(long, short)} times as long")


def time_commands(client: httpx.Client, n_rounds: int) -> None:
    """Print how long a command takes until it is on the disk, with and without pictures being made."""
    task = client.post("/api/lease", json={}).json()["task"]

    def command() -> float:
        name = f"p{time.perf_counter_ns()}"
        op = {"op": "add", "key": name, "y": 5.0, "x": 5.0}
        started = time.perf_counter()
        sent = {"commands": [{"id": name, "kind": "drafted", "op": op}]}
        client.post(f"/api/tasks/{task}/commands", json=sent).raise_for_status()
        return time.perf_counter() - started

    command()
    alone = [command() for _ in range(2 * n_rounds)]
    with _wanting_pictures(client):
        beside = [command() for _ in range(2 * n_rounds)]
    print(f"command  {1000 * median(alone):6.1f} ms, while pictures are made {1000 * median(beside):.1f} ms")
    print(f"pictures make a command take {ratio(beside, alone)} times as long")


@contextmanager
def _wanting_pictures(client: httpx.Client) -> Iterator[None]:
    """Two more requests for pictures at any time."""
    ended = threading.Event()

    def want(number: int) -> None:
        with client_of(client.base_url, client.auth) as other:
            while not ended.is_set():
                other.get(f"/api/items/{number}/picture?size=2048&lowpass=2")

    threads = [threading.Thread(target=want, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line per measurement."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--side", type=int, default=4096, help="of the micrograph, px (default: 4096)")
    parser.add_argument("--items", type=int, default=3000, help="in the long queue (default: 3000)")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        many = make_project(Path(folder) / "many", args.side, args.items)
        few = make_project(Path(folder) / "few", 256, FEW)
        with served(many) as client, served(few) as other:
            time_pictures(client, many, args.side, args.rounds)
            time_queues(client, other, args.items, args.rounds)
            time_commands(client, args.rounds)


if __name__ == "__main__":
    main()
