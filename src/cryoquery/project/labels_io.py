"""Labels of a project into coordinate files and back.

Any coordinate format holds the particles. The project's own JSON also holds what the others have no place
for: regions to ignore, regions that are done, micrographs without particles, skipped and bad ones.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.convert import turn
from cryoquery.data.placement import AS_IN_FILE, Placement, check_placement
from cryoquery.errors import DataError, ProjectError
from cryoquery.formats import (
    COORDINATE_SUFFIXES,
    Picks,
    concatenate,
    micrograph_key,
    read_coordinates,
    read_micrograph,
    write_coordinates,
)
from cryoquery.project.events import Act
from cryoquery.project.folder import ItemInfo, Project
from cryoquery.project.journal import ProjectJournal
from cryoquery.project.sources import match_to_files
from cryoquery.project.state import ItemLabels, ProjectState, labels
from cryoquery.records import read_json, write_json

JSON_KIND = "cryoquery labels"
JSON_VERSION = 1
PERSON = "cryoquery"
"""Who imports, in the log."""


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
    """``{kind, polygon}`` each."""
    empty: bool | None = None
    """Whether it is said that there are no particles; None: it is, where none are marked."""


@dataclass(frozen=True)
class LabelFile:
    """What a file of labels holds for a project."""

    path: Path
    labels: tuple[FoundLabels, ...]
    notes: tuple[str, ...] = ()
    """What was left out, one line each."""


@dataclass(frozen=True)
class Written:
    """What was exported."""

    n_micrographs: int
    n_particles: int


def export_labels(
    project: Project, state: ProjectState, out: Path, *, file_format: str | None = None
) -> Written:
    """Write the labels of a project: the last submitted ones of each item.

    Args:
        project: whose labels they are.
        state: its events, replayed.
        out: a file in a coordinate format by its suffix; a ``.json`` file, for the project's own format;
            or a folder, for a file per micrograph.
        file_format: where the suffix does not say; ``coco`` for a ``.json`` file of COCO.

    Raises:
        ProjectError: nothing is labelled.
        DataError: ``out`` cannot be written, or its format cannot hold several micrographs.
    """
    found = labels(state)
    if not found:
        raise ProjectError(f"{project.path}: nothing is labelled yet; label with 'cryoquery label'")
    picks = label_picks(project, found)
    named = {project.items[item].micrograph for item in found}
    if out.suffix.lower() == ".json" and file_format is None:
        write_json(out, labels_json(project, state))
    else:
        write_coordinates(
            out, picks, format=file_format, pixel_size=picks.pixel_size, micrograph_shapes=picks.shapes
        )
    return Written(len(named), len(picks))


def label_picks(project: Project, found: Mapping[int, ItemLabels]) -> Picks:
    """The labelled particles as picks, micrographs by the path that they were given as.

    Args:
        project: whose labels they are.
        found: by item, as `state.labels` gives them.
    """
    parts: list[Picks] = []
    shapes: dict[str, tuple[int, int]] = {}
    for item in sorted(found, key=lambda number: (project.items[number].micrograph, number)):
        row = project.micrograph_of(item)
        shapes[row.stated] = (row.height_px, row.width_px)
        parts.append(
            Picks.of(
                found[item].particles_yx,
                micrograph=row.stated,
                diameters_px=project.diameter_px(item),
                pixel_size=row.pixel_size,
            )
        )
    return concatenate(parts).replace(shapes=shapes)


def labels_json(project: Project, state: ProjectState) -> dict[str, Any]:
    """The project's own format of labels, for one file: JSON types only.

    Micrographs that were skipped or are bad are in it, too, without labels.
    """
    found = labels(state)
    now = time.time()
    tasks = {task.item: task for task in state.tasks.values() if task.repeat == 0}
    entries = []
    for number in sorted(found.keys() | {n for n, task in tasks.items() if task.phase in ("skipped", "bad")}):
        item, own = project.items[number], found.get(number)
        entry: dict[str, Any] = {
            "micrograph": item.micrograph,
            "path": project.micrograph_of(number).stated,
            "region": list(item.region) if item.region else None,
            "status": tasks[number].status(now),
            "split": item.split,
        }
        if own is not None:
            entry |= _label_entry(own)
        entries.append(entry)
    return {
        "kind": JSON_KIND,
        "version": JSON_VERSION,
        "project": project.config.name,
        "coordinates": "[y, x] in pixels of the micrograph as stored, 0 in the center of the first pixel",
        "labels": entries,
    }


def _label_entry(own: ItemLabels) -> dict[str, Any]:
    regions = [("ignore", polygon) for polygon in own.ignore] + [("done", polygon) for polygon in own.done]
    return {
        "person": own.person,
        "active_seconds": own.active_seconds,
        "suggested": own.suggested,
        "model": own.model,
        "empty": own.empty,
        "particles": own.particles_yx.tolist(),
        "regions": [{"kind": kind, "polygon": polygon.tolist()} for kind, polygon in regions],
    }


def read_labels(
    path: Path,
    files: Mapping[str, Path],
    shapes: Mapping[str, tuple[int, int]],
    *,
    placed: Placement = AS_IN_FILE,
    diameters_px: Mapping[str, float] | None = None,
    force: bool = False,
) -> LabelFile:
    """Labels from a file or a folder of any coordinate format, or from the project's own JSON.

    Args:
        path: the file or the folder.
        files: of the project's micrographs, by name.
        shapes: (height, width) of them in pixels, by name.
        placed: how coordinates become pixels of the micrographs; not for the project's own JSON.
        diameters_px: of the particles, by name of the micrograph, for the check of where picks lie.
        force: take picks that lie beside the particles.

    Raises:
        DataError: the file cannot be read, names none of the micrographs, fits several, or its picks lie
            beside the particles and fit otherwise.
        ProjectError: a micrograph is needed for the check and is not there.
    """
    if path.is_file() and path.suffix.lower() == ".json" and is_own_json(content := read_json(path)):
        return _read_own(path, content, files)
    by_name = _read_picks(path, shapes)
    known = match_to_files(by_name, files)
    notes = _left_out(path, by_name, known, files)
    _refuse_shared(path, known)
    if not force:
        diameters = diameters_px or {}
        medians = [diameters[name] for name in known.values() if name in diameters]
        check_placement(
            {known[stated]: by_name[stated].centers_yx for stated in known if len(by_name[stated])},
            lambda name: read_micrograph(files[name]).pixels,
            diameter_px=float(np.median(medians)) if medians else None,
            applied=placed,
            source=str(path),
        )
    found, n_outside = [], 0
    for stated, name in known.items():
        centers = _turned(by_name[stated], placed, shapes[name]).centers_yx
        inside = ((centers >= -0.5) & (centers < np.array(shapes[name]) - 0.5)).all(axis=1)
        n_outside += int((~inside).sum())
        found.append(FoundLabels(name, centers[inside]))
    if n_outside:
        notes.append(f"{path}: left out {n_outside:,} picks outside of their micrograph")
    return LabelFile(path, tuple(found), tuple(notes))


def import_acts(project: Project, state: ProjectState, found: LabelFile) -> tuple[list[Act], list[str]]:
    """The acts that record labels of a file, and notes on what is left out.

    Items that a person has labelled or works on, and bad ones, are left out; labels that came from a
    file are replaced.

    Args:
        project: where the labels go.
        state: its events, replayed.
        found: from `read_labels`.
    """
    acts, notes, taken = [], [], 0
    stamp = time.time_ns()
    for one in found.labels:
        items = [item for item in project.items_of[one.micrograph] if _belong(one, item)]
        if not items:
            notes.append(f"{found.path}: {one.micrograph}: no item with the region {one.region}; left out")
        for item in items:
            if not _is_free(state, item.number):
                taken += 1
                continue
            body = {"source": found.path.name, "labels": _document(item, one)}
            name = f"import-{stamp}-{item.number}"
            acts.append(Act(name, PERSON, "imported", str(item.number), body))
    if taken:
        notes.append(f"{found.path}: left out {taken} that people have labelled, work on, or call bad")
    return acts, notes


@dataclass(frozen=True)
class Imported:
    """What was imported."""

    n_items: int
    n_particles: int
    notes: tuple[str, ...]
    """What was left out, one line each."""


def import_labels(
    project: Project, path: Path, *, placed: Placement = AS_IN_FILE, force: bool = False
) -> Imported:
    """Record the labels of a file in a project.

    Args:
        project: nobody else may write to it meanwhile, such as ``cryoquery label``.
        path: as `read_labels` takes it, and so are the other arguments.
        placed: see there.
        force: see there.

    Raises:
        ProjectError: somebody else writes to the project, or its log cannot be replayed.
        DataError: as `read_labels`.
    """
    shapes = {name: (row.height_px, row.width_px) for name, row in project.micrographs.items()}
    diameters = {record.micrograph: record.diameter_px for record in project.dataset.records}
    found = read_labels(path, project.files(), shapes, placed=placed, diameters_px=diameters, force=force)
    with ProjectJournal.open(project.events_path, project.geometry) as journal:
        acts, notes = import_acts(project, journal.state, found)
        journal.record(acts, time.time())
    n_particles = sum(len(act.body["labels"]["particles"]) for act in acts)
    return Imported(len(acts), n_particles, (*found.notes, *notes))


def is_own_json(content: Any) -> bool:
    """Whether the content of a JSON file is in the project's own format."""
    return isinstance(content, dict) and content.get("kind") == JSON_KIND


