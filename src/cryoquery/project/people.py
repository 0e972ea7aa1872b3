"""How people label: how fast, how much like themselves, and how much they lean on what they are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.path import Path as Outline
from numpy.typing import ArrayLike, NDArray

from cryoquery.picking.intervals import Interval, interval_of_difference, interval_of_mean
from cryoquery.picking.metrics import match_particles
from cryoquery.project.labeling import Submission, TaskState, task_id
from cryoquery.project.state import ProjectState, points_yx


@dataclass(frozen=True)
class Effort:
    """What one person did, and how long it took."""

    n_items: int
    """Answered at least once, blind repeats not among them."""
    n_repeats: int
    n_particles: int
    """In the last answers of this person, blind repeats not among them."""
    n_skipped: int
    """Bad ones too."""
    seconds: float
    """Of activity on everything."""
    seconds_per_item: float | None
    """On what was answered, blind repeats not among it; None: nothing was."""
    seconds_per_particle: float | None


@dataclass(frozen=True)
class Estimate:
    """A mean F1 over tasks, or a difference of two, with its 95 % interval."""

    n: int
    """Tasks that it is the mean of."""
    value: float | None
    """None: of no task."""
    low: float | None
    """None: too few tasks to say."""
    high: float | None


@dataclass(frozen=True)
class Arm:
    """Tasks that were shown in one way."""

    n_tasks: int
    f1: Estimate
    """Of the labels, with the model's picks as the truth; means over tasks with either."""
    particles: float | None
    """Per item; None: there are no tasks."""
    seconds: float | None
    """Per item."""


@dataclass(frozen=True)
class Anchoring:
    """Whether labels resemble the model's picks more when these are shown.

    Which tasks are shown without is decided by chance, so that a difference is due to the showing.
    """

    with_suggestions: Arm
    without_suggestions: Arm
    f1_difference: Estimate
    """With less without; well above 0: the picks are followed where the eye alone would not."""


def people(state: ProjectState) -> set[str]:
    """Who has labeled or skipped anything; imported labels belong to no person."""
    found = {person for task in state.tasks.values() for person in (*task.seconds, *task.skipped_by)}
    return found | {s.person for task in state.tasks.values() for s in task.submissions if not s.imported}


def efforts(state: ProjectState) -> dict[str, Effort]:
    """What each person did, by name."""
    return {person: _effort(state, person) for person in sorted(people(state))}


def _effort(state: ProjectState, person: str) -> Effort:
    answered = [(task, last) for task in state.tasks.values() if (last := _last_of(task, person)) is not None]
    first = [(task, last) for task, last in answered if task.repeat == 0]
    n_particles = sum(len(last.particles) for _, last in first)
    seconds = math.fsum(task.seconds.get(person, 0.0) for task, _ in first)
    return Effort(
        n_items=len(first),
        n_repeats=len(answered) - len(first),
        n_particles=n_particles,
        n_skipped=sum(person in task.skipped_by for task in state.tasks.values()),
        seconds=math.fsum(task.seconds.get(person, 0.0) for task in state.tasks.values()),
        seconds_per_item=seconds / len(first) if first else None,
        seconds_per_particle=seconds / n_particles if n_particles else None,
    )


def total_seconds(state: ProjectState) -> float:
    """Seconds of activity of all people on all tasks."""
    return math.fsum(seconds for task in state.tasks.values() for seconds in task.seconds.values())


def consistency(state: ProjectState, radius_px: float) -> dict[str, Estimate]:
    """Person → particle F1 with oneself, over the blind repeats that they answered.

    The first answer to a repeat is compared with the last one that the same person gave before it, where
    both say anything. Repeats without a particle in either answer do not count.

    Args:
        state: of the project.
        radius_px: half the particle diameter.
    """
    found: dict[str, list[float]] = {}
    for name in sorted(state.tasks):
        task = state.tasks[name]
        if not task.repeat:
            continue
        for person in sorted({s.person for s in task.submissions}):
            again = next(s for s in task.submissions if s.person == person)
            before = _last_of(state.tasks[task_id(task.item)], person, before=again.seq)
            scores = found.setdefault(person, [])
            if before is not None:
                points = points_yx(again.particles), points_yx(before.particles)
                f1 = _f1(*points, [again, before], radius_px)
                scores += [] if f1 is None else [f1]
    return {person: _estimate(scores) for person, scores in sorted(found.items())}


