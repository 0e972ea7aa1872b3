"""A scripted person answers through the server, from the truth of real micrographs, step after step."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from label_project import logged_in, served
from real_truth import Truth, f1_on_the_rest, inside, truth_of
from tiers import second_tier

from cryoquery.cli.status import project_status
from cryoquery.formats import read_coordinates
from cryoquery.picking.metrics import match_particles
from cryoquery.project.folder import Project, open_project
from cryoquery.project.label_set import current_labels
from cryoquery.project.new_project import InitOptions, init_project
from cryoquery.project.settings import SETTINGS_FILE, ProjectConfig, write_settings
from cryoquery.project.step import step
from cryoquery.storage.atomic import read_json

DIAMETER_PX = 60.0
N_STEPS = 3
SETTINGS: dict[str, Any] = {
    "model": {"base_channels": 8},
    "training": {"initial_epochs": 12, "min_steps": 0, "batch_size": 2, "focal_alpha": 0.5},
    "device": {"accelerator": "cpu"},
    "query_size": 6,
    "repeat_share": 0.0,
}


def answer_everything(client: httpx.Client, project: Project, truth: Truth) -> int:
    """Answer what waits: accept suggestions on particles, click on the others; how many items."""
    n = 0
    while (task := client.post("/api/lease", json={}).raise_for_status().json()).get("task") is not None:
        name, points = task["task"], inside(project, task["item"], truth)
        # A click at the very edge would lie outside of the micrograph.
        points = np.clip(points, 0, [task["height"] - 1, task["width"] - 1])
        shown = np.array([[s["y"], s["x"]] for s in task["suggestions"]]).reshape(-1, 2)
        matched = match_particles(shown, points, DIAMETER_PX / 4)
        ops: list[dict[str, Any]] = []
        if matched.n_matched:
            keys = [task["suggestions"][row]["key"] for row in matched.pick_rows]
            ops.append({"op": "accept", "keys": keys})
        missed = np.delete(points, matched.truth_rows, axis=0)
        ops += [{"op": "add", "key": f"p{i}", "y": y, "x": x} for i, (y, x) in enumerate(missed.tolist())]
        if not len(points):
            ops.append({"op": "empty", "value": True})
        commands = [
            {"id": f"{name}-{i}", "kind": "drafted", "op": op, "active_seconds": 2.0}
            for i, op in enumerate(ops)
        ]
        commands.append({"id": f"{name}-done", "kind": "submitted", "active_seconds": 5.0})
        answer = client.post(f"/api/tasks/{name}/commands", json={"commands": commands})
        assert answer.status_code == 200, answer.text
        n += 1
    return n


def wait_for_queue(client: httpx.Client, number: int) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while (queue := client.get("/api/queue").json())["step"] != number:
        assert time.monotonic() < deadline, queue
        time.sleep(0.1)
    return dict(queue)


@second_tier
@pytest.mark.realdata
@pytest.mark.timeout(900)
def test_three_iterations_with_a_person_on_real_micrographs(real_data: Path, tmp_path: Path) -> None:
    truth = truth_of(real_data / "empiar_10146")
    path = tmp_path / "p"
    options = InitOptions(diameter_px=DIAMETER_PX, start="random", unit="field", initial_items=3)
    made = init_project(path, [real_data / "empiar_10146" / "micrographs"], options)
    values = made.project.config.model_dump(exclude_none=True) | SETTINGS
    write_settings(path / SETTINGS_FILE, ProjectConfig(**values))
    project = open_project(path)
    with served(path) as server, logged_in(server, "anna") as anna:
        for number in range(1, N_STEPS + 1):
            assert answer_everything(anna, project, truth) >= 3
            folder = step(path)
            assert folder == project.steps_path / f"step_{number}"
            queue = wait_for_queue(anna, number)
            assert queue["n_waiting"] == len(read_json(folder / "query.json")) == 6
        exported = anna.get("/api/export?what=labels&format=star")
        assert exported.status_code == 200
    label_set = current_labels(project)
    items = [item.number for item in project.items if item.number not in label_set.labels]
    first, last = (f1_on_the_rest(project, number, items, truth, DIAMETER_PX) for number in (1, N_STEPS))
    print(f"F1 on the rest: {first:.3f} after the first step, {last:.3f} after the last")
    assert last > first
    assert last > 0.5
    said = project_status(path)
    print(said["sentence"])
    assert [found["step"] for found in said["steps"]] == [1, 2, 3]
    assert said["people"][0]["person"] == "anna"
    assert said["hours"] > 0
    check_exported_picks(project, tmp_path / "picks.star")


def check_exported_picks(project: Project, out: Path) -> None:
    from cryoquery.project.pick_all import export_picks

    outcome = export_picks(project, out)
    assert outcome.n_done == len(project.micrographs)
    found = read_coordinates(out)
    assert len(found) == len(outcome.picks) > 500
