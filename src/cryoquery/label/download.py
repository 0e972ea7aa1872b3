"""Labels as a file to download."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cryoquery.project.folder import Project
from cryoquery.project.labels_io import export_labels
from cryoquery.project.state import ProjectState

FORMATS = ("star", "csv", "txt", "json", "cbox", "cs")
"""Those that hold all micrographs in one file."""


def labels_file(project: Project, state: ProjectState, file_format: str) -> tuple[str, bytes]:
    """Name and content of a file with the labels of a project; for any thread.

    Args:
        project: whose labels they are.
        state: its events, replayed.
        file_format: one of `FORMATS`.

    Raises:
        ProjectError: nothing is labeled.
        DataError: the format cannot hold several micrographs.
    """
    name = f"labels.{file_format}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        export_labels(project, state, path)
        return name, path.read_bytes()
