"""From a folder in one of the known layouts to micrographs with labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.data.dataset import MicrographKey
from cryoquery.data.layouts.detect import LAYOUTS
from cryoquery.data.layouts.discs import find_discs
from cryoquery.data.layouts.labels import SharedPicks, read_particles, read_shared, without_unnamed
from cryoquery.data.layouts.match import LayoutContent, MatchedFiles, shorten
from cryoquery.data.layouts.options import SourceOptions, matched_part
from cryoquery.data.placement import find_placement, misplaced
from cryoquery.data.source import MAX_DIAMETER_RATIO, SourceMicrograph
from cryoquery.errors import DataError
from cryoquery.formats import read_header, read_image, read_micrograph

MAX_DEPTH = 2
"""How many folders below the one that was given a layout may begin."""
N_THREADS = 4
N_COMPARED = 5
"""Micrographs per group whose masks are held against their coordinates."""
MAX_CENTERS_ON_BACKGROUND = 0.1


@dataclass(frozen=True)
class Source:
    """Micrographs with labels, and what was noticed while they were read."""

    micrographs: tuple[SourceMicrograph, ...]
    notes: tuple[str, ...]
    names: tuple[str, ...]
    """The folders they came from, without the way there."""
    options: SourceOptions
    """How they were read."""

    @property
    def origin(self) -> dict[str, Any]:
        """Where the micrographs come from, for the recipe of a dataset."""
        return {"kind": "import", "sources": list(self.names), "options": self.options.model_dump()}


def read_sources(paths: Sequence[Path | str], options: SourceOptions | None = None) -> Source:
    """Read several folders as one source; `read_source` says how.

    Raises:
        DataError: as `read_source`, or two folders hold a micrograph of the same group and name.
    """
    options = options or SourceOptions()
    sources = [read_source(path, options) for path in paths]
    origin: dict[MicrographKey, str] = {}
    for path, source in zip(paths, sources, strict=True):
        for micrograph in source.micrographs:
            if (other := origin.setdefault(micrograph.key, str(path))) != str(path):
                raise DataError(
                    f"{other} and {path}: both have a micrograph {micrograph.name} in group "
                    f"{micrograph.group}; rename one of the folders"
                )
    return Source(
        tuple(micrograph for source in sources for micrograph in source.micrographs),
        tuple(note for source in sources for note in source.notes),
        tuple(name for source in sources for name in source.names),
        options,
    )


def read_source(path: Path | str, options: SourceOptions | None = None) -> Source:
    """Read the labels and the headers of the micrographs below ``path``; pixels are read later.

    The layout is recognized, see `LAYOUTS`; the folder may be one data set or hold several.

    Raises:
        DataError: there is no such folder, no layout fits, no micrograph has labels, two files of
            a group have one stem, or a file of labels or a header cannot be used.
    """
    path, options = Path(path), options or SourceOptions()
    if not path.is_dir():
        raise DataError(
            f"{path}: no such folder; give the folder that holds the micrographs and their labels"
        )
    try:
        content = _find(path)
    except OSError as error:
        raise DataError(
            f"{error.filename}: cannot be listed ({error.strerror}); check its permissions"
        ) from None
    everything = [_regroup(found, options) for found in content.micrographs]
    _refuse_equal_stems(everything)
    labeled = [found for found in everything if found.is_labeled(options.labels)]
    notes = list(content.notes) + _unlabeled_notes(everything, options)
    if not labeled:
        raise DataError(
            f"{path}: {len(everything)} micrographs, none with {_missing(options)}; {_example(everything)}"
        )
    shared = read_shared(labeled, options.reading)
    labeled, unnamed_notes = without_unnamed(labeled, shared)
    notes += unnamed_notes
    with ThreadPoolExecutor(N_THREADS) as pool:
        loaded = list(pool.map(partial(_load, options=options, shared=shared), labeled))
    micrographs = [micrograph for micrograph, _ in loaded]
    notes += dict.fromkeys(f"group {one.group}: {note}" for one, found in loaded for note in found)
    if options.group_by_diameter:
        micrographs = _regroup_by_diameter(micrographs)
    notes += _disagreement_notes(micrographs, labeled, options) + _diameter_notes(micrographs)
    notes += _box_notes(labeled, options)
    return Source(tuple(micrographs), tuple(notes), (path.resolve().name,), options)


def refuse_misplaced(source: Source) -> None:
    """Compare the contrast at the labels of each group with that of all other placements.

    A few micrographs of each group are read. Labels that are painted masks are looked at, too.

    Raises:
        DataError: those of a group fit clearly better turned or scaled; the message names the options
            that do it. Or a micrograph that is looked at cannot be read.
    """
    groups: dict[str, list[SourceMicrograph]] = defaultdict(list)
    for micrograph in source.micrographs:
        if len(micrograph.particles):
            groups[micrograph.group].append(micrograph)
    now = source.options.placement
    for group, micrographs in sorted(groups.items()):
        by_name = {micrograph.name: micrograph for micrograph in micrographs}
        verdict = find_placement(
            {name: now.undo(m.particles[:, :2], m.shape) for name, m in by_name.items()},
            # The diameters of label files are no help: many are sizes of boxes, or at another scale.
            lambda name, by_name=by_name: by_name[name].read(),  # type: ignore[misc]
            box_px=float(np.median([np.median(m.particles[:, 2]) for m in micrographs])) / now.scale,
            applied=now,
        )
        if verdict.finding == "misplaced":
            raise misplaced(f"group {group}: the labels do not lie on the particles", verdict, now)


def _find(root: Path) -> LayoutContent:
    folders = [root]
    for _ in range(MAX_DEPTH + 1):
        recognized = {folder: _recognize(folder) for folder in folders}
        found = {folder: content for folder, content in recognized.items() if content is not None}
        if found:
            others = [folder.name for folder in folders if folder not in found]
            notes = [f"{root}: folders left out, of no known layout: {shorten(others)}"] if others else []
            together = LayoutContent(notes=notes)
            for content in found.values():
                together.micrographs += content.micrographs
                together.notes += content.notes
            return together
        folders = sorted(child for folder in folders for child in folder.iterdir() if child.is_dir())
    looked_for = "; ".join(f"{name}: {pattern}" for name, (_, pattern) in LAYOUTS.items())
    raise DataError(f"{root}: no layout that is known. Looked for {looked_for}")


def _recognize(folder: Path) -> LayoutContent | None:
    candidates = (find(folder) for find, _ in LAYOUTS.values())
    return next((content for content in candidates if content is not None), None)


def _regroup(found: MatchedFiles, options: SourceOptions) -> MatchedFiles:
    if options.group_pattern is None:
        return found
    return replace(found, group=matched_part(options.group_pattern, found.name) or found.group)


def _regroup_by_diameter(micrographs: Sequence[SourceMicrograph]) -> list[SourceMicrograph]:
    """Groups that mix particles, told apart by the diameter: ``train_val_test_data_84px``.

    A micrograph without particles goes with the diameter that most of its group have.
    """
    diameters: dict[str, Counter[int]] = defaultdict(Counter)
    for micrograph in micrographs:
        if diameter := micrograph.median_diameter():
            diameters[micrograph.group][round(diameter)] += 1
    regrouped = []
    for micrograph in micrographs:
        known = diameters[micrograph.group]
        if known and max(known) > MAX_DIAMETER_RATIO * min(known):
            diameter = micrograph.median_diameter() or known.most_common(1)[0][0]
            micrograph = replace(
                micrograph, group=f"{micrograph.group}_{diameter:.0f}px", diameter_px=float(diameter)
            )
        regrouped.append(micrograph)
    return regrouped


def _refuse_equal_stems(everything: Iterable[MatchedFiles]) -> None:
    seen: dict[MicrographKey, Path] = {}
    for found in everything:
        other = seen.setdefault((found.group, found.name), found.image)
        if other != found.image:
            raise DataError(
                f"{other} and {found.image}: two micrographs named {found.name} in group {found.group}; "
                "remove or rename one"
            )


def _unlabeled_notes(everything: Sequence[MatchedFiles], options: SourceOptions) -> list[str]:
    left_out, empty = defaultdict(list), defaultdict(list)
    for found in everything:
        if not found.is_labeled(options.labels):
            left_out[found.group].append(found.image.name)
        elif found.coordinates is None and found.mask is None:
            empty[found.group].append(found.image.name)
    return [
        f"group {group}: micrographs left out, without {_missing(options)}: {shorten(names)}"
        for group, names in sorted(left_out.items())
    ] + [
        f"group {group}: micrographs without a file of labels, taken to hold no particles: {shorten(names)}"
        for group, names in sorted(empty.items())
    ]


def _missing(options: SourceOptions) -> str:
    return {"auto": "coordinates or a mask", "coordinates": "coordinates", "masks": "a mask"}[options.labels]


def _example(everything: Sequence[MatchedFiles]) -> str:
    if not everything:
        return "the folder for micrographs is empty"
    stem = everything[0].name
    return f"{everything[0].image.name} needs {stem}.csv or {stem}_mask.* in the folder of labels"


def _load(
    found: MatchedFiles, options: SourceOptions, shared: SharedPicks
) -> tuple[SourceMicrograph, tuple[str, ...]]:
    """A micrograph with its particles, and notes on how its labels were read."""
    header = read_header(found.image)
    pixel_size = options.pixel_size or found.pixel_size or header.pixel_size
    diameter = options.diameter_px
    if options.diameter_angstrom is not None:
        if pixel_size is None:
            raise DataError(
                f"{found.image}: no pixel size, so a diameter in Å says nothing; give --pixel-size (Å/px)"
            )
        diameter = options.diameter_angstrom / pixel_size
    use_mask = found.mask is not None and (options.labels == "masks" or found.coordinates is None)
    use_mask = use_mask and options.labels != "coordinates"
    read_mask = partial(_read_mask, found.mask, options) if use_mask and found.mask is not None else None
    notes: tuple[str, ...] = ()
    if found.coordinates is not None:
        particles, notes = read_particles(found, header, diameter, options, shared)
    else:
        particles = find_discs(read_mask(), header.shape) if read_mask else np.empty((0, 3))
        particles[:, 2] = diameter or particles[:, 2]
    micrograph = SourceMicrograph(
        name=found.name,
        group=found.group,
        shape=header.shape,
        read=partial(_read_pixels, found.image, options.invert),
        particles=particles,
        pixel_size=pixel_size,
        read_mask=read_mask,
        split=found.split,
        diameter_px=diameter or found.diameter_px,
    )
    return micrograph, notes


def _read_pixels(path: Path, invert: bool) -> NDArray[np.float32]:
    pixels = read_micrograph(path).pixels
    return -pixels if invert else pixels


def _read_mask(path: Path, options: SourceOptions) -> NDArray[np.bool_]:
    """A mask (h, w): what lies above half of its range, so that the noise of JPG does not count."""
    levels = read_image(path)
    if not np.isfinite(levels).all():
        raise DataError(f"{path}: NaN or infinite pixels in a mask; make it again")
    low, high = float(levels.min()), float(levels.max())
    mask = levels > (low + high) / 2 if high > low else np.full(levels.shape, high > 0)
    mask = mask.T if options.swap_xy else mask
    mask = mask[::-1] if options.flip_y else mask
    return np.ascontiguousarray(mask[:, ::-1] if options.flip_x else mask)


def _disagreement_notes(
    micrographs: Sequence[SourceMicrograph], found: Sequence[MatchedFiles], options: SourceOptions
) -> list[str]:
    """Where both kinds of labels exist: do the centers lie in the masks? Tried on a few of each group."""
    shares: dict[str, list[float]] = defaultdict(list)
    for micrograph, files in zip(micrographs, found, strict=True):
        both = files.mask is not None and files.coordinates is not None and len(micrograph.particles) > 0
        if both and files.mask is not None and len(shares[micrograph.group]) < N_COMPARED:
            mask = _read_mask(files.mask, SourceOptions() if options.labels != "masks" else options)
            per_pixel = np.array(mask.shape) / np.array(micrograph.shape)
            at = np.floor((micrograph.particles[:, :2] + 0.5) * per_pixel).astype(int)
            at = at[((at >= 0) & (at < mask.shape)).all(axis=1)]
            shares[micrograph.group].append(1 - float(mask[at[:, 0], at[:, 1]].mean()) if len(at) else 1.0)
    return [
        f"group {group}: masks and coordinates disagree: {np.mean(values):.0%} of the centers lie outside "
        f"the masks ({len(values)} micrographs looked at)"
        for group, values in sorted(shares.items())
        if values and np.mean(values) > MAX_CENTERS_ON_BACKGROUND
    ]


def _box_notes(found: Sequence[MatchedFiles], options: SourceOptions) -> list[str]:
    if options.diameter_px or options.diameter_angstrom:
        return []
    boxes = Counter(
        one.group for one in found if one.coordinates and one.coordinates.suffix.lower() in (".box", ".cbox")
    )
    return [
        f"group {group}: {n} files of boxes, whose size is taken for the particle diameter; boxes are often "
        "larger, --diameter-px says what it is"
        for group, n in sorted(boxes.items())
    ]


def _diameter_notes(micrographs: Sequence[SourceMicrograph]) -> list[str]:
    diameters = defaultdict(list)
    for micrograph in micrographs:
        if len(micrograph.particles):
            diameters[micrograph.group].append(float(np.median(micrograph.particles[:, 2])))
    sizes = Counter(micrograph.group for micrograph in micrographs)
    return [
        f"group {group}: its {sizes[group]} micrographs show particles of {min(values):.0f} to "
        f"{max(values):.0f} px; --group-pattern or --group-by-diameter tells them apart"
        for group, values in sorted(diameters.items())
        if max(values) > MAX_DIAMETER_RATIO * min(values)
    ]
