"""Pictures to judge picks by: circles on the micrograph, and a histogram of the scores."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cryoquery.data.contact_sheet import RANGE, draw_circles, png
from cryoquery.data.dataset import decode
from cryoquery.picking.picker import PickedMicrograph
from cryoquery.storage.atomic import write_bytes

OVERLAY_PX = 1200
"""Longer side of an overlay."""
DPI = 100
AVOIDED_COLOR = (0.86, 0.15, 0.15, 0.3)
COMPRESSION = 1
"""Of a PNG. Noise is not compressed any better by more, which takes five times as long."""
BINS = np.linspace(0, 1, 41).tolist()

_RENDERING = threading.Lock()
"""Matplotlib renders in one thread at a time only."""


def draw_overlay(picked: PickedMicrograph, path: Path, title: str) -> None:
    """Write a PNG of the micrograph as the network saw it, a circle as wide as the particle at each pick.

    Areas on which more certainty was asked for (carbon, ice, aggregates) are tinted red.
    """
    height, width = picked.levels.shape
    per_px = OVERLAY_PX / max(height, width)
    figure = Figure(figsize=(width * per_px / DPI, height * per_px / DPI + 0.3), dpi=DPI)
    panel = figure.add_axes((0, 0, 1, 1 - 0.3 / (height * per_px / DPI + 0.3)))
    panel.set_axis_off()
    panel.imshow(
        decode(picked.levels), cmap="gray", vmin=RANGE[0], vmax=RANGE[1], interpolation="antialiased"
    )
    if picked.avoided.any():
        tint = np.zeros((height, width, 4), dtype=np.float32)
        tint[picked.avoided] = AVOIDED_COLOR
        panel.imshow(tint, interpolation="nearest")
    picks = picked.picks
    if len(picks) and picks.diameters_px is not None:
        diameters = picks.diameters_px * picked.scale
        centers = (picks.centers_yx + 0.5) * picked.scale - 0.5
        draw_circles(panel, centers, diameters, 1.1)
    panel.set_xlim(-0.5, width - 0.5)
    panel.set_ylim(height - 0.5, -0.5)
    figure.suptitle(
        f"{title} · {len(picks)} picks at score {picked.threshold:.2f} or more",
        fontsize=10,
        y=0.995,
        va="top",
    )
    _write(figure, path)


def draw_histogram(picked: PickedMicrograph, path: Path, title: str) -> None:
    """Write a PNG of how many maxima have which score, and where the threshold cuts."""
    figure = Figure(figsize=(6, 3.4), dpi=DPI, layout="constrained")
    panel = figure.subplots()
    panel.hist(picked.all_scores, BINS, color="#b9bec6", label=f"all {len(picked.all_scores)} maxima")
    if picked.picks.scores is not None and len(picked.picks):
        panel.hist(picked.picks.scores, BINS, color="#3b6fb5", label=f"{len(picked.picks)} picks")
    panel.axvline(picked.threshold, color="black", linewidth=1, label=f"threshold {picked.threshold:.2f}")
    panel.set_xlim(0, 1)
    panel.set_xlabel("score")
    panel.set_ylabel("count")
    panel.set_title(title, fontsize=10)
    panel.legend(frameon=False, fontsize=8)
    _write(figure, path)


def _write(figure: Figure, path: Path) -> None:
    with _RENDERING:
        content = png(figure, compress_level=COMPRESSION)
    write_bytes(path, content)
