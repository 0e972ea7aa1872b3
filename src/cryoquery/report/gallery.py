"""Pictures of micrographs for the page: what was asked for first, and predictions beside the truth."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cryoquery.active.iteration import EXAMPLES
from cryoquery.data.dataset import PARTICLE, Dataset, decode
from cryoquery.errors import DataError
from cryoquery.report.runs import OPPONENTS, LearningCurve, Results, label
from cryoquery.report.words import plural
from cryoquery.storage.atomic import read_json
from cryoquery.storage.cache import read_columns

N_FIRST = 6
N_EXAMPLES = 4
SIDE_PX = 224
"""Pictures are scaled to this, by whole factors where they are enlarged."""
CONTRAST = 3.0
"""Standard deviations shown as black and as white."""
FOUND, FALSE, MISSED = (0, 114, 178), (213, 94, 0), (240, 228, 66)
"""Okabe & Ito's blue, vermilion and yellow."""
OPACITY = 0.45


@dataclass(frozen=True)
class Picture:
    """A picture with what is to be said of it."""

    png: bytes
    title: str
    caption: str


@dataclass(frozen=True)
class Row:
    """Pictures that belong together."""

    title: str
    pictures: tuple[Picture, ...]


def first_asked(results: Results, dataset: Dataset) -> list[Row]:
    """The images at the head of each strategy's first query, for the lowest seed that all have."""
    rows = []
    runs = [run for run in results.runs() if run.endswith("_sampling")]
    shared = results.seeds(*runs) if runs else []
    for run in runs:
        curve = next((c for c in results.of(run) if c.seed in shared[:1]), results.of(run)[0])
        file = curve.folder / "iteration_0" / "query.json"
        query = read_json(file)[:N_FIRST] if file.is_file() else []
        pictures = tuple(
            Picture(
                as_png(_gray(dataset, choice["index"])),
                dataset.records[choice["index"]].group,
                plural(dataset.n_particles([choice["index"]]), "particle")
                + ("" if run in OPPONENTS else f" · score {choice['score']:.3g}"),
            )
            for choice in query
        )
        if pictures:
            rows.append(Row(f"{label(run)}, seed {curve.seed}: {query[0]['reason']}", pictures))
    return rows


def predictions(results: Results, dataset: Dataset) -> list[tuple[str, list[Row]]]:
    """Predictions on a few fixed held-out images with the fewest, about half, and all labels.

    For each image a row of pictures per run: found, false and missed pixels at probability 0.5.
    Of strategies that labeled the same images only the first is shown, and no run whose iterations
    left no predictions.
    """
    seed = min(results.seeds_of_any())
    kept = {}
    for curve in results.curves:
        if curve.seed == seed and curve.run not in results.first_of_identical and (chosen := _stages(curve)):
            kept[curve.run] = chosen
    if not kept:
        return []
    rows_of_examples = next(iter(kept.values()))[0][1]["rows"][:N_EXAMPLES]
    kept = {
        run: stages
        for run, stages in kept.items()
        if all(np.array_equal(stage["rows"][:N_EXAMPLES], rows_of_examples) for _, stage in stages)
    }
    sections = []
    for place, row in enumerate(rows_of_examples.tolist()):
        record = dataset.records[row]
        name = f"{record.group}: {record.micrograph}, {plural(len(dataset.centers_in(row)), 'particle')}"
        shown = {
            run: [
                _overlay(dataset, row, stage["probability"][place], f"{100 * fraction:.0f} % labeled")
                for fraction, stage in stages
            ]
            for run, stages in kept.items()
        }
        # Most runs begin with the same labels, and so with the same network: its picture is shown once.
        first = Counter(pictures[0] for pictures in shown.values()).most_common(1)[0][0]
        pictures = (Picture(as_png(_gray(dataset, row)), "without predictions", ""), first)
        rows = [
            Row(label(run), tuple(some[1:] if some[0] == first and len(some) > 1 else some))
            for run, some in shown.items()
        ]
        sections.append((name, [Row("The image, and what all begin with", pictures), *rows]))
    return sections


def _stages(curve: LearningCurve) -> list[tuple[float, dict[str, NDArray[np.uint8]]]]:
    """(labeled share, kept predictions) of the first, the middle and the last iteration of a run."""
    fractions = curve.fractions
    chosen = sorted({0, int(np.argmin(np.abs(fractions - 0.5))), len(fractions) - 1})
    stages = []
    for i in chosen:
        file = curve.folder / f"iteration_{i}" / EXAMPLES
        if not file.is_file():
            return []
        try:
            stages.append((float(fractions[i]), read_columns(file)))
        except DataError as error:
            raise DataError(f"{error}; remove it to leave it out") from None
    return stages


def _overlay(dataset: Dataset, row: int, probability: NDArray[np.uint8], title: str) -> Picture:
    record = dataset.records[row]
    height, width = record.content_height, record.content_width
    gray = _gray(dataset, row).astype(np.float64)
    said = probability[:height, :width] >= 128
    mask = dataset.masks[row][:height, :width]
    true, known = mask == PARTICLE, mask <= PARTICLE
    colors = np.repeat(gray[:, :, None], 3, axis=2)
    parts = ((said & true, FOUND), (said & ~true & known, FALSE), (~said & true, MISSED))
    for where, color in parts:
        colors[where] = (1 - OPACITY) * colors[where] + OPACITY * np.array(color)
    (tp, _), (fp, _), (fn, _) = ((int(where.sum()), color) for where, color in parts)
    f1 = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0
    return Picture(as_png(colors.astype(np.uint8)), title, f"F1 {f1:.2f} on this image")


def _gray(dataset: Dataset, row: int) -> NDArray[np.uint8]:
    """An image of the dataset as 8-bit gray (h, w), at its own size, without padding."""
    record = dataset.records[row]
    content = decode(dataset.images[row][: record.content_height, : record.content_width])
    gray: NDArray[np.uint8] = np.clip(255 * (content + CONTRAST) / (2 * CONTRAST), 0, 255).astype(np.uint8)
    return gray


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels (h, w) or (h, w, 3) as a PNG with its longer side near `SIDE_PX`."""
    image = Image.fromarray(pixels)
    factor = SIDE_PX / max(image.size)
    if factor >= 1:
        factor = max(1, int(factor))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    how = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
    stream = io.BytesIO()
    image.resize(size, how).save(stream, format="PNG", optimize=True)
    return stream.getvalue()
