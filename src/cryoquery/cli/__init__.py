"""The command line: parse, call, print. Everything here is a few lines over public functions."""

from __future__ import annotations

import atexit
import gc
import io
import sys
from typing import Annotated

import typer

from cryoquery.cli import datasets, doctor, experiments, picks, projects, relion_job
from cryoquery.errors import Stopped, explain

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
    """Run a command.

    Exit status: 0 done, 1 it cannot be done as it is, 2 wrong usage, 130 interrupted, 128 + its number:
    stopped by a signal.
    """
    atexit.register(gc.freeze)  # or Python would look through all that was imported, for seconds, to end
    for stream in (sys.stdout, sys.stderr):  # a name or a dash that the terminal cannot show ends no work
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Stopped as stopped:
        print(f"cryoquery: {stopped}; run the same command again to go on", file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except USAGE_ERROR as error:
        relion_job.tell_of_wrong_usage(sys.argv[1:])
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)
    except Exception as error:
        if (reason := explain(error)) is None:
            raise
        print(f"cryoquery: {reason}", file=sys.stderr)
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


app.command()(experiments.demo)
app.command()(datasets.simulate)
app.command("import")(datasets.import_)
app.command()(datasets.inspect)
app.command()(experiments.experiment)
app.command()(experiments.compare)
app.command()(experiments.status)
app.command()(experiments.verify)
app.command()(experiments.strategies)
app.command()(projects.init)
app.command()(projects.label)
app.command()(projects.step)
app.command()(projects.backup)
app.command()(projects.export)
app.command()(projects.import_labels)
app.command()(picks.pick)
app.command()(picks.evaluate)
app.command()(picks.convert)
app.command("relion-job")(relion_job.relion_job)
app.command()(doctor.doctor)
