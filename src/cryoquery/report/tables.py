"""The protocol's table: every method at 50 % labelled data, beside full supervision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryoquery.experiment import FULL_SUPERVISION
from cryoquery.report.efficiency import HALF, score_at
from cryoquery.report.runs import Results, label, mean_and_std

METRICS = (
    "f1",
    "precision",
    "recall",
    "iou",
    "auc",
    "average_precision",
    "particle_f1",
    "particle_precision",
    "particle_recall",
    "n_labeled_images",
    "n_labeled_particles",
)


def performance_table(results: Results) -> dict[str, Any]:
    """What `performance_table.json` holds: each run at 50 % labelled data and at its end.

    Numbers between two iterations are interpolated.
    """
    rows = {}
    for name in results.runs():
        curves = results.of(name)
        at_half, at_end = {}, {}
        for metric in METRICS:
            values = {c.seed: score_at(c.fractions, c.values(metric), HALF) for c in curves}
            ends = {c.seed: float(c.values(metric)[-1]) for c in curves}
            at_half[metric] = _summary(values)
            at_end[metric] = _summary(ends)
        rows[name] = {"label": label(name), "at_50_percent": at_half, "at_end": at_end}
    return {
        "split": results.environment["splits"][0],
        "threshold": 0.5,
        "runs": rows,
        "unfinished": list(results.unfinished),
    }


def _summary(by_seed: Mapping[int, float | None]) -> dict[str, Any] | None:
    values = {seed: value for seed, value in by_seed.items() if value is not None}
    if not values:
        return None
    return mean_and_std(list(values.values())) | {"by_seed": {str(s): v for s, v in values.items()}}


def results_table(table: Mapping[str, Any]) -> str:
    """`results_table.md`: the protocol's table from `performance_table`, mean ± std over seeds."""
    lines = [
        "**Table: Active Learning Performance at 50% Labeled Data**",
        "",
        "| Method | F1 Score | Precision | Recall | % Reduction |",
        "|--------|----------|-----------|--------|-------------|",
    ]
    names = sorted(table["runs"], key=lambda name: name != FULL_SUPERVISION)
    seeds: set[str] = set()
    for name in names:
        row = table["runs"][name]
        full = name == FULL_SUPERVISION
        numbers = row["at_end" if full else "at_50_percent"]
        if numbers["f1"] is None:
            continue
        seeds |= set(numbers["f1"]["by_seed"])
        cells = [_percent(numbers[metric]) for metric in ("f1", "precision", "recall")]
        percent, reduction = ("100%", "0% (baseline)") if full else ("50%", "50%")
        lines.append(f"| {row['label']} ({percent}) | {' | '.join(cells)} | {reduction} |")
    lines += [
        "",
        f"Pixel scores pooled over the split `{table['split']}` at threshold {table['threshold']}; "
        f"mean ± standard deviation over seeds {', '.join(sorted(seeds, key=int))}. Reduction counts images.",
    ]
    if {"uncertainty_sampling", "margin_sampling"} <= set(names):
        lines.append(
            "Uncertainty and margin sampling rank images identically for one sigmoid output "
            "(margin = 2 × least confidence): they are one experiment under two names."
        )
    if table["unfinished"]:
        lines += ["", "Left out, because unfinished:", ""]
        lines += [f"- {line}" for line in table["unfinished"]]
    return "\n".join(lines) + "\n"


def _percent(summary: Mapping[str, Any]) -> str:
    mean = f"{100 * summary['mean']:.1f}"
    return f"{mean} ± {100 * summary['std']:.1f}%" if summary["std"] is not None else f"{mean}%"
