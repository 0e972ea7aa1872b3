"""Picks of all micrographs of a project with its newest model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryoquery.errors import ProjectError
from cryoquery.formats import Optics
from cryoquery.formats.micrograph_star import MicrographStar
from cryoquery.formats.writing import Client
from cryoquery.network.checkpoint import start_path
from cryoquery.network.device import using_threads
from cryoquery.picking.batch import BatchResult, check_target, pick_micrographs
from cryoquery.picking.picker import PickOptions, load_picker
from cryoquery.project.folder import Project, finished_steps


def newest_model(project: Project) -> Path:
    """``model.pt`` of the newest step; before the first one the model that the project starts from.

    Raises:
        ProjectError: no step has made one, and the project starts from random weights.
    """
    models = [folder / "model.pt" for folder in finished_steps(project.steps_path).values()]
    there = [model for model in models if model.is_file()]
    if not there and (start := start_path(project.config.start)) is not None:
        return start
    if not there:
        raise ProjectError(f"{project.path}: no model yet; label something with 'cryoquery label'")
    return there[-1]


def export_picks(
    project: Project,
    out: Path,
    *,
    file_format: str | None = None,
    threshold: float | None = None,
    average: bool = False,
    optics: Optics | None = None,
    star: MicrographStar | None = None,
    client: Client | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BatchResult:
    """Pick all micrographs of a project with its newest model and write the picks.

    Args:
        project: with at least one step.
        out: as `pick.files.pick_micrographs` takes it.
        file_format: where the suffix of ``out`` does not say.
        threshold: lowest score, 0 to 1; None: as tuned in training.
        average: average over the eight orientations of each micrograph.
        optics: for RELION's table of optics groups, and so is ``star``.
        star: RELION's STAR file of the micrographs.
        client: who will read the picks, see `write_coordinates`.
        progress: called with (micrographs done, all of them).

    Raises:
        ProjectError: no step has made a model.
        DataError: ``out`` cannot be written.
        ConfigError: the device of the settings is not there.
    """
    model = newest_model(project)
    files = [_as_stated(project, name) for name in sorted(project.micrographs)]
    check_target(out, files, file_format)
    sizes = {row.pixel_size for row in project.micrographs.values()}
    options = PickOptions(
        diameter_px=project.config.diameter_px,
        diameter_angstrom=project.config.diameter_angstrom,
        pixel_size=sizes.pop() if len(sizes) == 1 else project.config.pixel_size,
        threshold=threshold,
        average=average,
        invert=project.config.invert,
    )
    device = project.config.device
    with using_threads(device.threads):
        picker = load_picker(model, device)
        return pick_micrographs(
            picker,
            files,
            out,
            options,
            file_format=file_format,
            optics=optics,
            star=star,
            client=client,
            progress=progress,
        )


def _as_stated(project: Project, name: str) -> Path:
    """The path that was given, by which other programs know the micrograph, where it still leads to it."""
    row = project.micrographs[name]
    path, stated = project.file_of(row), Path(row.stated)
    return stated if stated.is_file() and stated.samefile(path) else path
