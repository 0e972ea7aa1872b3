"""What the steps of a project left, and the picks that were brought along, as far as the page shows them."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter, ValidationError

from cryoquery.config import in_one_line
from cryoquery.errors import DataError, ProjectError
from cryoquery.project.document import finite_number
from cryoquery.project.folder import STEP
from cryoquery.project.state import QueueEntry
from cryoquery.storage.atomic import read_json
from cryoquery.storage.leases import Owner

SUGGESTIONS = "suggestions.json"
UNDER_WAY = "stepping.json"
"""A step writes it when it begins, and removes it at its end."""
STALE_SECONDS = 15 * 60.0
"""A step of which nothing was heard for so long is not believed to be under way."""
MAPS = "maps"
"""Folder of the probabilities, in that of a step."""
N_BINS = 100
MOST_PICKS = 5000
"""Suggested on one item, the best ones."""
PICKS = re.compile(r"picks_(0|[1-9][0-9]{0,5})")
"""Name of picks that were there before the first step, where the name of a step's model may stand."""
OF_START = 0
"""Number of the picks of the model that the project starts from; those of other programs follow."""
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


def picks_file(project: Path, number: int) -> Path:
    """Where picks of another program lie that are suggested."""
    return project / "picks" / f"picks_{number}.json"


def picks_numbers(project: Path) -> list[int]:
    """The numbers of the picks that there are."""
    names = [path.stem for path in (project / "picks").glob("*.json")]
    return sorted(int(match[1]) for name in names if (match := PICKS.fullmatch(name)))


class StepFiles:
    """What is suggested in a ``project``; that of the latest ones asked for stays in memory."""

    def __init__(self, project: Path) -> None:
        self._project = project
        self._read = lru_cache(MOST_KEPT)(_read_suggestions)
        self._count = lru_cache(MOST_KEPT)(lambda path: _count_scores(self._read(path)))

    def suggestions(self, model: str | None, item: int) -> Suggestions:
        """What ``model`` (``step_2``, ``picks_1``) suggests for an item; nothing where there is no model.

        Raises:
            DataError: the step's file is damaged.
        """
        path = self._path(model)
        return NONE if path is None else self._read(path).get(item, NONE)

    def knows(self, model: str | None, item: int) -> bool:
        """Whether ``model`` has looked at an item; raises as `suggestions`."""
        path = self._path(model)
        return path is not None and item in self._read(path)

    def scores(self, model: str | None) -> Scores:
        """The scores of all that ``model`` suggests; raises as `suggestions`."""
        path = self._path(model)
        return Scores(0, (0,) * N_BINS) if path is None else self._count(path)

    def map_path(self, model: str | None, first_item: int) -> Path | None:
        """The picture of ``model``'s probabilities on the micrograph of this first item, if there is one."""
        if model is not None and PICKS.fullmatch(model) and model != f"picks_{OF_START}":
            return None  # of another program
        path = self._path(model)
        file = None if path is None else path.with_name(MAPS) / f"{first_item}.png"
        return file if file is not None and file.is_file() else None

    def _path(self, model: str | None) -> Path | None:
        if model is not None and (match := PICKS.fullmatch(model)):
            return picks_file(self._project, int(match[1]))
        if model is None or STEP.fullmatch(model) is None:
            return None
        return self._project / "steps" / model / SUGGESTIONS

    def newest_picks(self) -> str | None:
        """The name of the picks that were brought along last."""
        numbers = picks_numbers(self._project)
        return f"picks_{numbers[-1]}" if numbers else None


class Scores(NamedTuple):
    """Of all suggestions of a model."""

    n_items: int
    counts: tuple[int, ...]
    """Of scores in `N_BINS` equal bins of [0, 1]."""


def _count_scores(found: Mapping[int, Suggestions]) -> Scores:
    scores = [pick.score for suggestions in found.values() for pick in suggestions.picks]
    counts, _ = np.histogram(scores, N_BINS, (0.0, 1.0))
    return Scores(sum(bool(suggestions.picks) for suggestions in found.values()), tuple(counts.tolist()))


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
