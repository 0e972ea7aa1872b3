"""How good are the picks after so many minutes of a person's time? A scripted person labels real micrographs.

    python benchmarks/five_minutes.py [SET ...] [--seeds 3] [--minutes 6] [--picture FILE]

A third of the micrographs of each set of ../shared/data is untouched: the project never sees them, and what a
person would have at the moment, the project's newest model, is measured on them. `cryoquery init`, the
labeling server and the process that learns beside it do what they do for anybody. The person answers from the
labels (10028: the completed ones), but overlooks some particles, clicks beside them and sometimes marks
nothing, see `PersonHabits`; what they do is counted in seconds that can be set. They open the next field as
soon as one is submitted, so that its suggestions are of the model before: nobody waits for a training.
`general` has seen simulated micrographs alone, none of these proteins. Full supervision is one step of a
project in which every field is labeled with all that is known.
"""

from __future__ import annotations

import argparse
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from general_model import SETS, LabeledSet
from label_pictures import served
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryoquery.formats import read_micrograph, write_coordinates
from cryoquery.formats.picks import Picks, concatenate
from cryoquery.picking.metrics import match_particles, mean_particle_scores
from cryoquery.picking.picker import PickOptions, load_picker
from cryoquery.project.folder import Project, finished_steps, open_project
from cryoquery.project.new_project import InitOptions, init_project
from cryoquery.project.pick_all import newest_model
from cryoquery.project.step import step

Truth = dict[str, NDArray[np.float64]]
"""(n, 2) centers by the stem of a micrograph's file."""
PATIENCE_S = 300.0


@dataclass(frozen=True)
class PersonHabits:
    """Seconds that a person takes, and how often they err."""

    look_s: float = 5.0
    """At a field."""
    add_s: float = 1.6
    judge_s: float = 0.6
    """To accept or to reject one suggestion."""
    submit_s: float = 3.0
    misses: float = 0.03
    """Share of the particles without a suggestion that are overlooked."""
    false_marks: float = 0.01
    """Marks where nothing is, in marks."""
    jitter: float = 0.05
    """Standard deviation of a click, in diameters."""


@dataclass(frozen=True)
class Moment:
    """What there is after so much of a person's time."""

    minutes: float
    n_clicks: int
    n_fields: int
    f1: float


class Person:
    """Answers the items of a project at its page, from the truth, with errors."""

    def __init__(
        self, project: Project, truth: Truth, radius_px: float, client: httpx.Client, seed: int
    ) -> None:
        self.seconds, self.n_clicks, self.n_fields = 0.0, 0, 0
        self._project, self._truth, self._radius = project, truth, radius_px
        self._client, self._rng, self._habits = client, np.random.default_rng(seed), PersonHabits()
        self._open = self._lease()

    def _lease(self) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.post("/api/lease", json={}).raise_for_status().json()
        assert answer.get("task") is not None, f"nothing is left to label: {answer}"
        return answer

    def label(self) -> None:
        """Label the field that is open, submit it and open the next one."""
        task, habits, rng = self._open, self._habits, self._rng
        item = self._project.items[task["item"]]
        points = self._truth[Path(self._project.micrograph_of(task["item"]).path).stem]
        points = points[[item.contains(*point) for point in points.tolist()]].reshape(-1, 2)
        shown = [one for one in task["suggestions"] if one["score"] >= task["threshold"]]
        places = np.array([(one["y"], one["x"]) for one in shown]).reshape(-1, 2)
        matched = match_particles(places, points, self._radius)
        right = [shown[row]["key"] for row in matched.pick_rows]
        missed = np.delete(points, matched.truth_rows, axis=0)
        missed = missed[rng.random(len(missed)) >= habits.misses]
        diameter = 2 * self._radius
        marks = missed + rng.normal(0, habits.jitter * diameter, missed.shape)
        n_false = rng.binomial(max(len(points), 1), habits.false_marks)
        top, left, height, width = item.region or (0, 0, task["height"], task["width"])
        first, last = (top, left), (top + height - 1, left + width - 1)
        wrong = rng.uniform(first, last, (n_false, 2))
        marks = np.clip(np.concatenate([marks, wrong]), first, last)
        ops: list[dict[str, Any]] = [{"op": "accept", "keys": right}] if right else []
        ops += [{"op": "add", "key": secrets.token_hex(8), "y": y, "x": x} for y, x in marks.tolist()]
        if not right and not len(marks):
            ops.append({"op": "empty", "value": True})
        taken = habits.look_s + habits.submit_s + habits.judge_s * len(shown) + habits.add_s * len(marks)
        commands: list[dict[str, Any]] = [
            {"id": secrets.token_hex(8), "kind": "drafted", "op": op} for op in ops
        ]
        commands.append({"id": secrets.token_hex(8), "kind": "submitted"})
        commands = [{**command, "active_seconds": taken / len(commands)} for command in commands]
        self._client.post(
            f"/api/tasks/{task['task']}/commands", json={"commands": commands}
        ).raise_for_status()
        self.seconds += taken
        self.n_clicks += len(shown) + len(marks) + 1
        self.n_fields += 1
        self._open = self._lease()


