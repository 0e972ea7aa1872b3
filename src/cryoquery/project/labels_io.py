"""Labels of a project into coordinate files and back.

Any coordinate format holds the particles. The project's own JSON also holds what the others have no place
for: regions to ignore, regions that are done, micrographs without particles, skipped and bad ones.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import ProjectError
from cryoquery.formats import Optics, Picks, concatenate, write_coordinates
from cryoquery.formats.micrograph_star import MicrographStar
from cryoquery.formats.placement import AS_IN_FILE, Placement
from cryoquery.formats.reading import AS_RECOGNIZED, Reading
from cryoquery.formats.writing import Client
from cryoquery.project.document import MIN_VERTICES, Extent
from cryoquery.project.events import PROGRAM, Command
from cryoquery.project.folder import ItemInfo, Project
from cryoquery.project.label_files import JSON_KIND, JSON_VERSION, FoundLabels, LabelFile, read_labels
from cryoquery.project.repository import ProjectRepository
from cryoquery.project.state import ItemLabels, ProjectState, labels
from cryoquery.storage.atomic import remove_leftovers, write_json


@dataclass(frozen=True)
class Written:
    """What was exported."""

    n_micrographs: int
    picks: Picks

    @property
    def n_particles(self) -> int:
        """Particles on all of them."""
        return len(self.picks)


def export_labels(
    project: Project,
    state: ProjectState,
    out: Path,
    *,
    file_format: str | None = None,
    optics: Optics | None = None,
    star: MicrographStar | None = None,
    client: Client | None = None,
) -> Written:
    """Write the labels of a project: the last submitted ones of each item.

    Particles in regions to be ignored are left out, but in the project's own format, which has the regions.

    Args:
        project: whose labels they are.
        state: its events, replayed.
        out: a file in a coordinate format by its suffix; a ``.json`` file, for the project's own format;
            or a folder, for a file per micrograph.
        file_format: where the suffix does not say; ``coco`` for a ``.json`` file of COCO.
        optics: for RELION's table of optics groups, and so is ``star``.
        star: RELION's STAR file of the micrographs.
        client: who will read the picks, see `write_coordinates`.

    Raises:
        ProjectError: nothing is labeled.
        DataError: ``out`` cannot be written, or its format cannot hold several micrographs.
    """
    found = labels(state)
    if not found:
        raise ProjectError(f"{project.path}: nothing is labeled yet; label with 'cryoquery label'")
    picks = label_picks(project, found)
    picks = star.with_optics(picks) if star is not None else picks
    named = {project.items[item].micrograph for item in found}
    if out.suffix.lower() == ".json" and file_format is None:
        remove_leftovers(out.parent)
        write_json(out, labels_json(project, state))
    else:
        write_coordinates(
            out,
            picks,
            format=file_format,
            pixel_size=None if star is not None else picks.pixel_size,
            optics=optics,
            micrograph_shapes=picks.shapes,
            star=star,
            client=client,
        )
    return Written(len(named), picks)


def label_picks(project: Project, found: Mapping[int, ItemLabels]) -> Picks:
    """The labeled particles as picks, micrographs by the path that they were given as.

    Args:
        project: whose labels they are.
        found: by item, as `state.labels` gives them.
    """
    parts: list[Picks] = []
    shapes: dict[str, tuple[int, int]] = {}
    for item in sorted(found, key=lambda number: (project.items[number].micrograph, number)):
        row, counted = project.micrograph_of(item), found[item].is_counted()
        stated = found[item].diameters_px[counted]
        shapes[row.stated] = (row.height_px, row.width_px)
        parts.append(
            Picks.of(
                found[item].particles_yx[counted],
                micrograph=row.stated,
                diameters_px=np.where(np.isnan(stated), project.diameter_px(item), stated),
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
    diameters = _plain_diameters(own.diameters_px)
    return {
        "person": own.person,
        "active_seconds": own.active_seconds,
        "suggested": own.suggested,
        "model": own.model,
        "empty": own.empty,
        "particles": own.particles_yx.tolist(),
        **({"diameters_px": diameters} if any(diameters) else {}),
        "regions": [{"kind": kind, "polygon": polygon.tolist()} for kind, polygon in regions],
    }


def import_commands(
    project: Project, state: ProjectState, found: LabelFile
) -> tuple[list[Command], list[str]]:
    """The commands that record labels of a file, and notes on what is left out.

    Items that a person has labeled or works on, and bad ones, are left out; labels that came from a
    file are replaced.

    Args:
        project: where the labels go.
        state: its events, replayed.
        found: from `read_labels`.
    """
    commands, notes, taken = [], [], 0
    stamp = time.time_ns()
    for one in found.labels:
        items = [item for item in project.items_of[one.micrograph] if _belong(one, item)]
        if not items:
            notes.append(f"{found.path}: {one.micrograph}: no item with the region {one.region}; left out")
        for item in items:
            if not _is_free(state, item.number):
                taken += 1
                continue
            body = {"source": found.path.name, **_document(item, one, Extent(*project.geometry[item.number]))}
            name = f"import-{stamp}-{item.number}"
            commands.append(Command(name, PROGRAM, "imported", str(item.number), body))
    if taken:
        notes.append(f"{found.path}: left out {taken} that people have labeled, work on, or call bad")
    return commands, notes


@dataclass(frozen=True)
class Imported:
    """What was imported."""

    n_items: int
    n_particles: int
    notes: tuple[str, ...]
    """What was left out, one line each."""


def read_project_labels(
    project: Project, path: Path, *, placed: Placement, force: bool, reading: Reading
) -> LabelFile:
    """Labels of a project's micrographs from a file: `read_labels`, whose arguments and errors these are."""
    shapes = {name: (row.height_px, row.width_px) for name, row in project.micrographs.items()}
    diameters = {record.micrograph: record.diameter_px for record in project.dataset.records}
    return read_labels(
        path, project.files(), shapes, placed=placed, diameters_px=diameters, force=force, reading=reading
    )


