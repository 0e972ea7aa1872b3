"""What the steps of a project left, as far as the page shows it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from cryoquery.config import in_one_line
from cryoquery.errors import DataError, ProjectError
from cryoquery.project.document import finite_number
from cryoquery.project.folder import STEP
from cryoquery.project.state import QueueEntry
from cryoquery.storage.atomic import read_json
from cryoquery.storage.leases import Owner

UNDER_WAY = "stepping.json"
"""A step writes it when it begins, and removes it at its end."""
STALE_SECONDS = 15 * 60.0
"""A step of which nothing was heard for so long is not believed to be under way."""
MOST_KEPT = 4
"""Steps whose suggestions are kept in memory."""


class Suggestion(NamedTuple):
    """A pick of the model, at ``(y, x)`` pixels of the original micrograph; score in [0, 1]."""

    key: str
    y: float
    x: float
    score: float


class Suggestions(NamedTuple):
    """Those of one item."""

    threshold: float
    """Score from which on they are shown at first."""
    picks: tuple[Suggestion, ...]


NONE = Suggestions(0.5, ())


def read_query(folder: Path, n_items: int) -> list[dict[str, Any]]:
    """The entries of the query that the step in ``folder`` chose.

    Raises:
        DataError: the file is missing or damaged, or names items that the project does not have.
    """
    path = folder / "query.json"
    try:
        entries = TypeAdapter(list[QueueEntry]).validate_python(read_json(path))
    except ValidationError as error:
        raise DataError(
            f"{path}: is not the query of a step ({in_one_line(error)}); run the step again"
        ) from None
    for entry in entries:
        if entry.score is not None and not math.isfinite(entry.score):
            raise DataError(f"{path}: a score of {entry.score}; run the step again")
        if not 0 <= entry.item < n_items:
            raise DataError(f"{path}: {entry} is none of a project of {n_items} items; run the step again")
    return [entry._asdict() for entry in entries]


def read_metrics(folder: Path) -> Mapping[str, Any]:
    """What the step in ``folder`` measured; nothing where that cannot be read."""
    try:
        metrics = read_json(folder / "metrics.json")
    except DataError:
        return {}
    return metrics if isinstance(metrics, dict) else {}


def step_under_way(project: Path) -> dict[str, Any] | None:
    """``{since, message}`` of the step that waits or is being made; None: there is none, or it has ended.

    Of one on this machine its process tells, of another the age of the file.
    """
    try:
        found = read_json(project / UNDER_WAY)
        age = time.time() - (project / UNDER_WAY).stat().st_mtime
        since = finite_number(found["since"], "since")
        message = str(found.get("message", ""))
        pid, here = found.get("pid"), replace(Owner.myself(), started="")
        if found.get("host") == here.host and isinstance(pid, int):
            ended = replace(here, pid=pid).is_gone()
        else:
            ended = age >= STALE_SECONDS
    except (DataError, OSError, TypeError, KeyError, AttributeError, OverflowError, ProjectError):
        return None
    return None if ended else {"since": since, "message": message}


class StepFiles:
    """Suggestions of the steps in ``folder``; those of the latest ones asked for stay in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read = lru_cache(MOST_KEPT)(_read_suggestions)

    def suggestions(self, model: str | None, item: int) -> Suggestions:
        """What ``model`` (``step_2``) suggests for an item; nothing where there is no model.

        Raises:
            DataError: the step's file is damaged.
        """
        if model is None or STEP.fullmatch(model) is None:
            return NONE
        return self._read(self._folder / model / "suggestions.json").get(item, NONE)


def _read_suggestions(path: Path) -> Mapping[int, Suggestions]:
    if not path.exists():
        return {}
    try:
        return {
            int(item): Suggestions(
                float(found["threshold"]),
                tuple(
                    Suggestion(f"s{i}", float(y), float(x), float(score))
                    for i, (y, x, score) in enumerate(found["picks"])
                ),
            )
            for item, found in read_json(path).items()
        }
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: is not what a step suggests ({error!r}); run the step again") from None
