"""A project's labels as an ordinary dataset: its images by a link, masks and particles from what people said.

::

    PROJECT/work/dataset_1f3a…/
      images.npy      link to the project's dataset
      masks.npy       discs; IGNORE where nothing is known, holes in the file where nothing is labeled
      images.csv      the rows of the project's dataset; held-out ones without labels are in no split
      particles.csv   dataset.json

The row of an item is its number, as in the project.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.path import Path as Outline
from numpy.typing import NDArray
from scipy import ndimage

from cryoquery.data.dataset import (
    IGNORE,
    PARTICLE,
    UNLABELED,
    Dataset,
    DatasetWriter,
    ImageRecord,
    MicrographKey,
    open_dataset,
)
from cryoquery.data.fields import Field
from cryoquery.data.preprocess import draw_mask, scaled_shape
from cryoquery.formats.placement import to_scaled
from cryoquery.project.state import Label
from cryoquery.storage.atomic import SupersededError, staged_directory
from cryoquery.storage.provenance import digest

DRAWING = 3
"""Raise it when masks are drawn otherwise from the same labels."""


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
    fingerprint = digest({"dataset": images.fingerprint, "labels": said, "drawing": DRAWING})
    path = folder / f"dataset_{fingerprint[:16]}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Another process makes the same.
        with suppress(SupersededError), staged_directory(path) as staged:
            _write(staged, images, labels, fingerprint)
    return open_dataset(path)


def _write(folder: Path, images: Dataset, labels: Mapping[int, Label], fingerprint: str) -> None:
    particles = _particles(images, labels)
    around: dict[MicrographKey, dict[int, LabeledImage]] = {}
    for item, label in labels.items():
        record = images.records[item]
        around.setdefault(record.key, {})[item] = LabeledImage(record, images.own_parts[item], label)
    records = [
        dataclasses.replace(record, split=UNLABELED)
        if record.split != "train" and item not in labels
        else record
        for item, record in enumerate(images.records)
    ]
    n, height, width = images.images.shape
    with closing(DatasetWriter(folder, n, height, width, images.path / "images.npy")) as writer:
        for item in labels:
            key = images.records[item].key
            centers_yx = particles.get(key, np.empty((0, 3)))[:, :2]
            writer.put_mask(item, draw_labels(item, around[key], centers_yx, images.disc_fraction))
        writer.finish(records, particles, images.recipe, ["labels of a project"], fingerprint)


def _particles(images: Dataset, labels: Mapping[int, Label]) -> dict[MicrographKey, NDArray[np.float64]]:
    """(n, 3) rows (y, x, diameter) of each micrograph with labels, in original pixels."""
    found: dict[MicrographKey, list[NDArray[np.float64]]] = {}
    for item, label in sorted(labels.items()):
        record = images.records[item]
        diameter = np.full((len(label.particles_yx), 1), record.diameter_px)
        found.setdefault(record.key, []).append(np.hstack([label.particles_yx, diameter]))
    return {key: np.concatenate(rows) for key, rows in found.items() if sum(map(len, rows))}


class LabeledImage(NamedTuple):
    """One image and what people say of it."""

    record: ImageRecord
    own: Field
    """The part of it that people are shown, see `Dataset.own_parts`."""
    label: Label


def draw_labels(
    item: int,
    labeled: Mapping[int, LabeledImage],
    particles_yx: NDArray[np.float64],
    disc_fraction: float,
) -> NDArray[np.uint8]:
    """The mask (content_height, content_width) of one image: BACKGROUND, PARTICLE or IGNORE.

    Discs of all known particles of the micrograph are drawn, also where they reach in from other images.
    Background is only what no unknown particle can cover: people mark centers inside of a field, or of
    regions that they call done, and of particles beyond these nothing is known. So along borders to images
    without labels, and along the edges of done regions, a band as wide as a disc's radius is ignored where
    no known disc lies. Beyond the micrograph there are no centers. Regions to be ignored have no band:
    their borders are as they were drawn. Outside of done regions, where there are any, all is ignored.

    Args:
        item: the image.
        labeled: all images of its micrograph that have labels, by item.
        particles_yx: (n, 2) all known centers of the micrograph, in its pixels.
        disc_fraction: diameter of discs in particle diameters.
    """
    record, _, label = labeled[item]
    shape = record.content_height, record.content_width
    origin = np.array([record.top, record.left])
    radius = record.diameter_px * record.scale * disc_fraction / 2
    centers = to_scaled(particles_yx, record.scale) - origin
    mask = draw_mask(shape, centers, np.full(len(centers), 2 * radius))
    pad = math.ceil(radius) + 1
    unknown = _unknown(record, labeled.values(), pad)
    inner = np.s_[pad : pad + shape[0], pad : pad + shape[1]]
    if unknown.any():
        # A center may lie half a pixel before the pixels that are unknown.
        near = ndimage.distance_transform_edt(~unknown)[inner] <= radius + 0.5
        mask[near & (mask != PARTICLE)] = IGNORE
        mask[unknown[inner]] = IGNORE
    if label.ignore:
        mask[inside_any(shape, [to_scaled(it, record.scale) - origin for it in label.ignore])] = IGNORE
    return mask


def _unknown(record: ImageRecord, labeled: Iterable[LabeledImage], pad: int) -> NDArray[np.bool_]:
    """Pixels of an image and ``pad`` px around it where particles may have centers that are not known."""
    corner = np.array([record.top, record.left]) - pad
    shape = record.content_height + 2 * pad, record.content_width + 2 * pad
    whole = scaled_shape((record.height_px, record.width_px), record.scale)
    unknown = np.zeros(shape, dtype=bool)
    unknown[_window((0, 0), whole, corner, shape)] = True
    for other, own, label in labeled:
        window = _window((own.top, own.left), (own.height, own.width), corner, shape)
        known: NDArray[np.bool_] | bool = True
        if label.done:
            polygons = [to_scaled(it, other.scale) - corner for it in label.done]
            known = inside_any(shape, polygons)[window]
        unknown[window] &= ~np.asarray(known)
    return unknown


def _window(
    start: tuple[int, int], size: tuple[int, int], corner: NDArray[np.int64], shape: tuple[int, int]
) -> tuple[slice, slice]:
    """The part of an array of ``shape`` at ``corner`` that a rectangle of pixels covers."""
    low = np.clip(np.array(start) - corner, 0, shape)
    high = np.clip(np.array(start) + size - corner, 0, shape)
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


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
