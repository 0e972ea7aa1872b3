"""The page's server learns meanwhile: what was labeled shows in the next suggestions, whatever is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from forks import forked_by
from label_project import Served, Signed, make_project, served, truth_yx
from real_truth import Truth, f1_on_the_rest, inside, truth_of
from test_kills import Client
from test_page import (
    Person,
    chromium,  # noqa: F401
    person,  # noqa: F401
    wait_until,
)
from test_page import (
    pytestmark as browser,
)
from tiers import second_tier, take, thorough

from cryoquery.label.learning import Learning
from cryoquery.network.checkpoint import load_weights
from cryoquery.picking.metrics import match_particles
from cryoquery.project.events import EventLog
from cryoquery.project.folder import Project, finished_steps, open_project
from cryoquery.project.label_set import current_labels
from cryoquery.project.new_project import InitOptions, init_project
from cryoquery.project.settings import SETTINGS_FILE, ProjectConfig, write_settings
from cryoquery.project.step import step
from cryoquery.storage.atomic import read_json

FORKED = "import subprocess, forks; subprocess.Popen = forks.Forked"
"""So that the process that learns need not import torch again."""
QUICK: dict[str, Any] = {
    "model": {"base_channels": 4},
    "training": {"initial_epochs": 1, "min_steps": 4, "batch_size": 4},
    "device": {"accelerator": "cpu", "precision": "32-true", "threads": 1},
    "start": "random",
    "query_size": 4,
    "repeat_share": 0.0,
}
N_KILLS, N_SUBMISSIONS = take((5, 6), (50, 30))
PATIENCE_SECONDS = 120.0


def wait_for_step_on(path: Path, n_items: int) -> Path:
    """The folder of the step that was trained on so many items."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        done = list(finished_steps(path / "steps").values())
        if done and len(read_json(done[-1] / "labels.json")) == n_items:
            return done[-1]
        assert time.monotonic() < until, f"no step on {n_items} items: {done}"
        time.sleep(0.05)


def submit(client: Client, n: int) -> None:
    """Label ``n`` items, one after the other."""
    try:
        for _ in range(n):
            task = client._ask("POST", "/api/lease", {}).json()
            ops = [{**client._add(), "y": y, "x": x} for y, x in truth_yx(task["item"] % 2).tolist()]
            commands = [client._command("drafted", op=op) for op in ops]
            client._send(task["task"], [*commands, client._command("submitted")])
            time.sleep(float(client.rng.uniform(0, 1)))
    except BaseException as error:
        client.failure = error
    finally:
        client.ended.set()


@thorough
@pytest.mark.timeout(900)
def test_whatever_is_killed_all_is_learned_from_what_was_submitted(tmp_path: Path) -> None:
    path = make_project(tmp_path / "p", N_SUBMISSIONS + 4, n_files=2, n_held_out=0, **QUICK)
    rng = np.random.default_rng(5)
    with served(path, people=["anna"], before=FORKED, learning=True) as server:
        http = httpx.Client(base_url=server.url, timeout=20.0, verify=False, auth=Signed(server.link))
        with http:
            anna = Client("anna", http, np.random.default_rng(6), threading.Event())
            thread = threading.Thread(target=submit, args=(anna, N_SUBMISSIONS))
            thread.start()
            for _ in range(N_KILLS):
                time.sleep(float(rng.uniform(0, 2)))
                kill_something(server, rng)
                anna.http.auth = Signed(server.link)
            thread.join(PATIENCE_SECONDS)
        if anna.failure is not None:
            raise anna.failure
        last = wait_for_step_on(path, N_SUBMISSIONS)
    with EventLog.open(path / "events.sqlite", write=False) as log:
        events = log.read()
    counts = Counter(event.id for event in events)
    assert max(counts.values()) == 1
    assert set(anna.acknowledged) <= set(counts)
    tasks = [event.task for event in events if event.kind in ("submitted", "corrected")]
    assert len(tasks) == len(set(tasks)) == N_SUBMISSIONS
    assert same_weights(last / "model.pt", undisturbed(path) / "model.pt")


def kill_something(server: Served, rng: np.random.Generator) -> None:
    """The server, which then is started again, or what learns, which the server starts again."""
    if rng.random() < 0.5:
        server.kill()
        server.start()
        return
    for pid in forked_by(server.process.pid):
        with contextlib.suppress(ProcessLookupError):  # of one that ended before
            os.kill(pid, signal.SIGKILL)


