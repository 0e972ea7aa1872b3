"""Learning curves."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cryoquery.experiment import FULL_SUPERVISION
from cryoquery.records import write_bytes
from cryoquery.report.runs import Results, label

# Okabe & Ito (2008), told apart by color-blind readers; line styles tell them apart in print.
STYLES: tuple[tuple[str, str], ...] = (
    ("#0072B2", "-"),
    ("#D55E00", "-"),
    ("#56B4E9", (0, (4, 3))),  # type: ignore[assignment]
    ("#009E73", "-"),
    ("#CC79A7", "-."),
    ("#E69F00", "--"),
    ("#000000", ":"),
    ("#8B6D3F", "-."),
)


def learning_curves(results: Results, path: Path) -> None:
    """Draw pixel and particle F1 over labelled images and over labelled particles, as PNG.

    Lines are means over seeds, bands one standard deviation; full supervision is a horizontal line.
    """
    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(2, 2, sharey="row")
    for row, (metric, name) in enumerate((("f1", "Pixel F1"), ("particle_f1", "Particle F1"))):
        for column, x in enumerate(("labeled_fraction", "n_labeled_particles")):
            _draw(axes[row, column], results, x, metric)
        axes[row, 0].set_ylabel(f"{name} on {results.environment['splits'][0]}")
    for row in range(2):
        axes[row, 0].set_xlabel("Labelled images (% of the training images)")
        axes[row, 1].set_xlabel("Labelled particles")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    n_seeds = max(len(results.of(name)) for name in results.runs())
    seeds = "seed" if n_seeds == 1 else "seeds"
    figure.suptitle(f"Learning curves, mean ± standard deviation over {n_seeds} {seeds}", fontsize=12)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=130)
    write_bytes(path, picture.getvalue())


def _draw(axes: Axes, results: Results, x_name: str, metric: str) -> None:
    for at, run in enumerate(name for name in results.runs() if name != FULL_SUPERVISION):
        curves = results.of(run)
        x = np.mean([curve.values(x_name) for curve in curves], axis=0)
        y = np.array([curve.values(metric) for curve in curves])
        if x_name == "labeled_fraction":
            x = 100 * x
        color, style = STYLES[at % len(STYLES)]
        axes.plot(x, y.mean(axis=0), color=color, linestyle=style, marker="o", markersize=3, label=label(run))
        if len(y) > 1:
            mean, std = y.mean(axis=0), y.std(axis=0, ddof=1)
            axes.fill_between(x, mean - std, mean + std, color=color, alpha=0.12, linewidth=0)
    full = [metrics[metric] for metrics in results.full_supervision().values()]
    if full:
        axes.axhline(float(np.mean(full)), color="0.35", linewidth=1.2, label=label(FULL_SUPERVISION))
        if len(full) > 1:
            spread = float(np.std(full, ddof=1))
            axes.axhspan(np.mean(full) - spread, np.mean(full) + spread, color="0.5", alpha=0.12, linewidth=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
