"""From micrographs with labels to a dataset on disk."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from cryoquery import __version__
from cryoquery.config import CheckedModel
from cryoquery.data.dataset import (
    SPLITS,
    Dataset,
    DatasetWriter,
    ImageRecord,
    MicrographKey,
    encode,
    new_dataset,
    open_dataset,
)
from cryoquery.data.fields import Field as FieldOfImage
from cryoquery.data.fields import field_grid
from cryoquery.data.layouts.options import check_pattern
from cryoquery.data.preprocess import (
    NORMALIZATION,
    draw_mask,
    fit_scale,
    normalize,
    rescale_mask,
    scaled_shape,
)
from cryoquery.data.source import MAX_DIAMETER_RATIO, SourceMicrograph
from cryoquery.data.splits import SplitBy, assign_splits, tie_near_duplicates
from cryoquery.errors import ConfigError, CryoqueryError, DataError
from cryoquery.formats.placement import to_scaled
from cryoquery.storage.atomic import check_new

SIZE_STEP = 16
"""The network halves an image four times."""
DEFAULT_TEST_FRACTION = 0.25
MAX_WORKERS = 16
"""So many threads at most where no number is given; each needs memory for a micrograph."""

Progress = Callable[[int, int], None]
"""Called with (micrographs done, all of them)."""


def default_workers() -> int:
    """One thread for each core that this process may use, up to `MAX_WORKERS`."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(n_cores, MAX_WORKERS)


