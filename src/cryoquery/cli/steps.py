"""The command that does a step of a project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cryoquery.active.progress import EpochEnded, Event
from cryoquery.cli.terminal import counting


def step(
    project: Annotated[Path, typer.Argument(help="Folder that 'cryoquery init' made.")],
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
