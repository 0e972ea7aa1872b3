"""The scripts of the tutorial, at toy size."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from label_project import DIAMETER_PX, make_project, served, truth_yx, write_step

from cryoquery.formats import Picks, concatenate, read_coordinates, read_micrograph, write_coordinates
from cryoquery.project.folder import open_project
from cryoquery.project.label_set import current_labels

EXAMPLES = Path(__file__).parents[2] / "examples"
N_ITEMS = 4


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_truth(path: Path) -> None:
    write_coordinates(
        path, concatenate([Picks.of(truth_yx(i), micrograph=f"m{i:04d}.mrc") for i in range(3)])
    )


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


pytestmark = pytest.mark.usefixtures("forked")


def test_micrographs_and_truth_are_written(tmp_path: Path) -> None:
    out = tmp_path / "tutorial"
    done = run("simulated_micrographs", out, "--micrographs", 2, "--size", 256)
    assert done.returncode == 0, done.stderr
    truth = read_coordinates(out / "truth.star")
    assert f"2 micrographs with {len(truth)} particles" in done.stdout
    for name in set(truth.micrographs):
        micrograph = read_micrograph(out / name)
        assert micrograph.pixels.shape == (256, 256)
        assert micrograph.pixel_size == pytest.approx(3.0)
    again = run("simulated_micrographs", out)
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_a_script_answers_what_waits(tmp_path: Path) -> None:
    project, truth = make_project(tmp_path / "p", N_ITEMS), tmp_path / "truth.star"
    write_truth(truth)
    with served(project) as server:
        two = run("scripted_person", server.link, truth, "--micrographs", 2)
        assert two.returncode == 0, two.stderr
        assert two.stdout.endswith("2 answered\n")
        again = run("scripted_person", server.links[0], truth)
        assert again.returncode == 1
        assert "401" in again.stderr
        rest = run("scripted_person", server.link, truth)
        assert rest.stdout.endswith(f"{N_ITEMS - 2} answered\n"), rest.stderr
    labels = current_labels(open_project(project)).labels
    assert len(labels) == N_ITEMS
    assert len(labels[N_ITEMS - 1].particles_yx) == 0
    for item in range(3):
        apart = labels[item].particles_yx[:, None] - truth_yx(item)
        nearest = np.linalg.norm(apart, axis=-1).min(axis=1)
        assert len(nearest) == len(truth_yx(item))
        assert 0 < nearest.max() < DIAMETER_PX / 3


def test_suggestions_on_particles_are_accepted(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", N_ITEMS, n_queued=1, suggestion_share=1.0)
    truth = tmp_path / "truth.star"
    write_truth(truth)
    write_step(project, 1, [2])
    with served(project) as server:
        script = example("scripted_person")
        browser = script.Browser(server.link, "anna")
        task = browser.send("/api/lease", {})
        task["threshold"] = 0.65
        done = script.operations(task, script.read_truth(truth), 0.0, np.random.default_rng(0))
        n_shown = sum(pick["score"] >= task["threshold"] for pick in task["suggestions"])
        assert n_shown == 3
        assert [op["op"] for op, _ in done] == ["accept"] + ["add"] * (len(truth_yx(2)) - n_shown)
        script.answer(browser, task, done)
    label = current_labels(open_project(project)).labels[2]
    assert np.allclose(np.sort(label.particles_yx, axis=0), np.sort(truth_yx(2), axis=0), atol=1e-3)