def wait_for_step_on(project: Project, n_fields: int) -> None:
    """Wait until a model has been trained on so many fields; the first one is trained on two."""
    until = time.monotonic() + PATIENCE_S
    while len(finished_steps(project.steps_path)) < n_fields - 1:
        assert time.monotonic() < until, f"no model of {n_fields} fields within {PATIENCE_S:.0f} s"
        time.sleep(0.2)


def f1_on(files: Sequence[Path], truth: Truth, labeled: LabeledSet, model: Path) -> float:
    """Particle F1 of a model at its own threshold, mean over micrographs."""
    picker, options = load_picker(model), PickOptions(diameter_px=labeled.diameter_px)
    matches = []
    for file in files:
        found = picker.pick(read_micrograph(file).pixels, options, None).picks.centers_yx
        matches.append(match_particles(found, truth[file.stem], labeled.radius_px))
    return mean_particle_scores(matches)["particle_f1"]


def session(
    labeled: LabeledSet,
    files: Sequence[Path],
    untouched: Sequence[Path],
    truth: Truth,
    seed: int,
    minutes: float,
) -> Iterator[Moment]:
    """What there is before the first label and after each field, until the minutes are over."""
    with tempfile.TemporaryDirectory() as folder:
        options = InitOptions(diameter_px=labeled.diameter_px, unit="field", seed=seed)
        project = init_project(Path(folder) / "p", list(files), options).project
        yield Moment(0.0, 0, 0, f1_on(untouched, truth, labeled, newest_model(project)))
        with served(project.path) as client:
            person = Person(project, truth, labeled.radius_px, client, seed)
            while person.seconds < 60 * minutes:
                person.label()
                wait_for_step_on(project, person.n_fields)
                f1 = f1_on(untouched, truth, labeled, newest_model(project))
                yield Moment(person.seconds / 60, person.n_clicks, person.n_fields, f1)


def full_supervision(
    labeled: LabeledSet, files: Sequence[Path], untouched: Sequence[Path], truth: Truth
) -> float:
    """F1 of a step of a project in which everything is labeled."""
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.star"
        write_coordinates(
            labels, concatenate([Picks.of(truth[file.stem], micrograph=file.name) for file in files])
        )
        options = InitOptions(diameter_px=labeled.diameter_px, unit="field")
        project = init_project(Path(folder) / "p", list(files), options, labels=[labels]).project
        step(project.path)
        return f1_on(untouched, truth, labeled, newest_model(open_project(project.path)))


def draw(curves: dict[str, tuple[float, list[list[Moment]]]], out: Path) -> None:
    """F1 over minutes, a line for each session, and full supervision."""
    figure = Figure(figsize=(3.6 * len(curves), 3.4), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for panel, (name, (full, sessions)) in zip(panels, curves.items(), strict=True):
        for moments in sessions:
            panel.plot([m.minutes for m in moments], [m.f1 for m in moments], color="#3b6fb5", marker=".")
        panel.axhline(full, color="#777777", linestyle="--", linewidth=1)
        panel.axhline(0.97 * full, color="#c0504d", linestyle=":", linewidth=1)
        panel.axvline(5, color="#b9bec6", linewidth=1)
        panel.set(xlabel="minutes of a person", ylabel="particle F1, untouched micrographs")
        panel.set_title(name.removeprefix("empiar_"))
        panel.grid(alpha=0.25)
    figure.savefig(out)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, print every session and a row for each set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(one.name for one in SETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args(argv)
    curves = {}
    rows = [
        "| set | no labels | full supervision | minutes to 97 % of it | after 5 minutes | fields/clicks |"
    ]
    rows.append("|---|---|---|---|---|---|")
    for labeled in SETS:
        if given.sets and labeled.name not in given.sets:
            continue
        found = list(labeled.micrographs())
        truth = {file.stem: centers for file, centers in found}
        untouched = [file for file, _ in found[::3]]
        files = [file for file, _ in found if file not in untouched]
        full = full_supervision(labeled, files, untouched, truth)
        print(f"{labeled.name}: {len(files)} micrographs, {len(untouched)} untouched; full: {full:.3f}")
        sessions = []
        for seed in range(1, given.seeds + 1):
            moments = []
            for moment in session(labeled, files, untouched, truth, seed, given.minutes):
                moments.append(moment)
                print(f"  seed {seed}: {moment}", flush=True)
            sessions.append(moments)
        curves[labeled.name] = full, sessions
        rows.append(_row(labeled.name, full, sessions))
    print("\n".join(rows))
    if given.picture is not None:
        draw(curves, given.picture)


def _row(name: str, full: float, sessions: Sequence[Sequence[Moment]]) -> str:
    """A set's line of the table, a value for each session."""
    enough = [next((m for m in moments if m.f1 >= 0.97 * full), None) for moments in sessions]
    last = [[m for m in moments if m.minutes <= 5][-1] for moments in sessions]
    minutes = ", ".join("–" if m is None else f"{m.minutes:.1f}" for m in enough)
    scores, effort = (
        ", ".join(cells)
        for cells in zip(*((f"{m.f1:.3f}", f"{m.n_fields}/{m.n_clicks}") for m in last), strict=True)
    )
    return f"| {name} | {sessions[0][0].f1:.3f} | {full:.3f} | {minutes} | {scores} | {effort} |"


if __name__ == "__main__":
    main()
