"""What to label next in a project, and what the model suggests there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cryoquery.errors import ConfigError, DataError
from cryoquery.picking.picker import Picker, PickOptions, prepare_file
from cryoquery.project.cold_start import held_out_order, spread
from cryoquery.project.folder import Project
from cryoquery.project.label_set import LabelSet
from cryoquery.project.step_files import MAPS, MOST_PICKS
from cryoquery.storage.atomic import write_json

LOWEST_SCORE = 0.05
"""Picks below it are not even suggested."""
MEASURED = "drawn at random to measure F1"
SKIPPED = "skipped by one person, and left to the others"


@dataclass(frozen=True)
class QueryPlan:
    """What the next query is made of, before a model has chosen its part of it."""

    n_chosen: int
    """Items of the pool that the strategy chooses."""
    held_out: tuple[int, ...]
    """Items of the reservoir that is never trained on, in a random order that is the same in every step."""
    skipped: tuple[int, ...]
    """Items of the pool that have no labels and that the strategy is not asked for."""
    for_others: tuple[tuple[int, str], ...]
    """(item, purpose) of what one person skipped and others may label, of the pool and of the reservoir."""


def plan_query(project: Project, label_set: LabelSet) -> QueryPlan:
    """How many items a strategy is asked for, and which held-out ones are labeled beside them.

    A share of `held_out_share` comes from the reservoir; there are fewer items where they run out. What one
    person skipped is left to the others beside the query: it takes no place in it, since this person is not
    asked for it again.
    """
    config = project.config
    gone = label_set.labels.keys() | set(label_set.left_out)
    n = config.query_size
    n_held_out = max(1, round(config.held_out_share * n)) if n > 1 else 0
    free = [item for item in held_out_order(project) if item not in gone]
    pool = [item.number for item in project.items if item.split == "train"]
    n_free = sum(item not in gone for item in pool)
    held_out = free[: max(n_held_out, n - n_free)]
    skipped = [item for item in pool if item in gone and item not in label_set.labels]
    for_others = tuple(
        (item, "train" if project.items[item].split == "train" else "measure")
        for item in label_set.for_others
    )
    return QueryPlan(min(n - len(held_out), n_free), tuple(held_out), tuple(skipped), for_others)


def query_entries(chosen: Sequence[Mapping[str, Any]], plan: QueryPlan) -> list[dict[str, Any]]:
    """The entries of `query.json`: what the strategy chose and the held-out items, spread over the ranks.

    What others have skipped comes last.
    """
    entries = [
        {"item": c["index"], "score": c["score"], "reason": c["reason"], "purpose": "train"} for c in chosen
    ]
    random = [{"item": i, "score": None, "reason": MEASURED, "purpose": "measure"} for i in plan.held_out]
    last = [{"item": i, "score": None, "reason": SKIPPED, "purpose": why} for i, why in plan.for_others]
    return [{**entry, "rank": rank} for rank, entry in enumerate([*spread(entries, random), *last])]


class Suggested(NamedTuple):
    """What a model sees on the micrographs of items."""

    picks: dict[str, dict[str, Any]]
    """As written to `suggestions.json`, by item."""
    maps: dict[int, NDArray[np.uint8]]
    """(h, w) probability of a particle, 0 to 255, over a micrograph, by the number of its first item."""

    def write(self, file: Path) -> None:
        """Write picks into ``file``, and maps as pictures into the folder `MAPS` beside it."""
        (file.parent / MAPS).mkdir(parents=True, exist_ok=True)
        for first, probability in self.maps.items():
            Image.fromarray(probability).save(file.parent / MAPS / f"{first}.png")
        write_json(file, self.picks)


def suggestions(
    picker: Picker, project: Project, items: Iterable[int], watch: Callable[[int], None] = lambda done: None
) -> Suggested:
    """What ``picker`` suggests on the original micrograph of each item.

    A micrograph that cannot be picked gets no suggestions: a person may label it, or call it bad.

    Raises:
        ProjectError: a micrograph is not where the project says.
    """
    by_micrograph: dict[str, list[int]] = {}
    for item in items:
        by_micrograph.setdefault(project.items[item].micrograph, []).append(item)
    found: dict[str, dict[str, Any]] = {}
    maps: dict[int, NDArray[np.uint8]] = {}
    for n_done, its in enumerate(by_micrograph.values(), 1):
        path = project.micrograph_path(its[0])
        options = PickOptions(
            diameter_px=project.diameter_px(its[0]), threshold=LOWEST_SCORE, invert=project.config.invert
        )
        try:
            prepared = prepare_file(picker, path, options)
            probability = picker.predict(prepared)
            picks = picker.find(prepared, probability, options).picks
            assert picks.scores is not None, "picks of a network have scores"
            rows = np.column_stack([picks.centers_yx, picks.scores])
            first = project.items_of[project.items[its[0]].micrograph][0].number
            maps[first] = np.rint(255 * probability).astype(np.uint8)
        except (DataError, ConfigError):
            rows = np.empty((0, 3))
        for item in its:
            inside = [row for row in rows.tolist() if project.items[item].contains(row[0], row[1])]
            found[str(item)] = {
                "threshold": picker.recipe.threshold,
                "picks": [[round(value, 3) for value in row] for row in inside[:MOST_PICKS]],
            }
        watch(n_done)
    return Suggested(found, maps)
