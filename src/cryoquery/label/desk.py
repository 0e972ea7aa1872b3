"""A project as the page sees it: what there is to label, who has it, and what was done."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cryoquery
from cryoquery.errors import ProjectError
from cryoquery.label.documents import describe_entry, describe_task
from cryoquery.label.requests import ActRequest
from cryoquery.label.steps import (
    StepFiles,
    finished_steps,
    read_metrics,
    read_query,
    step_under_way,
)
from cryoquery.project.events import Act
from cryoquery.project.folder import Project, open_project
from cryoquery.project.journal import ProjectJournal
from cryoquery.project.labeling import parse_task
from cryoquery.project.people import people_report
from cryoquery.project.state import ProjectState
from cryoquery.project.tasks import next_task, shows_suggestions, task_of_entry

PROGRAM = "cryoquery"
"""Who does what no person did."""
MOST_LISTED = 200
"""Entries of the queue that are sent."""
OWN_IDS = ("queued-", "lease-")
"""Beginnings of the ids of events that are recorded here; people's acts cannot take them."""


class RefusedActError(ProjectError):
    """An act that cannot be taken; those sent with it were not taken either."""

    def __init__(self, message: str, act: str) -> None:
        super().__init__(message)
        self.act = act


def open_desk(path: Path) -> Desk:
    """Open the project in folder ``path`` to label in it.

    Raises:
        ProjectError: there is no project, or another process serves it.
        ConfigError, DataError: it is damaged.
    """
    project = open_project(path)
    geometry = {
        item.number: (
            project.micrographs[item.micrograph].height_px,
            project.micrographs[item.micrograph].width_px,
            item.region,
        )
        for item in project.items
    }
    return Desk(project, ProjectJournal.open(project.events_path, geometry))


class Desk:
    """Answers the page's questions and records what people do. For one thread.

    Args:
        project: the project.
        journal: of the project, writable; closed with the desk.
        clock: seconds since the epoch.
    """

    def __init__(
        self, project: Project, journal: ProjectJournal, clock: Callable[[], float] = time.time
    ) -> None:
        self.project = project
        self._journal = journal
        self._clock = clock
        self._files = StepFiles(project.steps_path)
        self._diameters = sorted(record.diameter_px for record in project.dataset.records)

    def close(self) -> None:
        """Close the log, and let others write."""
        self._journal.close()

    @property
    def _state(self) -> ProjectState:
        return self._journal.state

    def session(self, person: str | None) -> dict[str, Any]:
        """What the page must know before it shows anything."""
        config = self.project.config
        return {
            "person": person,
            "project": config.name,
            "n_items": len(self.project.items),
            "unit": config.unit,
            "pixel_size": config.pixel_size,
            "diameter_px": self.project.median_diameter_px,
            "diameter_angstrom": config.diameter_angstrom,
            "n_waiting": self._counts()["n_waiting"],
            "version": cryoquery.__version__,
        }

    def queue(self, person: str | None) -> dict[str, Any]:
        """What to label next, and why: at most `MOST_LISTED` entries, those that wait first."""
        now = self._clock()
        state = self._state
        entries = [describe_entry(self.project, state, entry, now) for entry in self._entries()]
        entries.sort(key=lambda entry: (_ORDER[entry["status"]], entry["rank"]))
        return {
            "step": state.queue.step,
            "model": state.queue.model,
            "sentence": self._sentence(),
            "entries": entries[:MOST_LISTED],
            **self._counts(),
            "hours": self._hours(),
            "stepping": step_under_way(self.project.path),
        }
