"""What the commands share: the console, counting progress, and options that belong to a configuration."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel


def keys(kind: type[BaseModel], given: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that a configuration has keys for."""
    return {name: value for name, value in given.items() if name in kind.model_fields}


def complain(lines: Iterable[str], what: str = "") -> None:
    """Print lines on standard error, each after ``what``."""
    for line in lines:
        print(f"cryoquery: {what}{line}", file=sys.stderr)


def make_console() -> Any:
    """The terminal, or the log that stands in for it."""
    from rich.console import Console

    return Console()


@contextmanager
def counting(what: str, unit: str = "micrographs") -> Iterator[Callable[[int, int], None]]:
    """A callback for (done, total): a bar on a terminal, a line now and then elsewhere."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    console = make_console()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed}/{task.total}"),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task(what, total=None, visible=False)

    def show(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total, visible=True)
        if not console.is_terminal and (done == total or done % max(1, total // 10) == 0):
            console.print(f"{what}: {done}/{total} {unit}".rstrip())

    with bar:
        yield show