def undisturbed(path: Path) -> Path:
    """One step on the same labels, from nothing."""
    other = path.with_name("undisturbed")
    shutil.copytree(path, other, ignore=shutil.ignore_patterns("steps", ".cache", "work"))
    folder = step(other)
    assert folder is not None
    return folder


def same_weights(one: Path, other: Path) -> bool:
    found, expected = (load_weights(path)[0] for path in (one, other))
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], tensor) for name, tensor in expected.items()
    )


class Ended:
    """A process that has ended already."""

    stdin = None

    def __init__(self, returncode: int) -> None:
        self.returncode = returncode

    def poll(self) -> int:
        return self.returncode


@pytest.mark.parametrize(("returncode", "expected"), [(-signal.SIGKILL, 12), (1, 4)])
def test_what_was_killed_is_started_again_soon_and_what_fails_later_and_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, returncode: int, expected: int
) -> None:
    started: list[float] = []
    now = [100.0]
    monkeypatch.setattr("cryoquery.label.learning.time.monotonic", lambda: now[0])
    monkeypatch.setattr(
        "cryoquery.label.learning.subprocess.Popen",
        lambda *_, **__: started.append(now[0]) or Ended(returncode),
    )
    learning = Learning(tmp_path)
    for _ in range(60):
        learning.look()
        now[0] += 1
    assert len(started) == expected


DIAMETER_PX = 80.0
"""That of apoferritin in these pictures; 60 px are stated with their labels."""
BRIEF: dict[str, Any] = {
    "training": {
        "batch_size": 8, "min_steps": 30, "initial_epochs": 20, "focal_alpha": 0.5, "fine_tune": False,
        "distort": True, "decay": "cosine", "averaging": 0.98,
    },
    "device": {"accelerator": "cpu"},
    "query_size": 4, "suggestion_share": 1.0, "repeat_share": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def apoferritin(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    path = tmp_path_factory.mktemp("apoferritin") / "p"
    options = InitOptions(diameter_px=DIAMETER_PX, initial_items=4)
    made = init_project(path, [real_data / "empiar_10146" / "micrographs"], options)
    assert made.project.config.unit == "field"
    assert any("too many to label at a time" in note for note in made.notes)
    settings = made.project.config.model_dump(exclude_none=True) | BRIEF
    write_settings(path / SETTINGS_FILE, ProjectConfig(**settings))
    return open_project(path)


def click_on_particles(anna: Person, project: Project, truth: Truth) -> None:
    """On each of the open field: a suggestion that lies there is accepted, where none is one is added."""
    item = int(anna.item())
    region = project.items[item].region
    assert region is not None
    points = inside(project, item, truth)
    for y, x in points.tolist():
        anna.click(y, x)
    assert anna.ask("c.labeling.particles.length") >= 0.9 * len(points) > 0


def submit_field(anna: Person) -> float:
    before = anna.item()
    anna.press("Control+Enter")
    anna.page.click("#submit-ok")
    anna.wait_for_task(but=before)
    return time.monotonic()


@second_tier
@pytest.mark.realdata
@browser[0]
@browser[1]
@pytest.mark.timeout(900)
def test_the_third_field_shows_what_was_learned_from_the_first_two(
    apoferritin: Project,
    real_data: Path,
    person: Callable[..., Person],  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    truth = truth_of(real_data / "empiar_10146")
    with served(apoferritin.path, before=FORKED, learning=True) as server:
        anna = person(server.link)
        for n in range(1, 4):
            click_on_particles(anna, apoferritin, truth)
            submitted = submit_field(anna)
            if n == 1:
                continue
            wait_until(anna.page, f"c.labeling.task.model === 'step_{n - 1}'", seconds=PATIENCE_SECONDS)
            seconds = time.monotonic() - submitted
            with capsys.disabled():
                print(f"\n{n} fields: new suggestions {seconds:.1f} s after the submission")
            anna.wait_until_told(f"Learned from {n} fields")
            if n == 2:
                third = int(anna.item())
                suggestions = anna.ask("c.labeling.undecided.map(({ y, x }) => [y, x])")
                shown = match_particles(np.array(suggestions), inside(apoferritin, third, truth), 40.0)
                assert shown.f1 > 0.8
    labeled = {apoferritin.items[item].micrograph for item in current_labels(apoferritin).labels}
    assert len(labeled) == 3
    rest = [item.number for item in apoferritin.items if item.micrograph not in labeled]
    assert f1_on_the_rest(apoferritin, 2, rest, truth, DIAMETER_PX) > 0.9
