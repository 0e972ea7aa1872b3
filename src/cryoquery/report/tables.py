"""The protocol's table: every method at 50 % labeled data, beside full supervision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryoquery.experiment.config import EQUAL_STEPS, FULL_SUPERVISION
from cryoquery.report.efficiency import HALF, score_at
from cryoquery.report.runs import NEEDED, RANDOM, Results, label, mean_and_std

NOTABLE = 0.03
"""The protocol's rule: differences above 3 % F1 are considered significant."""
SHOWN = 0.0005
"""Half of the last digit of a share in the notes."""
MARK = "†"
METRICS = tuple(name for name in NEEDED if name != "labeled_fraction")
COLUMNS = ("Method", "F1 Score", "Precision", "Recall", "% Reduction")


def performance_table(results: Results) -> dict[str, Any]:
    """What `performance_table.json` holds: each run at 50 % labeled data, at its end, and all along.

    Numbers between two iterations are interpolated. ``above_3_percent`` says whether the F1 at 50 %
    differs from that of random sampling by more than 0.03, in the mean over the seeds both have.
    """
    rows: dict[str, Any] = {}
    at_half = {name: _at_half(results, name) for name in results.runs()}
    for name in results.runs():
        ends = {m: _summary({c.seed: float(c.values(m)[-1]) for c in results.of(name)}) for m in METRICS}
        rows[name] = {
            "label": label(name),
            "at_50_percent": at_half[name],
            "at_end": ends,
            "difference_to_random": _difference(at_half[name], at_half.get(RANDOM)),
            "by_iteration": _by_iteration(results, name),
        }
        difference = rows[name]["difference_to_random"]
        rows[name]["above_3_percent"] = abs(difference) > NOTABLE if difference is not None else None
    return {
        "split": results.split,
        "threshold": 0.5,
        "runs": rows,
        "unfinished": list(results.unfinished),
    }


def _at_half(results: Results, name: str) -> dict[str, Any]:
    curves = results.of(name)
    return {
        metric: _summary({c.seed: score_at(c.fractions, c.values(metric), HALF) for c in curves})
        for metric in METRICS
    }


def _by_iteration(results: Results, name: str) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds of every score, in every iteration."""
    curves = results.of(name)
    cost = results.label_cost
    rows = []
    for i, fraction in enumerate(curves[0].fractions.tolist()):
        row: dict[str, Any] = {"labeled_fraction": fraction}
        row |= {metric: mean_and_std([float(c.values(metric)[i]) for c in curves]) for metric in METRICS}
        images, particles = row["n_labeled_images"]["mean"], row["n_labeled_particles"]["mean"]
        rows.append(row | {"minutes": cost.minutes(images, particles)})
    return rows


def _difference(at_half: Mapping[str, Any], random: Mapping[str, Any] | None) -> float | None:
    mine, theirs = (half["f1"]["by_seed"] if half and half["f1"] else {} for half in (at_half, random))
    shared = [s for s in mine if s in theirs and mine[s] is not None and theirs[s] is not None]
    return sum(mine[s] - theirs[s] for s in shared) / len(shared) if shared else None


def _summary(by_seed: Mapping[int, float | None]) -> dict[str, Any] | None:
    values = {seed: value for seed, value in by_seed.items() if value is not None}
    if not values:
        return None
    return mean_and_std(list(values.values())) | {"by_seed": {str(s): v for s, v in values.items()}}


def table_rows(table: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The protocol's rows as text, one cell per entry of `COLUMNS`; full supervision first."""
    rows = []
    whole = (FULL_SUPERVISION, EQUAL_STEPS)
    for name in sorted(table["runs"], key=lambda name: whole.index(name) if name in whole else len(whole)):
        row = table["runs"][name]
        full = name in whole
        numbers = row["at_end" if full else "at_50_percent"]
        if numbers["f1"] is None:
            continue
        cells = [_percent(numbers[metric]) for metric in ("f1", "precision", "recall")]
        if row["above_3_percent"] and not full:
            cells[0] += f" {MARK}"
        percent, reduction = ("100%", "0% (baseline)") if full else ("50%", "50%")
        rows.append((f"{row['label']} ({percent})", *cells, reduction))
    return rows


