"""Pick many micrographs into coordinate files, with pictures to judge them by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoquery.data.build import default_workers
from cryoquery.errors import DataError
from cryoquery.formats import (
    COORDINATE_FORMATS,
    COORDINATE_SUFFIXES,
    ONE_PER_FILE,
    Optics,
    Picks,
    concatenate,
    micrograph_stem,
    write_coordinates,
)
from cryoquery.formats.micrograph_star import MicrographStar
from cryoquery.formats.writing import Client
from cryoquery.picking.overlays import draw_histogram, draw_overlay
from cryoquery.picking.picker import (
    AnyPicker,
    PickedMicrograph,
    PickOptions,
    PreparedMicrograph,
    prepare_file,
)
from cryoquery.picking.pipeline import in_stages


@dataclass(frozen=True)
class BatchResult:
    """What became of many micrographs."""

    picks: Picks
    """Of all that could be picked, in their order; they know the sizes of the micrographs."""
    n_done: int
    failures: dict[Path, str]
    """The others, and why."""
    notes: tuple[str, ...]
    """What is doubtful, one line each."""


def pick_micrographs(
    picker: AnyPicker,
    micrographs: Sequence[Path],
    out: Path,
    options: PickOptions,
    *,
    overlays: Path | None = None,
    histograms: Path | None = None,
    file_format: str | None = None,
    optics: Optics | None = None,
    star: MicrographStar | None = None,
    client: Client | None = None,
    n_workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BatchResult:
    """Pick ``micrographs`` and write the picks to ``out``; one that cannot be picked stops no other.

    The picks are written at the end, whole or not at all. Nothing is written where no micrograph could
    be picked.

    Args:
        picker: what picks.
        micrographs: files.
        out: a file in one of the coordinate formats, by its suffix; or a folder, for a file per
            micrograph.
        options: what is asked for.
        overlays: folder for a PNG of each micrograph with circles around the picks.
        histograms: folder for a PNG of the scores of each micrograph.
        file_format: where the suffix of ``out`` does not say.
        optics: for RELION's table of optics groups, and so is ``star``.
        star: RELION's STAR file of the micrographs.
        client: who will read the picks, see `write_coordinates`.
        n_workers: threads that read micrographs ahead of the network and find the particles behind it;
            None: one per core. Memory is needed for so many micrographs; the picks do not depend on it.
        progress: called with (micrographs done, all of them).

    Raises:
        DataError: ``out`` cannot be written, or the same micrograph is given twice.
    """
    check_target(out, micrographs, file_format)
    _make_folders(out.parent)
    found = find_picks(
        picker,
        micrographs,
        options,
        overlays=overlays,
        histograms=histograms,
        n_workers=n_workers,
        progress=progress,
    )
    picks = star.with_optics(found.picks) if star is not None else found.picks
    if found.n_done:
        write_coordinates(out, picks, format=file_format, optics=optics, star=star, client=client)
    return replace(found, picks=picks)


def find_picks(
    picker: AnyPicker,
    micrographs: Sequence[Path],
    options: PickOptions,
    *,
    overlays: Path | None = None,
    histograms: Path | None = None,
    n_workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BatchResult:
    """Pick ``micrographs``, and write no picks: the arguments are those of `pick_micrographs`.

    Raises:
        DataError: the same micrograph is given twice, or a folder cannot be made.
    """
    names = _distinct_names(micrographs)
    _make_folders(overlays, histograms)
    parts: list[Picks] = []
    shapes: dict[str, tuple[int, int]] = {}
    failures: dict[Path, str] = {}
    notes: list[str] = []

    def find(
        item: tuple[Path, str], prepared: PreparedMicrograph, probability: NDArray[np.float32]
    ) -> tuple[PickedMicrograph, str]:
        picked = picker.find(prepared, probability, options)
        return picked, _draw(picked, *item, overlays, histograms)

    items = list(zip(micrographs, names, strict=True))
    stages = in_stages(
        items,
        lambda item: prepare_file(picker, item[0], options),
        picker.predict,
        find,
        default_workers() if n_workers is None else n_workers,
    )
    with closing(stages) as outcomes:
        for i, (path, outcome) in enumerate(zip(micrographs, outcomes, strict=True)):
            if isinstance(outcome, Exception):
                failures[path] = _about(path, outcome)
            else:
                picked, note = outcome
                parts.append(picked.picks)
                shapes[str(path)] = picked.shape
                notes += [line for line in (picked.note, note) if line]
            progress(i + 1, len(micrographs))
    everything = concatenate(parts).replace(shapes=shapes)
    return BatchResult(everything, len(parts), failures, tuple(notes))


def check_target(out: Path, micrographs: Sequence[Path], file_format: str | None) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        DataError: no micrographs, the suffix or the format is unknown, the format holds one micrograph
            and several are given, or the folder is not empty.
    """
    suffix = out.suffix.lower()
    if not micrographs:
        raise DataError(f"{out}: no micrographs to pick")
    if file_format is not None and file_format not in COORDINATE_FORMATS:
        raise DataError(f"{out}: unknown format {file_format!r}; one of {' '.join(COORDINATE_FORMATS)}")
    if out.is_dir() or not suffix:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError(f"{out}: exists and is not an empty folder; remove it or choose another name")
        _check_stems(out, micrographs)
        return
    if file_format is None and suffix not in COORDINATE_SUFFIXES:
        raise DataError(
            f"{out}: unknown suffix {suffix!r}; coordinates are {' '.join(COORDINATE_SUFFIXES)}, or a folder"
        )
    name = file_format or suffix[1:]
    if name == "txt":
        _check_stems(out, micrographs)
    if len(micrographs) > 1 and name in ONE_PER_FILE:
        raise DataError(
            f"{out}: .{name} files hold one micrograph, {len(micrographs)} are given; "
            f"give a new folder as --out and --format {name}"
        )


def _make_folders(*folders: Path | None) -> None:
    for folder in folders:
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(f"{folder}: cannot be made ({error.strerror}); choose another") from None


def _check_stems(out: Path, micrographs: Sequence[Path]) -> None:
    """Refuse two micrographs that a folder or a table without folders could not tell apart."""
    seen: dict[str, Path] = {}
    for path in micrographs:
        if (other := seen.setdefault(micrograph_stem(path), path)) is not path:
            raise DataError(f"{out}: {other} and {path} have the same name; pick them apart, or rename one")


def _distinct_names(micrographs: Sequence[Path]) -> list[str]:
    """A file name for the pictures of each micrograph: its stem, with its folder where stems are equal."""
    seen: dict[Path, None] = {}
    for path in micrographs:
        if path.resolve() in seen:
            raise DataError(f"{path}: is given twice; give it once")
        seen[path.resolve()] = None
    stems = list(map(micrograph_stem, micrographs))
    return [
        stem if stems.count(stem) == 1 else f"{path.resolve().parent.name}_{path.name}"
        for stem, path in zip(stems, micrographs, strict=True)
    ]


def _about(path: Path, error: Exception) -> str:
    """One line that names the file."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return reason if str(path) in reason else f"{path}: {reason}"


def _draw(
    picked: PickedMicrograph, path: Path, name: str, overlays: Path | None, histograms: Path | None
) -> str:
    """Pictures of one micrograph; the picks matter more, so an error here is only noted."""
    try:
        if overlays is not None:
            draw_overlay(picked, overlays / f"{name}.png", name)
        if histograms is not None:
            draw_histogram(picked, histograms / f"{name}_scores.png", name)
    except OSError as error:
        return f"{path}: its pictures could not be written ({error.strerror})"
    return ""
