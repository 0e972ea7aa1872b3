"""Which micrographs are for training, validation and test. What shows the same place stays together."""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet
from scipy.spatial import cKDTree

from cryoquery.data.layouts.options import matched_part
from cryoquery.data.source import SourceMicrograph
from cryoquery.errors import ConfigError, DataError

SplitBy = Literal["micrograph", "group"]

MIN_COMMON_PARTICLES = 5
"""Micrographs with fewer particles than this are never taken for near-duplicates because of them."""
SAME_PLACE = 1e-3
"""Distance, as a fraction of the micrograph, below which two particles are the same."""


def tie_near_duplicates(
    micrographs: Sequence[SourceMicrograph], pattern: str | None = None
) -> tuple[list[SourceMicrograph], list[str]]:
    """Give micrographs that show the same place one ``field_of_view``; say what was tied unasked.

    Tied are micrographs with the same ``field_of_view``, those in whose names ``pattern`` (a regular
    expression: its first bracket, or all that matches) finds the same text, and those with at least
    five particles that all lie at the same places.

    Returns:
        The micrographs in the same order, every one with a ``field_of_view``, and notes.
    """
    ties = DisjointSet(range(len(micrographs)))
    _tie_equal(ties, [micrograph.field_of_view for micrograph in micrographs])
    if pattern is not None:
        _tie_equal(ties, [matched_part(pattern, micrograph.name) for micrograph in micrographs])
    notes = []
    for first, second in _same_particles(micrographs):
        if ties.merge(first, second):
            pair = " and ".join(_title(micrographs[i]) for i in (first, second))
            notes.append(f"{pair}: the same particles, so taken for near-duplicates and kept in one split")
    result = list(micrographs)
    for members in ties.subsets():
        named = [view for i in members if (view := micrographs[i].field_of_view) is not None]
        view = min(named) if named else min(_title(micrographs[i]) for i in members)
        for i in members:
            result[i] = replace(micrographs[i], field_of_view=view)
    return result, sorted(notes)


def assign_splits(
    micrographs: Sequence[SourceMicrograph],
    val_fraction: float,
    test_fraction: float,
    by: SplitBy = "micrograph",
    seed: int = 0,
) -> list[str]:
    """The split of each micrograph: the one its source gave it, or else one that is drawn.

    Near-duplicates (equal ``field_of_view``) go together. By micrograph, the fractions hold in each group and
    at least one micrograph (with its near-duplicates) of a group stays in train; by group, whole groups are
    drawn. The result depends neither on the order of the micrographs nor on other groups (except
    through near-duplicates).

    Raises:
        ConfigError: the fractions leave nothing for training.
        DataError: near-duplicates (or, by group, a group) lie in different splits of the source; or there is
            only one group to draw from.
    """
    if val_fraction < 0 or test_fraction < 0 or val_fraction + test_fraction >= 1:
        raise ConfigError(
            f"val_fraction={val_fraction:g}, test_fraction={test_fraction:g}: "
            "both at least 0 and together below 1"
        )
    ties = DisjointSet(range(len(micrographs)))
    _tie_equal(ties, [micrograph.field_of_view for micrograph in micrographs])
    if by == "group":
        _tie_equal(ties, [micrograph.group for micrograph in micrographs])
    units = [_Unit.of([micrographs[i] for i in members], members) for members in ties.subsets()]
    free = sorted((unit for unit in units if unit.split is None), key=lambda unit: unit.name)
    drawn = {unit.name: unit.split for unit in units if unit.split is not None}
    fractions = (val_fraction, test_fraction)
    if by == "group":
        if len(units) == 1 and sum(fractions) > 0 and free:
            raise DataError(f"only one group ({free[0].name}) to split by group; split by micrograph")
        drawn |= _draw(free, fractions, np.random.default_rng([seed, 0]), len(free) < len(units))
    else:
        drawn |= _draw_per_group(micrographs, units, free, fractions, seed)
    splits = [""] * len(micrographs)
    for unit in units:
        for i in unit.members:
            splits[i] = drawn[unit.name]
    return splits


