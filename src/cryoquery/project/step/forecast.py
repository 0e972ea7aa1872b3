"""What a step says of itself: F1 so far, how sure that is, and what the next labels are expected to bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cryoquery.active.stopping import Gain, Point, expected_gain, points, sentence
from cryoquery.picking.intervals import FEWEST, Interval, interval_of_mean, interval_of_ratio
from cryoquery.project.folder import Project
from cryoquery.project.label_set import LabelSet, n_held_out_left_out
from cryoquery.project.step.learning_curve import f1_of


def forecast(
    project: Project,
    label_set: LabelSet,
    curve: Sequence[Mapping[str, Any]],
    query: Sequence[Mapping[str, Any]],
    per_micrograph: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What the learning ``curve`` says, and what labeling ``query`` is expected to bring, for `metrics.json`.

    Particle scores are those at the threshold that picking uses.

    Args:
        project: whose settings say what labels cost where nothing was timed.
        label_set: the labels so far.
        curve: a record per step, this one last: ``n_labeled_items``, ``held_out`` counts by micrograph, and
            its ``agreement`` with the step before.
        query: the next one.
        per_micrograph: what this step's evaluation recorded of each held-out micrograph.
    """
    held_out = curve[-1]["held_out"]
    n_matched, n_picks, n_particles = (
        sum(counts[name] for counts in held_out.values()) for name in ("n_matched", "n_picks", "n_particles")
    )
    # Without a particle nothing can be found: picks alone would be an F1 of 0.
    scores = [f1 for counts in held_out.values() if n_particles and (f1 := f1_of(counts)) is not None]
    n_train = sum(entry["purpose"] == "train" for entry in query)
    known = _points(curve)
    agreed = [point["agreement"] for point in curve[1:]]
    gain = expected_gain(known, n_train, agreed) if n_train else None
    minutes = _minutes(project, label_set, len(query))
    said = _say(project, len(query), minutes, len(held_out), scores, gain)
    if scores and (n := n_held_out_left_out(project, label_set)):
        unit = project.config.unit + ("" if n == 1 else "s")
        said += f"; F1 leaves out {n} held-out {unit} that people skipped or called bad"
    hits = [2 * record["pixel_tp"] for record in per_micrograph]
    errors = [record["pixel_fp"] + record["pixel_fn"] for record in per_micrograph]
    return {
        "particle_f1": float(np.mean(scores)) if scores else None,
        **_limits("particle_f1", interval_of_mean(scores)),
        "particle_precision": n_matched / n_picks if n_picks else None,
        "particle_recall": n_matched / n_particles if n_particles else None,
        **_limits("f1", interval_of_ratio(hits, np.add(hits, errors))),
        "n_held_out_micrographs": len(per_micrograph),
        "gain": gain.mean if gain else None,
        "gain_std": gain.std if gain else None,
        "p_enough": gain.p_enough if gain else None,
        "minutes": minutes,
        "sentence": said,
    }


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


def _say(
    project: Project,
    n_items: int,
    minutes: float,
    n_held_out: int,
    scores: Sequence[float],
    gain: Gain | None,
) -> str:
    unit = project.config.unit
    if not n_items:
        return f"every {unit} is labeled or left out: there is nothing more to label"
    if not scores:
        return (
            "F1 of picks is not known: no held-out micrograph with particles is labeled; label those of the "
            "queue that measure it"
        )
    on = (
        f" (measured on {n_held_out} micrograph{'' if n_held_out == 1 else 's'} only)"
        if n_held_out < FEWEST
        else ""
    )
    if gain is None:
        f1 = 100 * float(np.mean(scores))
        return f"F1 of picks is {f1:.1f} %{on}; what more labels bring can be said after the next step"
    return sentence(gain, n_items, minutes, unit) + on
