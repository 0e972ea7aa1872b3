"""What to label next in a project, and what the model suggests there."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cryoquery.data.array_file import read_rows
from cryoquery.data.dataset import ZERO_LEVEL
from cryoquery.errors import ConfigError, DataError
from cryoquery.picking.peaks import MIN_DISTANCE
from cryoquery.picking.picker import Picker, PickOptions, PreparedMicrograph, prepare_file
from cryoquery.picking.tiles import RECEPTIVE_RADIUS_PX
from cryoquery.project.cold_start import Entry, held_out_order, spread
from cryoquery.project.folder import Project
from cryoquery.project.label_set import LabelSet
from cryoquery.project.state import QueueEntry
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
    measured: tuple[int, ...]
    """Items that measure F1, in a random order that is the same in every step: held-out ones, which are never
    trained on, or of the pool, which test the model before it is trained on them."""
    skipped: tuple[int, ...]
    """Items of the pool that have no labels and that the strategy is not asked for."""
    for_others: tuple[tuple[int, str], ...]
    """(item, purpose) of what one person skipped and others may label, of the pool and of the reservoir."""
    begun: tuple[QueueEntry, ...] = ()
    """What people have open or began: it stays."""
    n_before: int = 0
    """Items that come before those of the query."""
    trial_every: int | None = None
    """Of all items, every so-many-th is one of ``measured``; None: those are spread evenly over the query."""
    among: NDArray[np.int64] | None = None
    """The shortlist that the strategy chooses from; None: the pool."""


def plan_query(project: Project, label_set: LabelSet, shortlist: int | None = None) -> QueryPlan:
    """How many items a strategy is asked for, and which ones are labeled beside them to measure F1.

    Of a project that holds micrographs out, a share of `held_out_share` comes from these. Otherwise every
    `trial_every`-th item is drawn at random from the pool: what the model said of it before it was labeled
    measures F1, and then it is trained on. There are fewer items where they run out. What people have open
    stays, and what one person skipped is left to the others: neither takes a place in the query.

    Args:
        project: whose query it is.
        label_set: the labels so far.
        shortlist: the strategy chooses among so many items at most, drawn at random from the micrographs with
            the fewest labels; None: among all.
    """
    config = project.config
    gone = {*label_set.labels, *label_set.left_out, *(entry.item for entry in label_set.begun)}
    pool = [item.number for item in project.items if item.split == "train"]
    free = [item for item in pool if item not in gone]
    n = config.query_size
    n_before = len(label_set.labels) + len(label_set.begun)
    trial_every = None if len(project.dataset.rows("val")) else config.trial_every
    if trial_every is None:
        n_measured = max(1, round(config.held_out_share * n)) if n > 1 else 0
        reservoir = [item for item in held_out_order(project) if item not in gone]
        measured = reservoir[: max(n_measured, n - len(free))]
    else:
        places = range(n_before, n_before + min(n, len(free)))
        n_measured = sum(is_trial(place, trial_every) for place in places)
        measured = [item for item, _ in _fresh_first(project, label_set, pool, gone, 3)][:n_measured]
    skipped = [item for item in pool if item in gone and item not in label_set.labels]
    skipped += measured if trial_every else []
    n_chosen = min(n - len(measured), len(free) - (len(measured) if trial_every else 0))
    among = None
    if shortlist is not None and n_chosen:
        turns = _fresh_first(project, label_set, pool, {*gone, *measured}, 4, n_before)
        last = turns[n_chosen - 1][1]
        among = np.sort([item for item, turn in turns[: max(shortlist, n_chosen)] if turn <= last])
    for_others = tuple(
        (item, "train" if project.items[item].split == "train" else "measure")
        for item in label_set.for_others
    )
    return QueryPlan(
        n_chosen, tuple(measured), tuple(skipped), for_others, label_set.begun, n_before, trial_every, among
    )


def is_trial(place: int, every: int) -> bool:
    """Whether the item that is labeled after ``place`` others tests the model: every so-many-th does."""
    return place % every == every - 1


def _fresh_first(
    project: Project, label_set: LabelSet, pool: Sequence[int], gone: Container[int], *stream: int
) -> list[tuple[int, int]]:
    """(item, turn) of what is not ``gone``, by turn, in an order drawn from the seed and ``stream``.

    An item's turn is how many of its micrograph are labeled or come before it, so that fields come from
    different micrographs.
    """
    rng = np.random.default_rng([project.config.seed, *stream])
    labeled = (*label_set.labels, *(entry.item for entry in label_set.begun))
    turns = Counter(project.items[item].micrograph for item in labeled)
    found = []
    for item in rng.permutation(np.array(pool, dtype=np.int64)).tolist():
        if item not in gone:
            name = project.items[item].micrograph
            found.append((item, turns[name]))
            turns[name] += 1
    return sorted(found, key=lambda pair: pair[1])


def query_entries(chosen: Sequence[Mapping[str, Any]], plan: QueryPlan) -> list[dict[str, Any]]:
    """The entries of `query.json`: what people have open, then what the strategy chose and what measures F1.

    What others have skipped comes last.
    """
    entries = [
        {"item": c["index"], "score": c["score"], "reason": c["reason"], "purpose": "train"} for c in chosen
    ]
    random = [{"item": i, "score": None, "reason": MEASURED, "purpose": "measure"} for i in plan.measured]
    if plan.trial_every is None:
        between = spread(entries, random)
    else:
        between = _in_turn(entries, random, plan.n_before, plan.trial_every)
    begun = [entry._asdict() for entry in plan.begun]
    last = [{"item": i, "score": None, "reason": SKIPPED, "purpose": why} for i, why in plan.for_others]
    return [{**entry, "rank": rank} for rank, entry in enumerate([*begun, *between, *last])]


def _in_turn(many: list[Entry], few: list[Entry], n_before: int, every: int) -> list[Entry]:
    """Both in their order, those of ``few`` at the places of tests as long as there are any."""
    many, few = [*many], [*few]
    places = range(n_before, n_before + len(many) + len(few))
    return [(few if few and (is_trial(i, every) or not many) else many).pop(0) for i in places]


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
        try:
            of_fields = project.config.unit == "field" and _is_at_scale(picker, project, its[0])
            rows, probability = (_look_at_fields if of_fields else _look_at_file)(picker, project, its)
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


Seen = tuple[NDArray[np.float64], NDArray[np.float32]]
"""Picks (n, 3), rows (y, x, score) in pixels of the micrograph, and probabilities (h, w) over all of it."""


def _options(project: Project, item: int) -> PickOptions:
    return PickOptions(
        diameter_px=project.diameter_px(item), threshold=LOWEST_SCORE, invert=project.config.invert
    )


def _find(picker: Picker, prepared: PreparedMicrograph, options: PickOptions) -> Seen:
    probability = picker.predict(prepared)
    picks = picker.find(prepared, probability, options).picks
    assert picks.scores is not None, "picks of a network have scores"
    return np.column_stack([picks.centers_yx, picks.scores]), probability


def _look_at_file(picker: Picker, project: Project, items: Sequence[int]) -> Seen:
    """What ``picker`` sees on the whole micrograph of ``items``."""
    options = _options(project, items[0])
    return _find(picker, prepare_file(picker, project.micrograph_path(items[0]), options), options)


def _is_at_scale(picker: Picker, project: Project, item: int) -> bool:
    """Whether the project's images are what ``picker`` would make of the micrograph."""
    recipe, record = picker.recipe, project.dataset.records[item]
    return recipe.scale == "particle" and math.isclose(
        recipe.particle_px / record.diameter_px, record.scale, rel_tol=1e-6
    )


