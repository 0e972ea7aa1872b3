"""One step of a project, from the labels so far to the next query.

::

    PROJECT/steps/step_3/
      model.pt           the network, with the recipe to pick with it
      metrics.json       scores on the held-out micrographs, the learning curve so far, what is expected
      query.json         what to label next, and why
      suggestions.json   picks on these items
      maps/7.png         the probability of a particle over a micrograph, by the number of its first item
      labels.json        the submissions that it was trained and measured on

A step appears whole or not at all. Its training is kept in ``.cache`` as it goes, so that a step that was
interrupted goes on where it was.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cryoquery.active.iteration import MODEL, SCORES
from cryoquery.active.loop import iterate, query_rng, schedule_progress
from cryoquery.active.oracles import HumanOracle
from cryoquery.active.progress import IterationStarted, Progress, all_of, silent
from cryoquery.active.run import Context, Run, run_name
from cryoquery.data.dataset import Dataset
from cryoquery.data.pool import as_indices
from cryoquery.errors import DataError, ProjectError
from cryoquery.network.checkpoint import start_path
from cryoquery.network.device import using_threads
from cryoquery.picking.picker import Picker, load_picker
from cryoquery.project.folder import Project, finished_steps
from cryoquery.project.label_set import LabelSet, n_held_out_left_out
from cryoquery.project.settings import settings_digest
from cryoquery.project.step.forecast import forecast
from cryoquery.project.step.labeled_dataset import labeled_dataset
from cryoquery.project.step.learning_curve import agreement, compared_rows, counts_of, measure, names
from cryoquery.project.step.query import plan_query, query_entries, suggestions
from cryoquery.project.step.status import WORK, StepStatus, exclusive_step
from cryoquery.project.step_files import SUGGESTIONS, read_metrics
from cryoquery.signals import stoppable
from cryoquery.storage.atomic import link, read_json, staged_directory, write_json
from cryoquery.storage.cache import Cache

METRICS, QUERY, LABELS = "metrics.json", "query.json", "labels.json"
SETTINGS = "settings_sha256"
"""In `metrics.json`: see `cryoquery.project.settings.settings_digest`."""
MIN_ITEMS = 2
"""Labeled items that a network is trained on at least."""


def is_enough(project: Project, label_set: LabelSet) -> bool:
    """Whether enough is labeled to train on."""
    items, n_particles = _to_train_on(project, label_set)
    return len(items) >= MIN_ITEMS and n_particles > 0


def check_enough(project: Project, label_set: LabelSet) -> None:
    """Refuse to train on next to nothing.

    Raises:
        ProjectError: it would be.
    """
    if not is_enough(project, label_set):
        items, n_particles = _to_train_on(project, label_set)
        unit = f"{project.config.unit}s"
        raise ProjectError(
            f"{project.path}: {len(items)} {unit} with {n_particles} particles are labeled to train on; "
            f"label at least {MIN_ITEMS} with a particle, then run the step again"
        )


def _to_train_on(project: Project, label_set: LabelSet) -> tuple[list[int], int]:
    """The labeled items that are not held out, and how many particles are marked in them."""
    items = [i for i in label_set.labels if project.items[i].split == "train"]
    return items, sum(len(label_set.labels[i].particles_yx) for i in items)


def do_step(
    project: Project,
    label_set: LabelSet,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
    shortlist: int | None = None,
) -> Path:
    """Do the next step in this process, on the labels of ``label_set``; see `step`.

    Args:
        project: whose step it is.
        label_set: the labels to train on.
        progress: called with each event of the work.
        say: called with sentences about what is going on.
        shortlist: the strategy looks at so many items at most, see `plan_query`; None: at the whole pool.

    Raises:
        StepUnderWayError: another step of the project is.
        DataError, ConfigError: as `step`.
    """
    unit = f"{project.config.unit}s"
    threads = project.config.device.threads
    with exclusive_step(project.path, say, unit) as status, stoppable(), using_threads(threads):
        return _do(project, label_set, status, progress, shortlist)


def _do(
    project: Project, label_set: LabelSet, status: StepStatus, progress: Progress, shortlist: int | None
) -> Path:
    started = time.perf_counter()
    by_number = finished_steps(project.steps_path)
    done, number = list(by_number.values()), max(by_number, default=0) + 1
    folder, config = project.steps_path / f"step_{number}", project.config
    data = labeled_dataset(project.dataset, label_set.labels, project.path / WORK)
    context = _context(project, data, all_of(progress, status))
    labeled = as_indices(_to_train_on(project, label_set)[0])
    name = run_name(config.strategy)
    run = Run(name, config.strategy, config.seed, (len(labeled),), folder, from_scratch=True)
    oracle = HumanOracle(data, labeled)
    oracle.ask(labeled)
    context.progress(IterationStarted(name, config.seed, number - 1, config.n_steps, len(labeled)))
    planned = plan_query(project, label_set, shortlist)
    iteration = iterate(
        run,
        context,
        oracle,
        [labeled],
        planned.n_chosen,
        progress=schedule_progress(number - 1, config.n_steps),
        rng=query_rng(config.seed, name, number - 1),
        skipped=planned.skipped,
        among=planned.among,
    )
    query = query_entries(iteration.query, planned)
    picker = load_picker(iteration.entry / MODEL, config.device)
    scores = read_json(iteration.entry / SCORES)
    curve = _curve(project, label_set, data, done, picker, scores, context)
    curve[-1] |= {"step": folder.name, "n_labeled_items": len(labeled)}
    status.phase("looks for particles on what is to be labeled next")
    found = suggestions(picker, project, [entry["item"] for entry in query], lambda done: status.alive())
    before = read_metrics(done[-1]) if done else {}
    metrics = {
        **_known(scores),
        **forecast(project, label_set, curve, query, scores["per_micrograph"], before),
        "step": number,
        "strategy": config.strategy,
        "n_labeled_particles": sum(len(label.particles_yx) for label in label_set.labels.values()),
        "hours": label_set.seconds / 3600,
        "n_labeled_items": len(labeled),
        "n_held_out_items": len(label_set.labels) - len(labeled),
        "n_held_out_left_out": n_held_out_left_out(project, label_set),
        "dataset_fingerprint": data.fingerprint,
        SETTINGS: settings_digest(config),
        "curve": curve,
        "agreement": curve[-1]["agreement"],
        "seconds": time.perf_counter() - started,
    }
    with staged_directory(folder) as staged:
        link(iteration.entry / MODEL, staged / MODEL)
        write_json(staged / QUERY, query)
        found.write(staged / SUGGESTIONS)
        write_json(staged / LABELS, label_set.seqs)
        write_json(staged / METRICS, metrics)
    for old in (project.path / WORK).glob("dataset_*"):
        if old != data.path:
            shutil.rmtree(old, ignore_errors=True)
    return folder


def _known(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Without held-out labels no score is made up."""
    measured = bool(scores["per_micrograph"])
    return {
        name: None if isinstance(value, float) and not measured else value for name, value in scores.items()
    }


