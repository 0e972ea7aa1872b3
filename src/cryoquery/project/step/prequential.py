"""Test, then train: F1 of the model without labels that are only measured on.

Some items of every query are drawn at random. What the model that asked for one suggests there, before it is
labeled, is compared with the label that comes; afterwards the item is trained on. So every model is tried on
items that it has not seen, and none is lost to training (prequential evaluation: Dawid 1984; Gama, Sebastião
& Rodrigues 2013, doi:10.1007/s10994-012-5320-9). Older trials are of older models, which were worse: they
count less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.picking.intervals import Interval, interval_of_ratio
from cryoquery.picking.metrics import match_particles
from cryoquery.project.folder import STEP, Project
from cryoquery.project.label_set import LabelSet
from cryoquery.project.state import Label
from cryoquery.project.step_files import StepFiles
from cryoquery.storage.atomic import read_json

HALF_LIFE = 16.0
"""A trial counts half as much when so many more items are labeled."""


@dataclass(frozen=True)
class Trial:
    """A model on one item, before it was labeled."""

    item: int
    step: str
    n_trained: int
    """Items that the model was trained on."""
    n_picks: int
    """From its threshold on."""
    n_particles: int
    n_matched: int

    @property
    def f1(self) -> float | None:
        """None where there is neither a particle nor a pick."""
        total = self.n_picks + self.n_particles
        return 2 * self.n_matched / total if total else None


class TrialScore(NamedTuple):
    """What the trials say of the newest model."""

    f1: float | None
    """Pooled over the particles of all trials; None without any."""
    precision: float | None
    recall: float | None
    interval: Interval | None
    """None: it is too early to say."""


def trials_of(project: Project, label_set: LabelSet) -> list[Trial]:
    """The trials so far, in the order in which the items were labeled.

    An item counts where a step asked for it to measure F1, its picks were there while it was labeled, and the
    model was not trained on it. Steps whose files are gone are left out.
    """
    files, steps = StepFiles(project.path), dict[str, _Step | None]()
    found = []
    for item, label in sorted(label_set.labels.items(), key=lambda pair: pair[1].seq):
        if label.model is None or STEP.fullmatch(label.model) is None:
            continue
        if label.model not in steps:
            steps[label.model] = _read_step(project.steps_path / label.model)
        step = steps[label.model]
        if step is not None and item in step.tests and item not in step.trained_on:
            suggested = files.suggestions(label.model, item)
            picks = np.array([(p.y, p.x) for p in suggested.picks if p.score >= suggested.threshold])
            counts = _compare(label, picks.reshape(-1, 2), project.diameter_px(item) / 2)
            found.append(Trial(item, label.model, len(step.trained_on), *counts))
    return found


class _Step(NamedTuple):
    tests: frozenset[int]
    trained_on: frozenset[int]


def _read_step(folder: Path) -> _Step | None:
    try:
        entries: list[dict[str, Any]] = read_json(folder / "query.json")
        tests = frozenset(entry["item"] for entry in entries if entry["purpose"] == "measure")
        return _Step(tests, frozenset(map(int, read_json(folder / "labels.json"))))
    except (DataError, LookupError, TypeError, ValueError):
        return None


def _compare(label: Label, picks: NDArray[np.float64], radius_px: float) -> tuple[int, int, int]:
    truth = label.particles_yx[label.covers(label.particles_yx)]
    matches = match_particles(picks[label.covers(picks)], truth, radius_px)
    return matches.n_picks, matches.n_truth, matches.n_matched


def trial_score(trials: Sequence[Trial], n_trained: int) -> TrialScore:
    """F1 of a model that was trained on ``n_trained`` items, from trials of it and of those before it."""
    weights = 0.5 ** (np.array([n_trained - trial.n_trained for trial in trials]) / HALF_LIFE)
    picks, particles, matched = (
        weights * np.array([getattr(trial, name) for trial in trials], dtype=np.float64)
        for name in ("n_picks", "n_particles", "n_matched")
    )
    return TrialScore(
        _ratio(2 * matched.sum(), picks.sum() + particles.sum()),
        _ratio(matched.sum(), picks.sum()),
        _ratio(matched.sum(), particles.sum()),
        interval_of_ratio(2 * matched, picks + particles),
    )


def _ratio(above: float, below: float) -> float | None:
    return float(above / below) if below else None
