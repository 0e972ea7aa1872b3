"""The command that does a step of a project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from cryoquery.cli.terminal import counting
from cryoquery.progress import Silent


def step(
    project: Annotated[Path, typer.Argument(help="Folder that 'cryoquery init' made.")],
    force: Annotated[bool, typer.Option("--force", help="Also where nothing new was labelled.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="With Slurm: stay until the job has ended.")
    ] = True,
) -> None:
    """Train on what is labelled, measure F1, choose what to label next; run again to go on."""
    from cryoquery.records import read_json
    from cryoquery.step import step as do_next_step

    with counting("training", "epochs") as progress:
        folder = do_next_step(project, _Epochs(progress), force=force, wait=wait, say=typer.echo)
    if folder is None:
        typer.echo(f"see how it stands: cryoquery status {project}")
        return
    typer.echo(f"{folder.name}: {read_json(folder / 'metrics.json')['sentence']}")
    typer.echo(f"an open page takes the new queue by itself; else: cryoquery label {project}")


class _Epochs(Silent):
    """Counts the epochs of the training."""

    def __init__(self, progress: Callable[[int, int], None]) -> None:
        self._progress = progress

    def epoch(self, epoch: int, n_epochs: int, loss: float) -> None:  # noqa: ARG002
        """See `cryoquery.progress.Progress`."""
        self._progress(epoch, n_epochs)
