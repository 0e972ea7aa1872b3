"""One step of a project, from the labels so far to the next query.

::

    PROJECT/steps/step_3/
      model.pt           the network, with the recipe to pick with it
      metrics.json       scores on the held-out micrographs, the learning curve so far, what is expected
      query.json         what to label next, and why
      suggestions.json   picks on these items
      labels.json        the submissions that it was trained and measured on

A step appears whole or not at all. Its training is kept in ``.store`` as it goes, so that a step that was
interrupted goes on where it was.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryoquery.data.dataset import Dataset
from cryoquery.errors import DataError, ProjectError
from cryoquery.loop import MODEL, SCORES, Laboratory, Run, trained
from cryoquery.oracles import HumanOracle
from cryoquery.pick.picker import Picker, load_picker
from cryoquery.progress import Progress
from cryoquery.project.folder import Project, finished_steps, open_project
from cryoquery.project.snapshot import Snapshot, take_snapshot
from cryoquery.records import link, read_json, staged_directory, write_json
from cryoquery.step.held_out import Counts, agreement, compared_rows, measure, names
from cryoquery.step.labeled_dataset import labeled_dataset
from cryoquery.step.outlook import Outlook, look_ahead
from cryoquery.step.query import next_query, suggestions
from cryoquery.step.under_way import WORK, UnderWay, under_way
from cryoquery.store import Store
from cryoquery.work import stoppable

METRICS, QUERY, LABELS, SUGGESTIONS = "metrics.json", "query.json", "labels.json", "suggestions.json"
MIN_ITEMS = 2
"""Labelled items that a network is trained on at least."""


def step(
    path: Path | str,
    progress: Progress | None = None,
    *,
    force: bool = False,
    wait: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Path | None:
    """Do the next step of the project in ``path``, here or on Slurm as its settings say.

    Args:
        path: of the project. A server may be writing its log.
        progress: who is told how it goes.
        force: also where nothing was labelled since the last step.
        wait: with Slurm, stay until the job has ended.
        say: told what is going on, in words.

    Returns:
        The folder of the step, of the last one where there is nothing new, or None for one that was put
        into Slurm's queue.

    Raises:
        ProjectError: there is no project, too little is labelled, another step is under way, or the job
            failed.
        DataError: a file of the project or of a micrograph is damaged.
        ConfigError: a setting cannot be used.
    """
    project = open_project(path)
    snapshot = take_snapshot(project)
    if not force and (last := nothing_new(project, snapshot)):
        say(f"nothing was labelled since {last.name}; label more, or use --force")
        return last
    check_enough(project, snapshot)
    if project.config.executor == "slurm":
        from cryoquery.step.slurm import step_on_slurm

        return step_on_slurm(project, snapshot, wait, say)
    return do_step(project, snapshot, progress, say)


def nothing_new(project: Project, snapshot: Snapshot) -> Path | None:
    """The last step, where it knew all of the labels; None where something is new."""
    done = list(finished_steps(project.steps_path).values())
    try:
        return done[-1] if done and read_json(done[-1] / LABELS) == snapshot.seqs else None
    except DataError:
        return None


def check_enough(project: Project, snapshot: Snapshot) -> None:
    """Refuse to train on next to nothing.

    Raises:
        ProjectError: it would be.
    """
    items = [i for i in snapshot.labels if project.items[i].split == "train"]
    n_particles = sum(len(snapshot.labels[i].particles_yx) for i in items)
    if len(items) < MIN_ITEMS or not n_particles:
        unit = f"{project.config.unit}s"
        raise ProjectError(
            f"{project.path}: {len(items)} {unit} with {n_particles} particles are labelled to train on; "
            f"label at least {MIN_ITEMS} with a particle, then run the step again"
        )


def do_step(
    project: Project,
    snapshot: Snapshot,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Do the next step in this process, on the labels of ``snapshot``. Errors as in `step`."""
    started = time.perf_counter()
    before = torch.get_num_threads()
    with under_way(project.path, progress, say) as watch, stoppable():
        if project.config.device.threads is not None:
            torch.set_num_threads(project.config.device.threads)
        try:
            return _do(project, snapshot, watch, started)
        finally:
            torch.set_num_threads(before)


@dataclass(frozen=True)
class _Trained:
    """The training of a step, and what it was made with."""

    run: Run
    lab: Laboratory
    data: Dataset
    labeled: NDArray[np.int64]
    entry: Path


