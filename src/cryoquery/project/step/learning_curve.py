"""Picks on the held-out micrographs that people labeled: the learning curve of a project."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.data.dataset import Dataset
from cryoquery.network.predict import Predictor
from cryoquery.picking.evaluate import match_picks, predict_examples, predict_micrographs
from cryoquery.picking.picker import Picker

N_COMPARED = 32
"""Pool images on which two models are compared."""

Counts = Mapping[str, Mapping[str, int]]
"""For each held-out micrograph, named as by `names`: ``n_picks``, ``n_particles``, ``n_matched``."""


def names(dataset: Dataset, seqs: Mapping[str, int]) -> dict[str, list[int]]:
    """The rows of each held-out micrograph, under a name that changes when its labels do."""
    by_key: dict[tuple[str, str], list[int]] = {}
    for row in dataset.rows("val").tolist():
        by_key.setdefault(dataset.records[row].key, []).append(row)
    return {
        " ".join([*key, *(f"{row}:{seqs[str(row)]}" for row in rows)]): rows for key, rows in by_key.items()
    }


def counts_of(
    per_micrograph: Sequence[Mapping[str, Any]], held_out: Mapping[str, list[int]], dataset: Dataset
) -> dict[str, dict[str, int]]:
    """The counts of a model on each of the ``held_out`` micrographs, from what its evaluation recorded.

    Args:
        per_micrograph: records of `picking.evaluate.evaluate`, with counts at the threshold it picks with.
        held_out: from `names`.
        dataset: of the labels.
    """
    by_key = {(record["group"], record["micrograph"]): record for record in per_micrograph}
    found = {}
    for name, rows in held_out.items():
        record = by_key[dataset.records[rows[0]].key]
        found[name] = {
            "n_picks": record["n_tuned_picks"],
            "n_particles": record["n_particles"],
            "n_matched": record["n_tuned_matched"],
        }
    return found


def measure(
    picker: Picker,
    dataset: Dataset,
    held_out: Mapping[str, list[int]],
    known: Counts,
    watch: Callable[[int], None] = lambda n_images: None,
) -> dict[str, dict[str, int]]:
    """How well an earlier ``picker`` picks the ``held_out`` micrographs, at the threshold it picks with.

    Args:
        picker: of an earlier step.
        dataset: of the labels.
        held_out: from `names`.
        known: what was measured of the same model earlier; not measured again.
        watch: told how many images each batch had.
    """
    rows = [row for name, its in held_out.items() if name not in known for row in its]
    found = {name: dict(known[name]) for name in held_out if name in known}
    name_of = {row: name for name, its in held_out.items() for row in its}
    for predicted in predict_micrographs(picker.predictor, dataset, np.array(rows, dtype=np.int64), watch):
        matches = match_picks(dataset, predicted, picker.recipe.raw_threshold)
        found[name_of[next(iter(predicted.logits))]] = {
            "n_picks": matches.n_picks,
            "n_particles": matches.n_truth,
            "n_matched": matches.n_matched,
        }
    return {name: found[name] for name in held_out}


def f1_of(counts: Mapping[str, int]) -> float | None:
    """F1 of one micrograph; None where there is neither a particle nor a pick."""
    total = counts["n_picks"] + counts["n_particles"]
    return 2 * counts["n_matched"] / total if total else None


def compared_rows(dataset: Dataset, seed: int) -> NDArray[np.int64]:
    """Images of the pool on which all models of a project are compared: always the same."""
    rows = dataset.rows("train")
    chosen = np.random.default_rng([seed, 1]).permutation(rows)[:N_COMPARED]
    return np.sort(chosen)


def agreement(before: Predictor, now: Predictor, dataset: Dataset, rows: NDArray[np.int64]) -> float | None:
    """F1 between the pixels that two models hold for particles on ``rows``; None where there are none."""
    n_both, n_all = 0, 0
    for row in rows.tolist():
        record = dataset.records[row]
        content = np.s_[:, : record.content_height, : record.content_width]
        one = np.array([row])
        maps = [predict_examples(model, dataset, one)[content] >= 128 for model in (before, now)]
        n_both += int((maps[0] & maps[1]).sum())
        n_all += int(maps[0].sum() + maps[1].sum())
    return 2 * n_both / n_all if n_all else None