@dataclass(frozen=True)
class _Unit:
    """Micrographs that go together."""

    name: str
    members: tuple[int, ...]
    groups: frozenset[str]
    split: str | None

    @staticmethod
    def of(micrographs: Sequence[SourceMicrograph], members: Iterable[int]) -> _Unit:
        fixed = sorted((m for m in micrographs if m.split is not None), key=_title)
        for one in fixed[1:]:
            if one.split != fixed[0].split:
                raise DataError(
                    f"{_title(fixed[0])} is in {fixed[0].split}, {_title(one)} in {one.split}, but they "
                    "must share a split (near-duplicates or one group); remove one or change its folder"
                )
        name = min(_title(micrograph) for micrograph in micrographs)
        groups = frozenset(micrograph.group for micrograph in micrographs)
        return _Unit(name, tuple(members), groups, fixed[0].split if fixed else None)


def _draw_per_group(
    micrographs: Sequence[SourceMicrograph],
    units: Sequence[_Unit],
    free: Sequence[_Unit],
    fractions: tuple[float, float],
    seed: int,
) -> dict[str, str]:
    """Near-duplicates in several groups are drawn with the smallest group, so that it keeps some to train."""
    sizes: dict[str, int] = defaultdict(int)
    for micrograph in micrographs:
        sizes[micrograph.group] += 1
    homes: dict[str, list[_Unit]] = defaultdict(list)
    for unit in free:
        homes[min(unit.groups, key=lambda group: (sizes[group], group))].append(unit)
    trained = {group for unit in units if unit.split == "train" for group in unit.groups}
    drawn: dict[str, str] = {}
    for group, members in sorted(homes.items()):
        rng = np.random.default_rng([seed, zlib.crc32(group.encode())])
        drawn |= _draw(members, fractions, rng, group in trained)
    return drawn


def _draw(
    units: Sequence[_Unit], fractions: tuple[float, float], rng: np.random.Generator, has_train: bool
) -> dict[str, str]:
    """Splits by unit name: test first, then val, the rest train, of which one unit at least."""
    n_free = len(units) if has_train else len(units) - 1
    n_test = min(_share(len(units), fractions[1]), max(n_free, 0))
    n_val = min(_share(len(units), fractions[0]), max(n_free - n_test, 0))
    names = [units[i].name for i in rng.permutation(len(units))]
    splits = ["test"] * n_test + ["val"] * n_val
    return dict(zip(names, splits + ["train"] * (len(names) - len(splits)), strict=True))


def _share(n: int, fraction: float) -> int:
    return max(1, math.floor(n * fraction + 0.5)) if fraction > 0 else 0


def _title(micrograph: SourceMicrograph) -> str:
    return f"{micrograph.group}/{micrograph.name}"


def _tie_equal(ties: DisjointSet[int], labels: Sequence[str | None]) -> None:
    first: dict[str, int] = {}
    for i, label in enumerate(labels):
        if label is not None:
            ties.merge(first.setdefault(label, i), i)


def _same_particles(micrographs: Sequence[SourceMicrograph]) -> list[tuple[int, int]]:
    """Pairs whose particles lie at the same fractions of the micrograph."""
    points = [(m.particles[:, :2] + 0.5) / np.array(m.shape) for m in micrographs]
    by_number: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for i, fractions in enumerate(points):
        if len(fractions) >= MIN_COMMON_PARTICLES:
            by_number[len(fractions)].append((float(fractions[:, 0].mean()), i))
    pairs = []
    for alike in by_number.values():
        alike.sort()
        for place, (mean, i) in enumerate(alike):
            for other_mean, j in alike[place + 1 :]:
                if other_mean - mean > SAME_PLACE:
                    break
                if _coincide(points[i], points[j]):
                    pairs.append((min(i, j), max(i, j)))
    return sorted(pairs)


def _coincide(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    distance, nearest = cKDTree(second).query(first, distance_upper_bound=SAME_PLACE)
    return bool(np.isfinite(distance).all() and len(np.unique(nearest)) == len(second))
