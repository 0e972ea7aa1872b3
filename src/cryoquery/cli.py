"""The command line: parse, call, print. Everything here is a few lines over public functions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import BaseModel

from cryoquery.errors import CryoqueryError

app = typer.Typer(
    name="cryoquery",
    help="Active learning for cryo-EM particle picking: which micrographs to label next, and how many.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""Click's UsageError, which newer versions of Typer carry a copy of."""


def main() -> None:
    """Run a command. Exit status: 0 done, 1 a user's mistake, 2 wrong usage, 130 interrupted."""
    try:
        status = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except USAGE_ERROR as error:
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)
    except (CryoqueryError, OSError) as error:
        print(f"cryoquery: {error}", file=sys.stderr)
        sys.exit(1)
    if status == INTERRUPTED:
        print("cryoquery: interrupted; run the same command again to go on", file=sys.stderr)
    sys.exit(status if isinstance(status, int) else 0)


def _version(wanted: bool) -> None:
    if wanted:
        from cryoquery import __version__

        typer.echo(f"cryoquery {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="Folder for the data and the results.")] = Path("demo"),
) -> None:
    """Simulate micrographs, run a small experiment, compare, write the report: minutes on two cores."""
    from cryoquery.console import ExperimentProgress
    from cryoquery.demo import finish_demo, prepare_demo
    from cryoquery.plan import make_plan

    console = _console()
    config = prepare_demo(out)
    with ExperimentProgress(make_plan(config), console).shown() as progress:
        finish_demo(config, progress, console)


NewDataset = Annotated[Path, typer.Argument(help="Folder of the new dataset.")]
FieldSide = Annotated[int | None, typer.Option(help="Cut fields of so many px instead.")]
ParticleSide = Annotated[float, typer.Option(help="Particle diameter in a field, px; sets the scale.")]
ValShare = Annotated[float | None, typer.Option(help="Share of the micrographs for val (default 0).")]
TestShare = Annotated[float | None, typer.Option(help="Share of the micrographs for test (default 0.25).")]


@app.command()
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
    from cryoquery.data.dataset import check_new
    from cryoquery.simulate import SimulationConfig, simulate_dataset

    check_new(out)
    values = read_toml(config) if config else {}
    changes = {"n_micrographs": n_micrographs, "height_px": size, "width_px": size, "seed": seed}
    values |= {key: value for key, value in changes.items() if value is not None}
    simulation = parse(SimulationConfig, values, str(config or "simulate"))
    given |= {"size": simulation.image_size, "seed": simulation.seed}
    with _counting("simulating") as progress:
        dataset = simulate_dataset(out, simulation, BuildConfig(**_keys(BuildConfig, given)), progress)
    n_particles = sum(map(len, dataset.particles.values()))
    typer.echo(
        f"{out}: {len(dataset.records)} images, {n_particles:,} particles; see 'cryoquery inspect {out}'"
    )


@app.command("import")
def import_(
    sources: Annotated[list[Path], typer.Argument(help="Folders with micrographs and their labels.")],
    out: NewDataset,
    size: Annotated[int, typer.Option(help="Side of the images; whole micrographs are scaled to fit.")] = 768,
    field: FieldSide = None,
    particle_px: ParticleSide = 18,
    disc_fraction: Annotated[float, typer.Option(help="Disc diameter in particle diameters.")] = 1.0,
    val_fraction: ValShare = None,
    test_fraction: TestShare = None,
    split_by: Annotated[
        Literal["micrograph", "group"], typer.Option(help="What stays together.")
    ] = "micrograph",
    twins: Annotated[str | None, typer.Option(help="Regex: names with the same match share a split.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the splits.")] = 0,
    labels: Annotated[
        Literal["auto", "coordinates", "masks"], typer.Option(help="What to take as the truth.")
    ] = "auto",
    pixel_size: Annotated[float | None, typer.Option(help="Å/px, where the files do not say.")] = None,
    diameter_px: Annotated[float | None, typer.Option(help="Particle diameter, px of the files.")] = None,
    diameter_angstrom: Annotated[float | None, typer.Option(help="Particle diameter, Å.")] = None,
    group_pattern: Annotated[str | None, typer.Option(help="Regex: what matches is the group.")] = None,
    group_by_diameter: Annotated[
        bool, typer.Option("--group-by-diameter", help="Tell mixed particles apart by their diameter.")
    ] = False,
    swap_xy: Annotated[bool, typer.Option("--swap-xy", help="Exchange x and y of the labels.")] = False,
    flip_y: Annotated[bool, typer.Option("--flip-y", help="Count label rows from the last.")] = False,
    flip_x: Annotated[bool, typer.Option("--flip-x", help="Count label columns from the last.")] = False,
    invert: Annotated[bool, typer.Option("--invert", help="Invert the contrast.")] = False,
) -> None:
    """Real micrographs and their labels become a dataset.

    Reads folders as CryoPPP, CryoTransformer and CryoSegNet publish them, and plain ones:
    micrographs/ with coordinates/STEM.csv or masks/STEM_mask.*. Several sources make one dataset.
    """
    given = dict(locals())
    from cryoquery.data.build import BuildConfig, build_dataset
    from cryoquery.data.dataset import check_new
    from cryoquery.data.layouts import SourceOptions, read_sources

    check_new(out)
    config = BuildConfig(**_keys(BuildConfig, given))
    source = read_sources(sources, SourceOptions(**_keys(SourceOptions, given)))
    with _counting("importing") as progress:
        dataset = build_dataset(
            source.micrographs, out, config, notes=source.notes, origin=source.origin, progress=progress
        )
    _print_inspection(dataset)


