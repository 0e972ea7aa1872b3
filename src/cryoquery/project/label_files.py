"""Files of labels read for the micrographs of a project: coordinates of any format, or the project's JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.data.placement import check_placement
from cryoquery.errors import DataError
from cryoquery.formats import Picks, read_by_micrograph, read_micrograph
from cryoquery.formats.placement import AS_IN_FILE, Placement, place
from cryoquery.formats.reading import AS_RECOGNIZED, Reading
from cryoquery.formats.recognize import decode
from cryoquery.project.sources import match_to_files

BOX_FORMATS = ("box", "cbox")
"""Formats that hold the size of a box in place of the particle's diameter."""
JSON_KIND = "cryoquery labels"
JSON_VERSION = 1


@dataclass(frozen=True)
class FoundLabels:
    """Labels of one micrograph, or of one item of it, as a file has them."""

    micrograph: str
    """The project's name."""
    particles_yx: NDArray[np.float64]
    """(n, 2) pixels of the original micrograph."""
    region: tuple[int, int, int, int] | None = None
    """Of the item, pixels; None: of the whole micrograph."""
    regions: tuple[Mapping[str, Any], ...] = ()
    """``{kind, polygon}`` each; of a whole micrograph also beyond its edges."""
    diameters_px: NDArray[np.float64] | None = None
    """(n,) of the particles, pixels of the original micrograph, NaN where not stated; None: nowhere."""
    scores: NDArray[np.float64] | None = None
    """(n,) of the particles, as the file has them; None: it has none."""
    empty: bool | None = None
    """Whether it is said that there are no particles; None: it is, where none are marked."""


@dataclass(frozen=True)
class LabelFile:
    """What a file of labels holds for a project."""

    path: Path
    labels: tuple[FoundLabels, ...]
    notes: tuple[str, ...] = ()
    """What was left out, one line each."""


def read_labels(
    path: Path,
    files: Mapping[str, Path],
    shapes: Mapping[str, tuple[int, int]],
    *,
    placed: Placement = AS_IN_FILE,
    diameters_px: Mapping[str, float] | None = None,
    force: bool = False,
    reading: Reading = AS_RECOGNIZED,
) -> LabelFile:
    """Labels from a file or a folder of any coordinate format, or from the project's own JSON.

    Args:
        path: the file or the folder.
        files: of the project's micrographs, by name.
        shapes: (height, width) of them in pixels, by name.
        placed: how coordinates become pixels of the micrographs; not for the project's own JSON.
        diameters_px: of the particles, by name of the micrograph, for the check of where picks lie and for
            corners of boxes of unknown size.
        force: take picks that lie beside the particles.
        reading: what a file that can be read in several ways does not say.

    Raises:
        DataError: the file cannot be read, names none of the micrographs, fits several, or its picks lie
            beside the particles and fit otherwise.
        ProjectError: a micrograph is needed for the check and is not there.
    """
    if path.suffix.lower() == ".json" and is_own_json(content := _json_in(path)):
        return _read_own(path, content, files)
    common = set(shapes.values())
    diameter = float(np.median(list(diameters_px.values()))) if diameters_px else None
    reading = replace(reading, diameter_px=diameter and diameter / placed.scale)
    by_name = read_by_micrograph(
        path, micrograph_shape=common.pop() if len(common) == 1 else None, reading=reading
    )
    known = match_to_files(by_name, files)
    said = dict.fromkeys(note for picks in by_name.values() for note in picks.notes)
    notes = [f"{path}: {note}" for note in said] + _left_out(path, by_name, known, files)
    _refuse_shared(path, known)
    if not force:
        sizes = [size for picks in by_name.values() if (size := picks.diameter_px)]
        check_placement(
            {known[stated]: by_name[stated].centers_yx for stated in known if len(by_name[stated])},
            lambda name: read_micrograph(files[name]).pixels,
            diameter_px=diameter,
            box_px=float(np.median(sizes)) if sizes else reading.diameter_px,
            applied=placed,
            source=str(path),
        )
    found, n_outside = [], 0
    for stated, name in known.items():
        picks = place(by_name[stated], placed, shapes[name])
        centers, diameters_stated = picks.centers_yx, picks.diameters_px
        if picks.file_format in BOX_FORMATS:
            diameters_stated = None
        inside = ((centers >= -0.5) & (centers < np.array(shapes[name]) - 0.5)).all(axis=1)
        n_outside += int((~inside).sum())
        kept = None if diameters_stated is None else diameters_stated[inside]
        scores = None if picks.scores is None else picks.scores[inside]
        regions = tuple({"kind": "ignore", "polygon": one.polygon_yx.tolist()} for one in picks.regions)
        found.append(FoundLabels(name, centers[inside], None, regions, kept, scores))
    if n_outside:
        notes.append(f"{path}: left out {n_outside:,} picks outside of their micrograph")
    return LabelFile(path, tuple(found), tuple(notes))


