"""A ceiling for strategies: greedy selection that knows the labels.

Each run begins with the same images as every other. In each iteration K batches of the schedule's size are
drawn, at random and in equal shares of the groups in turn; a network is trained with each, and the batch is
kept whose network has the highest mean over groups of pixel F1 on the held-out split that is not reported.
All trainings are those of the loop. The result is scored on the reported split.

It is greedy and looks at K batches only, so that it bounds what choosing among such batches can gain; a
strategy may in principle be better. Choosing by a finite split also chooses lucky trainings: what remains of
the luck on the reported split is in the curve.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.active.iteration import SCORES
from cryoquery.active.loop import initial_set
from cryoquery.active.oracles import SimulatedOracle
from cryoquery.active.run import Context, Run
from cryoquery.active.training import train_and_evaluate
from cryoquery.data.dataset import open_dataset
from cryoquery.errors import ExperimentError
from cryoquery.experiment.folder import enter, equip
from cryoquery.report.runs import COUNTS, LearningCurve
from cryoquery.storage.atomic import read_json, write_json

ORACLE = "greedy_oracle_sampling"
FOLDER = "oracle_bound"


def read_bounds(experiment: Path) -> list[LearningCurve]:
    """The curves that `oracle_bound` left in the folder of an experiment."""
    curves = []
    for file in sorted((experiment / FOLDER).glob("seed_*.json")):
        found = read_json(file)
        per_micrograph: dict[tuple[str, str], list[list[int]]] = {}
        for metrics in found["iterations"]:
            for record in metrics.pop("per_micrograph"):
                key = (record["group"], record["micrograph"])
                per_micrograph.setdefault(key, []).append([record[name] for name in COUNTS])
        counts = {key: np.array(rows, dtype=np.int64) for key, rows in sorted(per_micrograph.items())}
        labeled = tuple(np.array(rows, dtype=np.int64) for rows in found["labeled"])
        iterations = tuple(found["iterations"])
        curves.append(LearningCurve(ORACLE, found["seed"], experiment, iterations, labeled, counts))
    return sorted(curves, key=lambda curve: curve.seed)


def oracle_bound(
    folder: Path, n_batches: int, seeds: Sequence[int], say: Callable[[str], None] = print
) -> None:
    """Choose greedily among ``n_batches`` of each iteration by what training with them gives.

    Raises:
        ExperimentError: the experiment has no second held-out split to choose on.
    """
    config = enter(folder)
    dataset = open_dataset(config.dataset)
    with tempfile.TemporaryDirectory() as place:
        context = equip(config.model_copy(update={"out": Path(place), "cache": None}), dataset)
        if len(context.splits) < 2:
            raise ExperimentError(
                f"{dataset.path}: has one held-out split; the oracle needs another to choose on"
            )
        counts = config.schedule.resolve(len(context.pool))
        for seed in seeds:
            file = folder / FOLDER / f"seed_{seed}.json"
            run = Run(ORACLE, "random", seed, counts, Path(place) / f"seed_{seed}")
            if not file.is_file():
                file.parent.mkdir(exist_ok=True)
                write_json(
                    file, greedy(run, context, n_batches, say) | {"seed": seed, "n_batches": n_batches}
                )


def greedy(run: Run, context: Context, n_batches: int, say: Callable[[str], None]) -> dict[str, Any]:
    """One run of the oracle: its labeled sets, and the scores of each iteration."""
    answers = SimulatedOracle(context.dataset)
    answers.ask(np.arange(len(context.pool)))
    sets = [initial_set(context.pool, run.counts[0], run.seed)]
    records = [scored(run, context, answers, sets)]
    for count in run.counts[1:]:
        batches = drawn(context.pool.groups, sets[-1], count - len(sets[-1]), n_batches, run.seed)
        tried = []
        for batch in batches:
            both = [*sets, np.union1d(sets[-1], batch)]
            tried.append((scored(run, context, answers, both), both))
        best = max(range(len(tried)), key=lambda i: other_f1(tried[i][0], context.splits[1]))
        record, sets = tried[best]
        records.append(record)
        say(f"seed {run.seed}, {count} labeled: F1 {record['f1']:.3f}, batch {best} of {n_batches}")
    return {"labeled": [labeled.tolist() for labeled in sets], "iterations": records}


def scored(
    run: Run, context: Context, answers: SimulatedOracle, sets: Sequence[NDArray[np.int64]]
) -> dict[str, Any]:
    """What `metrics.json` would say of a training on the last of ``sets``."""
    entry, _ = train_and_evaluate(run, context, answers, sets)
    record = read_json(entry / SCORES)
    costs = {
        "n_labeled_images": len(sets[-1]),
        "n_labeled_particles": answers.n_particles(sets[-1]),
        "labeled_fraction": len(sets[-1]) / len(context.pool),
    }
    return {**record, **costs}


def other_f1(record: Mapping[str, Any], split: str) -> float:
    """Mean over groups of F1 on the split that the oracle chooses on."""
    return float(np.mean([scores["f1"] for scores in record[split]["per_group"].values()]))


def drawn(
    groups: Sequence[str], labeled: NDArray[np.int64], n: int, n_batches: int, seed: int
) -> list[NDArray[np.int64]]:
    """Batches of ``n`` unlabeled images: at random and in equal shares of the groups, in turn."""
    free = np.setdiff1d(np.arange(len(groups)), labeled)
    rng = np.random.default_rng([seed, len(labeled), n_batches])
    batches = []
    for i in range(n_batches):
        order = rng.permutation(free)
        if i % 2:
            place: dict[str, int] = {}
            turns = []
            for index in order.tolist():
                place[groups[index]] = turn = place.get(groups[index], -1) + 1
                turns.append(turn)
            order = order[np.argsort(turns, kind="stable")]
        batches.append(order[:n])
    return batches
