"""The model that a project starts from: the first suggestions are its, and all trainings go on from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cryoquery.data.preprocess import evenly
from cryoquery.errors import ConfigError, DataError
from cryoquery.network.checkpoint import SHIPPED, read_model, start_path
from cryoquery.picking.diameter import MAX_MICROGRAPHS, DiameterEstimate, estimate_from_files
from cryoquery.picking.picker import PickOptions, load_picker, pick_file
from cryoquery.project.folder import Project
from cryoquery.project.step.query import suggestions
from cryoquery.project.step_files import OF_START, picks_file


def start_settings(name: str) -> dict[str, Any]:
    """The settings ``start`` and ``model`` of a new project that starts from the model ``name``.

    Raises:
        DataError: it cannot be read.
    """
    path = start_path(name)
    if path is None:
        return {"start": name}
    return {"start": name if name in SHIPPED else str(path.absolute()), "model": read_model(path).model}


def suggest(project: Project, items: Sequence[int], progress: Callable[[int, int], None]) -> None:
    """Write what the model that ``project`` starts from suggests on ``items``, if it starts from one.

    It is what is suggested until the first step, unless there are picks of another program.
    """
    path = start_path(project.config.start)
    if path is not None:
        picker = load_picker(path, project.config.device)
        found = suggestions(picker, project, items, lambda done: progress(done, len(items)))
        found.write(picks_file(project.path, OF_START))


def estimated_diameter(paths: Sequence[Path], invert: bool) -> DiameterEstimate | None:
    """The particle diameter that fits best by the general model; None where the files cannot be used."""
    try:
        return estimate_from_files(paths, load_picker("general"), invert=invert)
    except DataError:  # which file is damaged is told by what reads them all
        return None


def estimated_count(paths: Sequence[Path], diameter_px: float, invert: bool) -> float | None:
    """Particles on a micrograph by the general model, from a few files; None where they cannot be used."""
    picker, options = load_picker("general"), PickOptions(diameter_px=diameter_px, invert=invert)
    try:
        counts = [len(pick_file(picker, path, options).picks) for path in evenly(paths, MAX_MICROGRAPHS)]
    except (DataError, ConfigError):
        return None
    return float(np.mean(counts))
