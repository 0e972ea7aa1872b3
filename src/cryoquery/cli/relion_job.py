"""The command that RELION calls: a job of its type External."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cryoquery.cli.picks import PixelSize
from cryoquery.cli.terminal import complain, counting, keys

if TYPE_CHECKING:
    from cryoquery.formats.micrograph_star import MicrographStar


def relion_job(
    folder: Annotated[Path, typer.Option("--o", help="Folder of the job; RELION says it.")],
    in_mics: Annotated[Path, typer.Option("--in_mics", help="STAR file of the micrographs.")],
    in_coords: Annotated[
        Path | None,
        typer.Option("--in_coords", help="Picks of another job: to compare with, or as labels."),
    ] = None,
    threads: Annotated[int, typer.Option("--j", min=1, help="Threads.")] = 1,
    model: Annotated[Path | None, typer.Option(help="model.pt to pick with.")] = None,
    project: Annotated[
        Path | None, typer.Option(help="Make this project for labeling instead, --in_coords being labels.")
    ] = None,
    diameter_px: Annotated[float | None, typer.Option(help="Particle diameter, px of the files.")] = None,
    diameter_angstrom: Annotated[float | None, typer.Option(help="Particle diameter, Å.")] = None,
    pixel_size: PixelSize = None,
    threshold: Annotated[
        float | None, typer.Option(help="Lowest score, 0 to 1 (default: as tuned in training).")
    ] = None,
    radius: Annotated[str, typer.Option(help="With --in_coords: a pick this close matches.")] = "0.5d",
    pipeline_control: Annotated[str | None, typer.Option("--pipeline_control", hidden=True)] = None,
) -> None:
    """A job of RELION's type External, which RELION calls in the folder of its project.

    Leaves picks in the folder of the job as RELION's own picking does, for RELION 3.1 to 5.
    """
    given = dict(locals())
    from cryoquery.errors import ConfigError
    from cryoquery.formats.micrograph_star import read_micrograph_star
    from cryoquery.picking.relion_job import told_to_relion

    with told_to_relion(folder):
        if (model is None) == (project is None):
            raise ConfigError("params of the job: give model, a file to pick with, or project, a new folder")
        star = read_micrograph_star(in_mics)
        if model is None:
            assert project is not None
            _make_project(project, star, in_coords, given)
            return
        diameter = _pick(model, folder, star, given, threads)
        if in_coords is not None:
            _compare(folder, in_coords, radius, diameter, pixel_size or star.pixel_size)


def _pick(
    model: Path, folder: Path, star: MicrographStar, given: dict[str, Any], threads: int
) -> float | None:
    """Pick, and return the particle diameter in px, where it is known."""
    from cryoquery.network.device import DeviceConfig, using_threads
    from cryoquery.picking.picker import PickOptions, load_picker
    from cryoquery.picking.relion_job import pick_as_job

    options = PickOptions(**keys(PickOptions, given), optics_pixel_size=star.pixel_size)
    with using_threads(threads), counting("picking") as progress:
        picker = load_picker(model, DeviceConfig(threads=threads))
        found = pick_as_job(picker, folder, star, options, n_workers=threads, progress=progress)
    complain(found.notes, "note: ")
    complain(found.failures.values())
    typer.echo(f"{folder}: {len(found.picks):,} picks on {found.n_done} of {len(star.names)} micrographs")
    size = options.pixel_size or options.optics_pixel_size
    said = options.diameter_angstrom / size if options.diameter_angstrom and size else options.diameter_px
    return found.picks.diameter_px or said


def _compare(
    folder: Path, in_coords: Path, radius: str, diameter_px: float | None, pixel_size: float | None
) -> None:
    """Scores of the job's picks, with those of another job as the truth, into its folder ``evaluation``."""
    from cryoquery.picking.comparison import evaluate_picks, format_table, read_comparison, write_agreement
    from cryoquery.picking.comparison.sources import PickFile

    comparison = read_comparison(
        PickFile(folder), in_coords, only_common=True, diameter_px=diameter_px, pixel_size=pixel_size
    )
    agreement = evaluate_picks(comparison, radius)
    complain(comparison.notes, "note: ")
    typer.echo(format_table(agreement))
    about = {"picks": str(folder), "truth": str(in_coords), "radius": radius, "placement": ""}
    write_agreement(agreement, folder / "evaluation", about)


def _make_project(project: Path, star: MicrographStar, in_coords: Path | None, given: dict[str, Any]) -> None:
    """A project of the micrographs, with the picks of another job as labels."""
    from cryoquery.formats.placement import Placement
    from cryoquery.formats.writing import is_read_from_the_last_row
    from cryoquery.project.new_project import InitOptions, init_project

    given["pixel_size"] = given["pixel_size"] or star.pixel_size
    reverse = any(is_read_from_the_last_row(name, "relion") for name in star.names)
    options = InitOptions(**keys(InitOptions, given), placement=Placement.of(False, reverse, False))
    labels = [in_coords] if in_coords is not None else []
    new = init_project(project, star.files(), options, table=star.path, labels=labels, report=counting)
    complain(new.notes, "note: ")
    complain(new.failures, "left out: ")
    typer.echo(f"{project}: {new.n_imported} with labels; next: cryoquery label {project}")


def tell_of_wrong_usage(arguments: list[str]) -> None:
    """Tell RELION that its job has failed, where the command cannot even be read.

    Args:
        arguments: of the command line.
    """
    if arguments[:1] == ["relion-job"] and "--o" in arguments[:-1]:
        from cryoquery.picking.relion_job import FAILURE

        folder = Path(arguments[arguments.index("--o") + 1])
        if folder.is_dir():
            (folder / FAILURE).touch()
