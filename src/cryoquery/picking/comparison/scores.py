"""Scores of picks against the truth.

A pick matches a particle whose center is at most the radius away, one to one (`match_particles`). A
second pick on a matched particle is a false positive, and a micrograph without picks counts its
particles as missed. Macro scores are means over micrographs; micro scores pool the counts of all.

Average precision is the area under precision over recall, in steps: picks of all micrographs are
ranked by score, and at every score both are those of `match_particles` with the picks down to there,
the precision counting for the recall gained. Recall that no pick reaches adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.picking.metrics import ParticleMatches, match_particles, mean_particle_scores, ranked_matches


@dataclass(frozen=True)
class MicrographScores:
    """Picks of one micrograph against its truth."""

    name: str
    group: str
    radius_px: float
    matches: ParticleMatches
    scores: NDArray[np.float64] | None
    """(n,) of the picks; None where they have none."""
    hits: NDArray[np.bool_]
    """(n,) whether a pick makes one more match, see `ranked_matches`; empty without scores."""

    def row(self) -> dict[str, Any]:
        """Counts and scores for a table."""
        m = self.matches
        return {
            "group": self.group,
            "micrograph": self.name,
            "n_picks": m.n_picks,
            "n_particles": m.n_truth,
            "n_matched": m.n_matched,
            "precision": m.precision,
            "recall": m.recall,
            "f1": m.f1,
            "average_precision": average_precision([self]),
            "mean_distance_px": float(m.distances_px.mean()) if m.n_matched else None,
            "radius_px": self.radius_px,
        }


@dataclass(frozen=True)
class Curve:
    """Precision over recall: one point for each distinct score, falling."""

    thresholds: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    @property
    def area(self) -> float:
        """Average precision: precision times the recall gained, summed."""
        return float((self.precision * np.diff(self.recall, prepend=0.0)).sum())


@dataclass(frozen=True)
class Agreement:
    """Scores of picks against the truth, over micrographs."""

    micrographs: tuple[MicrographScores, ...]

    @cached_property
    def overall(self) -> dict[str, Any]:
        """Scores over everything, see `summary`."""
        return summary(self.micrographs)

    @cached_property
    def by_group(self) -> dict[str, dict[str, Any]]:
        """Scores of each group, see `summary`."""
        groups = sorted({m.group for m in self.micrographs})
        return {g: summary([m for m in self.micrographs if m.group == g]) for g in groups}


def compare_picks(
    name: str,
    picks_yx: NDArray[np.float64],
    scores: NDArray[np.float64] | None,
    truth_yx: NDArray[np.float64],
    radius_px: float,
    group: str = "",
) -> MicrographScores:
    """Compare the picks of one micrograph with its particles.

    Args:
        name: of the micrograph.
        picks_yx: (n, 2) in pixels.
        scores: (n,) the higher the surer, NaN for those without one, which rank last; or None.
        truth_yx: (m, 2) in the same pixels.
        radius_px: half the particle diameter by the project's definition.
        group: what it belongs with.
    """
    matches = match_particles(picks_yx, truth_yx, radius_px)
    if scores is None or (len(scores) and np.isnan(scores).all()):
        return MicrographScores(name, group, radius_px, matches, None, np.empty(0, dtype=bool))
    ranking = np.where(np.isnan(scores), -np.inf, scores)
    hits = ranked_matches(picks_yx, ranking, truth_yx, radius_px)
    return MicrographScores(name, group, radius_px, matches, ranking, hits)


def precision_recall(micrographs: list[MicrographScores]) -> Curve | None:
    """Precision over recall of the picks of ``micrographs`` ranked together.

    None where picks have no scores, or where there are no particles.
    """
    n_truth = sum(m.matches.n_truth for m in micrographs)
    if n_truth == 0 or any(m.scores is None and m.matches.n_picks for m in micrographs):
        return None
    scored = [(m.scores, m.hits) for m in micrographs if m.scores is not None]
    scores = np.concatenate([s for s, _ in scored]) if scored else np.empty(0)
    hits = np.concatenate([h for _, h in scored]) if scored else np.empty(0, dtype=bool)
    order = np.argsort(-scores, kind="stable")
    scores, matched = scores[order], np.cumsum(hits[order])
    last_of_equals = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
    n_picks = np.arange(1, len(scores) + 1)[last_of_equals]
    matched = matched[last_of_equals]
    return Curve(scores[last_of_equals], matched / n_picks, matched / n_truth)


def average_precision(micrographs: list[MicrographScores]) -> float | None:
    """Area under `precision_recall`; None where there is no such curve."""
    curve = precision_recall(micrographs)
    return None if curve is None else curve.area


def summary(micrographs: list[MicrographScores] | tuple[MicrographScores, ...]) -> dict[str, Any]:
    """Counts, macro and micro scores, and average precision over micrographs."""
    matches = [m.matches for m in micrographs]
    means: Mapping[str, float] = mean_particle_scores(matches)
    named = {
        f"{score}_{kind}": means[f"particle_{score}{'' if kind == 'macro' else '_micro'}"]
        for kind in ("macro", "micro")
        for score in ("f1", "precision", "recall")
    }
    return {
        "n_micrographs": len(micrographs),
        "n_picks": sum(m.n_picks for m in matches),
        "n_particles": sum(m.n_truth for m in matches),
        "n_matched": sum(m.n_matched for m in matches),
        **named,
        "average_precision": average_precision(list(micrographs)),
    }