def _is_free(state: ProjectState, item: int) -> bool:
    task = state.task(str(item))
    by_people = any(not submission.imported for submission in task.submissions)
    return not by_people and task.status(time.time()) in ("waiting", "submitted", "skipped")


def _belong(found: FoundLabels, item: ItemInfo) -> bool:
    """Whether labels are of this item; those without regions may be of a whole micrograph with many items."""
    return found.region == item.region or (found.region is None and not found.regions)


def _document(item: ItemInfo, found: FoundLabels) -> dict[str, Any]:
    particles = [[y, x] for y, x in found.particles_yx.tolist() if item.contains(y, x)]
    empty = not particles if found.empty is None else found.empty
    document: dict[str, Any] = {"particles": particles, "empty": empty}
    if found.regions:
        document["regions"] = [dict(region) for region in found.regions]
    return document


def _read_picks(path: Path, shapes: Mapping[str, tuple[int, int]]) -> dict[str, Picks]:
    """Picks by the micrograph's name as the file has it; files without picks are micrographs without any."""
    common = set(shapes.values())
    shape = common.pop() if len(common) == 1 else None
    if not path.is_dir():
        picks = read_coordinates(path, micrograph_shape=shape)
        if not len(picks) and picks.file_format in ("box", "cbox", "csv"):
            return {micrograph_key(path.name): picks}
        return picks.with_micrograph(micrograph_key(path.name)).by_micrograph()
    by_name = read_coordinates(path, micrograph_shape=shape).by_micrograph()
    keys = {micrograph_key(name) for name in by_name}
    for file in sorted(path.rglob("*")):
        if file.suffix.lower() not in COORDINATE_SUFFIXES or file.name.startswith("."):
            continue
        key = micrograph_key(file.name)
        if key not in keys and not len(picks := read_coordinates(file, micrograph_shape=shape)):
            by_name[key] = picks
    return by_name


