"""What a comparison leaves on disk and on the terminal: tables, the curve, the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cryoquery.data.contact_sheet import png
from cryoquery.picking.comparison.scores import Agreement, Curve, precision_recall
from cryoquery.storage.atomic import write_bytes, write_json, write_table

COLUMNS = (
    ("f1_macro", "F1"),
    ("precision_macro", "precision"),
    ("recall_macro", "recall"),
    ("f1_micro", "F1 micro"),
    ("precision_micro", "precision micro"),
    ("recall_micro", "recall micro"),
    ("average_precision", "AP"),
)
"""Scores in the table on the terminal, and what they are called there."""
EVERYTHING = "all"


def format_table(agreement: Agreement) -> str:
    """One line per group and one for everything, aligned."""
    rows = [("group", "micrographs", "picks", "particles", "matched", *(name for _, name in COLUMNS))]
    groups = agreement.by_group if len(agreement.by_group) > 1 else {}
    for group, scores in [*groups.items(), (EVERYTHING, agreement.overall)]:
        counts = [f"{scores[f'n_{key}']:,}" for key in ("micrographs", "picks", "particles", "matched")]
        rows.append((group, *counts, *(_shown(scores[key]) for key, _ in COLUMNS)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def write_agreement(agreement: Agreement, folder: Path, about: Mapping[str, Any]) -> None:
    """Write ``scores.json``, ``per_group.csv``, ``per_micrograph.csv``, and the curve as PNG and CSV.

    Picks without scores have no curve; one of an earlier comparison is removed.

    Args:
        agreement: what to write.
        folder: made where it is missing.
        about: what was compared and how; plain types only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = [{"group": group, **scores} for group, scores in agreement.by_group.items()]
    _write_csv(folder / "per_group.csv", groups)
    _write_csv(folder / "per_micrograph.csv", [m.row() for m in agreement.micrographs])
    curve = precision_recall(list(agreement.micrographs))
    curve_files = (folder / "precision_recall.csv", folder / "precision_recall.png")
    if curve is None or not len(curve.recall):
        for file in curve_files:
            file.unlink(missing_ok=True)
    else:
        points = zip(curve.thresholds.tolist(), curve.precision.tolist(), curve.recall.tolist(), strict=True)
        _write_csv(curve_files[0], [{"threshold": t, "precision": p, "recall": r} for t, p, r in points])
        write_bytes(curve_files[1], _draw(agreement, curve))
    write_json(
        folder / "scores.json",
        {**about, **agreement.overall, "per_group": agreement.by_group},
    )


def _draw(agreement: Agreement, curve: Curve) -> bytes:
    """A PNG of precision over recall: everything, each group, and where the picks as they are stand."""
    figure = Figure(figsize=(5.2, 4.6), dpi=110, layout="constrained")
    panel = figure.subplots()
    if len(agreement.by_group) > 1:
        for group in agreement.by_group:
            own = precision_recall([m for m in agreement.micrographs if m.group == group])
            if own is not None and len(own.recall):
                panel.plot(own.recall, own.precision, linewidth=1.1, label=f"{group} (AP {own.area:.3f})")
    panel.plot(
        curve.recall, curve.precision, color="black", linewidth=1.6, label=f"all (AP {curve.area:.3f})"
    )
    scores = agreement.overall
    panel.plot(
        scores["recall_micro"], scores["precision_micro"], "o", color="black", markersize=5,
        label=f"all picks (F1 {scores['f1_micro']:.3f})",
    )  # fmt: skip
    panel.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="recall", ylabel="precision")
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, fontsize=8, loc="lower left")
    return png(figure)


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    cells = ([f"{v:.6g}" if isinstance(v, float) else v for v in row.values()] for row in rows)
    write_table(path, list(rows[0]), cells)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
