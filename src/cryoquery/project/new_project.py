"""Make a project of micrographs that nobody has labelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryoquery.config import CheckedModel
from cryoquery.project.folder import Project


class InitOptions(CheckedModel):
    """What is said about the micrographs of a new project."""

    pixel_size: float | None = None
    diameter_angstrom: float | None = None
    diameter_px: float | None = None


@dataclass(frozen=True)
class NewProject:
    """A project that was made."""

    project: Project
    failures: tuple[str, ...]
    """Micrographs that were left out, and why."""
    notes: tuple[str, ...]
    """What is doubtful, one line each."""


def init_project(
    path: Path | str,
    micrographs: Sequence[Path | str],
    options: InitOptions,
    *,
    table: Path | None = None,
    labels: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> NewProject:
    """Make the project folder ``path`` of ``micrographs`` (files, folders or patterns); all of it or nothing."""
    raise NotImplementedError