def import_labels(
    project: Project,
    path: Path,
    *,
    placed: Placement = AS_IN_FILE,
    force: bool = False,
    reading: Reading = AS_RECOGNIZED,
) -> Imported:
    """Record the labels of a file in a project.

    Args:
        project: no other process may write to it meanwhile, such as ``cryoquery label``.
        path: as `read_labels` takes it, and so are the other arguments.
        placed: see there.
        force: see there.
        reading: see there.

    Raises:
        ProjectError: another process writes to the project, or its log cannot be replayed.
        DataError: as `read_labels`.
    """
    found = read_project_labels(project, path, placed=placed, force=force, reading=reading)
    with ProjectRepository.open(project.events_path, project.geometry) as journal:
        commands, notes = import_commands(project, journal.state, found)
        journal.record(commands, time.time())
    n_particles = sum(len(command.body["labels"]["particles"]) for command in commands)
    return Imported(len(commands), n_particles, (*found.notes, *notes))


def _is_free(state: ProjectState, item: int) -> bool:
    task = state.task(str(item))
    by_people = any(not submission.imported for submission in task.submissions)
    return not by_people and task.status(time.time()) in ("waiting", "submitted", "skipped")


def _belong(found: FoundLabels, item: ItemInfo) -> bool:
    """Whether labels are of this item; those of a whole micrograph may be of many items."""
    may_be_many = all(region["kind"] == "ignore" for region in found.regions)
    return found.region == item.region or (found.region is None and may_be_many)


def _document(item: ItemInfo, found: FoundLabels, extent: Extent) -> dict[str, Any]:
    """The fields of an event that hold labels."""
    inside = [item.contains(y, x) for y, x in found.particles_yx.tolist()]
    particles = found.particles_yx[np.array(inside, dtype=bool)].tolist()
    empty = not particles if found.empty is None else found.empty
    document: dict[str, Any] = {"particles": particles, "empty": empty}
    regions = [
        {"kind": region["kind"], "polygon": polygon}
        for region in found.regions
        if len(polygon := clipped(region["polygon"], extent)) >= MIN_VERTICES
    ]
    if regions:
        document["regions"] = regions
    body: dict[str, Any] = {"labels": document}
    if found.diameters_px is not None:
        body["diameters_px"] = _plain_diameters(found.diameters_px[np.array(inside, dtype=bool)])
    return body


def clipped(polygon: Sequence[Sequence[float]], extent: Extent) -> list[list[float]]:
    """The part of a polygon of (y, x) that lies in an item, by Sutherland and Hodgman; empty: none."""
    top, left, height, width = extent.region or (0, 0, extent.height, extent.width)
    bounds = ((0, top - 0.5, 1), (1, left - 0.5, 1), (0, top + height - 0.5, -1), (1, left + width - 0.5, -1))
    points = [[float(y), float(x)] for y, x in polygon]
    for axis, edge, sign in bounds:
        before, points = points, []
        for a, b in zip(before, before[1:] + before[:1], strict=True):
            from_a, from_b = sign * (a[axis] - edge), sign * (b[axis] - edge)
            if from_a >= 0:
                points.append(a)
            if from_a * from_b < 0:
                cut = [u + (v - u) * from_a / (from_a - from_b) for u, v in zip(a, b, strict=True)]
                cut[axis] = edge
                points.append(cut)
    return points


def _plain_diameters(diameters_px: NDArray[np.float64]) -> list[float | None]:
    """(n,) as JSON has them: null where not known."""
    return [None if np.isnan(diameter) else diameter for diameter in diameters_px.tolist()]
