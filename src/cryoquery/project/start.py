"""The model that a project starts from: the first suggestions are its, and all trainings go on from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cryoquery.network.checkpoint import SHIPPED, read_model, start_path
from cryoquery.picking.picker import load_picker
from cryoquery.project.folder import Project
from cryoquery.project.step.query import suggestions
from cryoquery.project.step_files import START, SUGGESTIONS
from cryoquery.storage.atomic import write_json


def start_settings(name: str) -> dict[str, Any]:
    """The settings ``start`` and ``model`` of a new project that starts from the model ``name``.

    Raises:
        DataError: it cannot be read.
    """
    path = start_path(name)
    if path is None:
        return {"start": name}
    return {"start": name if name in SHIPPED else str(path.absolute()), "model": read_model(path).model}


def suggest(project: Project, items: Sequence[int], progress: Callable[[int, int], None]) -> str | None:
    """Write what the model that ``project`` starts from suggests on ``items``.

    Returns:
        what this model is called in the queue; None where the project starts from random weights.
    """
    path = start_path(project.config.start)
    if path is None:
        return None
    picker = load_picker(path, project.config.device)
    found = suggestions(picker, project, items, lambda done: progress(done, len(items)))
    folder = project.steps_path / START
    folder.mkdir(parents=True)
    write_json(folder / SUGGESTIONS, found)
    return START
