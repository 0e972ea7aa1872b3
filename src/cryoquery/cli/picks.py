"""Commands about picks: pick, evaluate, convert."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cryoquery.cli.terminal import complain, counting, keys

if TYPE_CHECKING:
    from cryoquery.formats import Optics, Picks
    from cryoquery.picking.picker import AnyPicker, PickOptions

FlipY = Annotated[bool, typer.Option("--flip-y", help="Count rows from the last one of the micrograph.")]
FlipX = Annotated[bool, typer.Option("--flip-x", help="Count columns from the last one.")]
SwapXY = Annotated[bool, typer.Option("--swap-xy", help="Exchange x and y, before flipping.")]
Scale = Annotated[float, typer.Option(help="Micrograph pixels per pixel of the file, before all else.")]
Force = Annotated[bool, typer.Option("--force", help="Go on though the picks lie beside the particles.")]
Columns = Annotated[
    str | None, typer.Option(help="Of tables that do not say: x=1,y=2, by number or name; also diameter, …")
]
Origin = Annotated[
    Literal["center", "corner"] | None, typer.Option(help="What x and y are, where the file does not say.")
]
ParticleClass = Annotated[
    str | None, typer.Option("--class", help="Of several classes in a file those that are particles: a,b.")
]
IgnoredClass = Annotated[
    str | None,
    typer.Option("--ignore-class", help="Of several classes those that are regions to ignore: a,b."),
]
PixelSize = Annotated[float | None, typer.Option(help="Å/px, where the files do not say or are wrong.")]

Average = Annotated[
    bool, typer.Option("--average", help="Average over eight orientations: eight times the work.")
]

OpticsStar = Annotated[
    Path | None, typer.Option("--optics", help="STAR file of the micrographs, with their optics groups.")
]
Voltage = Annotated[float | None, typer.Option(help="kV, for RELION's optics group.")]
Cs = Annotated[float | None, typer.Option("--cs", "--spherical-aberration", help="mm, likewise (2.7).")]
AmplitudeContrast = Annotated[float | None, typer.Option(help="Likewise (0.1).")]
For = Annotated[
    Literal["relion", "cryosparc"] | None,
    typer.Option("--for", help="Who reads OUT: rows of TIFF as it counts them, and all that it needs."),
]


ModelName = Annotated[
    str,
    typer.Argument(help="A model.pt, or a project; or without labels: general (a network), log (a filter)."),
]
MicrographPaths = Annotated[
    list[Path], typer.Argument(help="Micrographs, folders of them, or a STAR file that names them.")
]
PicksOut = Annotated[
    Path, typer.Option("--out", "-o", help="FILE.star .box .cbox .csv .txt .cs .json, or a new folder.")
]
LowestScore = Annotated[
    float | None, typer.Option(help="Lowest score, 0 to 1 (default: as tuned in training).")
]
AvoidContamination = Annotated[
    bool,
    typer.Option(
        "--avoid-contamination/--anywhere", help="Ask for more on carbon, ice and aggregates, or not."
    ),
]
Contrast = Annotated[
    bool | None, typer.Option("--invert/--no-invert", help="Invert the contrast (default: as in training).")
]
FileFormat = Annotated[
    str | None, typer.Option("--format", help="Of the files in a folder: star box cbox csv txt.")
]
DiameterPlot = Annotated[
    Path | None, typer.Option(help="FILE.png: how well diameters fit, and circles of their sizes.")
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads beside the network (default: one per core).")
]


def pick(
    model: ModelName,
    micrographs: MicrographPaths,
    out: PicksOut,
    diameter_px: Annotated[float | None, typer.Option(help="Particle diameter, px of the files.")] = None,
    diameter_angstrom: Annotated[float | None, typer.Option(help="Particle diameter, Å.")] = None,
    pixel_size: PixelSize = None,
    optics: OpticsStar = None,
    voltage: Voltage = None,
    cs: Cs = None,
    amplitude_contrast: AmplitudeContrast = None,
    client: For = None,
    threshold: LowestScore = None,
    min_distance: Annotated[str, typer.Option(help="Of two picks: 0.5d (diameters), 54px or 90A.")] = "0.5d",
    edge_margin: Annotated[str, typer.Option(help="Leave out picks so close to the edge.")] = "0d",
    avoid_contamination: AvoidContamination = True,
    invert: Contrast = None,
    average: Average = False,
    file_format: FileFormat = None,
    overlays: Annotated[Path | None, typer.Option(help="Folder for pictures of the picks.")] = None,
    diameter_plot: DiameterPlot = None,
    histograms: Annotated[Path | None, typer.Option(help="Folder for histograms of the scores.")] = None,
    workers: Threads = None,
) -> None:
    """Pick particles with a trained model, or without one, and write them in any coordinate format.

    A micrograph that cannot be picked is reported, and the others are done; exit status 1 then.
    """
    given = dict(locals())
    from cryoquery.formats import read_optics_pixel_size
    from cryoquery.formats.micrograph_star import read_micrograph_star
    from cryoquery.picking.batch import check_target, pick_micrographs
    from cryoquery.picking.picker import PickOptions, open_picker
    from cryoquery.project.folder import is_project, open_project
    from cryoquery.project.pick_all import newest_model

    if optics is not None:
        given["optics_pixel_size"] = read_optics_pixel_size(optics)
    options = PickOptions(**keys(PickOptions, given))
    files = _micrographs_in(micrographs)
    stars = [path for path in (optics, *micrographs) if path and path.suffix.lower() == ".star"]
    said = stated_optics(voltage, cs, amplitude_contrast)
    check_target(out, files, file_format)
    picker = open_picker(newest_model(open_project(model)) if is_project(model) else model)
    options = _with_diameter(picker, files, options, diameter_plot)
    with counting("picking") as progress:
        outcome = pick_micrographs(
            picker, files, out, options,
            overlays=overlays, histograms=histograms, file_format=file_format, n_workers=workers,
            optics=said, star=read_micrograph_star(stars[0]) if stars else None, client=client,
            progress=progress,
        )  # fmt: skip
    complain(outcome.notes, "note: ")
    complain_of_optics(out, outcome.picks, said, file_format)
    complain(outcome.failures.values())
    if outcome.n_done:
        typer.echo(f"{out}: {_counted(len(outcome.picks), outcome.n_done)}")
    if outcome.failures:
        complain([f"{len(outcome.failures)} of {len(files)} could not be picked"])
        raise typer.Exit(1)


def _micrographs_in(paths: list[Path]) -> list[Path]:
    """The files, those in folders, and those that STAR files name; of a field in a folder one version."""
    from cryoquery.formats import micrograph_files
    from cryoquery.formats.versions import one_version_each

    files: list[Path] = []
    for path in paths:
        found = micrograph_files(path) if path.exists() else [path]
        kept, notes = one_version_each(found) if path.is_dir() else (found, [])
        files += kept
        complain([f"{path}: {note}" for note in notes], "note: ")
    return files


def evaluate(
    picks: Annotated[Path, typer.Argument(help="Picks: a file or a folder of coordinates.")],
    truth: Annotated[Path, typer.Argument(help="What is there: likewise, or a dataset.")],
    radius: Annotated[
        str, typer.Option(help="A pick this close matches: 0.5d (diameters), 54px or 90A.")
    ] = "0.5d",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for tables, scores.json and the curve.")
    ] = None,
    micrographs: Annotated[
        Path | None, typer.Option(help="File or folder: check that the picks lie as the images do.")
    ] = None,
    flip_y: FlipY = False,
    flip_x: FlipX = False,
    swap_xy: SwapXY = False,
    scale: Scale = 1.0,
    force: Force = False,
    diameter_px: Annotated[
        float | None, typer.Option(help="Particle diameter in px, where TRUTH does not say.")
    ] = None,
    pixel_size: PixelSize = None,
    group_pattern: Annotated[
        str | None, typer.Option(help="Regex: what it finds in a micrograph's name is its group.")
    ] = None,
    split: Annotated[
        Literal["train", "val", "test"] | None, typer.Option(help="Of a dataset as TRUTH: only this split.")
    ] = None,
    only_common: Annotated[
        bool, typer.Option("--only-common", help="Leave out micrographs that only one side knows.")
    ] = False,
    columns: Columns = None,
    origin: Origin = None,
    particle_class: ParticleClass = None,
) -> None:
    """Particle precision, recall, F1 (macro and micro) and average precision of picks.

    The options that flip, swap and scale, --columns and --origin apply to PICKS. A micrograph without
    picks counts its particles as missed.
    """
    from cryoquery.formats.placement import Placement
    from cryoquery.formats.reading import Reading
    from cryoquery.picking.comparison import evaluate_picks, format_table, read_comparison, write_agreement
    from cryoquery.picking.comparison.sources import PickFile

    placed = Placement.of(swap_xy, flip_y, flip_x, scale)
    comparison = read_comparison(
        PickFile(picks, placed, Reading.of(columns, origin, particle_class)), truth,
        micrographs=micrographs, group_pattern=group_pattern, split=split, only_common=only_common,
        diameter_px=diameter_px, pixel_size=pixel_size, force=force,
    )  # fmt: skip
    agreement = evaluate_picks(comparison, radius)
    complain(comparison.notes, "note: ")
    typer.echo(format_table(agreement))
    if out is not None:
        about = {"picks": str(picks), "truth": str(truth), "radius": radius, "placement": placed.options}
        write_agreement(agreement, out, about)
        typer.echo(f"tables and curve: {out}")


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A file or a folder of coordinates.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="A file, by its suffix, or a new folder.")],
    micrographs: Annotated[
        Path | None,
        typer.Option(help="File, folder or STAR file: names, sizes for flips and .cs, a check of the picks."),
    ] = None,
    flip_y: FlipY = False,
    flip_x: FlipX = False,
    swap_xy: SwapXY = False,
    scale: Scale = 1.0,
    force: Force = False,
    diameter_px: Annotated[float | None, typer.Option(help="For picks without a diameter, px.")] = None,
    pixel_size: PixelSize = None,
    file_format: Annotated[
        str | None, typer.Option("--format", help="Of the files in a folder: star box cbox csv txt.")
    ] = None,
    optics: OpticsStar = None,
    voltage: Voltage = None,
    cs: Cs = None,
    amplitude_contrast: AmplitudeContrast = None,
    client: For = None,
    columns: Columns = None,
    origin: Origin = None,
    particle_class: ParticleClass = None,
) -> None:
    """Picks from one coordinate format into another."""
    from cryoquery.formats.convert import convert as convert_picks
    from cryoquery.formats.micrograph_star import read_micrograph_star
    from cryoquery.formats.placement import Placement
    from cryoquery.formats.reading import Reading
    from cryoquery.picking.comparison.sources import check_picks

    placed = Placement.of(swap_xy, flip_y, flip_x, scale)
    reading = Reading.of(columns, origin, particle_class)
    if micrographs is not None and not force:
        check_picks(source, micrographs, placed, diameter_px, reading)
    said = stated_optics(voltage, cs, amplitude_contrast)
    written = convert_picks(
        source, target,
        micrographs=micrographs, swap_xy=swap_xy, flip_y=flip_y, flip_x=flip_x, scale=scale,
        pixel_size=pixel_size, diameter_px=diameter_px, format=file_format, reading=reading,
        optics=said, star=read_micrograph_star(optics) if optics else None, client=client,
    )  # fmt: skip
    complain([f"{source}: {note}" for note in written.notes], "note: ")
    complain_of_optics(target, written, said, file_format)
    n_micrographs = len({*written.micrographs.tolist(), *written.listed})
    typer.echo(f"{target}: {_counted(len(written), n_micrographs)}")


def stated_optics(voltage: float | None, cs: float | None, amplitude_contrast: float | None) -> Optics | None:
    """What the options say for an optics group; None where the voltage is not said.

    Raises:
        ConfigError: one of the others is said without it, or a number cannot be.
    """
    from cryoquery.errors import ConfigError
    from cryoquery.formats import Optics

    if voltage is None:
        if cs is not None or amplitude_contrast is not None:
            raise ConfigError("--cs and --amplitude-contrast: give --voltage (kV) as well")
        return None
    usual = Optics(voltage)
    return Optics(
        voltage,
        usual.spherical_aberration_mm if cs is None else cs,
        usual.amplitude_contrast if amplitude_contrast is None else amplitude_contrast,
    )


def complain_of_optics(out: Path, picks: Picks, optics: Optics | None, file_format: str | None) -> None:
    """Say what a STAR file of all picks lacks for RELION."""
    from cryoquery.formats.writing import lacks_optics

    if missing := lacks_optics(out, picks, optics, file_format):
        complain([f"{out}: no table of optics groups, which RELION needs: give {missing}"], "note: ")


def _with_diameter(
    picker: AnyPicker, files: list[Path], options: PickOptions, plot: Path | None
) -> PickOptions:
    """The options with a diameter: estimated where none is stated and the model does not know it."""
    from cryoquery.formats import read_micrograph
    from cryoquery.picking.diameter import draw_estimate, estimate_from_files
    from cryoquery.picking.picker import load_picker
    from cryoquery.storage.atomic import write_bytes

    missing = picker.needs_diameter and options.diameter_px is None and options.diameter_angstrom is None
    if not missing and plot is None:
        return options
    general = load_picker("general")
    estimate = estimate_from_files(files, general, invert=options.invert)
    if plot is not None:
        write_bytes(plot, draw_estimate(estimate, read_micrograph(files[0]).pixels, general))
        typer.echo(f"how well diameters fit: {plot}")
    if missing:
        typer.echo(f"no diameter is stated; estimated: {estimate}")
        return options.model_copy(update={"diameter_px": estimate.best_px})
    if options.diameter_px is not None and (warning := estimate.warning(options.diameter_px)):
        complain([warning], "note: ")
    return options


def _counted(n_picks: int, n_micrographs: int) -> str:
    return f"{n_picks:,} picks on {n_micrographs} micrograph{'' if n_micrographs == 1 else 's'}"
