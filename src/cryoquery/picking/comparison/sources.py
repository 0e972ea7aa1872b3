"""Bring picks and the truth together: read both, orient the picks, and match their micrographs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cryoquery.data.dataset import SPLITS, Dataset, open_dataset
from cryoquery.data.layouts.options import check_pattern
from cryoquery.data.placement import check_placement
from cryoquery.errors import ConfigError, DataError
from cryoquery.formats import (
    Picks,
    concatenate,
    match_micrographs,
    micrograph_files,
    micrograph_key,
    micrograph_shape,
    read_by_micrograph,
    read_micrograph,
)
from cryoquery.formats.convert import common_shape
from cryoquery.formats.folders import coordinate_files
from cryoquery.formats.lengths import Length, parse_length
from cryoquery.formats.placement import AS_IN_FILE, Placement, place
from cryoquery.formats.reading import AS_RECOGNIZED, Reading
from cryoquery.picking.comparison.scores import Agreement, compare_picks

HALF_A_DIAMETER = Length(0.5, "d")
BOX_FORMATS = ("box", "cbox")
"""Formats that hold the size of a box in place of the particle's diameter."""
ALWAYS_NAMED = ("coco", "cs", "txt")
"""Formats that cannot be without the name of the micrograph."""
N_SHOWN = 5


@dataclass(frozen=True)
class PickFile:
    """Picks in a file or a folder, and how to place them in the micrographs' pixels."""

    path: Path
    placement: Placement = AS_IN_FILE
    """Scaled first, then x and y exchanged, then flipped."""
    reading: Reading = AS_RECOGNIZED
    """What the file does not say; of the truth, only which classes are particles."""


@dataclass(frozen=True)
class Comparison:
    """Picks and truth of the same micrographs, by the truth's name of the micrograph."""

    picks: Mapping[str, Picks]
    truth: Mapping[str, Picks]
    groups: Mapping[str, str]
    pixel_size: float | None
    notes: tuple[str, ...] = field(default=())
    """What should be known of the comparison, one line each."""


@dataclass(frozen=True)
class _Side:
    """Picks or truth by the name of the micrograph, those without any included."""

    path: Path
    by_name: Mapping[str, Picks]
    everything: Picks
    groups: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def read_comparison(
    picks: PickFile,
    truth: Path,
    *,
    micrographs: Path | None = None,
    group_pattern: str | None = None,
    split: str | None = None,
    only_common: bool = False,
    diameter_px: float | None = None,
    pixel_size: float | None = None,
    force: bool = False,
) -> Comparison:
    """Read picks and truth and match their micrographs by name.

    Args:
        picks: what is picked.
        truth: what is there: a file or a folder of coordinates, or a dataset.
        micrographs: a file or a folder; the picks are checked against the images, and flips find the
            sizes here.
        group_pattern: regular expression; what it finds in the name of a micrograph is its group.
            Without it a dataset has its own groups, and other truth is one group per folder.
        split: of a dataset: only the micrographs of this split.
        only_common: leave out micrographs that only one side knows. Otherwise particles of a
            micrograph without picks are missed, and picks on a micrograph without truth are an error.
        diameter_px: of the particles, where the truth does not say.
        pixel_size: Å/px, where the files do not say.
        force: do not refuse picks that lie beside the particles in the images.

    Raises:
        DataError: a file is missing or damaged, names do not match or match several, a size that a
            flip needs is not known, or the picks fit the images clearly better turned or scaled.
        ConfigError: the pattern or the split cannot be used.
    """
    if diameter_px is not None and not 0 < diameter_px < np.inf:
        raise ConfigError(f"diameter_px={diameter_px:g}: must be a positive number")
    files = micrograph_files(micrographs) if micrographs is not None else []
    shape = common_shape(files)
    picked = _read(picks.path, None, replace(picks.reading, micrograph_shape=shape))
    only_classes = Reading(classes=picks.reading.classes, micrograph_shape=shape)
    known = _read_truth(truth, diameter_px, split, only_classes)
    pairs, notes = _pair(picked, known, only_common)
    notes += [f"{side.path}: {note}" for side in (picked, known) for note in side.everything.notes]
    by_truth = {own: picked.by_name[name] for name, own in pairs.items()}
    sources = match_micrographs(by_truth, files) if files else {}
    diameter = known.everything.diameter_px
    if files and not force:
        images = {name: p.centers_yx for name, p in by_truth.items() if len(p)}
        check_placement(
            images,
            lambda name: read_micrograph(sources[name]).pixels,
            diameter_px=diameter,
            box_px=picked.everything.diameter_px or diameter,
            applied=picks.placement,
            source=str(picks.path),
        )
    shapes = {**known.shapes, **{name: micrograph_shape(path) for name, path in sources.items()}}
    turned = {name: _place(p, picks, shapes.get(name), name) for name, p in by_truth.items()}
    names = [name for name in known.by_name if name in turned] if only_common else list(known.by_name)
    if not names:
        raise DataError(f"{picks.path}: no micrograph in common with {truth}; check the names")
    if diameter is not None and known.everything.file_format in BOX_FORMATS:
        notes.append(f"{truth}: holds boxes; their size of {diameter:g} px is taken as the particle diameter")
    empty = Picks.of(np.empty((0, 2)))
    return Comparison(
        {name: turned.get(name, empty) for name in names},
        {name: known.by_name[name] for name in names},
        _groups(names, known, group_pattern),
        pixel_size or known.everything.pixel_size or picked.everything.pixel_size,
        tuple(notes),
    )


