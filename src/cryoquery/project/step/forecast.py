"""What a step says of itself: F1 so far, how sure that is, and what the next labels are expected to bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryoquery.active.stopping import TYPICAL_STD, Gain, Point, expected_gain, points, sentence
from cryoquery.picking.intervals import FEWEST, Interval, interval_of_mean, interval_of_ratio
from cryoquery.project.folder import Project
from cryoquery.project.label_set import LabelSet, n_held_out_left_out
from cryoquery.project.step.learning_curve import f1_of
from cryoquery.project.step.prequential import Trial, trial_score, trials_of

WORSE = 0.005
"""So much less F1 than a step before is said."""


@dataclass(frozen=True)
class _Measured:
    """What is known of F1 so far."""

    f1: float | None
    """Of picks, at the threshold that picking uses; None: not known."""
    interval: Interval | None
    precision: float | None
    recall: float | None
    points: list[Point]
    """The learning curve."""
    agreed: list[float | None]
    """How far each point's model agrees with the one before."""
    doubt: str
    """Why the F1 is not to be relied on; empty: it is."""


def forecast(
    project: Project,
    label_set: LabelSet,
    curve: Sequence[Mapping[str, Any]],
    query: Sequence[Mapping[str, Any]],
    per_micrograph: Sequence[Mapping[str, Any]],
    before: Mapping[str, Any],
) -> dict[str, Any]:
    """What is known of F1, and what labeling ``query`` is expected to bring, for `metrics.json`.

    F1 is measured on held-out micrographs, or, in a project without, by trials (`prequential`).

    Args:
        project: whose settings say what labels cost where nothing was timed.
        label_set: the labels so far.
        curve: a record per step, this one last: ``n_labeled_items``, ``held_out`` counts by micrograph, and
            its ``agreement`` with the step before.
        query: the next one.
        per_micrograph: what this step's evaluation recorded of each held-out micrograph.
        before: metrics of the step before; empty: there is none.
    """
    if len(project.dataset.rows("val")):
        found, trials = _on_held_out(curve), []
    else:
        trials = trials_of(project, label_set)
        found = _by_trials(trials, curve, project.config.unit)
    n_asked = sum(project.items[entry["item"]].split == "train" for entry in query)
    gain = expected_gain(found.points, n_asked, found.agreed) if n_asked else None
    minutes = _minutes(project, label_set, len(query))
    said = _say(project, len(query), minutes, found, gain)
    f1_before = before.get("particle_f1")
    if found.f1 is not None and f1_before is not None and found.f1 < f1_before - WORSE:
        said = f"F1 of picks fell from {100 * f1_before:.1f} to {100 * found.f1:.1f} %; {said}"
    if found.f1 is not None and (n := n_held_out_left_out(project, label_set)):
        unit = project.config.unit + ("" if n == 1 else "s")
        said += f"; F1 leaves out {n} held-out {unit} that people skipped or called bad"
    hits = [2 * record["pixel_tp"] for record in per_micrograph]
    errors = [record["pixel_fp"] + record["pixel_fn"] for record in per_micrograph]
    return {
        "particle_f1": found.f1,
        **_limits("particle_f1", found.interval),
        "particle_precision": found.precision,
        "particle_recall": found.recall,
        **_limits("f1", interval_of_ratio(hits, np.add(hits, errors))),
        "n_held_out_micrographs": len(per_micrograph),
        "n_trials": len(trials),
        "gain": gain.mean if gain else None,
        "gain_std": gain.std if gain else None,
        "p_enough": gain.p_enough if gain else None,
        "minutes": minutes,
        "sentence": said,
    }


