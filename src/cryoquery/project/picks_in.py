"""Picks of other programs as suggestions, until the first step has a model of the project's own.

::

    PROJECT/picks/picks_0.json     of the model that the project starts from, see `project.start`
    PROJECT/picks/picks_1.json     as `suggestions.json` of a step; a later import has the next number
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import ProjectError
from cryoquery.formats.placement import AS_IN_FILE, Placement
from cryoquery.formats.reading import AS_RECOGNIZED, Reading
from cryoquery.project.folder import Project, finished_steps
from cryoquery.project.label_files import LabelFile
from cryoquery.project.labels_io import Imported, read_project_labels
from cryoquery.project.repository import ProjectRepository
from cryoquery.project.step_files import MOST_PICKS, picks_file, picks_numbers
from cryoquery.storage.atomic import write_json


def import_picks(
    project: Project,
    path: Path,
    *,
    placed: Placement = AS_IN_FILE,
    force: bool = False,
    reading: Reading = AS_RECOGNIZED,
) -> Imported:
    """Take the picks of a file as suggestions; arguments and errors as of `labels_io.import_labels`.

    Raises:
        ProjectError: also where a step was done: its model suggests then.
    """
    found = read_project_labels(project, path, placed=placed, force=force, reading=reading)
    with ProjectRepository.open(project.events_path, project.geometry):
        return write_picks(project, [found])


def write_picks(project: Project, files: Sequence[LabelFile]) -> Imported:
    """Keep the picks of ``files`` as what is suggested from now on.

    Scores that are no probabilities become ranks in (0, 1), among all picks; picks without scores have 1.

    Raises:
        ProjectError: a step was done: its model suggests.
    """
    if steps := finished_steps(project.steps_path):
        raise ProjectError(
            f"{project.path}: step_{max(steps)} suggests now; import them as labels, or into a new project"
        )
    labels = [one for file in files for one in file.labels if one.micrograph in project.items_of]
    stated = [np.ones(len(one.particles_yx)) if one.scores is None else one.scores for one in labels]
    scores = _as_probabilities(np.concatenate([np.empty(0), *stated]))
    by_label = np.split(scores, np.cumsum([len(one.particles_yx) for one in labels])[:-1])
    content: dict[str, dict[str, object]] = {}
    n_picks = 0
    for one, own in zip(labels, by_label, strict=True):
        rows = np.column_stack([one.particles_yx, own])[np.argsort(-own, kind="stable")].tolist()
        for item in project.items_of[one.micrograph]:
            inside = [row for row in rows if item.contains(row[0], row[1])][:MOST_PICKS]
            content[str(item.number)] = {"threshold": 0.0, "picks": inside}
            n_picks += len(inside)
    number = max(picks_numbers(project.path), default=0) + 1
    file = picks_file(project.path, number)
    file.parent.mkdir(exist_ok=True)
    write_json(file, content)
    return Imported(len(content), n_picks, tuple(note for one in files for note in one.notes))


def _as_probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.isfinite(scores)
    if not len(scores) or ((scores[known] >= 0).all() and (scores[known] <= 1).all()):
        return np.where(known, scores, 0.0)
    ranks = np.empty(len(scores))
    ranks[np.argsort(np.where(known, scores, -np.inf), kind="stable")] = np.arange(len(scores))
    return (ranks + 0.5) / len(scores)