def _do(project: Project, snapshot: Snapshot, watch: UnderWay, started: float) -> Path:
    by_number = finished_steps(project.steps_path)
    done, number = list(by_number.values()), max(by_number, default=0) + 1
    folder = project.steps_path / f"step_{number}"
    made = _train(project, snapshot, folder, watch)
    watch.phase("measures F1 on the held-out micrographs")
    picker = load_picker(made.entry / MODEL, project.config.device)
    curve = _curve(project, snapshot, made, picker, done, watch)
    watch.phase("chooses what to label next")
    query = next_query(project, snapshot, made.run, made.lab, made.entry)
    watch.phase("looks for particles on what is to be labelled next")
    found = suggestions(picker, project, [entry["item"] for entry in query], lambda done: watch.alive())
    outlook = look_ahead(project, snapshot, curve, query)
    with staged_directory(folder) as staged:
        link(made.entry / MODEL, staged / MODEL)
        write_json(staged / QUERY, query)
        write_json(staged / SUGGESTIONS, found)
        write_json(staged / LABELS, snapshot.seqs)
        metrics = _metrics(project, snapshot, made, number, outlook) | {
            "curve": curve,
            "agreement": curve[-1]["agreement"],
            "seconds": time.perf_counter() - started,
        }
        write_json(staged / METRICS, metrics)
    for old in (project.path / WORK).glob("dataset_*"):
        if old != made.data.path:
            shutil.rmtree(old, ignore_errors=True)
    return folder


def _train(project: Project, snapshot: Snapshot, folder: Path, watch: UnderWay) -> _Trained:
    config = project.config
    data = labeled_dataset(project.dataset, snapshot.labels, project.path / WORK)
    labeled = np.array(
        sorted(i for i in snapshot.labels if project.items[i].split == "train"), dtype=np.int64
    )
    lab = Laboratory(
        dataset=data,
        model=config.model,
        training=config.training,
        fabric=config.device.fabric(),
        splits=("val",),
        store=Store(project.path / ".store"),
        device=config.device,
        progress=watch,
    )
    run = Run(folder.name, config.strategy, config.seed, (len(labeled),), folder, from_scratch=True)
    oracle = HumanOracle(data, labeled)
    oracle.ask(labeled)
    watch.phase(f"trains on {len(labeled)} {config.unit}s")
    watch.begin(run.name, run.seed, 0, 1, len(labeled))
    entry, _ = trained(run, lab, oracle, [labeled])
    return _Trained(run, lab, data, labeled, entry)


def _curve(
    project: Project, snapshot: Snapshot, made: _Trained, picker: Picker, done: list[Path], watch: UnderWay
) -> list[dict[str, Any]]:
    """The learning curve: the models of all steps on today's held-out labels, this one last.

    Of each also how far its predictions on the pool agree with those of the step before.
    """
    held_out = names(made.data, snapshot.seqs)
    before = {point["step"]: point for point in _last_curve(done)}
    curve: list[dict[str, Any]] = []
    previous, agreed = None, None
    for path in done:
        told = before.get(path.name, {})
        known = told.get("held_out", {})
        try:
            previous = None
            if path == done[-1] or held_out.keys() - known.keys():
                previous = load_picker(path / MODEL, project.config.device)
            n_items = read_json(path / METRICS)["n_labeled_items"]
        except (DataError, LookupError):
            curve.clear()  # its files were removed or damaged: the curve begins after it
            continue
        counts = known if previous is None else measure(previous, made.data, held_out, known, watch.predicted)
        curve.append(_point(path.name, n_items, counts, told.get("agreement")))
    if previous is not None:
        rows = compared_rows(made.data, project.config.seed)
        agreed = agreement(previous.predictor, picker.predictor, made.data, rows)
    now = measure(picker, made.data, held_out, {}, watch.predicted)
    return [*curve, _point(made.run.name, len(made.labeled), now, agreed)]


def _point(step: str, n_items: int, held_out: Counts, agreed: float | None) -> dict[str, Any]:
    return {"step": step, "n_labeled_items": n_items, "held_out": held_out, "agreement": agreed}


def _last_curve(done: list[Path]) -> list[dict[str, Any]]:
    try:
        return list(read_json(done[-1] / METRICS)["curve"]) if done else []
    except (DataError, LookupError, TypeError):
        return []


def _metrics(
    project: Project, snapshot: Snapshot, made: _Trained, number: int, outlook: Outlook
) -> dict[str, Any]:
    """What `metrics.json` says beside the curve; without held-out labels no score is made up."""
    scores = read_json(made.entry / SCORES)
    if not scores["per_micrograph"]:
        scores = {name: None if isinstance(value, float) else value for name, value in scores.items()}
    return {
        **scores,
        **outlook.as_json(scores["per_micrograph"], np.random.default_rng([project.config.seed, number])),
        "step": number,
        "strategy": made.run.strategy,
        "n_labeled_items": len(made.labeled),
        "n_held_out_items": len(snapshot.labels) - len(made.labeled),
        "n_labeled_particles": sum(len(label.particles_yx) for label in snapshot.labels.values()),
        "hours": snapshot.seconds / 3600,
        "dataset_fingerprint": made.data.fingerprint,
    }
