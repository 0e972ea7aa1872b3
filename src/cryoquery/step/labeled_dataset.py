"""A project's labels as an ordinary dataset: its images by a link, masks and particles from what people said.

::

    PROJECT/work/dataset_1f3a…/
      images.npy      link to the project's dataset
      masks.npy       discs; IGNORE where nothing is known, holes in the file where nothing is labelled
      images.csv      the rows of the project's dataset; held-out ones without labels are in no split
      particles.csv   dataset.json

The row of an item is its number, as in the project.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from cryoquery.data.array_file import ArrayFile
from cryoquery.data.dataset import (
    FORMAT_VERSION,
    IGNORE,
    PARTICLE_COLUMNS,
    Dataset,
    ImageRecord,
    MicrographKey,
    open_dataset,
)
from cryoquery.preprocess import draw_mask, to_scaled
from cryoquery.project.snapshot import Label
from cryoquery.provenance import digest
from cryoquery.records import SupersededError, staged_directory, write_json, write_text

UNLABELED = "unlabeled"
"""The split of held-out images that nobody has labelled: neither trained nor measured on."""


def labeled_dataset(images: Dataset, labels: Mapping[int, Label], folder: Path) -> Dataset:
    """The dataset of ``labels`` on the ``images`` of a project, made in ``folder`` where it is not there yet.

    Its fingerprint is a function of the images and of everything that the labels say.

    Args:
        images: the project's dataset.
        labels: by item.
        folder: of such datasets, on the same file system as the project's.

    Raises:
        DataError: the project's dataset is damaged.
    """
    said = {str(item): label.said() for item, label in sorted(labels.items())}
    fingerprint = digest({"dataset": images.fingerprint, "labels": said})
    path = folder / f"dataset_{fingerprint[:16]}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Another process makes the same.
        with suppress(SupersededError), staged_directory(path) as staged:
            _write(staged, images, labels, fingerprint)
    return open_dataset(path)


def _write(folder: Path, images: Dataset, labels: Mapping[int, Label], fingerprint: str) -> None:
    source = images.path / "images.npy"
    # Relative, so that the project can be moved; the staged folder lies beside its final place.
    (folder / "images.npy").symlink_to(_relative(source, folder))
    particles = _particles(images, labels)
    n, height, width = images.images.shape
    with ArrayFile(folder / "masks.npy", (n, height, width)) as masks:
        for item, label in labels.items():
            drawn = draw_labels(images.records[item], label, particles, images.disc_fraction)
            masks.put(item, drawn, IGNORE)
        masks.sync()
    records = [
        dataclasses.replace(record, split=UNLABELED)
        if record.split != "train" and item not in labels
        else record
        for item, record in enumerate(images.records)
    ]
    rows = [["" if v is None else v for v in dataclasses.astuple(record)] for record in records]
    _write_table(folder / "images.csv", [field.name for field in dataclasses.fields(ImageRecord)], rows)
    centers = [[*key, *row] for key, values in sorted(particles.items()) for row in values.tolist()]
    _write_table(folder / "particles.csv", PARTICLE_COLUMNS, centers)
    info: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "fingerprint": fingerprint,
        "n_images": n,
        "image_shape": [height, width],
        "recipe": dict(images.recipe),
        "notes": ["labels of a project"],
    }
    write_json(folder / "dataset.json", info)


def _relative(target: Path, folder: Path) -> Path:
    target, folder = target.resolve(), folder.resolve()
    shared = next(parent for parent in folder.parents if parent in target.parents)
    ups = len(folder.relative_to(shared).parts)
    return Path(*[".."] * ups) / target.relative_to(shared)


def _particles(images: Dataset, labels: Mapping[int, Label]) -> dict[MicrographKey, NDArray[np.float64]]:
    """(n, 3) rows (y, x, diameter) of each micrograph with labels, in original pixels."""
    found: dict[MicrographKey, list[NDArray[np.float64]]] = {}
    for item, label in sorted(labels.items()):
        record = images.records[item]
        diameter = np.full((len(label.particles_yx), 1), record.diameter_px)
        found.setdefault(record.key, []).append(np.hstack([label.particles_yx, diameter]))
    return {key: np.concatenate(rows) for key, rows in found.items() if sum(map(len, rows))}


def draw_labels(
    record: ImageRecord,
    label: Label,
    particles: Mapping[MicrographKey, NDArray[np.float64]],
    disc_fraction: float,
) -> NDArray[np.uint8]:
    """The mask (content_height, content_width) of one image: BACKGROUND, PARTICLE or IGNORE.

    Discs of particles in neighboring fields reach into this one. Where parts of the image are said to be
    done, everything else is ignored.
    """
    shape = record.content_height, record.content_width
    rows = particles.get(record.key, np.empty((0, 3)))
    origin = np.array([record.top, record.left])
    centers = to_scaled(rows[:, :2], record.scale) - origin
    mask = draw_mask(shape, centers, rows[:, 2] * record.scale * disc_fraction)

    def covered(polygons: Iterable[NDArray[np.float64]]) -> NDArray[np.bool_]:
        return inside_any(shape, [to_scaled(polygon, record.scale) - origin for polygon in polygons])

    if label.done:
        mask[~covered(label.done)] = IGNORE
    if label.ignore:
        mask[covered(label.ignore)] = IGNORE
    return mask


def inside_any(shape: tuple[int, int], polygons: Sequence[NDArray[np.float64]]) -> NDArray[np.bool_]:
    """Pixels (h, w) whose center lies in one of the polygons, each (k, 2) vertices ``(y, x)`` in pixels."""
    inside = np.zeros(shape, dtype=bool)
    for polygon in polygons:
        low = np.clip(np.floor(polygon.min(axis=0)).astype(int), 0, shape)
        high = np.clip(np.ceil(polygon.max(axis=0)).astype(int) + 1, 0, shape)
        if (low >= high).any():
            continue
        y, x = np.mgrid[low[0] : high[0], low[1] : high[1]]
        points = np.column_stack([y.ravel(), x.ravel()])
        hit = Outline(polygon).contains_points(points).reshape(y.shape)
        inside[low[0] : high[0], low[1] : high[1]] |= hit
    return inside


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())