@app.command()
def inspect(
    dataset: Annotated[Path, typer.Argument(help="Folder of the dataset.")],
    sheet: Annotated[
        Path | None, typer.Option(help="Where to write the contact sheet (default: in the dataset).")
    ] = None,
) -> None:
    """Counts, splits, sizes, warnings; a contact sheet as PNG."""
    from cryoquery.data.contact_sheet import contact_sheet
    from cryoquery.data.dataset import open_dataset

    opened = open_dataset(dataset)
    _print_inspection(opened)
    target = sheet or dataset / "contact_sheet.png"
    contact_sheet(opened, target)
    _console().print(f"contact sheet: {target}", soft_wrap=True, highlight=False, markup=False)


@app.command()
def experiment(
    config: Annotated[Path, typer.Argument(help="TOML file, such as configs/protocol.toml.")],
    dataset: Annotated[Path | None, typer.Option(help="Use this dataset instead of the config's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write there instead of where the config says.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its cost.")] = False,
) -> None:
    """Strategies × seeds and their baselines; run again to go on after an interruption."""
    from cryoquery.console import ExperimentProgress, print_answer, print_plan
    from cryoquery.experiment import load_config, run_experiment
    from cryoquery.plan import make_plan, measure_speed
    from cryoquery.report import compare as write_comparison

    settings = load_config(config, dataset=dataset, out=out)
    plan = make_plan(settings)
    console = _console()
    if dry_run:
        speed = measure_speed(settings, plan.image_shape) if plan.image_shape else None
        print_plan(plan, speed, console)
        return
    with ExperimentProgress(plan, console).shown() as progress:
        folder = run_experiment(settings, progress)
    print_answer(write_comparison(folder), console)


@app.command()
def compare(
    experiment: Annotated[Path, typer.Argument(help="Folder of an experiment.")],
    seconds_per_image: Annotated[
        float | None, typer.Option(help="Time to look an image over, instead of the config's.")
    ] = None,
    seconds_per_particle: Annotated[
        float | None, typer.Option(help="Time to label a particle, instead of the config's.")
    ] = None,
) -> None:
    """(Re)write comparison_results/ with report.html from what has finished."""
    given = dict(locals())
    from cryoquery.console import print_answer
    from cryoquery.oracles import LabelCost
    from cryoquery.report import compare as write_comparison

    stated = {name: value for name, value in _keys(LabelCost, given).items() if value is not None}
    folder = write_comparison(experiment, stated)
    typer.echo((folder / "results_table.md").read_text())
    print_answer(folder, _console())


@app.command()
def strategies() -> None:
    """What can be put in a config, one line each."""
    from cryoquery.acquisition import STRATEGIES

    width = max(map(len, STRATEGIES))
    for name, strategy in STRATEGIES.items():
        typer.echo(f"{name:{width}}  {strategy.summary}")


def _keys(kind: type[BaseModel], given: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that a configuration has keys for."""
    return {name: value for name, value in given.items() if name in kind.model_fields}


def _console() -> Any:
    from rich.console import Console

    return Console()


def _counting(what: str) -> Any:
    from cryoquery.console import counting

    return counting(what, _console())


def _print_inspection(dataset: Any) -> None:
    from cryoquery.console import print_inspection
    from cryoquery.data.inspection import inspect_dataset

    print_inspection(dataset, inspect_dataset(dataset), _console())
