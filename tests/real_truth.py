"""The centers that are known of real micrographs, and how well a step of a project finds them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cryoquery.picking.metrics import match_particles
from cryoquery.picking.picker import PickOptions, load_picker, pick_file
from cryoquery.project.folder import Project

Truth = Mapping[str, np.ndarray]
"""(n, 2) centers of each micrograph, by the stem of its file."""


def truth_of(folder: Path) -> Truth:
    found = {}
    for path in sorted(folder.glob("coordinates/*.csv")):
        with path.open(newline="") as stream:
            rows = [(float(r["Y-Coordinate"]), float(r["X-Coordinate"])) for r in csv.DictReader(stream)]
        found[path.stem] = np.array(rows)
    return found


def inside(project: Project, item: int, truth: Truth) -> np.ndarray:
    info = project.items[item]
    points = truth[Path(project.micrograph_of(item).path).stem]
    return np.array([p for p in points if info.contains(*p)]).reshape(-1, 2)


def f1_on_the_rest(
    project: Project, number: int, items: list[int], truth: Truth, diameter_px: float
) -> float:
    """Of the model of a step, on items that nobody has labeled."""
    picker = load_picker(project.steps_path / f"step_{number}" / "model.pt", project.config.device)
    n_matched = n_all = 0
    by_path: dict[Path, list[int]] = {}
    for item in items:
        by_path.setdefault(project.micrograph_path(item), []).append(item)
    for path, its in by_path.items():
        picks = pick_file(picker, path, PickOptions(diameter_px=diameter_px)).picks.centers_yx
        for item in its:
            own = np.array([p for p in picks if project.items[item].contains(*p)]).reshape(-1, 2)
            match = match_particles(own, inside(project, item, truth), diameter_px / 2)
            n_matched += match.n_matched
            n_all += match.n_picks + match.n_truth
    return 2 * n_matched / n_all