def _on_held_out(curve: Sequence[Mapping[str, Any]]) -> _Measured:
    held_out = curve[-1]["held_out"]
    n_matched, n_picks, n_particles = (
        sum(counts[name] for counts in held_out.values()) for name in ("n_matched", "n_picks", "n_particles")
    )
    # Without a particle nothing can be found: picks alone would be an F1 of 0.
    scores = [f1 for counts in held_out.values() if n_particles and (f1 := f1_of(counts)) is not None]
    n = len(held_out)
    return _Measured(
        float(np.mean(scores)) if scores else None,
        interval_of_mean(scores),
        n_matched / n_picks if n_picks else None,
        n_matched / n_particles if n_particles else None,
        _points(curve),
        [point["agreement"] for point in curve[1:]],
        f"measured on {n} micrograph{'' if n == 1 else 's'} only" if n < FEWEST else "",
    )


def _by_trials(trials: Sequence[Trial], curve: Sequence[Mapping[str, Any]], unit: str) -> _Measured:
    score = trial_score(trials, curve[-1]["n_labeled_items"])
    scored = [(trial, f1) for trial in trials if (f1 := trial.f1) is not None]
    std = max(float(np.std([f1 for _, f1 in scored], ddof=1)) if len(scored) > 2 else 0.0, TYPICAL_STD)
    ends = [trial.step for trial, _ in scored[1:-1]] + [curve[-1]["step"]]
    pairs = zip((trial.step for trial, _ in scored), ends, strict=False) if len(scored) > 1 else ()
    n = len(trials)
    return _Measured(
        score.f1,
        score.interval,
        score.precision,
        score.recall,
        [Point(trial.n_trained, f1, std) for trial, f1 in scored],
        [_agreement(curve, *pair) for pair in pairs],
        f"tried on {n} {unit}{'' if n == 1 else 's'} only" if n < FEWEST else "",
    )


def _agreement(curve: Sequence[Mapping[str, Any]], first: str, last: str) -> float | None:
    """How far two steps agree at least, from what every step between differs by; None: that is not known."""
    steps = [point["step"] for point in curve]
    if first not in steps or last not in steps:
        return None
    between = [point["agreement"] for point in curve[steps.index(first) + 1 : steps.index(last) + 1]]
    return None if None in between else max(0.0, 1 - sum(1 - agreed for agreed in between))


def _limits(name: str, interval: Interval | None) -> dict[str, float | None]:
    """Both limits of a score; None where there are too few micrographs to say."""
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _points(curve: Sequence[Mapping[str, Any]]) -> list[Point]:
    """The curve on micrographs that hold particles and that all models were measured on."""
    everywhere = set.intersection(*(set(point["held_out"]) for point in curve))
    names = [n for n in curve[-1]["held_out"] if n in everywhere and curve[-1]["held_out"][n]["n_particles"]]
    if not names:
        return []
    scores = [[f1_of(point["held_out"][name]) or 0.0 for name in names] for point in curve]
    return points([point["n_labeled_items"] for point in curve], scores)


def _minutes(project: Project, label_set: LabelSet, n_items: int) -> float:
    """To label so many items, as quickly as people did so far."""
    if label_set.seconds_per_item is not None:
        return n_items * label_set.seconds_per_item / 60
    counts = [len(label.particles_yx) for label in label_set.labels.values()]
    return project.config.label_cost.minutes(n_items, n_items * float(np.mean(counts)))


def _say(project: Project, n_items: int, minutes: float, found: _Measured, gain: Gain | None) -> str:
    unit = project.config.unit
    if not n_items:
        return f"every {unit} is labeled or left out: there is nothing more to label"
    if found.f1 is None:
        on = "held-out micrograph" if len(project.dataset.rows("val")) else f"{unit} drawn at random"
        return (
            f"F1 of picks is not known: no {on} with particles is labeled; label those of the queue that "
            "measure it"
        )
    on = f" ({found.doubt})" if found.doubt else ""
    if gain is None:
        f1 = 100 * found.f1
        return f"F1 of picks is {f1:.1f} %{on}; what more labels bring can be said after the next step"
    return sentence(gain, n_items, minutes, unit) + on