class BuildConfig(CheckedModel):
    """How a dataset is made of micrographs."""

    size: int = Field(default=768, gt=0)
    """Side of the images in px: whole micrographs are scaled to fit and padded. Unused with ``field``."""
    field: int | None = Field(default=None, gt=0)
    """Side in px of the fields that micrographs are cut into; None: whole micrographs."""
    particle_px: float = Field(default=18.0, gt=0)
    """Particle diameter in px of a field; it sets the scale. Unused without ``field``."""
    disc_fraction: float = Field(default=1.0, gt=0)
    """Diameter of a particle's disc in the mask over the diameter of the particle."""
    val_fraction: float | None = Field(default=None, ge=0, lt=1)
    """Fraction of the micrographs drawn for validation; None: 0."""
    test_fraction: float | None = Field(default=None, ge=0, lt=1)
    """Fraction of those without a split that is drawn for test; None: 0.25."""
    split_by: SplitBy = "micrograph"
    near_duplicates: str | None = None
    """Regular expression: names with the same match are of one place, see `tie_near_duplicates`."""
    seed: int = Field(default=0, ge=0)
    n_workers: int = Field(default_factory=default_workers, gt=0)
    """Threads, one per core where not given. Memory is needed for so many micrographs at a time; the result
    does not depend on it."""

    @field_validator("size", "field")
    @classmethod
    def _divisible(cls, value: int | None, info: Any) -> int | None:
        if value is not None and value > 0 and value % SIZE_STEP:
            valid = -(-value // SIZE_STEP) * SIZE_STEP
            raise ConfigError(f"{info.field_name}={value}: must be a multiple of {SIZE_STEP}; try {valid}")
        return value

    @model_validator(mode="after")
    def _usable(self) -> Self:
        check_pattern("near_duplicates", self.near_duplicates)
        if (self.val_fraction or 0) + (self.test_fraction or 0) >= 1:
            raise ConfigError(
                f"val_fraction={self.val_fraction:g}, test_fraction={self.test_fraction:g}: "
                "together below 1, or nothing is left for training"
            )
        return self

    @property
    def side(self) -> int:
        """Height and width of an image in px."""
        return self.field or self.size


def build_dataset(
    micrographs: Sequence[SourceMicrograph],
    out: Path | str,
    config: BuildConfig | None = None,
    *,
    notes: Sequence[str] = (),
    origin: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    failures: dict[MicrographKey, str] | None = None,
) -> Dataset:
    """Write ``micrographs`` as a dataset at ``out`` and open it; all of it or nothing.

    Args:
        micrographs: in any order; the rows are sorted by split, group, name and field.
        out: a new folder.
        config: sizes, splits and seed.
        notes: what was noticed earlier, kept with the dataset.
        origin: where the micrographs come from, kept in the recipe; JSON types only.
        progress: called after each micrograph, from the calling thread.
        failures: gets the reason for each micrograph that cannot be used, which is left out; None: the
            first of them ends it.

    Raises:
        DataError: there is nothing to write or nothing is left, ``out`` exists, the disk is too full, a
            group has no particle diameter, or a micrograph cannot be used; the message names it.
    """
    out, config = Path(out), config or BuildConfig()
    check_new(out)
    if not micrographs:
        raise DataError(f"{out}: no micrographs to make a dataset of")
    if config.disc_fraction != 1 and any(m.read_mask for m in micrographs):
        raise ConfigError(
            f"disc_fraction={config.disc_fraction:g}: masks are given; use --labels coordinates"
        )
    plans, duplicate_notes = _plan(micrographs, config)
    records = [record for plan in plans for record in plan.records]
    _check_space(out, len(records), config.side)
    recipe = {
        "origin": dict(origin or {}),
        "config": config.model_dump(exclude={"n_workers"}),
        "normalization": dict(NORMALIZATION),
        "cryoquery": __version__,
    }
    with new_dataset(out, len(records), config.side, config.side) as writer:
        contrasts = _process(plans, config, writer, progress, failures)
        if failures:
            plans, contrasts = _without_failures(plans, contrasts, failures, writer)
        finished = [
            replace(record, center=center, spread=spread)
            for plan, (center, spread) in zip(plans, contrasts, strict=True)
            for record in plan.records
        ]
        particles = {plan.source.key: plan.source.particles for plan in plans if len(plan.source.particles)}
        writer.finish(finished, particles, recipe, [*notes, *duplicate_notes])
    return open_dataset(out)


@dataclass(frozen=True)
class _Plan:
    """What becomes of one micrograph: the records of its fields but for the contrast, and their rows."""

    source: SourceMicrograph
    records: tuple[ImageRecord, ...]
    first_row: int


def _plan(micrographs: Sequence[SourceMicrograph], config: BuildConfig) -> tuple[list[_Plan], list[str]]:
    _refuse_equal_names(micrographs)
    tied, notes = tie_near_duplicates(micrographs, config.near_duplicates)
    test_fraction = DEFAULT_TEST_FRACTION if config.test_fraction is None else config.test_fraction
    splits = assign_splits(tied, config.val_fraction or 0.0, test_fraction, config.split_by, config.seed)
    diameters = micrograph_diameters(tied)
    plans: list[_Plan] = []
    row = 0
    for split, source in sorted(
        zip(splits, tied, strict=True), key=lambda pair: (SPLITS.index(pair[0]), pair[1].group, pair[1].name)
    ):
        plan = _plan_one(source, split, diameters[source.key], config, row)
        plans.append(plan)
        row += len(plan.records)
    return plans, notes


def _plan_one(source: SourceMicrograph, split: str, diameter: float, config: BuildConfig, row: int) -> _Plan:
    scale = config.particle_px / diameter if config.field else fit_scale(source.shape, config.size)
    height, width = scaled_shape(source.shape, scale)
    if config.field:
        fields = field_grid((height, width), config.field)
    else:
        fields = [FieldOfImage(0, 0, height, width)]
    records = tuple(
        ImageRecord(
            id=f"{source.group}/{source.name}" + (f":{field.top}+{field.left}" if config.field else ""),
            micrograph=source.name,
            group=source.group,
            split=split,
            height_px=source.shape[0],
            width_px=source.shape[1],
            scale=scale,
            top=field.top,
            left=field.left,
            content_height=field.height,
            content_width=field.width,
            pixel_size=source.pixel_size,
            diameter_px=diameter,
            field_of_view=source.field_of_view or f"{source.group}/{source.name}",
            center=0.0,
            spread=1.0,
        )
        for field in fields
    )
    return _Plan(source, records, row)


def micrograph_diameters(micrographs: Sequence[SourceMicrograph]) -> dict[MicrographKey, float]:
    """The particle diameter of each micrograph in px.

    It is the median over its group, so that one group has one scale. Only where a group mixes
    particles (diameters more than `MAX_DIAMETER_RATIO` apart) each micrograph has its own.

    Raises:
        DataError: a group has neither particles nor a stated diameter.
    """
    by_group: dict[str, list[SourceMicrograph]] = defaultdict(list)
    for micrograph in micrographs:
        by_group[micrograph.group].append(micrograph)
    diameters: dict[MicrographKey, float] = {}
    for group, members in by_group.items():
        own = {member.key: member.median_diameter() for member in members}
        found = [own[m.key] for m in members if len(m.particles)] or list(own.values())
        known = [diameter for diameter in found if diameter is not None]
        if not known:
            raise DataError(f"group {group}: no particles, so no particle diameter; give --diameter-px")
        common = float(np.median(known))
        mixed = max(known) > MAX_DIAMETER_RATIO * min(known)
        for key, diameter in own.items():
            diameters[key] = diameter if mixed and diameter is not None else common
    return diameters


def _refuse_equal_names(micrographs: Sequence[SourceMicrograph]) -> None:
    seen = set()
    for micrograph in micrographs:
        if micrograph.key in seen:
            raise DataError(
                f"two micrographs named {micrograph.name} in group {micrograph.group}; rename one"
            )
        seen.add(micrograph.key)


def _check_space(out: Path, n_images: int, side: int) -> None:
    existing = next(folder for folder in out.resolve().parents if folder.is_dir())
    needed, free = 2 * n_images * side**2, shutil.disk_usage(existing).free
    if needed > free:
        raise DataError(
            f"{out}: {n_images} images of {side} px need {needed / 1e9:.1f} GB, "
            f"{free / 1e9:.1f} GB are free; free some, or choose another disk or a smaller size"
        )


def _without_failures(
    plans: Sequence[_Plan],
    contrasts: Sequence[tuple[float, float]],
    failures: Mapping[MicrographKey, str],
    writer: DatasetWriter,
) -> tuple[list[_Plan], list[tuple[float, float]]]:
    kept = [i for i, plan in enumerate(plans) if plan.source.key not in failures]
    if not kept:
        reason = next(iter(failures.values()))
        raise DataError(f"none of the {len(plans)} micrographs can be used; the first: {reason}")
    writer.keep([plans[i].first_row + k for i in kept for k in range(len(plans[i].records))])
    return [plans[i] for i in kept], [contrasts[i] for i in kept]


def _process(
    plans: Sequence[_Plan],
    config: BuildConfig,
    writer: DatasetWriter,
    progress: Progress | None,
    failures: dict[MicrographKey, str] | None,
) -> list[tuple[float, float]]:
    """Normalize, cut and write all micrographs; (center, spread) of each.

    The first error ends it, unless there is a place for ``failures``.
    """
    contrasts = [(0.0, 1.0)] * len(plans)
    with ThreadPoolExecutor(config.n_workers) as pool:
        pending: dict[Future[tuple[float, float]], int] = {
            pool.submit(_process_one, plan, config, writer): i for i, plan in enumerate(plans)
        }
        try:
            for n_done, future in enumerate(as_completed(pending), start=1):
                i = pending.pop(future)
                try:
                    contrasts[i] = future.result()
                except CryoqueryError as error:
                    if failures is None:
                        raise
                    failures[plans[i].source.key] = str(error)
                if progress is not None:
                    progress(n_done, len(plans))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return contrasts


def _process_one(plan: _Plan, config: BuildConfig, writer: DatasetWriter) -> tuple[float, float]:
    source, scale = plan.source, plan.records[0].scale
    pixels = source.read()
    if pixels.shape != source.shape:
        raise DataError(f"{source.group}/{source.name}: {pixels.shape} pixels, expected {source.shape}")
    try:
        normalized = normalize(pixels, scale)
    except CryoqueryError as error:
        raise DataError(f"{source.group}/{source.name}: {error}") from None
    image, mask = encode(normalized.image), draw_labels(source, scale, config.disc_fraction)
    for row, record in enumerate(plan.records, start=plan.first_row):
        writer.put(row, image[record.place], mask[record.place])
    return normalized.center, normalized.spread


def draw_labels(source: SourceMicrograph, scale: float, disc_fraction: float = 1.0) -> NDArray[np.uint8]:
    """The mask (h, w) of 0 and 1 at a scale: the given one brought to it, or else discs."""
    if source.read_mask is not None:
        return rescale_mask(source.read_mask(), source.shape, scale)
    centers = to_scaled(source.particles[:, :2], scale)
    return draw_mask(
        scaled_shape(source.shape, scale), centers, source.particles[:, 2] * scale * disc_fraction
    )
