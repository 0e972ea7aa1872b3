"""How long work looks on a terminal, and in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from cryoquery.active.progress import (
    EpochEnded,
    Event,
    ImagesPassed,
    IterationEnded,
    IterationStarted,
    RunState,
    RunStates,
    Waiting,
    duration,
)
from cryoquery.data.dataset import Dataset
from cryoquery.data.inspection import Inspection
from cryoquery.experiment.plan import H200_FLOP_PER_SECOND, Plan, Speed
from cryoquery.storage.atomic import read_json


def say(console: Console, line: str, style: str | None = None) -> None:
    """Print a line as it is, however long."""
    console.print(line, style=style, soft_wrap=True, markup=False, highlight=False)


LONG = 3 * 86400
"""Seconds that nobody wants to wait for."""


class ExperimentProgress:
    """Shows iteration, epoch, loss, F1 and time left: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._console = console
        self._total = plan.cost.work
        self._done_after: dict[tuple[str, int, int], int] = {}
        done = 0
        for planned in plan.runs:
            for iteration, cost in enumerate(planned.iterations):
                done += cost.work
                self._done_after[(planned.run.name, planned.run.seed, iteration)] = done
        self._now = ("", 0, 0)
        self._n_trainings = len(self._done_after)
        self._n_ended = 0
        self._states: dict[tuple[str, int], int] = {}
        self._found: int | None = None
        self._done = self._worked = 0
        self._started = time.perf_counter()
        self._where = self._epoch = self._last_f1 = ""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=self._total, left="")

    @contextmanager
    def shown(self) -> Iterator[ExperimentProgress]:
        """Show the bar while the block runs."""
        with self._bar:
            yield self

    def __call__(self, event: Event) -> None:
        """Show an event; a `cryoquery.active.progress.Progress`."""
        match event:
            case IterationStarted():
                self._now = (event.run, event.seed, event.iteration)
                number = f"iteration {event.iteration + 1}/{event.n_iterations}"
                self._where = f"{event.run} seed {event.seed} · {number} · {event.n_labeled} labeled"
                self._epoch = ""
            case EpochEnded():
                self._epoch = f" · epoch {event.epoch}/{event.n_epochs} · loss {event.loss:.4f}"
            case ImagesPassed():
                self._done += event.work
                self._worked += event.work
            case Waiting():
                self._epoch = f" · waiting for {event.owner}"
                self._say(f"{self._where}{self._epoch}")
            case IterationEnded():
                self._done = self._done_after.get(self._now, self._done)
                self._last_f1 = f" · F1 {event.f1:.3f}"
                self._n_ended += 1
                self._say(f"{self._where}{self._last_f1} · {event.how} · {self._so_far()}")
            case RunStates():
                self._show_runs(event.states)
        self._show()

    def _show_runs(self, states: Sequence[RunState]) -> None:
        changed = []
        for state in states:
            before = self._states.get((state.run, state.seed))
            self._states[(state.run, state.seed)] = state.n_finished
            if before is not None and before != state.n_finished and state.f1 is not None:
                changed.append(state)
        self._n_ended = sum(self._states.values())
        at_work = [state for state in states if state.state == "running"]
        known = [state.total for state in states if state.total]
        self._total = max(len(states) * sum(known) // max(len(known), 1), 1)
        done = sum(state.done for state in states)
        if self._found is None:
            self._found = done  # by an earlier call
        self._done, self._worked = done, done - self._found
        names = ", ".join(f"{s.run} seed {s.seed} {s.n_finished}/{s.n_iterations}" for s in at_work)
        n_finished = sum(state.state == "finished" for state in states)
        for state in changed:
            self._say_finished(state)
        self._where = f"{n_finished} of {len(states)} runs finished · at work: {names or 'none'}"
        self._epoch = ""

    def _say_finished(self, state: RunState) -> None:
        self._last_f1 = f" · F1 {state.f1:.3f}"
        number = f"iteration {state.n_finished}/{state.n_iterations}"
        self._say(f"{state.run} seed {state.seed} · {number}{self._last_f1} · {self._so_far()}")

    def _say(self, line: str) -> None:
        """Print a line where there is no bar."""
        if not self._console.is_terminal:
            say(self._console, line)

    def _show(self) -> None:
        if not self._bar.disable:
            text = self._where + self._epoch + self._last_f1
            self._bar.update(self._task, completed=self._done, description=text, left=self._left())

    def _so_far(self) -> str:
        return f"{self._n_ended} of {self._n_trainings} trainings{self._left()}"

    def _left(self) -> str:
        if self._worked == 0 or self._done >= self._total:
            return ""
        rate = (time.perf_counter() - self._started) / self._worked
        return f" · {duration((self._total - self._done) * rate)} left"


def print_plan(plan: Plan, speed: Speed | None, flop: float | None, console: Console) -> None:
    """Every run with its labeled counts and training passes, then what the whole will take."""
    width = max(len(planned.run.name) for planned in plan.runs)
    counts: tuple[int, ...] = ()
    for planned in plan.runs:
        cost, run = planned.cost, planned.run
        if run.counts != counts:
            counts = run.counts
            say(console, f"labeled images: {', '.join(map(str, counts))}")
        n_saved = cost.n_saved_training + cost.n_saved_inference
        saved = f", {n_saved:,} saved" if n_saved else ""
        say(
            console,
            f"  {run.name:{width}}  seed {run.seed}  {cost.n_training:9,} training passes"
            f"  {cost.n_inference:9,} inference passes{saved}",
        )
    total = plan.cost
    n_trainings = sum(cost.n_training > 0 for planned in plan.runs for cost in planned.iterations)
    say(console, "")
    say(console, f"{len(plan.runs)} runs, {n_trainings} trainings; a pass is one image through the network")
    say(
        console,
        f"{total.n_training:,} training passes, {total.n_inference:,} inference passes; identical work is "
        f"done once, which saves {total.n_saved_training:,} and {total.n_saved_inference:,} more "
        f"({total.saved:.1%} of all)",
    )
    if plan.note:
        say(console, f"note: {plan.note}")
    if speed:
        seconds = speed.estimate(plan)
        say(
            console,
            f"about {duration(seconds)} on this machine: {speed.training:.3g} s per training "
            f"pass, {speed.inference:.3g} s per inference pass, timed on {speed.measured_on}",
        )
        if flop and seconds > LONG and not speed.on_gpu:
            on_gpu = duration(flop / H200_FLOP_PER_SECOND)
            say(
                console,
                f"that is too long: use a GPU; one H200 would take about {on_gpu}, by arithmetic "
                f"({flop / 1e18:.3g} EFLOP at {H200_FLOP_PER_SECOND / 1e12:.0f} TFLOP/s)",
            )


def print_answer(comparison: Path, console: Console) -> None:
    """Three numbers, the verdict on each hypothesis, what to do next, and where the report lies."""
    answer = read_json(comparison / "efficiency_analysis.json")
    say(console, f"Measured on the {answer['split']} micrographs:")
    for line in answer["answer"]:
        say(console, f"  {line['number']:>6} {line['text']}")
    for hypothesis in answer["hypotheses"].values():
        say(console, f"{hypothesis['title']}: {hypothesis['verdict']}. {hypothesis['sentence']}")
    if answer["next"]:
        say(console, answer["next"])
    say(console, f"report: {comparison / 'report.html'}")


def print_inspection(dataset: Dataset, inspection: Inspection, console: Console) -> None:
    """Counts per group and split, then notes and warnings."""
    n, height, width = dataset.images.shape
    say(console, f"{dataset.path}: {n} images of {height}×{width} px, fingerprint {dataset.fingerprint[:12]}")
    header = "group", "split", "micrographs", "images", "particles", "per image", "foreground", "diameter px"
    rows = [
        (
            counts.group,
            counts.split,
            str(counts.n_micrographs),
            str(counts.n_images),
            f"{counts.n_particles:,}",
            f"{counts.particles_per_image:.1f}",
            f"{counts.foreground:.1%}",
            f"{counts.diameter_px:.0f} → {counts.scaled_diameter_px:.1f}",
        )
        for counts in inspection.counts
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        names = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        say(console, "  ".join(names + numbers))
    for note in inspection.notes:
        say(console, f"WARNING: {note}", "bold")
    for warning in inspection.warnings:
        say(console, f"WARNING: {warning}", "bold red")
