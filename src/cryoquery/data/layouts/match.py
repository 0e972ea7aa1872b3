"""What a layout finds in a folder, before any file is opened."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryoquery.data.layouts.options import Labels
from cryoquery.errors import DataError
from cryoquery.formats import COORDINATE_SUFFIXES, match_micrographs, micrograph_stem, micrograph_suffix
from cryoquery.formats.folders import visible_files
from cryoquery.formats.picking_job import files_of_job
from cryoquery.formats.versions import one_version_each

MASK_ENDING = "_mask"
SUFFIXES_FOR_ALL = (".star", ".txt", ".cs", ".json")
"""Files of coordinates that can name the micrograph of each pick."""


@dataclass(frozen=True)
class MatchedFiles:
    """A micrograph and the files that go with it."""

    image: Path
    group: str
    coordinates: Path | None = None
    """A file of any format; it may hold the picks of other micrographs as well, if it names them."""
    mask: Path | None = None
    split: str | None = None
    pixel_size: float | None = None
    """Å/px, where a manifest states it."""
    diameter_px: float | None = None
    """Particle diameter, where a manifest states it."""
    dummy_boxes: bool = False
    """Rows of zeros in the coordinates mean no particles."""
    empty_without_labels: bool = False
    """A missing file of labels means no particles, rather than no answer."""

    @property
    def name(self) -> str:
        """The stem: everything before the suffix."""
        return micrograph_stem(self.image)

    def is_labeled(self, labels: Labels) -> bool:
        """Whether the kind of labels that is asked for is there."""
        if self.empty_without_labels:
            return True
        wanted = {
            "coordinates": [self.coordinates],
            "masks": [self.mask],
            "auto": [self.coordinates, self.mask],
        }
        return any(path is not None for path in wanted[labels])


@dataclass
class LayoutContent:
    """All that a layout finds in one folder."""

    micrographs: list[MatchedFiles] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def group_name(folder: Path) -> str:
    """The name of a folder without the archive's: ``EMPIAR-10017`` and ``empiar_10017`` are 10017."""
    name = folder.resolve().name
    match = re.fullmatch(r"empiar[-_ ]?(\d.*)", name, flags=re.IGNORECASE)
    return match.group(1) if match else name


def images_in(folder: Path, notes: list[str]) -> list[Path]:
    """Micrographs of a folder, sorted, one version of each; other files are noted, hidden ones ignored."""
    files = visible_files(folder)
    images, versions = one_version_each(path for path in files if micrograph_suffix(path))
    notes += [f"{folder}: {note}" for note in versions]
    others = [path.name for path in files if not micrograph_suffix(path)]
    if others:
        notes.append(f"{folder}: left out, not micrographs: {shorten(others)}")
    return images


def has_images(folder: Path) -> bool:
    """Whether a folder holds at least one micrograph."""
    return folder.is_dir() and any(map(micrograph_suffix, visible_files(folder)))


def coordinates_in(folder: Path) -> dict[str, Path]:
    """Coordinate files of a folder, also of a picking job of RELION, by the stem of their micrograph.

    Empty where there is no folder.
    """
    files = files_of_job(folder) if folder.is_dir() else {}
    if files is None:
        files = {p: "" for p in _files(folder) if p.suffix.lower() in COORDINATE_SUFFIXES}
    return _by_stem({path: micrograph_stem(name or path) for path, name in files.items()})


def masks_in(folder: Path) -> dict[str, Path]:
    """Masks ``<stem>_mask.*`` of a folder by the stem of their micrograph; empty without the folder."""
    masks = filter(micrograph_suffix, _files(folder))
    return _by_stem({path: micrograph_stem(path).removesuffix(MASK_ENDING) for path in masks})


def _files(folder: Path) -> list[Path]:
    return visible_files(folder) if folder.is_dir() else []


def _by_stem(stems: Mapping[Path, str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path, stem in stems.items():
        if stem in found:
            raise DataError(f"{found[stem]} and {path}: two files of labels for one micrograph; remove one")
        found[stem] = path
    return found


def pair(
    images: Iterable[Path], group: str, coordinates: dict[str, Path], masks: dict[str, Path], notes: list[str]
) -> Iterator[MatchedFiles]:
    """Micrographs with the labels of the same stem; labels that are left over are noted.

    Names may differ in endings like ``_autopick`` and ``_DW``; a single file of coordinates may be for all.
    """
    images = list(images)
    stems = {micrograph_stem(image) for image in images}
    coordinates, masks = (_with_endings(labels, images, stems) for labels in (coordinates, masks))
    for_all = None
    if len(coordinates) == 1 and len(images) > 1 and not coordinates.keys() & stems:
        alone_there = next(iter(coordinates.values()))
        if alone_there.suffix.lower() in SUFFIXES_FOR_ALL:
            for_all = coordinates.popitem()[1]
    for image in images:
        yield MatchedFiles(
            image, group, coordinates.get(micrograph_stem(image), for_all), masks.get(micrograph_stem(image))
        )
    for kind, labels in (("coordinates", coordinates), ("masks", masks)):
        alone = sorted(path.name for stem, path in labels.items() if stem not in stems)
        if alone:
            notes.append(f"group {group}: {kind} without a micrograph of that name: {shorten(alone)}")


def _with_endings(
    coordinates: dict[str, Path], images: Sequence[Path], stems: Collection[str]
) -> dict[str, Path]:
    """Files of labels by the stem of their micrograph, be it without a prefix or an ending."""
    paired = {stem: path for stem, path in coordinates.items() if stem in stems}
    others = {stem: path for stem, path in coordinates.items() if stem not in stems}
    matched = match_micrographs(others, images, allow_missing=True) if others else {}
    for name, path in others.items():
        stem = micrograph_stem(matched.get(name, name))
        if stem in paired:
            raise DataError(f"{paired[stem]} and {path}: two files of labels for one micrograph; remove one")
        paired[stem] = path
    return paired


def shorten(names: list[str], n_shown: int = 3) -> str:
    """A list for one line: how many, and the first few."""
    shown = ", ".join(names[:n_shown])
    return f"{len(names)} ({shown}{', ...' if len(names) > n_shown else ''})"
