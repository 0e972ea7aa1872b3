"""The folder of a finished iteration, which appears whole or not at all.

::

    iteration_3/
      model.pt               the weights, with the configuration that made them
      metrics.json           scores on held-out images, costs, provenance
      labeled_indices.json   the images it was trained on
      query.json             the images to label next: index, score, rank, reason
      examples.npz           predictions on a few fixed held-out images, for the report
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.active.run import Context
from cryoquery.errors import DataError, ExperimentError
from cryoquery.storage.atomic import (
    SupersededError,
    link,
    read_json,
    sha256,
    staged_directory,
    write_json,
)
from cryoquery.storage.cache import read_columns

MODEL, SCORES, EXAMPLES, SNAPSHOTS = "model.pt", "scores.json", "examples.npz", "snapshots.pt"
"""Files of a training in the cache; an iteration has all but the snapshots, its scores in `metrics.json`."""


@dataclass(frozen=True)
class FinishedIteration:
    """What a finished iteration left on disk."""

    folder: Path
    labeled: NDArray[np.int64]
    query: NDArray[np.int64]
    metrics: dict[str, Any]


def write_iteration(
    folder: Path,
    entry: Path,
    labeled: NDArray[np.int64],
    query: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> None:
    """Write the folder of an iteration: the training in ``entry``, its labeled images and its query."""
    # Another process that took over while this one was suspended writes the same result.
    with suppress(SupersededError), staged_directory(folder) as staged:
        for name in (MODEL, EXAMPLES):
            link(entry / name, staged / name)
        write_json(staged / "labeled_indices.json", labeled.tolist())
        write_json(staged / "query.json", query)
        write_json(staged / "metrics.json", read_json(entry / SCORES) | dict(facts))


def return_to_cache(folder: Path, facts: Mapping[str, Any], context: Context) -> None:
    """Give the cache a training that a finished iteration has and the cache has lost."""
    key = facts["training_key"]
    if context.cache.has(key) or not (folder / MODEL).is_file() or context.training.snapshots:
        return  # an iteration has no snapshots
    with _reading(folder):
        metrics = read_json(folder / "metrics.json")
        same, digest = metrics["training_key"] == key, metrics["model_sha256"]
    if not same or sha256(folder / MODEL) != digest:
        return  # damaged: it is trained again when it is needed
    try:
        read_columns(folder / EXAMPLES)
    except DataError:
        return

    def make(entry: Path) -> None:
        for name in (MODEL, EXAMPLES):
            link(folder / name, entry / name)
        own = {*facts, "seconds", "reused"}
        write_json(entry / SCORES, {name: value for name, value in metrics.items() if name not in own})

    context.cache.obtain(key, make)


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Name the remedy where the files of a finished iteration cannot be read.

    Raises:
        DataError: the block could not.
    """
    try:
        yield
    except DataError as error:
        raise DataError(f"{error}; remove the folder {folder} and run again") from None
    except (LookupError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{folder}: files are damaged ({reason}); remove this folder and run again") from None


def is_finished(folder: Path) -> bool:
    """Whether an iteration is there.

    Raises:
        ExperimentError: it appeared whole, but files were taken out of it.
    """
    if (folder / "metrics.json").is_file():
        return True
    if folder.exists() and any(folder.iterdir()):
        raise ExperimentError(f"{folder}: has no metrics.json; remove this folder and run again")
    return False


def read_iteration(
    folder: Path, expected: NDArray[np.int64] | None = None, n_wanted: int | None = None
) -> FinishedIteration:
    """What a finished iteration left on disk.

    Raises:
        DataError: a file is missing or damaged, or does not ask for ``n_wanted`` new images.
        ExperimentError: it was trained on other images than ``expected``.
    """
    with _reading(folder):
        labeled = np.array(read_json(folder / "labeled_indices.json"), dtype=np.int64)
        query = np.array([choice["index"] for choice in read_json(folder / "query.json")], dtype=np.int64)
        metrics = read_json(folder / "metrics.json")
        float(metrics["f1"]), str(metrics["training_key"])
    if expected is not None and not np.array_equal(labeled, expected):
        raise ExperimentError(
            f"{folder}: was trained on other images than the query before it asks for; "
            "remove this folder and those after it, and run again"
        )
    n_new = len(np.setdiff1d(query, labeled))
    if n_wanted is not None and not len(query) == n_new == n_wanted:
        raise DataError(
            f"{folder / 'query.json'}: asks for {n_new} new images, the schedule for {n_wanted}; "
            f"remove the folder {folder} and run again"
        )
    return FinishedIteration(folder, labeled, query, metrics)
