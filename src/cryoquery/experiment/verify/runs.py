"""Whether a run labeled what it had to: the schedule, the first draw, and every query."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AllowInfNan
from typing_extensions import TypedDict

from cryoquery.acquisition.strategies import strategy_of
from cryoquery.acquisition.typical import cold_start_set, draws_at_random
from cryoquery.active.loop import initial_set, query_from, query_rng, schedule_progress
from cryoquery.active.run import Run
from cryoquery.errors import ConfigError, DataError
from cryoquery.experiment.verify.checks import Checks
from cryoquery.experiment.verify.context import VerifyContext
from cryoquery.experiment.verify.scores import check_metrics
from cryoquery.experiment.verify.signals import NotKeptError, kept_signals

BY_SCORE = ("uncertainty", "entropy", "margin", "random")
"""Strategies whose queries are the highest scores, ties to the lower index."""
ROUNDING = 1e-9


class Asked(TypedDict):
    """An image in `query.json`."""

    index: int
    score: Annotated[float, AllowInfNan(False)]
    rank: int


@dataclass(frozen=True)
class Finished:
    """A finished iteration as far as its files are sound."""

    run: Run
    iteration: int
    folder: Path
    sets: tuple[NDArray[np.int64], ...] | None
    """The labeled images of all iterations so far, as they had to be; None where that is not known."""
    metrics: Mapping[str, Any]

    @property
    def key(self) -> str | None:
        """The key of its training."""
        key = self.metrics.get("training_key")
        return key if isinstance(key, str) and len(key) == 64 and key.isalnum() else None


def check_run(run: Run, context: VerifyContext, checks: Checks) -> Iterator[Finished]:
    """Check one run's schedule, labeled images, queries and scores, iteration by iteration.

    An error in one file causes no problems in those after it: these are compared with what had to be
    there, as long as that is known.
    """
    folders = [run.folder / f"iteration_{i}" for i in range(len(run.counts))]
    there = [_is_filled(folder) for folder in folders]
    if not all(there):
        checks.unfinished(f"{run.name}, seed {run.seed}: {sum(there)} of {len(there)} iterations")
    n_begun = max((i + 1 for i, filled in enumerate(there) if filled), default=0)
    sets: list[NDArray[np.int64]] | None = []
    expected = _first_set(run, context, checks)
    for i, folder in enumerate(folders[:n_begun]):
        if not checks.check(there[i], folder, "is not there, but later iterations are"):
            sets = expected = None
            continue
        labeled = _check_labeled(folder / "labeled_indices.json", run.counts[i], expected, context, checks)
        sets = None if sets is None or labeled is None else [*sets, labeled]
        metrics = check_metrics(folder / "metrics.json", run, i, labeled, context, checks) or {}
        finished = Finished(run, i, folder, None if sets is None else tuple(sets), metrics)
        query = _check_query(finished, labeled, context, checks)
        expected = None if labeled is None or query is None else np.union1d(labeled, query)
        yield finished


def _first_set(run: Run, context: VerifyContext, checks: Checks) -> NDArray[np.int64] | None:
    """The images that a run had to begin with; None where that is not known."""
    how, n = context.config.cold_start, run.counts[0]
    if draws_at_random(how, n, context.n_train):
        return initial_set(range(context.n_train), n, run.seed)
    try:
        return cold_start_set(how, context.learned(run.seed), n, run.seed)
    except NotKeptError:
        checks.skip(f"first images chosen by {how}, since the features they follow from were not kept")
    except DataError as error:
        checks.check(False, context.cache, str(error))
    return None


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _check_labeled(
    file: Path, count: int, expected: NDArray[np.int64] | None, context: VerifyContext, checks: Checks
) -> NDArray[np.int64] | None:
    """The labeled images as they had to be: ``expected``, or where that is unknown, as in the file."""
    found = checks.json(file, list[int])
    if found is None or not _are_indices(file, found, context, checks):
        return expected
    labeled = np.array(found, dtype=np.int64)
    sound = [
        checks.check(bool((np.diff(labeled) > 0).all()), file, "does not ascend, or repeats an index"),
        checks.check(len(labeled) == count, file, f"holds {len(labeled)} images, the schedule has {count}"),
    ]
    if expected is None:
        return labeled if all(sound) else None
    if all(sound):
        lacks, has = np.setdiff1d(expected, labeled), np.setdiff1d(labeled, expected)
        came_from = "the first draw" if file.parent.name == "iteration_0" else "the query before it"
        checks.check(
            len(lacks) == 0,
            file,
            f"does not follow from {came_from}: lacks {_some(lacks)}, has {_some(has)} instead",
        )
    return expected


def _check_query(
    done: Finished, labeled: NDArray[np.int64] | None, context: VerifyContext, checks: Checks
) -> NDArray[np.int64] | None:
    """The images of a query that holds, as far as that can be told; None where it does not."""
    file, run = done.folder / "query.json", done.run
    is_last = done.iteration + 1 == len(run.counts)
    n = 0 if is_last else run.counts[done.iteration + 1] - run.counts[done.iteration]
    choices = checks.json(file, list[Asked])
    if choices is None:
        return None
    found = [choice["index"] for choice in choices]
    if not _are_indices(file, found, context, checks):
        return None
    indices = np.array(found, dtype=np.int64)
    again = np.intersect1d(indices, [] if labeled is None else labeled)
    sound = [
        checks.check(len(found) == n, file, f"asks for {len(found)} images, the schedule for {n}"),
        checks.check(len(set(found)) == len(found), file, "asks for an image twice"),
        checks.check(len(again) == 0, file, f"asks for images that are labeled already: {_some(again)}"),
        checks.check(
            [choice["rank"] for choice in choices] == list(range(len(choices))),
            file,
            f"its ranks are not 0 to {len(choices) - 1} in order",
        ),
    ]
    if run.strategy in BY_SCORE:
        order = [(-choice["score"], choice["index"]) for choice in choices]
        sound.append(checks.check(order == sorted(order), file, "is not in the order of its scores"))
    if not all(sound):
        return None
    if n and labeled is not None and len(labeled) == run.counts[done.iteration]:
        return indices if _follows(file, choices, done, labeled, context, checks) else None
    return indices


def _follows(
    file: Path,
    choices: Sequence[Asked],
    done: Finished,
    labeled: NDArray[np.int64],
    context: VerifyContext,
    checks: Checks,
) -> bool:
    """Whether a query is the one that the strategy makes of the cached signals; True if that is unknown."""
    run, name = done.run, done.run.name.removesuffix("_sampling")
    try:
        by_group = strategy_of(run.strategy).by_group
    except ConfigError:
        checks.skip(f"queries of {name}, a strategy that is not known here (plugins are not run)")
        return True
    if by_group and context.groups is None:
        checks.skip(f"queries of {name}, since the dataset is not there")
        return True
    key = done.key or "no key"
    signals = kept_signals(context.cache / key[:2] / key / "signals", context.n_train, checks)
    groups = context.groups or ("",) * context.n_train
    learned = None if context.config.pretraining is None else lambda: context.learned(run.seed)
    iteration = run.counts.index(len(labeled))
    try:
        expected = query_from(
            run.strategy,
            groups,
            signals,
            labeled,
            len(choices),
            progress=schedule_progress(iteration, len(run.counts)),
            rng=query_rng(run.seed, run.name, iteration),
            learned=learned,
        )
    except NotKeptError:
        checks.skip(f"whether queries of {run.strategy} follow from their signals, which were not kept")
        return True
    except (DataError, ValueError) as error:  # records of the cache that do not fit each other
        return checks.check(False, context.cache, str(error))
    for rank, (choice, wanted) in enumerate(zip(choices, expected, strict=True)):
        where = f"does not follow from its signals: at rank {rank} it has"
        same = checks.check(
            choice["index"] == wanted["index"],
            file,
            f"{where} image {choice['index']}, expected {wanted['index']}",
        ) and checks.check(
            math.isclose(choice["score"], wanted["score"], rel_tol=ROUNDING, abs_tol=ROUNDING),
            file,
            f"{where} score {choice['score']}, expected {wanted['score']}",
        )
        if not same:
            return False
    return True


def _are_indices(file: Path, found: Sequence[int], context: VerifyContext, checks: Checks) -> bool:
    bad = [index for index in found if not 0 <= index < context.n_train]
    return checks.check(
        not bad, file, f"holds {_some(bad)}: not an index of the {context.n_train:,} training images"
    )


def _some(values: Sequence[Any] | NDArray[np.int64]) -> str:
    shown = ", ".join(str(value)[:20] for value in list(values)[:3])
    return shown + ("" if len(values) <= 3 else f" and {len(values) - 3} more")
