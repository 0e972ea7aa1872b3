"""Commands about experiments: demo, experiment, compare, verify, strategies."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from cryoquery.cli.terminal import keys, make_console
from cryoquery.errors import CryoqueryError, DataError, UnfinishedRunsError


def demo(
    out: Annotated[Path, typer.Argument(help="Folder for the data and the results.")] = Path("demo"),
) -> None:
    """Simulate micrographs, run a small experiment, compare, write the report: minutes on two cores."""
    from cryoquery.cli.console import ExperimentProgress
    from cryoquery.cli.demo import finish_demo, prepare_demo
    from cryoquery.experiment.plan import make_plan

    console = make_console()
    config = prepare_demo(out)
    with ExperimentProgress(make_plan(config), console).shown() as progress:
        finish_demo(config, progress, console)


def experiment(
    config: Annotated[Path, typer.Argument(help="TOML file, such as configs/protocol.toml.")],
    dataset: Annotated[Path | None, typer.Option(help="Use this dataset instead of the config's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write there instead of where the config says.")] = None,
    executor: Annotated[
        str | None, typer.Option(help="local or slurm, instead of what the config says.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Local processes (not for Slurm); 1: this one alone.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="With Slurm: stay until the jobs have ended.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its cost.")] = False,
) -> None:
    """Strategies × seeds and their baselines; run again to go on after an interruption."""
    from cryoquery.cli.console import ExperimentProgress, print_answer, print_plan
    from cryoquery.experiment.config import load_config
    from cryoquery.experiment.executors import run_experiment
    from cryoquery.experiment.plan import flop, make_plan, measure_speed
    from cryoquery.report import compare as write_comparison

    if out is None and config.name == "config.toml" and (config.parent / "environment.json").is_file():
        out = config.parent  # the config of an experiment that was moved: go on where it is now
    settings = load_config(config, dataset=dataset, out=out, executor=executor, workers=workers)
    plan = make_plan(settings)
    console = make_console()
    if dry_run:
        speed = measure_speed(settings, plan.image_shape) if plan.image_shape else None
        print_plan(plan, speed, flop(settings, plan) if plan.image_shape else None, console)
        return
    with ExperimentProgress(plan, console).shown() as progress:
        try:
            folder = run_experiment(settings, progress, wait)
        except UnfinishedRunsError:
            # Some runs failed: the others are reported all the same.
            with contextlib.suppress(CryoqueryError, OSError):
                write_comparison(settings.out)
            raise
    if settings.executor == "slurm" and not wait:
        typer.echo(f"the jobs are in the queue; see how they stand: cryoquery status {folder}")
        return
    print_answer(write_comparison(folder), console)


def status(
    experiment: Annotated[Path, typer.Argument(help="Folder of an experiment, or of a project.")],
    once: Annotated[bool, typer.Option("--once", help="Print the table and leave.")] = False,
) -> None:
    """How the runs of an experiment stand, live on a terminal; or how a project stands, and what is next."""
    from cryoquery.project.settings import SETTINGS_FILE

    if (experiment / SETTINGS_FILE).is_file():
        from cryoquery.cli.status import show_project

        show_project(experiment, make_console())
        return
    if not experiment.is_dir() or not any(
        (experiment / name).is_file() for name in ("config.toml", "environment.json")
    ):
        raise DataError(
            f"{experiment}: neither an experiment (no config.toml) nor a project (no {SETTINGS_FILE}); "
            "check the path"
        )
    from cryoquery.cli.status import show_status

    show_status(experiment, make_console(), live=not once)


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
    from cryoquery.acquisition.label_cost import LabelCost
    from cryoquery.cli.console import print_answer
    from cryoquery.report import compare as write_comparison

    stated = {name: value for name, value in keys(LabelCost, given).items() if value is not None}
    folder = write_comparison(experiment, stated)
    typer.echo((folder / "results_table.md").read_text(encoding="utf-8"))
    print_answer(folder, make_console())


def verify(
    experiment: Annotated[Path, typer.Argument(help="Folder of an experiment.")],
) -> None:
    """Recompute what can be recomputed of an experiment; exit status 1 where something does not hold."""
    from cryoquery.experiment.verify import verify as check

    found = check(experiment)
    for problem in found.problems:
        typer.echo(problem)
    typer.echo(found.summary())
    if not found.holds:
        raise typer.Exit(1)


def strategies() -> None:
    """What can be put in a config, one line each."""
    from cryoquery.acquisition import STRATEGIES

    width = max(map(len, STRATEGIES))
    for name, strategy in STRATEGIES.items():
        typer.echo(f"{name:{width}}  {strategy.summary}")