def evaluate_picks(comparison: Comparison, radius: Length | str = HALF_A_DIAMETER) -> Agreement:
    """Score picks against the truth of the same micrographs.

    Args:
        comparison: from `read_comparison`.
        radius: at most so far from a particle's center a pick matches it: ``0.5d`` (in diameters: the
            median of the micrograph's group), ``54px`` or ``90A``.

    Raises:
        ConfigError: the radius cannot be used, or what its unit needs is not known.
    """
    length = parse_length(radius, "radius")
    diameters = _group_diameters(comparison)
    for group, diameter in diameters.items():
        if length.unit == "d" and diameter is not None and not diameter > 0:
            raise ConfigError(f"group {group}: a particle diameter of {diameter:g} px; give --diameter-px")
    return Agreement(
        tuple(
            compare_picks(
                name,
                comparison.picks[name].centers_yx,
                comparison.picks[name].scores,
                truth.centers_yx,
                length.in_px(diameters[comparison.groups[name]], comparison.pixel_size, "radius"),
                comparison.groups[name],
            )
            for name, truth in comparison.truth.items()
        )
    )


def check_picks(
    source: Path,
    micrographs: Path,
    placed: Placement,
    diameter_px: float | None = None,
    reading: Reading = AS_RECOGNIZED,
) -> None:
    """Refuse picks that fit the images clearly better turned or scaled otherwise.

    Args:
        source: a file or a folder of coordinates.
        micrographs: a file or a folder.
        placed: what is going to be done to the picks.
        diameter_px: of the particles in pixels of the micrographs, where known.
        reading: what the source does not say.

    Raises:
        DataError: a file is missing or damaged, names do not match, or the picks are misplaced.
    """
    files = micrograph_files(micrographs)
    reading = replace(reading, micrograph_shape=common_shape(files), diameter_px=diameter_px)
    side = _read(source, None, reading)
    by_name = side.by_name
    if len(by_name) == len(files) == 1 and by_name.keys() == {micrograph_key(source)}:
        found = dict.fromkeys(by_name, files[0])
    else:
        found = match_micrographs(by_name, files)
    check_placement(
        {name: picks.centers_yx for name, picks in by_name.items() if len(picks)},
        lambda name: read_micrograph(found[name]).pixels,
        diameter_px=diameter_px,
        box_px=side.everything.diameter_px or diameter_px,
        applied=placed,
        source=str(source),
    )


def _group_diameters(comparison: Comparison) -> dict[str, float | None]:
    """Median particle diameter of each group in px; of everything where a group does not say."""
    found: dict[str, list[float]] = {group: [] for group in comparison.groups.values()}
    for name, truth in comparison.truth.items():
        if truth.diameters_px is not None:
            found[comparison.groups[name]] += truth.diameters_px[np.isfinite(truth.diameters_px)].tolist()
    everything = [d for values in found.values() for d in values]
    overall = float(np.median(everything)) if everything else None
    return {group: float(np.median(values)) if values else overall for group, values in found.items()}


def _read(path: Path, diameter_px: float | None, reading: Reading) -> _Side:
    """Picks of a file or of a folder, whose folders are groups. A file without any names no micrograph."""
    by_name = read_by_micrograph(path, diameter_px=diameter_px, reading=reading)
    picks = concatenate(list(by_name.values()))
    if not path.is_dir():
        is_nameless = not len(picks) and by_name.keys() <= {micrograph_key(path)}
        return _Side(path, {} if is_nameless else by_name, picks, shapes=picks.shapes)
    files = coordinate_files(path)
    groups = {micrograph_key(file): _folder_group(file, path) for file in files}
    known = {name: groups[key] for name in by_name if (key := micrograph_key(name)) in groups}
    return _Side(path, by_name, picks, known, picks.shapes)


def _folder_group(file: Path, root: Path) -> str:
    """The first folder below ``root`` in which a file lies; empty for those in ``root`` itself."""
    parts = file.relative_to(root).parts
    return parts[0] if len(parts) > 1 else ""


