"""Commands that make and show datasets: simulate, import, inspect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cryoquery.cli.picks import Columns, Origin, ParticleClass
from cryoquery.cli.terminal import counting, keys, make_console

if TYPE_CHECKING:
    from cryoquery.data.dataset import Dataset
    from cryoquery.data.inspection import Inspection

NewDataset = Annotated[Path, typer.Argument(help="Folder of the new dataset.")]
FieldSide = Annotated[int | None, typer.Option(help="Cut fields of so many px instead.")]
ParticleSide = Annotated[float, typer.Option(help="Particle diameter in a field, px; sets the scale.")]
ValShare = Annotated[float | None, typer.Option(help="Share of the micrographs for val (default 0).")]
TestShare = Annotated[float | None, typer.Option(help="Share of the micrographs for test (default 0.25).")]


def simulate(
    out: NewDataset,
    config: Annotated[Path | None, typer.Option(help="TOML file with the keys of SimulationConfig.")] = None,
    n_micrographs: Annotated[int | None, typer.Option("-n", "--micrographs", min=1)] = None,
    size: Annotated[int | None, typer.Option(help="Side of a micrograph in px (default 512).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the simulation and of the splits.")] = None,
    val_fraction: ValShare = None,
    test_fraction: TestShare = None,
    field: FieldSide = None,
    particle_px: ParticleSide = 18,
) -> None:
    """A dataset of synthetic micrographs with known particles."""
    given = dict(locals())
    from cryoquery.config import parse, read_toml
    from cryoquery.data.build import BuildConfig
    from cryoquery.simulate import SimulationConfig, simulate_dataset
    from cryoquery.storage.atomic import check_new

    check_new(out)
    values = read_toml(config) if config else {}
    changes = {"n_micrographs": n_micrographs, "height_px": size, "width_px": size, "seed": seed}
    values |= {key: value for key, value in changes.items() if value is not None}
    simulation = parse(SimulationConfig, values, str(config or "simulate"))
    given |= {"size": simulation.image_size, "seed": simulation.seed}
    with counting("simulating") as progress:
        dataset = simulate_dataset(out, simulation, BuildConfig(**keys(BuildConfig, given)), progress)
    n_particles = sum(map(len, dataset.particles.values()))
    typer.echo(
        f"{out}: {len(dataset.records)} images, {n_particles:,} particles; see 'cryoquery inspect {out}'"
    )


SplitBy = Annotated[Literal["micrograph", "group"], typer.Option(help="What stays together.")]
NearDuplicates = Annotated[str | None, typer.Option(help="Regex: names with the same match share a split.")]
TruthKind = Annotated[
    Literal["auto", "coordinates", "masks"], typer.Option(help="What to take as the truth.")
]
GroupByDiameter = Annotated[
    bool, typer.Option("--group-by-diameter", help="Tell mixed particles apart by their diameter.")
]
LabelScale = Annotated[
    float, typer.Option(help="Micrograph pixels per pixel of the label files, before turning.")
]
ForceMisplaced = Annotated[
    bool, typer.Option("--force", help="Go on though the labels lie beside the particles.")
]
ImportThreads = Annotated[
    int | None,
    typer.Option(help="Threads (default: one per core, up to 16). Results do not depend on it.", min=1),
]


def import_(
    sources: Annotated[list[Path], typer.Argument(help="Folders with micrographs and their labels.")],
    out: NewDataset,
    size: Annotated[int, typer.Option(help="Side of the images; whole micrographs are scaled to fit.")] = 768,
    field: FieldSide = None,
    particle_px: ParticleSide = 18,
    disc_fraction: Annotated[float, typer.Option(help="Disc diameter in particle diameters.")] = 1.0,
    val_fraction: ValShare = None,
    test_fraction: TestShare = None,
    split_by: SplitBy = "micrograph",
    near_duplicates: NearDuplicates = None,
    seed: Annotated[int, typer.Option(help="Seed of the splits.")] = 0,
    labels: TruthKind = "auto",
    pixel_size: Annotated[float | None, typer.Option(help="Å/px, where the files do not say.")] = None,
    diameter_px: Annotated[float | None, typer.Option(help="Particle diameter, px of the files.")] = None,
    diameter_angstrom: Annotated[float | None, typer.Option(help="Particle diameter, Å.")] = None,
    group_pattern: Annotated[str | None, typer.Option(help="Regex: what matches is the group.")] = None,
    group_by_diameter: GroupByDiameter = False,
    swap_xy: Annotated[bool, typer.Option("--swap-xy", help="Exchange x and y of the labels.")] = False,
    flip_y: Annotated[bool, typer.Option("--flip-y", help="Count label rows from the last.")] = False,
    flip_x: Annotated[bool, typer.Option("--flip-x", help="Count label columns from the last.")] = False,
    scale: LabelScale = 1.0,
    columns: Columns = None,
    origin: Origin = None,
    particle_class: ParticleClass = None,
    invert: Annotated[bool, typer.Option("--invert", help="Invert the contrast.")] = False,
    force: ForceMisplaced = False,
    workers: ImportThreads = None,
) -> None:
    """Real micrographs and their labels become a dataset.

    Reads folders as CryoPPP, CryoTransformer and CryoSegNet publish them, and plain ones:
    micrographs/ with coordinates/STEM.csv or masks/STEM_mask.*. Several sources make one dataset.
    """
    given = dict(locals())
    from cryoquery.cli.console import print_inspection
    from cryoquery.data.build import BuildConfig, build_dataset
    from cryoquery.data.layouts import SourceOptions, read_sources, refuse_misplaced
    from cryoquery.storage.atomic import check_new

    check_new(out)
    threads = {} if workers is None else {"n_workers": workers}
    config = BuildConfig(**keys(BuildConfig, given), **threads)
    source = read_sources(sources, SourceOptions(**keys(SourceOptions, given)))
    if not force:
        refuse_misplaced(source)
    with counting("importing") as progress:
        dataset = build_dataset(
            source.micrographs, out, config, notes=source.notes, origin=source.origin, progress=progress
        )
    print_inspection(dataset, _inspected(dataset), make_console())


def inspect(
    dataset: Annotated[Path, typer.Argument(help="Folder of the dataset.")],
    sheet: Annotated[
        Path | None, typer.Option(help="Where to write the contact sheet (default: in the dataset).")
    ] = None,
) -> None:
    """Counts, splits, sizes, warnings; a contact sheet as PNG."""
    from cryoquery.cli.console import print_inspection, say
    from cryoquery.data.contact_sheet import contact_sheet
    from cryoquery.data.dataset import open_dataset

    opened, console = open_dataset(dataset), make_console()
    print_inspection(opened, _inspected(opened), console)
    target = sheet or dataset / "contact_sheet.png"
    contact_sheet(opened, target)
    say(console, f"contact sheet: {target}")


def _inspected(dataset: Dataset) -> Inspection:
    """What is seen of a dataset, and which of its diameters `general` doubts."""
    from cryoquery.data.inspection import inspect_dataset
    from cryoquery.picking.diameter import diameter_warnings
    from cryoquery.picking.picker import load_picker

    found = inspect_dataset(dataset)
    doubts = diameter_warnings(dataset, load_picker("general"))
    return replace(found, warnings=(*found.warnings, *doubts))
