"""A table of how the runs of an experiment stand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from cryoquery.active.progress import RunState
from cryoquery.cli.console import duration
from cryoquery.experiment.folder import planned_runs, read_config
from cryoquery.experiment.run_log import states

SECONDS_BETWEEN = 2.0
AT_WORK = ("running", "waiting")
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
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "seed", "iterations", "F1", "state", "node", "left", ""):
        grid.add_column(name, justify="right" if name in ("seed", "iterations", "F1", "left") else "left")
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