def _read_truth(path: Path, diameter_px: float | None, split: str | None, reading: Reading) -> _Side:
    if (path / "dataset.json").is_file():
        return _dataset_truth(open_dataset(path), split)
    if split is not None:
        raise ConfigError(f"split={split}: {path} is not a dataset; leave --split out")
    known = _read(path, diameter_px, reading)
    if known.by_name:
        return known
    return replace(known, by_name={micrograph_key(path.name): known.everything})


def _dataset_truth(dataset: Dataset, split: str | None) -> _Side:
    if split is not None and not len(dataset.rows(split)):
        known = ", ".join(s for s in SPLITS if len(dataset.rows(s)))
        raise ConfigError(f"split={split}: {dataset.path} has no such images; it has {known}")
    records = {f"{r.group}/{r.micrograph}": r for r in dataset.records if split in (None, r.split)}
    by_name = {}
    for name, record in records.items():
        rows = dataset.particles.get(record.key, np.empty((0, 3)))
        by_name[name] = Picks.of(
            rows[:, :2], micrograph=record.micrograph, diameters_px=rows[:, 2], pixel_size=record.pixel_size
        )
    sizes = {r.pixel_size for r in records.values()}
    diameters = {r.diameter_px for r in records.values()}
    everything = Picks.of(
        np.empty((len(diameters), 2)),
        diameters_px=sorted(diameters),
        pixel_size=sizes.pop() if len(sizes) == 1 else None,
    )
    return _Side(
        dataset.path,
        by_name,
        everything,
        {name: r.group for name, r in records.items()},
        {name: (r.height_px, r.width_px) for name, r in records.items()},
    )


def _pair(picked: _Side, known: _Side, only_common: bool) -> tuple[dict[str, str], list[str]]:
    """{name in the picks: name in the truth}, and notes."""
    if len(picked.by_name) == len(known.by_name) == 1 and picked.path.is_file() and known.path.is_file():
        return _pair_files(picked, known)
    found = match_micrographs(picked.by_name, known.by_name, allow_missing=True)
    pairs = {name: str(path) for name, path in found.items()}
    alone = [name for name in picked.by_name if name not in pairs]
    if alone and not only_common:
        nearest = ", ".join(list(known.by_name)[:N_SHOWN])
        raise DataError(
            f"{picked.path}: {len(alone)} of {len(picked.by_name)} micrographs have no truth, such as "
            f"{alone[0]!r}; {known.path} knows {nearest}{' …' if len(known.by_name) > N_SHOWN else ''}; "
            "check the names, or leave them out with --only-common"
        )
    taken: dict[str, str] = {}
    for name, own in pairs.items():
        if own in taken:
            raise DataError(
                f"{picked.path}: {taken[own]!r} and {name!r} both mean {own!r} of {known.path}; "
                "keep the picks of one"
            )
        taken[own] = name
    unpicked = len(known.by_name) - len(taken)
    notes = []
    if alone:
        notes.append(f"left out: {len(alone)} micrographs of {picked.path} without truth")
    if unpicked and only_common:
        notes.append(f"left out: {unpicked} micrographs of {known.path} without picks")
    elif unpicked:
        notes.append(
            f"{unpicked} of {len(known.by_name)} micrographs have no picks, all their particles count as "
            "missed; --only-common leaves them out"
        )
    return pairs, notes


def _pair_files(picked: _Side, known: _Side) -> tuple[dict[str, str], list[str]]:
    """Two files of one micrograph each, whatever they are called, unless both name another one."""
    (name,), (own,) = picked.by_name, known.by_name
    if micrograph_key(name) == micrograph_key(own):
        return {name: own}, []
    if _states(picked, name) and _states(known, own):
        raise DataError(
            f"{picked.path}: picks of micrograph {name!r}, and {known.path} is of {own!r}; check the names"
        )
    return {name: own}, [f"{picked.path} ({name}) compared with {known.path} ({own}), whatever their names"]


def _states(side: _Side, name: str) -> bool:
    """Whether a file itself says which micrograph it is of, and is not only called like it."""
    return side.everything.file_format in ALWAYS_NAMED or name != micrograph_key(side.path)


def _place(picks: Picks, file: PickFile, shape: tuple[int, int] | None, name: str) -> Picks:
    orientation = file.placement.orientation
    if (orientation.flip_y or orientation.flip_x) and len(picks) and shape is None:
        raise DataError(
            f"{file.path}: to flip, the size of micrograph {name!r} must be known; give --micrographs"
        )
    return place(picks, file.placement, shape or (1, 1))


def _groups(names: list[str], known: _Side, pattern: str | None) -> dict[str, str]:
    if pattern is None:
        return {name: known.groups.get(name, "") for name in names}
    check_pattern("group_pattern", pattern)
    found = {name: re.search(pattern, name) for name in names}
    missing = next((name for name, match in found.items() if match is None), None)
    if missing is not None:
        raise ConfigError(f"group_pattern={pattern!r}: finds nothing in micrograph {missing!r}")
    return {name: match[0] for name, match in found.items() if match is not None}