def table_notes(table: Mapping[str, Any]) -> list[str]:
    """What has to be said under the table, a sentence or two each."""
    runs = table["runs"]
    seeds = {
        s for row in runs.values() for s in (row["at_50_percent"]["f1"] or row["at_end"]["f1"])["by_seed"]
    }
    numbers = ", ".join(sorted(seeds, key=int))
    over = f"mean ± standard deviation over seeds {numbers}" if len(seeds) > 1 else f"seed {numbers} only"
    notes = [
        f"Pixel scores pooled over the split {table['split']} at threshold {table['threshold']}; {over}. "
        "Reduction counts images."
    ]
    if any(row["above_3_percent"] for row in runs.values()):
        notes.append(
            f"{MARK} F1 differs from that of random sampling at 50% by more than 3 percentage points. That "
            "is the protocol's rule of thumb and not a test; the tests are in the report."
        )
    elif RANDOM in runs and runs[RANDOM]["at_50_percent"]["f1"] is not None:
        notes.append("No F1 at 50% differs from that of random sampling by more than 3 percentage points.")
    if not any(row["at_50_percent"]["f1"] for row in runs.values()):
        notes.append("No run was scored at 50% labeled data: the schedule does not reach it.")
    if between := interpolated(table):
        notes.append(f"Numbers at 50% are interpolated between {between}.")
    if {"uncertainty_sampling", "margin_sampling"} <= set(runs):
        notes.append(
            "Uncertainty and margin sampling rank images identically for one sigmoid output (margin = 2 × "
            "least confidence): they are one experiment under two names."
        )
    if table["unfinished"]:
        notes.append(f"Left out, because unfinished: {'; '.join(table['unfinished'])}.")
    return notes


def interpolated(table: Mapping[str, Any]) -> str:
    """Between which iterations numbers at 50 % lie, in words; empty where one of them has exactly half."""
    iterations = [it for row in table["runs"].values() for it in row["by_iteration"]]
    counts = {it["labeled_fraction"]: it["n_labeled_images"]["mean"] for it in iterations}
    if min(abs(share - HALF) for share in counts) <= SHOWN or not min(counts) < HALF < max(counts):
        return ""
    around = max(s for s in counts if s < HALF), min(s for s in counts if s > HALF)
    return " and ".join(f"{counts[share]:.0f} images ({100 * share:.1f}%)" for share in around)


def results_table(table: Mapping[str, Any]) -> str:
    """`results_table.md`: the protocol's table from `performance_table`, mean ± std over seeds."""
    lines = [
        "**Table: Active Learning Performance at 50% Labeled Data**",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'|'.join('-' * (len(name) + 2) for name in COLUMNS)}|",
        *(f"| {' | '.join(row)} |" for row in table_rows(table)),
    ]
    for note in table_notes(table):
        lines += ["", note]
    return "\n".join(lines) + "\n"


LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "−": "$-$",
    MARK: r"$^{\dagger}$",
} | {character: f"\\{character}" for character in "%&_#${}"}


def latex_table(table: Mapping[str, Any]) -> str:
    """`results_table.tex`: the same table for LaTeX, with the package booktabs."""
    rows = [f"    {' & '.join(map(latex_text, row))} \\\\" for row in table_rows(table)]
    notes = " ".join(latex_text(note) for note in table_notes(table))
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering\\footnotesize\\setlength{\\tabcolsep}{4pt}",
        f"  \\caption{{Active learning performance at 50\\% labeled data. {notes}}}",
        "  \\label{tab:active-learning}",
        f"  \\begin{{tabular}}{{l{'r' * (len(COLUMNS) - 1)}}}",
        "    \\toprule",
        f"    {' & '.join(map(latex_text, COLUMNS))} \\\\",
        "    \\midrule",
        *rows,
        "    \\bottomrule",
        "  \\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def latex_text(text: str) -> str:
    """Text with what LaTeX would take for commands written out."""
    return "".join(LATEX.get(character, character) for character in text)


def _percent(summary: Mapping[str, Any]) -> str:
    mean = f"{100 * summary['mean']:.1f}"
    return f"{mean} ± {100 * summary['std']:.1f}%" if summary["std"] is not None else f"{mean}%"
