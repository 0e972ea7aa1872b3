"""Whether `metrics.json` says what can be recomputed: where it belongs, and scores from its own counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import TypedDict

from cryoquery.active.oracles import make_oracle
from cryoquery.active.run import Run
from cryoquery.experiment.verify.checks import Checks
from cryoquery.experiment.verify.context import VerifyContext
from cryoquery.picking.metrics import ParticleMatches, PixelCounts, mean_particle_scores

Count = Annotated[int, Field(ge=0, le=2**40)]


class Counts(TypedDict):
    """What a held-out micrograph counts, of what `metrics.json` holds of it."""

    group: str
    pixel_tp: Count
    pixel_fp: Count
    pixel_fn: Count
    n_picks: Count
    n_particles: Count
    n_matched: Count


class Scores(TypedDict):
    """What `metrics.json` says of a split beside the scores."""

    per_micrograph: list[Counts]
    per_group: dict[str, dict[str, Any]]


ROUNDING = 1e-9
NOT_FROM_COUNTS = ("auc", "average_precision")


def check_metrics(
    file: Path,
    run: Run,
    iteration: int,
    labeled: NDArray[np.int64] | None,
    context: VerifyContext,
    checks: Checks,
) -> Mapping[str, Any] | None:
    """Check the `metrics.json` of an iteration that was trained on ``labeled``; None if it is damaged."""
    metrics: Mapping[str, Any] | None = checks.json(file, dict[str, Any])
    if metrics is None:
        return None
    count = run.counts[iteration]
    expected: dict[str, Any] = {
        "run": run.name,
        "strategy": run.strategy,
        "seed": run.seed,
        "iteration": iteration,
        "n_labeled_images": count,
        "labeled_fraction": count / context.n_train,
    }
    if context.splits:
        expected["split"] = context.splits[0]
    if context.dataset is not None and labeled is not None:
        labels = make_oracle(context.dataset, context.config.oracle, run.seed).labels
        expected["n_labeled_particles"] = labels.n_particles(labeled)
    if context.config_holds:
        expected["protocol"] = context.config.protocol()
    else:
        checks.skip("the protocol in metrics.json, since config.toml was changed")
    checks.fields(file, metrics, expected)
    _check_scores(file, "", metrics, checks)
    for split in context.splits[1:]:
        _check_scores(file, split, metrics.get(split), checks)
    return metrics


def _check_scores(file: Path, split: str, found: Any, checks: Checks) -> None:
    """Check the scores of a split (empty: of the reported one) against the counts of its micrographs."""
    scores = checks.shaped(file, found, Scores, split)
    if scores is None:
        return
    where, by_group = split and f"{split}.", dict[str, list[Counts]]()
    for record in scores["per_micrograph"]:
        by_group.setdefault(record["group"], []).append(record)
        most = min(record["n_picks"], record["n_particles"])
        text = f"{where}per_micrograph has n_matched {record['n_matched']}, at most {most} are possible"
        checks.check(record["n_matched"] <= most, file, text)
    _compare(file, where, found, scores["per_micrograph"], checks)
    groups = scores["per_group"]
    text = f"{where}per_group holds other groups than {where}per_micrograph"
    if checks.check(groups.keys() == by_group.keys(), file, text):
        for group, some in by_group.items():
            _compare(file, f"{where}per_group.{group}.", groups[group], some, checks)


def _compare(
    file: Path, where: str, scores: Mapping[str, Any], records: Sequence[Counts], checks: Checks
) -> None:
    for name, value in recomputed(records).items():
        found = scores.get(name)
        if name in NOT_FROM_COUNTS:
            holds = isinstance(found, int | float) and 0 <= found <= 1
            checks.check(holds, file, f"{where}{name} is {found!r}, expected 0 to 1")
        else:
            holds = isinstance(found, int | float) and math.isclose(found, value, rel_tol=0, abs_tol=ROUNDING)
            text = f"{where}{name} is {found!r}, {value!r} by its counts on each micrograph"
            checks.check(holds, file, text)


def recomputed(records: Sequence[Counts]) -> dict[str, float]:
    """Scores in [0, 1] that follow from the counts of each micrograph; `NOT_FROM_COUNTS` mean nothing."""
    pixels, matches = PixelCounts(), []
    for record in records:
        pixels.positives[[0, -1]] += record["pixel_fn"], record["pixel_tp"]
        pixels.negatives[-1] += record["pixel_fp"]
        rows = np.broadcast_to(np.int64(0), record["n_matched"])
        matches.append(ParticleMatches(record["n_picks"], record["n_particles"], rows, rows, rows))
    return pixels.scores() | mean_particle_scores(matches)
