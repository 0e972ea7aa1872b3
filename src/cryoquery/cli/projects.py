"""Commands about projects, in which a person labels: init, label, step, export, import-labels."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from cryoquery.active.progress import EpochEnded, Event
from cryoquery.cli.picks import (
    AmplitudeContrast,
    Average,
    Columns,
    Cs,
    FlipX,
    FlipY,
    For,
    Force,
    IgnoredClass,
    OpticsStar,
    Origin,
    ParticleClass,
    Scale,
    SwapXY,
    Voltage,
    complain_of_optics,
    stated_optics,
)
from cryoquery.cli.terminal import complain, counting, keys

MadeFolder = Annotated[Path, typer.Argument(help="Folder that 'cryoquery init' made.")]
ProjectFolder = Annotated[Path, typer.Argument(help="Folder of the project.")]


MicrographPatterns = Annotated[
    list[str] | None,
    typer.Option(
        help="A pattern in quotes ('DIR/*.mrc'), a folder, a file, a STAR file; several times for more."
    ),
]
DiameterAngstrom = Annotated[float | None, typer.Option(help="Particle diameter, Å (default: estimated).")]
Unit = Annotated[
    Literal["micrograph", "field"] | None,
    typer.Option(help="What is labeled at a time (default: fields where micrographs hold many particles)."),
]
HeldOutShare = Annotated[
    float | None,
    typer.Option(help="Of micrographs that are only measured on (default: 0 for fields, else 0.25)."),
]
StartModel = Annotated[
    str, typer.Option(help="Model to suggest and to train from: general, a model.pt, or random.")
]
ConditionsTable = Annotated[
    Path | None, typer.Option(help="STAR or CSV with defocus, ice, groups, such as micrographs_ctf.star.")
]
GroupPattern = Annotated[
    str | None, typer.Option(help="Regex: what it finds in a micrograph's name is its group.")
]
KnownLabels = Annotated[
    list[Path] | None, typer.Option(help="File or folder of coordinates that are known already.")
]
OthersPicks = Annotated[
    list[Path] | None, typer.Option(help="Picks of another program, to be suggested until the first step.")
]


def init(
    project: Annotated[Path, typer.Argument(help="Folder of the new project.")],
    rest: Annotated[list[str] | None, typer.Argument(hidden=True, metavar="")] = None,
    micrographs: MicrographPatterns = None,
    pixel_size: Annotated[float | None, typer.Option(help="Å/px, where the files do not say.")] = None,
    diameter_angstrom: DiameterAngstrom = None,
    diameter_px: Annotated[float | None, typer.Option(help="Particle diameter, px of the files.")] = None,
    unit: Unit = None,
    held_out_share: HeldOutShare = None,
    start: StartModel = "general",
    table: ConditionsTable = None,
    group_pattern: GroupPattern = None,
    labels: KnownLabels = None,
    picks: OthersPicks = None,
    initial: Annotated[int, typer.Option(min=1, help="Micrographs of the first query.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn at random.")] = 0,
    invert: Annotated[bool, typer.Option("--invert", help="Particles are bright as stored.")] = False,
    flip_y: FlipY = False,
    flip_x: FlipX = False,
    swap_xy: SwapXY = False,
    scale: Scale = 1.0,
    columns: Columns = None,
    origin: Origin = None,
    particle_class: ParticleClass = None,
    ignore_class: IgnoredClass = None,
    force: Force = False,
) -> None:
    """A new project of micrographs without labels; then: cryoquery label PROJECT.

    Reads every micrograph once. One that cannot be read is reported and left out.
    """
    given = dict(locals())
    from cryoquery.errors import ProjectError
    from cryoquery.formats import micrograph_suffix
    from cryoquery.formats.placement import Placement
    from cryoquery.formats.reading import Reading
    from cryoquery.project.new_project import InitOptions, init_project

    if rest or (micrographs and micrograph_suffix(project)):
        first = rest[0] if rest else project
        raise ProjectError(
            f"{first}: unexpected; where the shell has expanded a pattern, put it in quotes: "
            "--micrographs 'DIR/*.mrc'"
        )
    if not micrographs:
        raise typer.BadParameter("give --micrographs 'DIR/*.mrc', a folder, or files")
    placed = Placement.of(swap_xy, flip_y, flip_x, scale)
    reading = Reading.of(columns, origin, particle_class, ignore_class)
    options = InitOptions(
        **keys(InitOptions, given), initial_items=initial, placement=placed, reading=reading
    )
    stages = partial(counting, unit="")  # of micrographs, and later of what is labeled at a time
    new = init_project(project, micrographs, options, table=table, labels=labels or [], picks=picks or [],
                       report=stages)  # fmt: skip
    complain(new.notes, "note: ")
    complain(new.failures, "left out: ")
    n = len(new.project.micrographs)
    fields = new.project.config.unit == "field"
    many = f"{len(new.project.items):,} fields of {n:,} micrographs" if fields else f"{n:,} micrographs"
    typer.echo(
        f"{project}: {many}, {new.n_imported} with labels, {new.n_proposed} to label first; "
        f"next: cryoquery label {project}"
    )


def label(
    project: MadeFolder,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="On this machine (default: the last one, or the first free one from 8765 on).",
        ),
    ] = None,
    people: Annotated[
        str, typer.Option(help="Names, as in anna,ben: a link for each (default: the page asks).")
    ] = "",
    socket: Annotated[
        bool,
        typer.Option("--socket", help="For machines with other users: only your own ssh -L reaches it."),
    ] = False,
    learning: Annotated[
        bool, typer.Option("--learning/--no-learning", help="Train meanwhile on what is labeled.")
    ] = True,
) -> None:
    """Label in the browser: serve the project's page on this machine and show how to open it."""
    typer.echo(f"{project}: opening; the link follows in a moment")
    from cryoquery.label import serve

    names = [name for name in people.split(",") if name.strip()]
    hidden = not sys.stdout.isatty()
    serve(
        project,
        port=port,
        people=names,
        say=typer.echo,
        by_socket=socket,
        hide_links=hidden,
        learning=learning,
    )


