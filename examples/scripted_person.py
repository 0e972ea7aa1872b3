"""Answer a labeling queue from a truth that is known, in place of a person at the page.

    python examples/scripted_person.py 'http://127.0.0.1:8765/open/…#token=…' TRUTH.star [--micrographs N]

The link is the one that ``cryoquery label`` shows; it works once, and the terminal shows a fresh one. The
answers go through the server like those of the page: suggestions on a particle are accepted, others above
the slider rejected, the particles that are left are added a little beside their center. Times are made up:
they are those of an unhurried person, and nobody has to wait for them.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import CryoqueryError
from cryoquery.formats import micrograph_key, read_coordinates
from cryoquery.label.sessions import authorization, session_of
from cryoquery.picking.metrics import match_particles

LOOK_SECONDS, CLICK_SECONDS, ACCEPT_SECONDS = 12.0, 1.5, 0.5
"""To look at a micrograph, to mark a particle, to check a suggestion."""

Truth = Mapping[str, NDArray[np.float64]]
"""(n, 2) centers (y, x) in pixels, by what a micrograph's name has without folder and extension."""


class Browser:
    """What is needed of one: it opens the link, and sends JSON that is signed."""

    def __init__(self, link: str, person: str) -> None:
        parts = urlsplit(link)
        self._url = f"{parts.scheme}://{parts.netloc}"
        self._session, self._key = session_of(parts.fragment.removeprefix("token="), secrets.token_hex(16))
        self.send("/api/session", {"person": person})

    def send(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a POST.

        Raises:
            urllib.error.HTTPError: it was refused.
        """
        content = json.dumps(body).encode()
        signed = authorization(self._session, self._key, "POST", path, content)
        headers = {"Content-Type": "application/json", "Authorization": signed}
        request = urllib.request.Request(self._url + path, content, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.load(answer))


def read_truth(path: Path) -> Truth:
    """The particles in a file of coordinates, by micrograph.

    Raises:
        DataError: it cannot be read.
    """
    picks = read_coordinates(path)
    names = np.array([micrograph_key(name) for name in picks.micrographs])
    return {name: picks.centers_yx[names == name] for name in set(names.tolist())}


def operations(
    task: Mapping[str, Any], truth: Truth, jitter: float, rng: np.random.Generator
) -> list[tuple[dict[str, Any], float]]:
    """What a person who sees the ``truth`` does in a task, and the seconds of each.

    Args:
        task: as the server describes it.
        truth: of all micrographs.
        jitter: standard deviation of a click, in particle diameters.
        rng: draws the clicks.
    """
    diameter = task["diameter_px"]
    height, width = task["height"], task["width"]
    top, left, high, wide = task["region"] or (0, 0, height, width)
    low, size = np.array([top, left]), np.array([high, wide])
    points = truth.get(micrograph_key(task["micrograph"]), np.empty((0, 2)))
    points = points[((points >= low) & (points < low + size)).all(axis=1)]
    shown = [s for s in task["suggestions"] if s["score"] >= (task["threshold"] or 0)]
    found = match_particles(np.array([(s["y"], s["x"]) for s in shown]).reshape(-1, 2), points, diameter / 4)
    right = {int(row) for row in found.pick_rows}
    missed = np.delete(points, found.truth_rows, axis=0)
    clicks = missed + rng.normal(0, jitter * diameter, missed.shape)
    clicks = np.clip(clicks, low, low + size - 1)
    done: list[tuple[dict[str, Any], float]] = []
    if right:
        keys = [s["key"] for row, s in enumerate(shown) if row in right]
        done.append(({"op": "accept", "keys": keys}, ACCEPT_SECONDS * len(keys)))
    if wrong := [s["key"] for row, s in enumerate(shown) if row not in right]:
        done.append(({"op": "reject", "keys": wrong}, CLICK_SECONDS * len(wrong)))
    done += [
        ({"op": "add", "key": f"p{i}", "y": y, "x": x}, CLICK_SECONDS)
        for i, (y, x) in enumerate(clicks.tolist())
    ]
    return done or [({"op": "empty", "value": True}, CLICK_SECONDS)]


def answer(browser: Browser, task: Mapping[str, Any], done: list[tuple[dict[str, Any], float]]) -> None:
    """Send what was done in a task, and submit it."""
    once = uuid.uuid4().hex
    commands = [
        {"id": f"{once}-{i}", "kind": "drafted", "op": op, "active_seconds": seconds}
        for i, (op, seconds) in enumerate(done)
    ]
    commands.append({"id": f"{once}-end", "kind": "submitted", "active_seconds": LOOK_SECONDS})
    for first in range(0, len(commands), 400):
        browser.send(f"/api/tasks/{task['task']}/commands", {"commands": commands[first : first + 400]})


def label(link: str, truth: Truth, n: int | None, person: str, jitter: float, seed: int) -> int:
    """Answer up to ``n`` tasks, or all that wait; how many were answered."""
    browser = Browser(link, person)
    rng = np.random.default_rng(seed)
    n_done = 0
    while n is None or n_done < n:
        task = browser.send("/api/lease", {})
        if task["task"] is None:
            break
        done = operations(task, truth, jitter, rng)
        answer(browser, task, done)
        n_done += 1
        kinds = [op["op"] for op, _ in done]
        accepted = sum(len(op["keys"]) for op, _ in done if op["op"] == "accept")
        print(f"{task['micrograph']}: {accepted} accepted, {kinds.count('add')} added")
    return n_done


def main() -> None:
    """Read the command line, and label."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("link", help="as shown by 'cryoquery label'; in quotes")
    parser.add_argument("truth", type=Path)
    parser.add_argument("--micrographs", type=int, help="at most so many (default: all that wait)")
    parser.add_argument("--person", default="script")
    parser.add_argument("--jitter", type=float, default=0.05, help="of a click, in diameters (default: 0.05)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        truth = read_truth(given.truth)
        n = label(given.link, truth, given.micrographs, given.person, given.jitter, given.seed)
    except urllib.error.HTTPError as error:
        sys.exit(f"the server refused ({error.code}): {error.read().decode(errors='replace')[:300]}")
    except (urllib.error.URLError, CryoqueryError) as error:
        sys.exit(f"{error}")
    print(f"{n} answered")


if __name__ == "__main__":
    main()