def _context(project: Project, data: Dataset, progress: Progress) -> Context:
    config = project.config
    return Context(
        dataset=data,
        model=config.model,
        training=config.training,
        fabric=config.device.fabric(),
        splits=("val",),
        cache=Cache(project.path / ".cache"),
        start=start_path(config.start),
        device=config.device,
        progress=progress,
    )


def _curve(
    project: Project,
    label_set: LabelSet,
    data: Dataset,
    done: list[Path],
    picker: Picker,
    scores: dict[str, Any],
    context: Context,
) -> list[dict[str, Any]]:
    """The learning curve: the models of all steps on today's held-out labels, this one last.

    Of each also how far its predictions on the pool agree with those of the step before.
    """
    held_out = names(data, label_set.seqs)
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
        counts = known if previous is None else measure(previous, data, held_out, known, context.predicted)
        point = {"step": path.name, "n_labeled_items": n_items}
        curve.append(point | {"held_out": counts, "agreement": told.get("agreement")})
    if previous is not None:
        rows = compared_rows(data, project.config.seed)
        agreed = agreement(previous.predictor, picker.predictor, data, rows)
    now = counts_of(scores["per_micrograph"], held_out, data)
    return [*curve, {"held_out": now, "agreement": agreed}]


def _last_curve(done: list[Path]) -> list[dict[str, Any]]:
    try:
        return list(read_json(done[-1] / METRICS)["curve"]) if done else []
    except (DataError, LookupError, TypeError):
        return []
