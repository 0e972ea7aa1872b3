"""How a project stands: F1 so far, what labeling cost, who labeled, and what more labels would bring."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cryoquery.cli.console import duration
from cryoquery.project.folder import Project, finished_steps, open_project
from cryoquery.project.label_set import label_set_of, n_held_out_left_out, state_of
from cryoquery.project.step.slurm import look_after
from cryoquery.project.step_files import read_metrics, step_under_way
from cryoquery.project.summary import F1, summarize

NOT_MEASURED = "-"
UNKNOWN_F1 = "not known"


def project_status(path: Path | str) -> dict[str, Any]:
    """What `show_project` prints, as plain types.

    Raises:
        ProjectError: there is no project.
        DataError: a file of it is damaged.
    """
    project = open_project(path)
    look_after(project.path)
    state = state_of(project)
    label_set = label_set_of(state)
    held_out = [item for item in label_set.labels if project.items[item].split != "train"]
    return {
        "name": project.config.name,
        "unit": project.config.unit,
        "n_items": len(project.items),
        "n_labeled": len(label_set.labels),
        "n_held_out": len(held_out),
        "n_particles": sum(len(label.particles_yx) for label in label_set.labels.values()),
        "n_left_out": len(label_set.left_out),
        "n_held_out_left_out": n_held_out_left_out(project, label_set),
        "stepping": step_under_way(project.path),
        **summarize(project, state),
        "steps": _steps(project),
    }


def _steps(project: Project) -> list[dict[str, Any]]:
    kept = ("n_labeled_items", "n_held_out_items", "n_labeled_particles", "hours", "agreement", "seconds")
    found = []
    for number in finished_steps(project.steps_path):
        metrics = read_metrics(project.steps_path / f"step_{number}")
        found.append({"step": number, **{name: metrics.get(name) for name in (*kept, *F1)}})
    return found


def show_project(path: Path | str, console: Console) -> None:
    """Print how the project in ``path`` stands. Errors as in `project_status`."""
    said = project_status(path)
    unit = f"{said['unit']}s"
    left_out = f", {said['n_left_out']} skipped or bad" if said["n_left_out"] else ""
    if n := said["n_held_out_left_out"]:
        left_out += f" ({n} of them held out: F1 is not measured on these)"
    console.print(
        f"{said['name']}: {said['n_labeled']} of {said['n_items']} {unit} labeled ({said['n_held_out']} of "
        f"them held out to measure F1){left_out}, {said['n_particles']} particles, {said['hours']:.1f} h",
        highlight=False,
    )
    if said["steps"]:
        console.print(_step_table(said["steps"]))
    if said["sentence"]:
        console.print(f"{said['sentence']}.", highlight=False)
    elif not said["steps"]:
        console.print("No step was done yet: label what the queue asks for, then run cryoquery step.")
    if step_status := said["stepping"]:
        ago = duration(max(time.time() - step_status["since"], 0.0))
        console.print(f"A step, begun {ago} ago: {step_status['message']}", highlight=False)
    if said["people"]:
        console.print(_people_table(said["people"]))
    if anchoring := _anchoring(said["anchoring"]):
        console.print(anchoring, highlight=False)


def _step_table(steps: list[dict[str, Any]]) -> Table:
    columns = (
        "step",
        "trained on",
        "held out",
        "particles",
        "hours",
        "F1 of picks (95 %)",
        "same as before",
    )
    grid = _grid(columns)
    for step in steps:
        grid.add_row(
            str(step["step"]),
            _text(step["n_labeled_items"]),
            _text(step["n_held_out_items"]),
            _text(step["n_labeled_particles"]),
            _text(step["hours"], ".1f"),
            _f1(step),
            _text(step["agreement"], ".3f"),
        )
    return grid


def _people_table(people: list[dict[str, Any]]) -> Table:
    grid = _grid(("person", "items", "repeats", "skipped", "s/item", "s/particle", "F1 with oneself (95 %)"))
    for one in people:
        grid.add_row(
            one["person"],
            str(one["n_items"]),
            str(one["n_repeats"]),
            str(one["n_skipped"]),
            _text(one["seconds_per_item"], ".0f"),
            _text(one["seconds_per_particle"], ".1f"),
            _estimate(one["consistency"]),
        )
    return grid


def _grid(columns: tuple[str, ...]) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(columns):
        grid.add_column(name, justify="right" if i else "left")
    return grid


def _anchoring(found: Mapping[str, Any]) -> str:
    """One sentence, once both kinds of tasks were answered."""
    shown, alone = found["with_suggestions"], found["without_suggestions"]
    if not (shown["n_tasks"] and alone["n_tasks"] and shown["f1"]["n"] and alone["f1"]["n"]):
        return ""
    return (
        f"Labels agree with the model's picks at F1 {_estimate(shown['f1'])} where these are shown, and at "
        f"{_estimate(alone['f1'])} where they are not"
    )


def _estimate(found: Mapping[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return NOT_MEASURED
    if found["low"] is None:
        return f"{found['value']:.3f} (of {found['n']})"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _f1(step: Mapping[str, Any]) -> str:
    value, low, high = (step[name] for name in F1)
    if value is None:
        return UNKNOWN_F1
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.3f} to {high:.3f})"


def _text(value: Any, form: str = "") -> str:
    return NOT_MEASURED if value is None else format(value, form)
