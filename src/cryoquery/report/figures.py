"""Pictures of a comparison: learning curves, advantages, overlaps, compositions.

Colors are those of Okabe & Ito (2008) and three more, told apart by color-blind readers; line styles
and markers tell runs apart in print. A run looks the same in every figure and every experiment.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cryoquery.experiment.config import EQUAL_STEPS, FULL_SUPERVISION, PROGRESSIVE
from cryoquery.report.runs import RANDOM, STRATIFIED, LearningCurve, Results, label, short_label
from cryoquery.report.selection import Overlap, PoolFacts, Selection

STYLES: Mapping[str, tuple[str, Any, str]] = {
    "uncertainty_sampling": ("#0072B2", "-", "o"),
    "margin_sampling": ("#56B4E9", (0, (5, 3)), "x"),
    "entropy_sampling": ("#D55E00", "-", "s"),
    "diversity_sampling": ("#009E73", "-", "^"),
    "hybrid_sampling": ("#CC79A7", "-.", "D"),
    "core_set_sampling": ("#7F6000", (0, (7, 1, 1, 1, 1, 1)), "P"),
    RANDOM: ("#000000", ":", "o"),
    STRATIFIED: ("#6E6E6E", (0, (3, 1, 1, 1)), "v"),
    PROGRESSIVE: ("#E69F00", "--", "*"),
}
WHOLE = {FULL_SUPERVISION: "-", EQUAL_STEPS: (0, (4, 3))}
"""Runs with all labels from the beginning are lines from left to right."""
OTHER_STYLE = ("#8B4A8B", "-", "h")
GROUP_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
MAX_GROUPS = len(GROUP_COLORS)
"""Of more groups the smallest are taken together."""
MAX_NAME = 32
LEGEND_CHARACTERS = 130
WIDTH = 11.0
"""Inches; text of 9 points is then legible on a page 1,100 pixels wide."""
MAIN_WIDTH = 5.6
MAX_PANELS = 9


@dataclass(frozen=True)
class Axis:
    """What a learning curve is drawn over."""

    title: str
    values: str
    """``labeled_fraction``, ``n_labeled_particles`` or ``hours``."""

    def of(self, curve: LearningCurve, results: Results) -> NDArray[np.float64]:
        """Its value in every iteration, (n,)."""
        if self.values == "labeled_fraction":
            return 100 * curve.fractions
        images, particles = curve.values("n_labeled_images"), curve.values("n_labeled_particles")
        if self.values == "hours":
            cost = results.label_cost
            return np.array([cost.minutes(i, p) / 60 for i, p in zip(images, particles, strict=True)])
        return particles


IMAGES = Axis("Labeled images (% of the pool)", "labeled_fraction")
PARTICLES = Axis("Labeled particles", "n_labeled_particles")
HOURS = Axis("Labeling time (hours, assumed cost)", "hours")


def style(run: str) -> tuple[str, Any, str]:
    """Color, line style and marker of a run, the same wherever it is drawn."""
    return STYLES.get(run, OTHER_STYLE)


def learning_curves(results: Results) -> Figure:
    """Pixel and particle F1 over labeled images, labeled particles and labeling time.

    Lines are means over seeds, bands one standard deviation; full supervision is a horizontal band.
    """
    rows = (("f1", "Pixel F1"), ("particle_f1", "Particle F1"))
    figure = _grid_of_curves(results, rows, (IMAGES, PARTICLES, HOURS), height=7.4)
    n_seeds = [len(results.of(name)) for name in results.runs()]
    seeds = f"{min(n_seeds)}" if min(n_seeds) == max(n_seeds) else f"{min(n_seeds)} to {max(n_seeds)}"
    what = "one seed" if max(n_seeds) == 1 else f"mean ± standard deviation over {seeds} seeds"
    figure.suptitle(f"Learning curves on the held-out split “{results.split}”: {what}", fontsize=11)
    return figure


def main_curve(results: Results) -> Figure:
    """Pixel F1 over labeled images, to stand beside text."""
    return _grid_of_curves(results, (("f1", "Pixel F1"),), (IMAGES,), height=4.6, width=MAIN_WIDTH)


def secondary_curves(results: Results) -> Figure:
    """Precision, recall, IoU and AUC of pixels over labeled images and labeled particles."""
    rows = (("precision", "Precision"), ("recall", "Recall"), ("iou", "IoU"), ("auc", "AUC (ROC)"))
    return _grid_of_curves(results, rows, (IMAGES, PARTICLES), height=12.0)


def _grid_of_curves(
    results: Results,
    rows: Sequence[tuple[str, str]],
    columns: Sequence[Axis],
    height: float,
    width: float = WIDTH,
) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), sharey="row", squeeze=False)
    for row, (metric, name) in enumerate(rows):
        for column, axis in enumerate(columns):
            panel = axes[row, column]
            for run in results.runs():
                if run not in WHOLE:
                    _draw_mean(panel, results, run, axis, metric)
            _draw_full_supervision(panel, results, metric)
            _tidy(panel)
            panel.set_xlabel(axis.title)
        axes[row, 0].set_ylabel(name)
    _add_legend(figure, axes[0, 0], 5 if width == WIDTH else 2)
    return figure


def _add_legend(figure: Figure, panel: Axes, ncols: int = 5) -> None:
    """What is drawn in one of the panels, named under all of them."""
    handles, names = panel.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=ncols, frameon=False, fontsize=9)


def _panels(n: int, per_row: int, row_height: float, more: float, **sharing: Any) -> tuple[Figure, Any]:
    """A figure with a grid of ``n`` panels, at most ``per_row`` beside each other."""
    n_columns = min(per_row, n)
    n_rows = -(-n // n_columns)
    figure = Figure(figsize=(WIDTH, row_height * n_rows + more), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False, **sharing)
    for panel in axes.flat[n:]:
        panel.set_visible(False)
    return figure, axes


def _draw_mean(panel: Axes, results: Results, run: str, axis: Axis, metric: str) -> None:
    curves = results.of(run)
    x = np.mean([axis.of(curve, results) for curve in curves], axis=0)
    y = np.array([curve.values(metric) for curve in curves])
    color, line, marker = style(run)
    mean = y.mean(axis=0)
    panel.plot(
        x, mean, color=color, linestyle=line, marker=marker, markersize=3.5, linewidth=1.5, label=label(run)
    )
    if len(y) > 1:
        for curve in curves:
            own = axis.of(curve, results)
            panel.plot(own, curve.values(metric), color=color, linestyle=line, linewidth=0.5, alpha=0.35)
        spread = y.std(axis=0, ddof=1)
        panel.fill_between(x, mean - spread, mean + spread, color=color, alpha=0.10, linewidth=0)


def _draw_full_supervision(panel: Axes, results: Results, metric: str) -> None:
    for run, line in WHOLE.items():
        values = [metrics[metric] for metrics in results.at_end(run).values()]
        if not values:
            continue
        mean, named = float(np.mean(values)), f"{label(run)} (all labels)"
        panel.axhline(mean, color="0.35", linewidth=1.1, linestyle=line, label=named)
        if len(values) > 1:
            spread = float(np.std(values, ddof=1))
            panel.axhspan(mean - spread, mean + spread, color="0.5", alpha=0.15, linewidth=0)


def every_seed(results: Results) -> Figure:
    """A panel for each run: every seed's own line, their mean, and the mean of random sampling."""
    runs = [run for run in results.runs() if run not in WHOLE]
    figure, axes = _panels(len(runs), 4, 2.5, 0.5, sharex=True, sharey=True)
    n_columns = axes.shape[1]
    for at, (panel, run) in enumerate(zip(axes.flat, runs, strict=False)):
        color = style(run)[0]
        for curve in results.of(run):
            panel.plot(IMAGES.of(curve, results), curve.values("f1"), color=color, linewidth=0.7, alpha=0.7)
        for drawn in dict.fromkeys((run, *(name for name in (RANDOM,) if results.of(name)))):
            curves = results.of(drawn)
            mean = np.mean([curve.values("f1") for curve in curves], axis=0)
            kind = {"color": color, "linewidth": 2.0} if drawn == run else {"color": "k", "linestyle": ":"}
            panel.plot(IMAGES.of(curves[0], results), mean, **kind)
        _draw_full_supervision(panel, results, "f1")
        _tidy(panel)
        panel.set_title(label(run), fontsize=10)
        if at % n_columns == 0:
            panel.set_ylabel("Pixel F1")
        if at + n_columns >= len(runs):
            panel.set_xlabel("Labeled images (%)")
            panel.tick_params(labelbottom=True)
    return figure


