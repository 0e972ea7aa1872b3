"""Counts of a dataset, and warnings about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cryoquery.data.dataset import (
    BACKGROUND,
    IGNORE,
    PARTICLE,
    SPLITS,
    Dataset,
    ImageRecord,
    MicrographKey,
    decode,
)
from cryoquery.data.orientation import Verdict, best_orientation, orientation_contrast
from cryoquery.data.preprocess import evenly
from cryoquery.formats.placement import Orientation

MAX_LOOKED_AT = 20
"""Micrographs per group whose pixels are looked at."""
MAX_CENTERS_ON_BACKGROUND = 0.1
MAX_DISCS_WITHOUT_CENTER = 0.1
BINNED_EXTENT = 0.6
"""Labels that reach no further than this fraction of height and width were made at another binning."""
MIN_LABELS_FOR_EXTENT = 50


@dataclass(frozen=True)
class Counts:
    """One group in one split."""

    group: str
    split: str
    n_micrographs: int
    n_images: int
    n_particles: int
    """Labeled centers within the images."""
    foreground: float
    """Fraction of the pixels (without padding) that belong to particles."""
    scale: float
    """Dataset pixels per original pixel; median."""
    diameter_px: float
    """Particle diameter in original pixels; median."""

    @property
    def particles_per_image(self) -> float:
        """Mean number of centers per image."""
        return self.n_particles / self.n_images

    @property
    def scaled_diameter_px(self) -> float:
        """Particle diameter in pixels of the dataset."""
        return self.diameter_px * self.scale


@dataclass(frozen=True)
class Inspection:
    """What `inspect_dataset` found."""

    counts: tuple[Counts, ...]
    """Sorted by group, then split."""
    warnings: tuple[str, ...]
    """What should be looked at before the dataset is used; the worst first."""
    notes: tuple[str, ...]
    """What was noticed when the dataset was made."""
    orientations: Mapping[str, Verdict]
    """By group."""


def inspect_dataset(dataset: Dataset) -> Inspection:
    """Count, and look for what is wrong with images, labels and splits.

    Pixels of at most 20 micrographs per group are looked at, evenly chosen; masks are all read.
    """
    by_group = micrographs_by_group(dataset)
    orientations: dict[str, Verdict] = {}
    warnings: list[str] = []
    for group, micrographs in by_group.items():
        orientations[group], disagreement = _look_at(dataset, group, micrographs)
        warnings += _orientation_warnings(group, orientations[group], dataset, micrographs)
        warnings += disagreement
    warnings += _near_duplicate_warnings(dataset.records)
    for group, micrographs in by_group.items():
        warnings += _label_warnings(dataset, group, micrographs)
    warnings += _split_warnings(dataset.records)
    return Inspection(_count(dataset), tuple(warnings), tuple(dataset.notes), orientations)


def micrographs_by_group(dataset: Dataset) -> dict[str, dict[str, list[int]]]:
    """Rows of the images of each micrograph of each group, both sorted."""
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, record in enumerate(dataset.records):
        found[record.group][record.micrograph].append(row)
    return {group: dict(sorted(micrographs.items())) for group, micrographs in sorted(found.items())}


def _count(dataset: Dataset) -> tuple[Counts, ...]:
    rows: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row, record in enumerate(dataset.records):
        rows[record.group, SPLITS.index(record.split)].append(row)
    return tuple(
        _count_one(dataset, group, SPLITS[at], members) for (group, at), members in sorted(rows.items())
    )


def _count_one(dataset: Dataset, group: str, split: str, rows: Sequence[int]) -> Counts:
    records = [dataset.records[row] for row in rows]
    return Counts(
        group=group,
        split=split,
        n_micrographs=len({record.key for record in records}),
        n_images=len(rows),
        n_particles=dataset.n_particles(rows),
        foreground=float(dataset.n_foreground(rows).sum() / dataset.n_valid(rows).sum()),
        scale=float(np.median([record.scale for record in records])),
        diameter_px=float(np.median([record.diameter_px for record in records])),
    )


@dataclass(frozen=True)
class Stitched:
    """A micrograph put together from its images, with its centers, in dataset pixels."""

    image: NDArray[np.float32]
    """(h, w) in standard deviations."""
    mask: NDArray[np.uint8]
    centers_yx: NDArray[np.float64]
    """(n, 2)."""
    diameter_px: float
    extent: tuple[float, float]
    """Size of the whole micrograph; a narrow strip below and at the right may not be in ``image``."""


def stitch(dataset: Dataset, rows: Sequence[int]) -> Stitched:
    """Put the images ``rows`` of one micrograph together."""
    records = [dataset.records[row] for row in rows]
    height = max(record.top + record.content_height for record in records)
    width = max(record.left + record.content_width for record in records)
    image = np.zeros((height, width), dtype=np.float32)
    mask = np.full((height, width), IGNORE, dtype=np.uint8)
    for row, record in zip(rows, records, strict=True):
        image[record.place] = decode(dataset.images[row][record.content])
        mask[record.place] = dataset.masks[row][record.content]
    first = records[0]
    centers = (_particles(dataset, first.key)[:, :2] + 0.5) * first.scale - 0.5
    extent = (first.height_px * first.scale, first.width_px * first.scale)
    return Stitched(image, mask, centers, first.diameter_px * first.scale, extent)


def _particles(dataset: Dataset, key: MicrographKey) -> NDArray[np.float64]:
    return dataset.particles.get(key, np.empty((0, 3)))


def _look_at(
    dataset: Dataset, group: str, micrographs: Mapping[str, Sequence[int]]
) -> tuple[Verdict, list[str]]:
    contrasts = []
    centers_missed: list[float] = []
    discs_missed: list[float] = []
    for rows in evenly(list(micrographs.values()), MAX_LOOKED_AT):
        stitched = stitch(dataset, rows)
        if len(stitched.centers_yx):
            contrasts.append(
                orientation_contrast(
                    stitched.image, stitched.centers_yx, stitched.diameter_px, stitched.extent
                )
            )
        centers_missed += _missed_centers(stitched)
        discs_missed += _missed_discs(stitched)
    warnings = []
    for missed, limit, what in (
        (centers_missed, MAX_CENTERS_ON_BACKGROUND, "of the centers lie on background of the masks"),
        (discs_missed, MAX_DISCS_WITHOUT_CENTER, "of the particles in the masks have no center"),
    ):
        if missed and np.mean(missed) > limit:
            warnings.append(f"group {group}: masks and coordinates disagree: {np.mean(missed):.0%} {what}")
    return best_orientation(contrasts), warnings


def _missed_centers(stitched: Stitched) -> list[float]:
    """For each center inside the image 1 where the mask has background, else 0."""
    at = np.rint(stitched.centers_yx).astype(int)
    at = at[((at >= 0) & (at < stitched.mask.shape)).all(axis=1)]
    return [float(value == BACKGROUND) for value in stitched.mask[at[:, 0], at[:, 1]]]


def _missed_discs(stitched: Stitched) -> list[float]:
    """For each connected part of the mask away from the edge 1 where it holds no center, else 0."""
    labels, n_parts = ndimage.label(stitched.mask == PARTICLE)
    at_edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    at = np.rint(stitched.centers_yx).astype(int)
    at = at[((at >= 0) & (at < labels.shape)).all(axis=1)]
    parts = np.setdiff1d(np.arange(1, n_parts + 1), at_edge)
    return [float(missed) for missed in ~np.isin(parts, labels[at[:, 0], at[:, 1]])]


def _orientation_warnings(
    group: str, verdict: Verdict, dataset: Dataset, micrographs: Mapping[str, Sequence[int]]
) -> list[str]:
    as_is, best = verdict.contrasts[0], verdict.contrasts[np.argmax(np.abs(verdict.contrasts))]
    if verdict.finding == "turned":
        done = _turned_by_import(dataset)
        needed = verdict.best.after(done)
        remedy = f"with {needed.options}" if needed.options else f"without {done.options}"
        return [
            f"group {group}: WRONG ORIENTATION: the labels fit the images clearly better turned (contrast "
            f"{best:.0f} standard errors, as they are {as_is:.0f}); import again {remedy}"
        ]
    n_labels = sum(len(_particles(dataset, (group, name))) for name in micrographs)
    if verdict.finding == "undecided" and n_labels:
        return [
            f"group {group}: the labels do not stand out from their surroundings in any orientation "
            f"(contrast {as_is:.1f} standard errors over {n_labels} labels): few, doubtful or very noisy; "
            "look at the contact sheet"
        ]
    return []


def _turned_by_import(dataset: Dataset) -> Orientation:
    options = dataset.recipe.get("origin", {}).get("options", {})
    return Orientation(*(bool(options.get(name)) for name in ("swap_xy", "flip_y", "flip_x")))


def _near_duplicate_warnings(records: Sequence[ImageRecord]) -> list[str]:
    splits: dict[str, dict[str, str]] = defaultdict(dict)
    for record in records:
        splits[record.field_of_view].setdefault(record.split, f"{record.group}/{record.micrograph}")
    warnings = []
    for _, by_split in sorted(splits.items()):
        if len(by_split) > 1:
            names = " and ".join(f"{name} ({split})" for split, name in sorted(by_split.items()))
            warnings.append(
                f"near-duplicates in different splits: {names}; scores on one are learned from the other"
            )
    return warnings


def _label_warnings(dataset: Dataset, group: str, micrographs: Mapping[str, Sequence[int]]) -> list[str]:
    n_outside, n_labels, first, reach = 0, 0, "", 0.0
    for name, rows in micrographs.items():
        record = dataset.records[rows[0]]
        shape = np.array([record.height_px, record.width_px])
        points = _particles(dataset, record.key)[:, :2]
        outside = ((points < -0.5) | (points > shape - 0.5)).any(axis=1)
        n_outside, n_labels = n_outside + int(outside.sum()), n_labels + len(points)
        first = first or (name if outside.any() else "")
        reach = max(reach, float((points / shape).max(initial=0.0)))
    warnings = []
    if n_outside:
        warnings.append(
            f"group {group}: {n_outside} of {n_labels} labels lie outside their micrograph "
            f"(first in {first}); another binning, or x and y exchanged?"
        )
    if n_labels >= MIN_LABELS_FOR_EXTENT and reach < BINNED_EXTENT:
        warnings.append(
            f"group {group}: no label lies beyond {reach:.0%} of height and width; "
            "another binning than the images?"
        )
    rows_of_group = [row for rows in micrographs.values() for row in rows]
    n_empty = sum(dataset.n_particles([row]) == 0 for row in rows_of_group)
    if n_empty:
        warnings.append(f"group {group}: {n_empty} of {len(rows_of_group)} images have no particles")
    scale = max(dataset.records[row].scale for row in rows_of_group)
    if scale > 1:
        warnings.append(f"group {group}: images are enlarged {scale:.2f} times; a smaller size shows as much")
    return warnings


def _split_warnings(records: Sequence[ImageRecord]) -> list[str]:
    groups = sorted({record.group for record in records})
    present = {(record.group, record.split) for record in records}
    used = [split for split in SPLITS if any(record.split == split for record in records)]
    warnings = []
    for split in used:
        missing = [group for group in groups if (group, split) not in present]
        if missing:
            warnings.append(f"split {split}: no micrographs of group {', '.join(missing)}")
    if "train" not in used:
        warnings.append("no training images: nothing can be learned from this dataset")
    return warnings