def _look_at_fields(picker: Picker, project: Project, items: Sequence[int]) -> Seen:
    """What ``picker`` sees on fields of one micrograph, put together from the project's images.

    It looks no further around a field than the network sees: a few fields are there at once, and the file of
    the micrograph is not read.
    """
    dataset, name = project.dataset, project.items[items[0]].micrograph
    rows = [item.number for item in project.items_of[name]]
    records = [dataset.records[row] for row in rows]
    shape = max(r.top + r.content_height for r in records), max(r.left + r.content_width for r in records)
    levels = np.full(shape, ZERO_LEVEL, dtype=np.uint8)
    for record, image in zip(records, read_rows(dataset.images, rows), strict=True):
        levels[record.place] = image[record.content]
    whole, found = np.zeros(shape, dtype=np.float32), [np.empty((0, 3))]
    options = _options(project, items[0])
    for item in items:
        record, info = dataset.records[item], project.items[item]
        corner = np.maximum(np.array([record.top, record.left]) - RECEPTIVE_RADIUS_PX, 0)
        end = np.array([record.top + record.content_height, record.left + record.content_width])
        bottom, right = end + RECEPTIVE_RADIUS_PX
        part = levels[corner[0] : bottom, corner[1] : right]
        diameter = record.diameter_px
        prepared = PreparedMicrograph(
            name, part.shape, part, record.scale, None, diameter, MIN_DISTANCE * diameter, 0.0
        )
        picks, probability = _find(picker, prepared, options)
        picks[:, :2] += corner / record.scale
        found.append(np.array([row for row in picks if info.contains(row[0], row[1])]).reshape(-1, 3))
        top, left = record.top - corner[0], record.left - corner[1]
        whole[record.place] = probability[
            top : top + record.content_height, left : left + record.content_width
        ]
    return np.concatenate(found), whole
