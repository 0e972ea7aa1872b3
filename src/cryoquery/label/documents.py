"""The state of tasks in the form that the page reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryoquery.label.listing import Row
from cryoquery.project.document import Particle, Region, Step
from cryoquery.project.folder import Project
from cryoquery.project.labeling import TaskState
from cryoquery.project.previews import (
    TILE,
    default_lowpass,
    levels,
    lowpass_unit,
    lowpass_values,
    shown_region,
    tile_factors,
)
from cryoquery.project.step_files import Scores, Suggestions

MOST_STEPS, MOST_EDITS = 500, 5000
"""Most steps of undo and of redo that are sent with a document, and most changes in all of them."""


def describe_row(project: Project, row: Row, now: float) -> dict[str, Any]:
    """A line of the queue.

    Args:
        project: whose queue it is.
        row: of the queue.
        now: seconds since the epoch.
    """
    micrograph = project.micrograph_of(row.state.item)
    return {
        "task": row.task,
        "item": row.state.item,
        "n_particles": len(row.state.document.particles),
        "defocus_um": micrograph.defocus_um,
        "ice": micrograph.ice,
        "micrograph": project.items[row.state.item].micrograph,
        "rank": row.rank,
        "reason": row.reason,
        "score": row.score,
        # People label differently when they know that the result is compared with an earlier one.
        "purpose": "measure" if row.held_out else "train",
        "status": row.state.status(now),
        "person": person_of(row.state, now),
        # Of open ones alone: when an item was labeled first would tell a blind repeat.
        "touched": row.state.touched if row.state.holder(now) is not None else 0,
    }


def person_of(state: TaskState, now: float) -> str | None:
    """Who has the task, or had it last."""
    if (holder := state.holder(now)) is not None:
        return holder
    if state.answer is not None and not state.has_draft:
        return state.answer.person
    return state.drafter or next(reversed(state.skipped_by), None)


def describe_task(
    project: Project,
    task: str,
    state: TaskState,
    person: str,
    reason: str,
    suggestions: Suggestions,
    scores: Scores,
    now: float,
) -> dict[str, Any]:
    """The document of a task.

    Args:
        project: whose task it is.
        task: its id.
        state: of the task.
        person: who asks.
        reason: why it is in the queue; empty: it is not.
        suggestions: those that are shown.
        scores: of all suggestions of their model.
        now: seconds since the epoch.
    """
    item = project.items[state.item]
    micrograph = project.micrographs[item.micrograph]
    return {
        "task": task,
        "item": state.item,
        "micrograph": item.micrograph,
        "height": micrograph.height_px,
        "width": micrograph.width_px,
        "region": item.region,
        "shown": shown_region(project, state.item),
        "pixel_size": micrograph.pixel_size,
        "diameter_px": project.diameter_px(state.item),
        **describe_progress(state, now),
        "mine": state.holder(now) == person,
        "person": person_of(state, now),
        "document": describe_document(state),
        # Undo and redo need no server for the last steps, [[table, key, before, after], …] each.
        "steps": {name: _last_steps(getattr(state.document, name)) for name in ("done", "undone")},
        "suggestions": [pick._asdict() for pick in suggestions.picks],
        "threshold": suggestions.threshold,
        "all_scores": scores._asdict(),
        "model": state.model,
        "suggested": bool(state.suggested),
        "reason": reason,
        "levels": levels(project, state.item),
        "tiles": {"side": TILE, "factors": tile_factors(project, state.item)},
        "lowpass": lowpass_values(project),
        "default_lowpass": default_lowpass(project),
        "lowpass_unit": lowpass_unit(project),
    }


def describe_progress(state: TaskState, now: float) -> dict[str, Any]:
    """What commands change of a task beside its document."""
    return {
        "status": state.status(now),
        "cursor": state.document.cursor,
        "n_ops": state.document.n_ops,
        "touched": state.touched,
        "lease_until": state.lease.until if state.lease is not None and state.holder(now) else None,
    }


def _last_steps(steps: Sequence[Step]) -> list[Any]:
    found: list[Any] = []
    n_edits = 0
    for step in reversed(steps[-MOST_STEPS:]):
        n_edits += len(step)
        if n_edits > MOST_EDITS:
            break
        found.append([[e.table, e.key, _cell(e.before), _cell(e.after)] for e in step])
    return found[::-1]


def _cell(value: Any) -> Any:
    if isinstance(value, Particle):
        return {"y": value.y, "x": value.x, "origin": value.origin}
    return value._asdict() if isinstance(value, Region) else value


def describe_document(state: TaskState) -> dict[str, Any]:
    """Particles and regions; ``(y, x)`` pixels of the original micrograph."""
    document = state.document
    return {
        "particles": [{"key": key, **_cell(particle)} for key, particle in document.particles.items()],
        "regions": [{"key": key, **_cell(region)} for key, region in document.regions.items()],
        "empty": document.empty,
        "rejected": list(document.rejected),
    }
