"""How the runs of an experiment stand, and how a project stands."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from cryoquery.active.progress import RunState, duration
from cryoquery.experiment.folder import planned_runs, read_config
from cryoquery.experiment.run_log import states
from cryoquery.project.folder import open_project
from cryoquery.project.label_set import state_of
from cryoquery.project.step.slurm import look_after
from cryoquery.project.summary import F1, summarize

SECONDS_BETWEEN = 2.0
AT_WORK = ("running", "waiting")
NOT_MEASURED = "-"
UNKNOWN_F1 = "not known"
TOO_FEW = "too few"
"""Micrographs, or blind repeats, for an interval; also where all are equal."""
STYLES = {"finished": "green", "running": "cyan", "failed": "red", "lost": "red", "stopped": "yellow"}


def experiment_states(out: Path) -> list[RunState]:
    """How each run of the experiment in ``out`` stands.

    Raises:
        ExperimentError: there is no experiment.
        DataError: as `planned_runs`.
    """
    return states(planned_runs(read_config(out)))


def show_status(out: Path, console: Console, live: bool) -> None:
    """Print the table; ``live``: keep it up to date until nothing is at work any more, or Ctrl-C."""
    runs = planned_runs(read_config(out))
    found = states(runs)
    if not (live and console.is_terminal):
        console.print(table(found))
        console.print(summary(found), highlight=False)
        return
    with Live(table(found), console=console, auto_refresh=False) as display:
        while any(state.state in AT_WORK for state in found):
            time.sleep(SECONDS_BETWEEN)
            found = states(runs)
            display.update(table(found), refresh=True)
    console.print(summary(found), highlight=False)


def table(found: Sequence[RunState]) -> Table:
    """One row per run."""
    names = ("run", "seed", "iterations", "F1", "state", "node", "left", "")
    grid = _grid(names, on_the_left=("run", "state", "node", ""))
    for state in found:
        style = STYLES.get(state.state, "")
        epoch = f"epoch {state.epoch}/{state.n_epochs}" if state.n_epochs and state.state == "running" else ""
        grid.add_row(
            state.run,
            str(state.seed),
            f"{state.n_finished}/{state.n_iterations}" if state.n_iterations else "",
            "" if state.f1 is None else f"{state.f1:.3f}",
            f"[{style}]{state.state}[/]" if style else state.state,
            state.node + (f" job {state.job}" if state.job else ""),
            "" if state.seconds_left is None else duration(state.seconds_left),
            escape((state.message.splitlines() or [epoch])[0]),
        )
    return grid


def summary(found: Sequence[RunState]) -> str:
    """How many runs there are of each kind."""
    counts = {
        kind: sum(state.state == kind for state in found) for kind in dict.fromkeys(s.state for s in found)
    }
    return f"{len(found)} runs: " + ", ".join(f"{n} {kind}" for kind, n in counts.items())


def project_status(path: Path | str) -> dict[str, Any]:
    """What is known of the project in ``path``, see `summarize`; a step whose job has ended is forgotten.

    Raises:
        ProjectError: there is no project.
        DataError: a file of it is damaged.
    """
    project = open_project(path)
    look_after(project.path)
    return summarize(project, state_of(project))


def show_project(path: Path | str, console: Console) -> None:
    """Print how the project in ``path`` stands.

    Raises:
        ProjectError: there is no project.
        DataError: a file of it is damaged.
    """
    said = project_status(path)
    unit = f"{said['unit']}s"
    left_out = f", {said['n_left_out']} skipped or bad" if said["n_left_out"] else ""
    if n := said["n_held_out_left_out"]:
        left_out += f" ({n} of them held out: F1 is not measured on these)"
    held_out = f" ({n} of them held out to measure F1)" if (n := said["n_held_out"]) else ""
    console.print(
        f"{said['name']}: {said['n_labeled']} of {said['n_items']} {unit} labeled{held_out}{left_out}, "
        f"{said['n_particles']} particles, {said['hours']:.1f} h",
        highlight=False,
    )
    if said["steps"]:
        console.print(_step_table(said["steps"]))
    if said["sentence"]:
        console.print(f"{said['sentence']}.", highlight=False)
    elif not said["steps"]:
        console.print("Nothing is learned yet: label two of what cryoquery label asks for, with a particle.")
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
    grid = _grid(columns, on_the_left=("step",))
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
    columns = ("person", "items", "repeats", "skipped", "s/item", "s/particle", "F1 with oneself (95 %)")
    grid = _grid(columns, on_the_left=("person",))
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


def _grid(columns: Sequence[str], on_the_left: Sequence[str]) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        grid.add_column(name, justify="left" if name in on_the_left else "right")
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
    return _with_interval(found["value"], found["low"], found["high"], f"of {found['n']}: {TOO_FEW}")


def _f1(step: Mapping[str, Any]) -> str:
    value, low, high = (step[name] for name in F1)
    if value is None:
        return UNKNOWN_F1
    return _with_interval(value, low, high, TOO_FEW)


def _with_interval(value: float, low: float | None, high: float | None, without: str) -> str:
    return f"{value:.3f} ({without if low is None else f'{low:.3f} to {high:.3f}'})"


def _text(value: Any, form: str = "") -> str:
    return NOT_MEASURED if value is None else format(value, form)