def advantages(against: Mapping[str, Any], baseline: str) -> Figure:
    """Differences to a baseline in AULC and in F1 at 50 %, with intervals and every seed's own."""
    titles = {"aulc": "AULC", "aulc_up_to_50": "AULC up to 50 %", "f1_at_50": "F1 at 50 % of the labels"}
    shown = [(name, title) for name, title in titles.items() if against[name]]
    runs = list(against[shown[0][0]])
    figure = Figure(figsize=(WIDTH, 0.36 * len(runs) + 1.5), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for panel, (name, title) in zip(axes, shown, strict=True):
        panel.axvline(0, color="0.3", linewidth=0.9)
        for place, run in enumerate(runs):
            if run in against[name]:
                _draw_difference(panel, -place, against[name][run], style(run)[0])
        panel.set_title(title, fontsize=10)
        panel.set_xlabel(f"minus {label(baseline)} (F1)")
        panel.grid(axis="x", alpha=0.25)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
        panel.xaxis.set_major_locator(MaxNLocator(5))
        panel.margins(y=0.12)
    axes[0].set_yticks([-i for i in range(len(runs))], [label(run) for run in runs])
    return figure


def _draw_difference(panel: Axes, at: float, difference: Mapping[str, Any], color: str) -> None:
    for name in ("interval", "interval_over_micrographs"):  # with one seed only the latter is known
        if difference[name] is not None:
            panel.plot(difference[name], [at, at], color=color, linewidth=1.2)
            break
    if difference["interval_over_seeds"] is not None:
        panel.plot(difference["interval_over_seeds"], [at, at], color=color, linewidth=4.5, alpha=0.35)
    seeds = list(difference["by_seed"].values())
    panel.plot(seeds, np.full(len(seeds), at + 0.22), "|", color=color, markersize=5, markeredgewidth=1)
    panel.plot(difference["mean"], at, "o", color=color, markersize=5.5)


def overlap_matrices(overlaps: Sequence[Overlap]) -> Figure:
    """What two strategies asked for in common, in every query."""
    overlaps = overlaps[:MAX_PANELS]
    runs = overlaps[0].runs
    figure, axes = _panels(len(overlaps), 3, max(2.1, 0.36 * len(runs)) + 1.1, 0.4)
    names = [short_label(run) for run in runs]
    for panel, overlap in zip(axes.flat, overlaps, strict=False):
        panel.imshow(overlap.share, cmap="cividis", vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(overlap.share):
            if np.isfinite(value):
                ink = "white" if value < 0.55 else "black"
                panel.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=ink)
        panel.set_xticks(
            range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=8
        )
        panel.set_yticks(range(len(names)), names, fontsize=8)
        panel.tick_params(length=0)
        panel.set_title(
            f"query {overlap.iteration}, to {100 * overlap.labeled_fraction:.0f} % labeled\n(two random "
            f"runs share {overlap.by_chance:.2f})",
            fontsize=9,
        )
    return figure


def compositions(selected: Sequence[Selection], pool: PoolFacts) -> Figure:
    """Share of each group among the labeled images, beside its share of the pool."""
    groups = sorted(set(pool.groups))
    if len(groups) > MAX_GROUPS:
        kept = sorted(groups, key=lambda group: (-pool.share(group), group))[: MAX_GROUPS - 1]
        groups = [group for group in groups if group in kept]
    figure, axes = _panels(len(selected) + 1, 4, 2.4, 0.7, sharey=True)
    whole = {group: np.array([pool.share(group)]) for group in groups}
    n_other = len(set(pool.groups)) - len(groups)
    _stack(axes.flat[0], whole, n_other, ["all"], "The pool")
    for panel, selection in zip(axes.flat[1:], selected, strict=False):
        names = [f"{100 * fraction:.0f}" for fraction in selection.fractions]
        kept_shares = {group: selection.shares[group] for group in groups}
        _stack(panel, kept_shares, n_other, names, label(selection.run))
        panel.set_xlabel("Labeled images (%)")
    for row in axes:
        row[0].set_ylabel("Share of the images")
    names = axes.flat[0].get_legend_handles_labels()[1]
    n_fitting = LEGEND_CHARACTERS // (max(map(len, names)) + 6)
    _add_legend(figure, axes.flat[0], max(1, min(len(names), n_fitting)))
    return figure


def _stack(
    panel: Axes, shares: Mapping[str, NDArray[np.float64]], n_other: int, names: Sequence[str], title: str
) -> None:
    """Stacked bars of the groups; what is missing to 1 belongs to ``n_other`` groups."""
    below = np.zeros(len(names))
    for i, (group, values) in enumerate(sorted(shares.items())):
        # Legends leave out names that begin with an underscore.
        name = f" {_shortened(group)}" if group.startswith("_") else _shortened(group)
        panel.bar(names, values, bottom=below, color=GROUP_COLORS[i], width=0.85, label=name)
        below = below + values
    if n_other:
        panel.bar(
            names, 1 - below, bottom=below, color="#D0D0D0", hatch="///", width=0.85,
            label=f"{n_other} smaller groups",
        )  # fmt: skip
    panel.set_ylim(0, 1)
    panel.set_title(title, fontsize=10)
    panel.spines[["top", "right"]].set_visible(False)


def purchases(selected: Sequence[Selection], pool: PoolFacts) -> Figure:
    """How crowded the images were that each query bought: foreground and particles per image."""
    figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    axes = figure.subplots(1, 2)
    for selection in selected:
        color, line, marker = style(selection.run)
        kind = {"color": color, "linestyle": line, "marker": marker, "markersize": 3.5}
        x = 100 * selection.fractions
        axes[0].plot(x, 100 * selection.foreground, label=label(selection.run), **kind)
        axes[1].plot(x, selection.particles, **kind)
    axes[0].axhline(
        100 * float(pool.foreground.mean()), color="0.35", linewidth=1.1, label="mean of the pool"
    )
    axes[1].axhline(float(pool.particles.mean()), color="0.35", linewidth=1.1)
    for panel, name in zip(
        axes, ("Foreground of the new images (%)", "Particles per new image"), strict=True
    ):
        panel.set_xlabel("Labeled images after the query (%)")
        panel.set_ylabel(name)
        _tidy(panel)
    _add_legend(figure, axes[0])
    return figure


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def _tidy(panel: Axes) -> None:
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    panel.xaxis.set_major_locator(MaxNLocator(5))


def as_png(figure: Figure, dpi: int = 130) -> bytes:
    """A figure as PNG, the same bytes every time."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=dpi, metadata={"Software": None})
    return picture.getvalue()


def as_svg(figure: Figure) -> bytes:
    """A figure as SVG, the same bytes every time."""
    picture = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "cryoquery"}):
        figure.savefig(picture, format="svg", metadata={"Date": None, "Creator": None})
    return picture.getvalue()
