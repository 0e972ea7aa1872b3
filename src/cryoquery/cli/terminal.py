"""What the commands share: the console, counting progress, and options that belong to a configuration."""

from __future__ import annotations

import sys
from collections.abc import Iterable
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


def counting(what: str, unit: str = "micrographs") -> Any:
    """A context that gives a callback for (done, total) of something."""
    from cryoquery.cli.console import counting as count_on

    return count_on(what, make_console(), unit)