def picks_to_compare(state: ProjectState) -> set[tuple[str, int]]:
    """(model, item) of the suggestions that `anchoring` wants to know."""
    return {(first.model, task.item) for task, first in _answers_to_a_model(state) if first.model is not None}


def anchoring(
    state: ProjectState,
    picks: Mapping[tuple[str, int], ArrayLike],
    radius_px: float,
) -> Anchoring:
    """Compare the labels of tasks that were shown with suggestions to those that were shown without.

    Each task counts by its first answer. Tasks that began from imported labels, and blind repeats, are
    left out.

    Args:
        state: of the project.
        picks: (model, item) → (n, 2) picks of that model at its threshold, pixels; tasks without are left
            out. `picks_to_compare` names them.
        radius_px: half the particle diameter.
    """
    arms: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    for task, first in _answers_to_a_model(state):
        shown = picks.get((first.model or "", task.item))
        if shown is not None:
            f1 = _f1(points_yx(first.particles), np.reshape(shown, (-1, 2)), [first], radius_px)
            row = (math.nan if f1 is None else f1, len(first.particles), first.active_seconds)
            arms[first.suggested].append(row)
    with_them, alone = (np.array(arms[key], dtype=np.float64).reshape(-1, 3) for key in (True, False))
    return Anchoring(_arm(with_them), _arm(alone), _difference(_scores(with_them), _scores(alone)))


def _answers_to_a_model(state: ProjectState) -> list[tuple[TaskState, Submission]]:
    """First labelings with their first answer, where a model had picks to show; labels of a file had none."""
    return [
        (task, task.submissions[0])
        for _, task in sorted(state.tasks.items())
        if task.repeat == 0 and task.answer is not None and task.submissions[0].model is not None
    ]


def _last_of(task: TaskState, person: str, before: float = math.inf) -> Submission | None:
    """The last answer of ``person`` with a number below ``before``."""
    own = [s for s in task.submissions if s.person == person and not s.imported and s.seq < before]
    return own[-1] if own else None


def _f1(
    one: NDArray[np.float64], other: NDArray[np.float64], answers: Sequence[Submission], radius_px: float
) -> float | None:
    """Particle F1 of two sets of points where all ``answers`` say something; None without any point."""
    for answer in answers:
        one, other = one[_covered(one, answer)], other[_covered(other, answer)]
    return match_particles(one, other, radius_px).f1 if len(one) or len(other) else None


def _covered(points: NDArray[np.float64], answer: Submission) -> NDArray[np.bool_]:
    """(n,) which points lie where ``answer`` says what is there: in a region that is done, none ignored."""
    covered = np.ones(len(points), dtype=bool)
    done = [region.polygon for region in answer.regions if region.kind == "done"]
    if done:
        covered = np.logical_or.reduce([Outline(polygon).contains_points(points) for polygon in done])
    for region in answer.regions:
        if region.kind == "ignore":
            covered &= ~Outline(region.polygon).contains_points(points)
    return covered


def _arm(rows: NDArray[np.float64]) -> Arm:
    _, particles, seconds = (float(mean) for mean in rows.mean(axis=0)) if len(rows) else (None, None, None)
    return Arm(len(rows), _estimate(_scores(rows)), particles, seconds)


def _scores(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 of the tasks for which there is one."""
    scores: NDArray[np.float64] = rows[~np.isnan(rows[:, 0]), 0]
    return scores


def _estimate(scores: ArrayLike) -> Estimate:
    sample = np.asarray(scores, dtype=np.float64)
    return _stated(len(sample), float(sample.mean()) if len(sample) else None, interval_of_mean(sample))


def _difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> Estimate:
    """Mean of ``one`` less mean of ``other``."""
    known = len(one) > 0 and len(other) > 0
    value = float(one.mean() - other.mean()) if known else None
    return _stated(len(one) + len(other), value, interval_of_difference(one, other))


def _stated(n: int, value: float | None, interval: Interval | None) -> Estimate:
    return Estimate(n, value, *((interval.low, interval.high) if interval else (None, None)))
