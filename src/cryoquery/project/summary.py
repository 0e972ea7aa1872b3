"""How far labeling has come, as the page shows it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from cryoquery.project.folder import Project, finished_steps
from cryoquery.project.people import anchoring, consistency, efforts, picks_to_compare, total_seconds
from cryoquery.project.state import ProjectState
from cryoquery.project.step_files import StepFiles, read_metrics

OF_A_STEP = {"n_items": "n_labeled_items", "n_particles": "n_labeled_particles"}
F1 = ("particle_f1", "particle_f1_low", "particle_f1_high")
"""Of picks on the held-out micrographs, with its 95 % interval: the F1 that people are shown."""


def summarize(project: Project, state: ProjectState) -> dict[str, Any]:
    """What ``/api/status`` answers; for any thread.

    Raises:
        DataError: a step's suggestions are damaged.
    """
    steps = [
        {"step": step, **_of_a_step(read_metrics(project.steps_path / f"step_{step}"))}
        for step in finished_steps(project.steps_path)
    ]
    last = read_metrics(project.steps_path / f"step_{steps[-1]['step']}") if steps else {}
    radius = project.median_diameter_px / 2
    rng = np.random.default_rng([project.config.seed, state.seq])
    with_oneself = consistency(state, radius, rng)
    return {
        "steps": steps,
        "sentence": str(last.get("sentence", "")),
        "hours": total_seconds(state) / 3600,
        "people": [
            {
                "person": person,
                **asdict(effort),
                "consistency": asdict(with_oneself[person]) if person in with_oneself else None,
            }
            for person, effort in efforts(state).items()
        ],
        "anchoring": asdict(anchoring(state, _picks(project, state), radius, rng)),
    }


def _of_a_step(metrics: Any) -> dict[str, Any]:
    values = {name: metrics.get(key) for name, key in OF_A_STEP.items()}
    return values | {name: metrics.get(name) for name in F1}


def _picks(project: Project, state: ProjectState) -> dict[tuple[str, int], np.ndarray]:
    """Picks (n, 2) from the threshold on, of each model and item that is to be compared.

    Held-out items are shown without suggestions always, not by chance: they are left out.
    """
    files = StepFiles(project.steps_path)
    found = {}
    for model, item in sorted(picks_to_compare(state)):
        if project.items[item].split != "train":
            continue
        suggestions = files.suggestions(model, item)
        shown = [(pick.y, pick.x) for pick in suggestions.picks if pick.score >= suggestions.threshold]
        found[model, item] = np.array(shown, dtype=float).reshape(-1, 2)
    return found
