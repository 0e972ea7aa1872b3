"""Make a project of micrographs without labels."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import Self

from cryoquery.config import CheckedModel
from cryoquery.data.build import build_dataset, default_workers
from cryoquery.data.dataset import MicrographKey
from cryoquery.data.layouts.options import check_pattern
from cryoquery.data.source import SourceMicrograph
from cryoquery.errors import ConfigError, CryoqueryError, ProjectError
from cryoquery.formats import read_micrograph
from cryoquery.formats.placement import AS_IN_FILE, Placement
from cryoquery.formats.reading import AS_RECOGNIZED, Reading
from cryoquery.network.checkpoint import SHIPPED
from cryoquery.project.cold_start import propose
from cryoquery.project.conditions import read_conditions
from cryoquery.project.events import PROGRAM, Command
from cryoquery.project.folder import Project, open_project
from cryoquery.project.image_size import Unit, choose_images, choose_unit
from cryoquery.project.label_files import LabelFile, read_labels
from cryoquery.project.labels_io import import_commands
from cryoquery.project.micrographs import MICROGRAPHS_FILE, MicrographRow, write_rows
from cryoquery.project.picks_in import write_picks
from cryoquery.project.previews import write_thumbnail
from cryoquery.project.repository import ProjectRepository
from cryoquery.project.settings import SETTINGS_FILE, ProjectConfig, write_settings
from cryoquery.project.sources import (
    MicrographSearch,
    UsableMicrograph,
    common_folder,
    find_micrographs,
    micrograph_paths,
    stated_folder,
)
from cryoquery.project.start import estimated_count, estimated_diameter, start_settings, suggest
from cryoquery.storage.atomic import staged_directory

MIN_DIAMETER_PX = 4.0
"""A smaller particle is an error in its unit."""
MIN_MICROGRAPHS = 2
"""One to train on and one to measure on."""

Report = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""For the name of a stage: a context with a callback for (done, all)."""


