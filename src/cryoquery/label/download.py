"""Labels as a file to download."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Literal

from cryoquery.formats import ONE_PER_FILE
from cryoquery.project.folder import Project
from cryoquery.project.labels_io import export_labels
from cryoquery.project.state import ProjectState

Format = Literal["star", "box", "cbox", "csv", "txt", "cs", "json"]
"""Coordinate formats, and the project's own JSON."""


def labels_file(project: Project, state: ProjectState, file_format: Format) -> tuple[str, bytes]:
    """Name and content of a file with the labels of a project; for any thread.

    Formats that hold one micrograph per file come as a ZIP archive.

    Raises:
        ProjectError: nothing is labeled.
    """
    with tempfile.TemporaryDirectory() as folder:
        if file_format not in ONE_PER_FILE:
            path = Path(folder) / f"labels.{file_format}"
            export_labels(project, state, path)
            return path.name, path.read_bytes()
        files = Path(folder) / "labels"
        export_labels(project, state, files, file_format=file_format)
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted(files.rglob("*")):
                if path.is_file():
                    packed.write(path, path.relative_to(folder))
        return f"labels_{file_format}.zip", archive.getvalue()
