"""What a step needs to know of a project's events, in a file: compute nodes do not open the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.project.events import EventLog
from cryoquery.project.folder import Project
from cryoquery.project.labeling import task_id
from cryoquery.project.people import people, total_seconds
from cryoquery.project.state import Label, ProjectState, QueueEntry, labels, replay
from cryoquery.storage.atomic import read_json


@dataclass(frozen=True)
class LabelSet:
    """The labels of a project at one moment."""

    labels: Mapping[int, Label]
    """By item."""
    left_out: tuple[int, ...]
    """Items without a label that a person skipped or called bad: no strategy chooses them."""
    seconds: float
    """Of activity of all people on all tasks."""
    seconds_per_item: float | None
    """Of what was labeled by hand; None: nothing was timed."""
    for_others: tuple[int, ...] = ()
    """Those of ``left_out`` that are not bad, and that some person has not skipped: these are asked."""
    begun: tuple[QueueEntry, ...] = ()
    """Of the present query what people have open or began: it stays in the next one."""

    @property
    def seqs(self) -> dict[str, int]:
        """``{"<item>": seq}``, as kept in a step's `labels.json`."""
        return {str(item): label.seq for item, label in sorted(self.labels.items())}

    def as_json(self) -> dict[str, Any]:
        """As plain types, see `read_label_set`."""
        return {
            "labels": {
                str(i): {"seq": label.seq, "model": label.model, **label.said()}
                for i, label in self.labels.items()
            },
            "left_out": list(self.left_out),
            "seconds": self.seconds,
            "seconds_per_item": self.seconds_per_item,
            "for_others": list(self.for_others),
            "begun": [entry._asdict() for entry in self.begun],
        }


def current_labels(project: Project) -> LabelSet:
    """The labels of a project as they are now; a server may be writing meanwhile.

    Raises:
        ProjectError: the log is missing, or does not fit the project.
    """
    return label_set_of(state_of(project))


def state_of(project: Project) -> ProjectState:
    """The state of a project as it is now.

    Raises:
        ProjectError: as `current_labels`.
    """
    with EventLog.open(project.events_path, write=False) as log:
        return replay(log.read(), project.geometry)


def label_set_of(state: ProjectState) -> LabelSet:
    """What a step needs to know of ``state``."""
    found = labels(state)
    timed = [label.active_seconds for label in found.values() if label.active_seconds > 0]
    firsts = [task for task in state.tasks.values() if not task.repeat and task.item not in found]
    out = [task for task in firsts if task.phase == "bad" or task.skipped_by]
    everyone = people(state)
    for_others = [task.item for task in out if task.phase != "bad" and everyone - task.skipped_by.keys()]
    left_out = {task.item for task in out}
    return LabelSet(
        found,
        tuple(sorted(left_out)),
        total_seconds(state),
        float(np.mean(timed)) if timed else None,
        tuple(sorted(for_others)),
        tuple(
            entry
            for entry in state.queue.entries
            if entry.item not in found and entry.item not in left_out and _is_begun(state, entry.item)
        ),
    )


def _is_begun(state: ProjectState, item: int) -> bool:
    task = state.tasks.get(task_id(item))
    return task is not None and task.phase == "open" and (task.lease is not None or task.has_draft)


def n_held_out_left_out(project: Project, label_set: LabelSet) -> int:
    """Held-out items that were skipped or are bad and have no label: F1 is that of the others."""
    return sum(project.items[item].split != "train" for item in label_set.left_out)


def read_label_set(path: Path) -> LabelSet:
    """A label_set in a file.

    Raises:
        DataError: it is missing or damaged.
    """
    values = read_json(path)
    try:
        return LabelSet(
            {int(item): _label(said) for item, said in values["labels"].items()},
            tuple(values["left_out"]),
            float(values["seconds"]),
            values["seconds_per_item"],
            tuple(values["for_others"]),
            tuple(QueueEntry(**entry) for entry in values["begun"]),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}); run the step again") from None


def _label(said: Mapping[str, Any]) -> Label:
    def polygons(kind: str) -> tuple[NDArray[np.float64], ...]:
        return tuple(np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in said[kind])

    particles = np.array(said["particles"], dtype=np.float64).reshape(-1, 2)
    return Label(
        int(said["seq"]),
        particles,
        polygons("ignore"),
        polygons("done"),
        model=said.get("model"),
        suggested=bool(said.get("suggested", False)),
    )