def _json_in(path: Path) -> Any:
    """What a file of JSON holds; None where it is none: its reader says what is wrong."""
    try:
        return json.loads(decode(path, path.read_bytes()))
    except (OSError, DataError, ValueError, RecursionError):
        return None


def is_own_json(content: Any) -> bool:
    """Whether the content of a JSON file is in the project's own format."""
    return isinstance(content, dict) and content.get("kind") == JSON_KIND


def _left_out(
    path: Path, by_name: Mapping[str, Picks], known: Mapping[str, str], files: Mapping[str, Path]
) -> list[str]:
    if not known:
        first, own = next(iter(by_name), "no micrograph"), next(iter(files))
        raise DataError(f"{path}: names none of the micrographs ({first!r}, not {own!r}); check the names")
    alone = [name for name in by_name if name not in known]
    if not alone:
        return []
    return [f"{path}: left out {len(alone)} micrographs that the project does not have, such as {alone[0]!r}"]


def _refuse_shared(path: Path, known: Mapping[str, str]) -> None:
    by_name: dict[str, str] = {}
    for stated, name in known.items():
        if (other := by_name.setdefault(name, stated)) != stated:
            raise DataError(f"{path}: {other!r} and {stated!r} both mean {name}; keep the labels of one")


def _read_own(path: Path, content: Mapping[str, Any], files: Mapping[str, Path]) -> LabelFile:
    if content.get("version") != JSON_VERSION:
        raise DataError(f"{path}: version {content.get('version')!r}, this program reads {JSON_VERSION}")
    try:
        entries = [entry for entry in content["labels"] if "particles" in entry]
        by_path = {entry["path"]: entry["micrograph"] for entry in entries}
        found = [_found(entry) for entry in entries]
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{path}: not labels as cryoquery writes them ({str(error)[:60]!r}); export it again"
        ) from None
    # Names first, for they are unique in a project; then paths, for another project has other names.
    unknown = {stated for stated, name in by_path.items() if name not in files}
    renamed = {by_path[stated]: name for stated, name in match_to_files(unknown, files).items()}
    names = {name: name for name in files} | renamed
    kept = [one for one in found if one.micrograph in names]
    if not kept:
        raise DataError(f"{path}: holds labels of none of the project's micrographs; check the names")
    notes = [f"{path}: left out {len(found) - len(kept)} items of micrographs that the project does not have"]
    return LabelFile(
        path,
        tuple(replace(one, micrograph=names[one.micrograph]) for one in kept),
        tuple(notes) if len(kept) < len(found) else (),
    )


def _found(entry: Mapping[str, Any]) -> FoundLabels:
    region = entry["region"]
    particles = np.array(entry["particles"], dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(particles).all():
        raise ValueError("a coordinate is not finite")
    diameters = entry.get("diameters_px")
    if diameters is not None and len(diameters) != len(particles):
        raise ValueError("not as many diameters as particles")
    return FoundLabels(
        str(entry["micrograph"]),
        particles,
        None if region is None else (int(region[0]), int(region[1]), int(region[2]), int(region[3])),
        tuple({"kind": one["kind"], "polygon": _polygon(one["polygon"])} for one in entry.get("regions", ())),
        None if diameters is None else np.array(diameters, dtype=np.float64),
        empty=bool(entry["empty"]),
    )


def _polygon(stated: Any) -> list[list[float]]:
    vertices = np.array(stated, dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(vertices).all():
        raise ValueError("a vertex is not finite")
    return vertices.tolist()