def _left_out(
    path: Path, by_name: Mapping[str, Picks], known: Mapping[str, str], files: Mapping[str, Path]
) -> list[str]:
    if not known:
        first, own = next(iter(by_name), "no micrograph"), next(iter(files))
        raise DataError(f"{path}: names none of the micrographs ({first!r}, not {own!r}); check the names")
    # A folder of a picking job holds tables that name no micrograph of their own.
    alone = [name for name in by_name if name not in known and len(by_name[name])]
    if not alone:
        return []
    return [f"{path}: left out {len(alone)} micrographs that the project does not have, such as {alone[0]!r}"]


def _refuse_shared(path: Path, known: Mapping[str, str]) -> None:
    by_name: dict[str, str] = {}
    for stated, name in known.items():
        if (other := by_name.setdefault(name, stated)) != stated:
            raise DataError(f"{path}: {other!r} and {stated!r} both mean {name}; keep the labels of one")


def _turned(picks: Picks, placed: Placement, shape: tuple[int, int]) -> Picks:
    orientation = placed.orientation
    return turn(
        picks,
        shape,
        swap_xy=orientation.swap_xy,
        flip_y=orientation.flip_y,
        flip_x=orientation.flip_x,
        scale=placed.scale,
    )


def _read_own(path: Path, content: Mapping[str, Any], files: Mapping[str, Path]) -> LabelFile:
    if content.get("version") != JSON_VERSION:
        raise DataError(f"{path}: version {content.get('version')!r}, this program reads {JSON_VERSION}")
    try:
        entries = [entry for entry in content["labels"] if "particles" in entry]
        by_path = {entry["path"]: entry["micrograph"] for entry in entries}
        found = [_found(entry) for entry in entries]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not labels as cryoquery writes them ({error!r}); export it again") from None
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
    return FoundLabels(
        str(entry["micrograph"]),
        particles,
        None if region is None else (int(region[0]), int(region[1]), int(region[2]), int(region[3])),
        tuple({"kind": one["kind"], "polygon": one["polygon"]} for one in entry.get("regions", ())),
        bool(entry["empty"]),
    )