def backup(
    project: ProjectFolder,
    file: Annotated[Path, typer.Argument(help="The copy, such as mine.sqlite.")],
) -> None:
    """A checked copy of all that people did in a project, also while it is served."""
    from cryoquery.project.backups import back_up
    from cryoquery.project.folder import open_project

    typer.echo(f"{file}: {back_up(open_project(project), file):,} events")


def step(
    project: MadeFolder,
    force: Annotated[bool, typer.Option("--force", help="Also where nothing new was labeled.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="With Slurm: stay until the job has ended.")
    ] = True,
) -> None:
    """Train on what is labeled, measure F1, choose what to label next; run again to go on."""
    from cryoquery.project.step import step as do_next_step
    from cryoquery.storage.atomic import read_json

    with counting("training", "epochs") as progress:

        def tell(event: Event) -> None:
            if isinstance(event, EpochEnded):
                progress(event.epoch, event.n_epochs)

        folder = do_next_step(project, tell, force=force, wait=wait, say=typer.echo)
    if folder is None:
        typer.echo(f"see how it stands: cryoquery status {project}")
        return
    typer.echo(f"{folder.name}: {read_json(folder / 'metrics.json')['sentence']}")
    typer.echo(f"an open page takes the new queue by itself; else: cryoquery label {project}")


def export(
    project: ProjectFolder,
    out: Annotated[Path, typer.Argument(help="FILE.star .box .cbox .csv .txt .cs .json, or a new folder.")],
    picks: Annotated[
        bool, typer.Option("--picks", help="Picks of all micrographs by the newest model, not the labels.")
    ] = False,
    file_format: Annotated[
        str | None,
        typer.Option("--format", help="Of the files in a folder: star box cbox csv txt; coco for a .json."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="With --picks: lowest score, 0 to 1 (default: as tuned).")
    ] = None,
    average: Average = False,
    optics: OpticsStar = None,
    voltage: Voltage = None,
    cs: Cs = None,
    amplitude_contrast: AmplitudeContrast = None,
    client: For = None,
) -> None:
    """Labels of a project, or picks of all its micrographs, in any coordinate format.

    A .json file of labels also has the regions, and the micrographs without particles.
    """
    from cryoquery.formats.micrograph_star import read_micrograph_star
    from cryoquery.project.folder import open_project
    from cryoquery.project.label_set import state_of
    from cryoquery.project.labels_io import export_labels
    from cryoquery.project.pick_all import export_picks

    opened = open_project(project)
    said = stated_optics(voltage, cs, amplitude_contrast)
    star = read_micrograph_star(optics) if optics else None
    if not picks:
        written = export_labels(
            opened, state_of(opened), out, file_format=file_format, optics=said, star=star, client=client
        )
        complain_of_optics(out, written.picks, said, file_format)
        typer.echo(f"{out}: {written.n_particles:,} particles on {written.n_micrographs} micrographs")
        return
    with counting("picking") as progress:
        outcome = export_picks(
            opened, out,
            file_format=file_format, threshold=threshold, average=average, optics=said, star=star,
            client=client, progress=progress,
        )  # fmt: skip
    complain_of_optics(out, outcome.picks, said, file_format)
    complain(outcome.notes, "note: ")
    complain(outcome.failures.values(), "left out: ")
    if outcome.n_done:
        typer.echo(f"{out}: {len(outcome.picks):,} picks on {outcome.n_done} micrographs")
    if outcome.failures:
        raise typer.Exit(1)


def import_labels(
    project: ProjectFolder,
    labels: Annotated[Path, typer.Argument(metavar="FILE", help="File or folder of coordinates.")],
    as_suggestions: Annotated[
        bool,
        typer.Option("--as-suggestions", help="Only suggested on the page, until the first step."),
    ] = False,
    flip_y: FlipY = False,
    flip_x: FlipX = False,
    swap_xy: SwapXY = False,
    scale: Scale = 1.0,
    columns: Columns = None,
    origin: Origin = None,
    particle_class: ParticleClass = None,
    ignore_class: IgnoredClass = None,
    force: Force = False,
) -> None:
    """Labels from a file into a project; what people have labeled there stays as it is."""
    from cryoquery.formats.placement import Placement
    from cryoquery.formats.reading import Reading
    from cryoquery.project.folder import open_project
    from cryoquery.project.labels_io import import_labels as import_file
    from cryoquery.project.picks_in import import_picks

    placed = Placement.of(swap_xy, flip_y, flip_x, scale)
    reading = Reading.of(columns, origin, particle_class, ignore_class)
    take, what = (import_picks, "suggestions") if as_suggestions else (import_file, "particles")
    imported = take(open_project(project), labels, placed=placed, force=force, reading=reading)
    complain(imported.notes, "note: ")
    typer.echo(f"{project}: {imported.n_particles:,} {what} for {imported.n_items} items from {labels}")
