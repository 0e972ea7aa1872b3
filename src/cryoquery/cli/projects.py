"""Commands about projects, in which a person labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ProjectFolder = Annotated[Path, typer.Argument(help="Folder that 'cryoquery init' made.")]


def label(
    project: ProjectFolder,
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
) -> None:
    """Label in the browser: serve the project's page on this machine and show how to open it."""
    from cryoquery.label import serve

    names = [name for name in people.split(",") if name.strip()]
    serve(project, port=port, people=names, say=typer.echo)
