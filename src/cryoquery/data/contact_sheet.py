"""A picture of a dataset: a few images per group with a circle around every labeled particle."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryoquery.data.dataset import Dataset, decode
from cryoquery.data.preprocess import evenly
from cryoquery.storage.atomic import write_bytes

N_COLUMNS = 4
PANEL_INCHES = 3.2
RANGE = (-3.0, 3.0)
"""Standard deviations shown as black and as white."""
MAX_DIAMETERS = 14.0
"""Of a larger image its middle is shown, so many particle diameters wide."""
CIRCLE_COLOR = "#ffb000"


def contact_sheet(dataset: Dataset, path: Path | str, dpi: int = 110) -> None:
    """Write a PNG with a row of images for each group, circles as wide as the particles.

    Images of a group are evenly chosen from those that hold most particles, so that labels can be
    judged; an image of a group without particles is shown as it is.
    """
    groups = sorted({record.group for record in dataset.records})
    figure = Figure(
        figsize=(N_COLUMNS * PANEL_INCHES, len(groups) * (PANEL_INCHES + 0.35)), dpi=dpi, layout="constrained"
    )
    axes = figure.subplots(len(groups), N_COLUMNS, squeeze=False)
    for group, panels in zip(groups, axes, strict=True):
        rows = _choose(dataset, group)
        for i, panel in enumerate(panels):
            panel.set_axis_off()
            if i < len(rows):
                _show(panel, dataset, rows[i])
    write_bytes(Path(path), png(figure))


def png(figure: Figure, **options: Any) -> bytes:
    """A figure as PNG, which does not say what drew it; ``options`` are those of Pillow."""
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None}, pil_kwargs=options)
    return stream.getvalue()


def _choose(dataset: Dataset, group: str) -> list[int]:
    rows = [row for row, record in enumerate(dataset.records) if record.group == group]
    crowded = sorted(rows, key=lambda row: (-dataset.n_particles([row]), row))[
        : max(N_COLUMNS, len(rows) // 2)
    ]
    return sorted(evenly(crowded, N_COLUMNS))


def _show(panel: Axes, dataset: Dataset, row: int) -> None:
    record = dataset.records[row]
    content = dataset.images[row][record.content]
    diameter = record.diameter_px * record.scale
    centers = dataset.centers_in(row)
    panel.imshow(decode(content), cmap="gray", vmin=RANGE[0], vmax=RANGE[1], interpolation="antialiased")
    draw_circles(panel, centers, np.full(len(centers), diameter), 0.9)
    is_cropped = max(content.shape) > MAX_DIAMETERS * diameter
    if is_cropped:
        half = np.minimum(MAX_DIAMETERS * diameter, content.shape) / 2
        middle = np.array(content.shape) / 2 - 0.5
        panel.set_ylim(middle[0] + half[0], middle[0] - half[0])
        panel.set_xlim(middle[1] - half[1], middle[1] + half[1])
    name = record.micrograph if len(record.micrograph) <= 34 else f"...{record.micrograph[-31:]}"
    counted = f"{len(centers)} particles{', its middle' if is_cropped else ''}"
    panel.set_title(f"{record.group} · {record.split} · {counted}\n{name}", fontsize=8)


def draw_circles(
    panel: Axes, centers_yx: NDArray[np.float64], diameters: NDArray[np.float64], width: float
) -> None:
    """Circles around centers (n, 2) as wide as the diameters (n,), both in pixels of the panel's image."""
    panel.add_collection(
        EllipseCollection(
            diameters,
            diameters,
            np.zeros(len(diameters)),
            units="xy",
            offsets=centers_yx[:, ::-1],
            offset_transform=panel.transData,
            facecolors="none",
            edgecolors=CIRCLE_COLOR,
            linewidths=width,
        )
    )