class InitOptions(CheckedModel):
    """What is said about the micrographs of a new project, and about the project."""

    pixel_size: float | None = Field(default=None, gt=0)
    """Å/px of the micrographs; goes before what files say."""
    diameter_angstrom: float | None = Field(default=None, gt=0)
    diameter_px: float | None = Field(default=None, gt=0)
    """In pixels of the micrographs; with neither of both it is estimated."""
    unit: Unit | None = None
    """What is labeled at a time; None: fields where micrographs hold many particles, see `choose_unit`."""
    held_out_share: float | None = Field(default=None, ge=0, lt=1)
    """Share of the micrographs that is never trained on; None: a quarter of whole ones, none of fields."""
    group_pattern: str | None = None
    invert: bool = False
    start: str = "general"
    """Model of the first suggestions and the start of all trainings, see `ProjectConfig`."""
    initial_items: int = Field(default=8, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    placement: Placement = AS_IN_FILE
    """How coordinates of the label files become pixels of the micrographs."""
    reading: Reading = AS_RECOGNIZED
    """What the label files do not say."""
    force: bool = False
    """Take labels that lie beside the particles."""

    @model_validator(mode="after")
    def _one_diameter(self) -> Self:
        if self.diameter_px is not None and self.diameter_angstrom is not None:
            raise ConfigError("--diameter-px and --diameter-angstrom: give one of them")
        check_pattern("--group-pattern", self.group_pattern)
        return self


@dataclass(frozen=True)
class NewProject:
    """A project that was made."""

    project: Project
    n_imported: int
    """Items that labels were given for."""
    n_proposed: int
    """Items of the first query."""
    failures: tuple[str, ...]
    """Micrographs that were left out, and why."""
    notes: tuple[str, ...]
    """What is doubtful, one line each."""


def init_project(
    path: Path | str,
    micrographs: Sequence[Path | str],
    options: InitOptions,
    *,
    table: Path | None = None,
    labels: Sequence[Path] = (),
    picks: Sequence[Path] = (),
    report: Report | None = None,
) -> NewProject:
    """Make the project folder ``path``, all of it or nothing.

    Every micrograph is read once, normalized, and stored as the image that the network will see; thumbnails
    and the first query are made of these images. One that cannot be read is left out.

    Args:
        path: a new folder.
        micrographs: files, folders, or glob patterns.
        options: what is said about them.
        table: STAR or CSV file with defocus, ice and groups of the micrographs.
        labels: files or folders of coordinates that are known already.
        picks: such files whose coordinates are only suggested to people.
        report: called for each stage; gives what to call with its progress.

    Raises:
        ProjectError: ``path`` exists, there are no micrographs or fewer than two, two of them have one
            name, or the particle does not fit into one.
        ConfigError: the pixel size is needed and not known.
        DataError: no micrograph can be used, the table or the labels cannot, or the disk is too full.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ProjectError(f"{path}: exists already; remove it or choose another name")
    found = find_micrographs(
        micrograph_paths(micrographs),
        pixel_size=options.pixel_size,
        conditions=read_conditions(table) if table else None,
        group_pattern=options.group_pattern,
    )
    if len(found.micrographs) < MIN_MICROGRAPHS:
        raise ProjectError(
            f"{path}: {len(found.micrographs)} micrograph; at least {MIN_MICROGRAPHS} are needed, for some "
            "are only measured on" + "".join(f"; left out: {failure}" for failure in found.failures[:1])
        )
    options, diameters, doubts = _diameters(options, found.micrographs, report or _silent)
    options, why = _unit(options, found.micrographs, diameters, report or _silent)
    known, suggested = (_read_label_files(paths, found, diameters, options) for paths in (labels, picks))
    folder = common_folder(path, found.micrographs)
    with staged_directory(path) as staged, _named(staged, path):
        failures = _build(staged, path, folder, found, diameters, options, report or _silent)
        project = open_project(staged)
        _write_thumbnails(project, report or _silent)
        n_imported, n_proposed, notes = _first_events(project, known, report or _silent)
        if suggested:
            notes += write_picks(project, suggested).notes
    done = open_project(path)
    if done.config.held_out_share and not len(done.dataset.rows("val")):
        notes.append("no micrograph is left to measure on; make the project again with more of them")
    return NewProject(
        done,
        n_imported,
        n_proposed,
        (*found.failures, *failures),
        (*found.notes, *doubts, *why, *(note for file in known for note in file.notes), *notes),
    )


@contextmanager
def _named(staged: Path, path: Path) -> Iterator[None]:
    """Let messages name the folder that was asked for."""
    try:
        yield
    except CryoqueryError as error:
        raise type(error)(str(error).replace(str(staged), str(path))) from None


def _unit(
    options: InitOptions, micrographs: Sequence[UsableMicrograph], diameters: dict[str, float], report: Report
) -> tuple[InitOptions, list[str]]:
    """The options with a unit and a share that is held out, and why fields were chosen, where they were."""
    unit, why = options.unit, ""
    if unit is None:
        one = micrographs[0]
        diameter = diameters[one.name]
        with report("how many particles there are"):
            unit, why = choose_unit(
                one.shape,
                diameter,
                lambda: estimated_count([each.path for each in micrographs], diameter, options.invert),
            )
    share = options.held_out_share
    if share is None:
        share = 0.0 if unit == "field" else ProjectConfig.model_fields["held_out_share"].default
    return options.model_copy(update={"unit": unit, "held_out_share": share}), [why] if why else []


def draw_held_out(groups: Sequence[str], share: float, seed: int) -> NDArray[np.bool_]:
    """Which micrographs (n,) are only measured on: a random share, of each group as nearly as can be.

    Systematic sampling: of all, put in random order within their groups, every so many-th. At least one
    is drawn and one left; none is drawn where the share is 0.

    Args:
        groups: of each micrograph.
        share: from 0 on, below 1.
        seed: of the draw.
    """
    rng = np.random.default_rng([seed, 0])
    n = len(groups)
    n_drawn = min(max(1, round(n * share)), n - 1) if share else 0
    by_group: dict[str, list[int]] = defaultdict(list)
    for i in rng.permutation(n):
        by_group[groups[i]].append(int(i))
    order = [i for group in sorted(by_group) for i in by_group[group]]
    places = np.floor((np.arange(n_drawn) + rng.uniform()) * n / n_drawn).astype(np.int64)
    drawn = np.zeros(n, dtype=bool)
    drawn[np.array(order)[places]] = True
    return drawn


def _diameters(
    options: InitOptions, micrographs: Sequence[UsableMicrograph], report: Report
) -> tuple[InitOptions, dict[str, float], list[str]]:
    """The options with a diameter, that of each micrograph in px, and what is doubtful about it.

    It is estimated where none is stated; where one is, `general` says whether it fits.
    """
    stated = options.diameter_px is not None or options.diameter_angstrom is not None
    estimate, doubts = None, []
    if not stated or options.start in SHIPPED:
        with report("which diameter fits"):
            estimate = estimated_diameter([one.path for one in micrographs], options.invert)
    if not stated:
        if estimate is None:
            raise ConfigError("the particle diameter is not known; give --diameter-angstrom or --diameter-px")
        options = options.model_copy(update={"diameter_px": round(estimate.best_px, 1)})
        doubts = [f"no diameter is stated; estimated: {estimate}; correct it with --diameter-px"]
    diameters = {one.name: _diameter_px(one, options) for one in micrographs}
    if stated and estimate and (warning := estimate.warning(float(np.median(list(diameters.values()))))):
        doubts = [warning]
    return options, diameters, doubts


def _diameter_px(one: UsableMicrograph, options: InitOptions) -> float:
    if options.diameter_px is not None:
        diameter, said = options.diameter_px, f"--diameter-px {options.diameter_px:g}"
    else:
        assert options.diameter_angstrom is not None
        if one.pixel_size is None:
            raise ConfigError(f"{one.path}: its pixel size is not known; pass --pixel-size (Å/px)")
        diameter = options.diameter_angstrom / one.pixel_size
        said = f"--diameter-angstrom {options.diameter_angstrom:g}"
    at = "" if one.pixel_size is None else f" at {one.pixel_size:g} Å/px"
    if diameter >= min(one.shape):
        height, width = one.shape
        raise ProjectError(
            f"{one.path}: a particle of {diameter:.0f} px ({said}{at}) does not fit into {width} x {height} "
            "pixels; check the diameter and its unit"
        )
    if diameter < MIN_DIAMETER_PX:
        raise ProjectError(
            f"{one.path}: a particle of {diameter:.2g} px ({said}{at}) cannot be seen; check the diameter "
            "and its unit"
        )
    return diameter


def _source(one: UsableMicrograph, diameter_px: float, split: str, invert: bool) -> SourceMicrograph:
    def read() -> NDArray[np.float32]:
        pixels = read_micrograph(one.path).pixels
        return -pixels if invert else pixels

    return SourceMicrograph(
        name=one.name,
        group=one.group,
        shape=one.shape,
        read=read,
        particles=np.empty((0, 3)),
        pixel_size=one.pixel_size,
        split=split,
        diameter_px=diameter_px,
    )


def _build(
    staged: Path,
    path: Path,
    folder: Path,
    found: MicrographSearch,
    diameters: dict[str, float],
    options: InitOptions,
    report: Report,
) -> list[str]:
    """Write settings, table and dataset; why micrographs were left out."""
    assert options.unit is not None
    assert options.held_out_share is not None
    drawn = draw_held_out([one.group for one in found.micrographs], options.held_out_share, options.seed)
    sources = [
        _source(one, diameters[one.name], "val" if held_out else "train", options.invert)
        for one, held_out in zip(found.micrographs, drawn.tolist(), strict=True)
    ]
    images = choose_images(sources, options.unit)
    failures: dict[MicrographKey, str] = {}
    with report("reading") as progress:
        build_dataset(
            sources,
            staged / "dataset",
            images,
            origin={"project": path.resolve().name, "options": {"invert": options.invert}},
            progress=progress,
            failures=failures,
        )
    left = [one for one in found.micrographs if (one.group, one.name) not in failures]
    write_rows(staged / MICROGRAPHS_FILE, [_row(one, folder) for one in left])
    config = ProjectConfig(
        name=path.resolve().name,
        project_id=secrets.token_hex(8),
        micrographs_folder=stated_folder(path, folder),
        image_size=images.side,
        particle_px=images.particle_px,
        **options.model_dump(include=set(ProjectConfig.model_fields) - {"start"}),
        **start_settings(options.start),
    )
    write_settings(staged / SETTINGS_FILE, config)
    return [f"{name}: {reason}" if name not in reason else reason for (_, name), reason in failures.items()]


def _row(one: UsableMicrograph, folder: Path) -> MicrographRow:
    real = one.path.absolute().parent.resolve() / one.path.name
    return MicrographRow(
        name=one.name,
        path=real.relative_to(folder).as_posix(),
        height_px=one.shape[0],
        width_px=one.shape[1],
        pixel_size=one.pixel_size,
        group=one.group,
        defocus_um=one.defocus_um,
        ice=one.ice,
        stated=one.path.as_posix(),
    )


def _write_thumbnails(project: Project, report: Report) -> None:
    project.thumbnails_path.mkdir()
    n = len(project.items)
    with report("thumbnails") as progress, ThreadPoolExecutor(default_workers()) as pool:
        for done, _ in enumerate(pool.map(lambda item: write_thumbnail(project, item), range(n)), 1):
            progress(done, n)


def _read_label_files(
    labels: Sequence[Path], found: MicrographSearch, diameters: dict[str, float], options: InitOptions
) -> list[LabelFile]:
    files = {one.name: one.path for one in found.micrographs}
    shapes = {one.name: one.shape for one in found.micrographs}
    read = partial(
        read_labels,
        files=files,
        shapes=shapes,
        placed=options.placement,
        diameters_px=diameters,
        force=options.force,
        reading=options.reading,
    )
    return list(map(read, labels))


def _first_events(project: Project, known: Sequence[LabelFile], report: Report) -> tuple[int, int, list[str]]:
    """Record known labels and the first query; how many of each, and notes."""
    notes: list[str] = []
    with ProjectRepository.open(project.events_path, project.geometry) as journal:
        for file in known:
            kept = replace(
                file, labels=tuple(one for one in file.labels if one.micrograph in project.items_of)
            )
            commands, found = import_commands(project, journal.state, kept)
            notes += found
            journal.record(commands, time.time())
        imported = {task.item for task in journal.state.tasks.values()}
        with report("looking for different ones") as progress:
            proposals = propose(project, project.config.initial_items, exclude=imported, progress=progress)
        with report("first suggestions") as progress:
            suggest(project, [entry.item for entry in proposals], progress)
        body = {"step": 0, "model": None, "entries": [entry._asdict() for entry in proposals]}
        journal.record([Command("queued-0", PROGRAM, "queued", None, body)], time.time())
    return len(imported), len(proposals), notes


@contextmanager
def _silent(stage: str) -> Iterator[Callable[[int, int], None]]:  # noqa: ARG001
    yield lambda done, total: None
