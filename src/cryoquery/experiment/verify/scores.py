"""Whether `metrics.json` says what can be recomputed: where it belongs, and scores from its own counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.active.oracles import make_oracle
from cryoquery.active.run import Run
from cryoquery.experiment.verify.checks import Checks
from cryoquery.experiment.verify.context import VerifyContext
from cryoquery.picking.metrics import ParticleMatches, mean_particle_scores

COUNTS = ("pixel_tp", "pixel_fp", "pixel_fn", "n_picks", "n_particles", "n_matched")
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
    metrics: Mapping[str, Any] | None = checks.json(file, dict)
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
    for name, value in expected.items():
        checks.equal(file, name, metrics.get(name), value)
    _check_protocol(file, metrics.get("protocol"), context, checks)
    _check_scores(file, "", metrics, checks)
    for split in context.splits[1:]:
        beside = metrics.get(split)
        if isinstance(beside, dict):
            _check_scores(file, f"{split}.", beside, checks)
        else:
            checks.check(False, file, f"holds no scores on {split}")
    return metrics


def _check_protocol(file: Path, found: Any, context: VerifyContext, checks: Checks) -> None:
    if not context.config_holds:
        checks.skip("the protocol in metrics.json, since config.toml was changed")
        return
    if not checks.check(isinstance(found, dict), file, "holds no protocol"):
        return
    for part, wanted in context.config.protocol().items():
        values = found.get(part)
        if not isinstance(values, dict):
            checks.check(False, file, f"protocol.{part} is missing")
            continue
        for key in sorted({*values, *wanted}):
            checks.equal(file, f"protocol.{part}.{key}", values.get(key), wanted.get(key))


def _check_scores(file: Path, where: str, scores: Mapping[str, Any], checks: Checks) -> None:
    """Check the scores of one split against the counts of its micrographs."""
    records = scores.get("per_micrograph")
    if records is None:
        checks.skip("scores of a metrics.json that holds no counts per micrograph")
        return
    if not checks.check(_are_counts(records), file, f"{where}per_micrograph holds no counts"):
        return
    by_group: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        by_group.setdefault(record["group"], []).append(record)
    _compare(file, where, scores, records, checks)
    groups = scores.get("per_group")
    if checks.check(
        isinstance(groups, dict) and groups.keys() == by_group.keys(),
        file,
        f"{where}per_group holds other groups than {where}per_micrograph",
    ):
        for group, some in by_group.items():
            _compare(file, f"{where}per_group.{group}.", groups[group], some, checks)  # type: ignore[index]


def _are_counts(records: Any) -> bool:
    return isinstance(records, list) and all(
        isinstance(record, dict)
        and isinstance(record.get("group"), str)
        and all(type(record.get(name)) is int and record[name] >= 0 for name in COUNTS)
        and record["n_matched"] <= min(record["n_picks"], record["n_particles"])
        for record in records
    )


def _compare(
    file: Path, where: str, scores: Any, records: Sequence[Mapping[str, Any]], checks: Checks
) -> None:
    for name, value in recomputed(records).items():
        found = scores.get(name) if isinstance(scores, dict) else None
        holds = isinstance(found, int | float) and math.isclose(found, value, rel_tol=0, abs_tol=ROUNDING)
        checks.check(holds, file, f"{where}{name} is {found!r}, {value!r} by its counts on each micrograph")
    for name in NOT_FROM_COUNTS:
        found = scores.get(name) if isinstance(scores, dict) else None
        holds = isinstance(found, int | float) and 0 <= found <= 1
        checks.check(holds, file, f"{where}{name} is {found!r}, expected 0 to 1")


def recomputed(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Scores in [0, 1] that follow from the counts of each micrograph (`COUNTS`)."""
    tp, fp, fn = (sum(record[name] for record in records) for name in COUNTS[:3])
    matches = []
    for record in records:
        rows = np.arange(record["n_matched"])
        matches.append(
            ParticleMatches(record["n_picks"], record["n_particles"], rows, rows, np.zeros(len(rows)))
        )
    ratios = {
        "f1": (2 * tp, 2 * tp + fp + fn),
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
        "iou": (tp, tp + fp + fn),
    }
    pixels = {name: above / below if below else 0.0 for name, (above, below) in ratios.items()}
    return {**pixels, **mean_particle_scores(matches)}
