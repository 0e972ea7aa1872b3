"""How a project stands: what `cryoquery status` prints, and what the page asks for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from cryoquery.project.folder import Project, finished_steps
from cryoquery.project.label_set import label_set_of, n_held_out_left_out
from cryoquery.project.people import anchoring, consistency, efforts, picks_to_compare, total_seconds
from cryoquery.project.state import ProjectState
from cryoquery.project.step_files import StepFiles, read_metrics, step_under_way

F1 = ("particle_f1", "particle_f1_low", "particle_f1_high")
"""Of picks on the held-out micrographs, with its 95 % interval: the F1 that people are shown."""
OF_A_STEP = ("n_labeled_items", "n_held_out_items", "n_labeled_particles", "hours", "agreement", "seconds")


def summarize(project: Project, state: ProjectState) -> dict[str, Any]:
    """All that is known of a project, as plain types: the answer of ``/api/status``; for any thread.

    Raises:
        DataError: a step's suggestions are damaged.
    """
    label_set = label_set_of(state)
    steps = finished_steps(project.steps_path)
    metrics = [read_metrics(project.steps_path / f"step_{number}") for number in steps]
    radius = project.median_diameter_px / 2
    with_oneself = consistency(state, radius)
    people = [
        {
            "person": person,
            **asdict(effort),
            "consistency": asdict(with_oneself[person]) if person in with_oneself else None,
        }
        for person, effort in efforts(state).items()
    ]
    return {
        "name": project.config.name,
        "unit": project.config.unit,
        "n_items": len(project.items),
        "n_labeled": len(label_set.labels),
        "n_held_out": sum(project.items[item].split != "train" for item in label_set.labels),
        "n_particles": sum(int(label.is_counted().sum()) for label in label_set.labels.values()),
        "n_left_out": len(label_set.left_out),
        "n_held_out_left_out": n_held_out_left_out(project, label_set),
        "hours": total_seconds(state) / 3600,
        "stepping": step_under_way(project.path),
        "steps": [
            {"step": number, **{name: measured.get(name) for name in (*OF_A_STEP, *F1)}}
            for number, measured in zip(steps, metrics, strict=True)
        ],
        "sentence": str(metrics[-1].get("sentence", "")) if metrics else "",
        "people": people,
        "anchoring": asdict(anchoring(state, _picks(project, state), radius)),
    }


def _picks(project: Project, state: ProjectState) -> dict[tuple[str, int], np.ndarray]:
    """Picks (n, 2) from the threshold on, of each model and item that is to be compared.

    Held-out items are shown without suggestions always, not by chance: they are left out.
    """
    files = StepFiles(project.path)
    found = {}
    for model, item in sorted(picks_to_compare(state)):
        if project.items[item].split != "train":
            continue
        suggestions = files.suggestions(model, item)
        shown = [(pick.y, pick.x) for pick in suggestions.picks if pick.score >= suggestions.threshold]
        found[model, item] = np.array(shown, dtype=float).reshape(-1, 2)
    return found
