"""Finished runs of an experiment, read back from its folder and checked to be comparable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.acquisition import STRATEGIES
from cryoquery.acquisition.label_cost import LabelCost
from cryoquery.active.iteration import is_finished
from cryoquery.active.run import Run
from cryoquery.data.dataset import MicrographKey
from cryoquery.errors import DataError, ExperimentError
from cryoquery.experiment.config import EQUAL_STEPS, FULL_SUPERVISION, PROGRESSIVE, RecordedConfig
from cryoquery.experiment.folder import planned_runs, read_config, read_environment
from cryoquery.storage.atomic import read_json

RANDOM = "random_sampling"
STRATIFIED = "stratified_random_sampling"
OPPONENTS = (RANDOM, STRATIFIED)
"""What a strategy is held against: they look at no network."""
COUNTS = ("pixel_tp", "pixel_fp", "pixel_fn")
"""What `metrics.json` counts on each held-out micrograph."""

_ORDER = [f"{name}_sampling" for name in STRATEGIES] + [PROGRESSIVE, FULL_SUPERVISION, EQUAL_STEPS]


@dataclass(frozen=True)
class LearningCurve:
    """The scores of one run over its iterations."""

    run: str
    seed: int
    folder: Path
    iterations: tuple[Mapping[str, Any], ...]
    """`metrics.json` of each iteration, in order, without ``per_micrograph``."""
    labeled: tuple[NDArray[np.int64], ...] | None
    """The labeled images of each iteration; None where the files are not there."""
    counts: Mapping[MicrographKey, NDArray[np.int64]]
    """For each held-out micrograph (iterations, len(COUNTS)); empty where they were not counted."""

    def values(self, metric: str) -> NDArray[np.float64]:
        """A number of every iteration, (n,)."""
        return np.array([metrics[metric] for metrics in self.iterations], dtype=np.float64)

    @property
    def fractions(self) -> NDArray[np.float64]:
        """Labeled share of the training images, (n,) in (0, 1]."""
        return self.values("labeled_fraction")

    def queried(self, iteration: int) -> NDArray[np.int64]:
        """The images that were new in an iteration (from 1 on), ascending."""
        assert self.labeled is not None, "the caller knows that the labeled sets are there"
        return np.setdiff1d(self.labeled[iteration], self.labeled[iteration - 1])


@dataclass(frozen=True)
class Results:
    """What an experiment has to show so far."""

    config: RecordedConfig
    environment: Mapping[str, Any]
    curves: tuple[LearningCurve, ...]
    """Runs that are finished, in an order that the configuration has no influence on."""
    unfinished: tuple[str, ...]
    """Runs that are not, with how far they got."""

    @property
    def split(self) -> str:
        """The held-out split that is reported."""
        return str(self.environment["splits"][0])

    @property
    def label_cost(self) -> LabelCost:
        """What a label is taken to cost."""
        return self.config.label_cost

    def runs(self) -> list[str]:
        """Names of the runs with a curve: those of the table of strategies, the baselines last."""
        return list(dict.fromkeys(curve.run for curve in self.curves))

    def judged(self) -> list[str]:
        """Those of the runs that are strategies to be judged, not baselines."""
        return [n for n in self.runs() if n.endswith("_sampling") and n not in OPPONENTS]

    def of(self, run: str) -> list[LearningCurve]:
        """The curves of one run, by seed."""
        return [curve for curve in self.curves if curve.run == run]

    def seeds(self, *runs: str) -> list[int]:
        """Seeds that all of these runs have, ascending."""
        having = [{curve.seed for curve in self.of(run)} for run in runs or self.runs()]
        return sorted(set.intersection(*having)) if having else []

    def seeds_of_any(self) -> list[int]:
        """Seeds that at least one run has, ascending."""
        return sorted({curve.seed for curve in self.curves})

    def full_supervision(self) -> Mapping[int, Mapping[str, Any]]:
        """Metrics of full supervision by seed."""
        return self.at_end(FULL_SUPERVISION)

    def at_end(self, run: str) -> Mapping[int, Mapping[str, Any]]:
        """Metrics of the last iteration of a run by seed."""
        return {curve.seed: curve.iterations[-1] for curve in self.of(run)}

    @cached_property
    def identical(self) -> list[list[str]]:
        """Groups of two or more strategies that labeled the same images in all iterations and seeds."""
        groups: list[list[str]] = []
        for run in self.runs():
            if not run.endswith("_sampling"):
                continue
            for group in groups:
                if self._same(group[0], run):
                    group.append(run)
                    break
            else:
                groups.append([run])
        return [group for group in groups if len(group) > 1]

    @cached_property
    def first_of_identical(self) -> dict[str, str]:
        """For each strategy that repeats another one, the first of those it is identical with."""
        return {run: group[0] for group in self.identical for run in group[1:]}

    def _same(self, a: str, b: str) -> bool:
        mine, theirs = ({curve.seed: curve for curve in self.of(run)} for run in (a, b))
        if mine.keys() != theirs.keys():
            return False
        pairs = [(mine[seed].labeled or (), theirs[seed].labeled or ()) for seed in mine]
        return all(len(x) == len(y) >= 2 and all(map(np.array_equal, x, y)) for x, y in pairs)


def read_results(
    experiment: Path | str, label_cost: LabelCost | Mapping[str, float] | None = None
) -> Results:
    """Read the finished runs of an experiment's folder.

    Raises:
        ExperimentError: the folder holds no experiment, no run in it is finished, or its runs were
            not made alike (dataset, split, model, training or schedule differ).
        DataError: a file of a finished run is damaged.
    """
    experiment = Path(experiment)
    config = read_config(experiment)
    environment = read_environment(experiment)
    if not isinstance(label_cost, LabelCost):
        label_cost = LabelCost(**(config.label_cost.model_dump() | dict(label_cost or {})))
    config = config.model_copy(update={"label_cost": label_cost})
    curves, unfinished = [], []
    for run in planned_runs(config):
        folders = [run.folder / f"iteration_{i}" for i in range(len(run.counts))]
        n_done = sum(is_finished(folder) for folder in folders)
        if n_done == len(folders):
            curves.append(_read_curve(run, folders))
        else:
            unfinished.append((run, f"{n_done} of {len(folders)} iterations"))
    if not curves:
        raise ExperimentError(f"{experiment}: no run is finished yet; run the experiment again to go on")
    for curve in curves:
        _check_made_alike(curve, config, environment)
    curves.sort(key=lambda curve: (_place(curve.run), curve.seed))
    unfinished.sort(key=lambda item: (_place(item[0].name), item[0].seed))
    return Results(
        config,
        environment,
        tuple(curves),
        tuple(f"{label(run.name)}, seed {run.seed}: {done}" for run, done in unfinished),
    )


SCORES = ("f1", "precision", "recall", "iou", "auc", "particle_f1", "particle_precision", "particle_recall")
NEEDED = (*SCORES, "labeled_fraction", "n_labeled_images", "n_labeled_particles")


def _place(run: str) -> tuple[int, str]:
    return (_ORDER.index(run) if run in _ORDER else len(_ORDER), run)


def _read_curve(run: Run, folders: Sequence[Path]) -> LearningCurve:
    iterations, labeled = [], []
    by_micrograph: dict[MicrographKey, list[list[int]]] = {}
    for folder, count in zip(folders, run.counts, strict=True):
        metrics = read_json(folder / "metrics.json")
        _check_complete(metrics, run, folder / "metrics.json")
        if metrics["n_labeled_images"] != count:
            raise ExperimentError(
                f"{folder}: has {metrics['n_labeled_images']} labeled images where the schedule of "
                f"config.toml has {count}; runs of another schedule cannot be compared"
            )
        for record in metrics.pop("per_micrograph", ()):
            key = (record["group"], record["micrograph"])
            by_micrograph.setdefault(key, []).append([record[name] for name in COUNTS])
        iterations.append({name: _without_micrographs(value) for name, value in metrics.items()})
        if (folder / "labeled_indices.json").is_file():
            labeled.append(np.array(read_json(folder / "labeled_indices.json"), dtype=np.int64))
    if any(len(rows) != len(folders) for rows in by_micrograph.values()):
        raise ExperimentError(f"{run.folder}: its iterations were measured on different micrographs")
    return LearningCurve(
        run.name,
        run.seed,
        run.folder,
        tuple(iterations),
        tuple(labeled) if len(labeled) == len(folders) else None,
        {key: np.array(rows, dtype=np.int64) for key, rows in sorted(by_micrograph.items())},
    )


def _check_complete(metrics: Any, run: Run, file: Path) -> None:
    """Refuse metrics that lack a number, or that another run left in this folder."""
    bad = [name for name in NEEDED if not isinstance(metrics.get(name), int | float)]
    if bad:
        raise DataError(
            f"{file}: {bad[0]} is {metrics.get(bad[0])!r}, not a number; run this iteration again"
        )
    for name, expected in (("seed", run.seed), ("run", run.name)):
        if metrics.get(name, expected) != expected:
            raise ExperimentError(
                f"{file}: is of {name} {metrics[name]!r}, in the folder of {expected!r}; move it to its place"
            )


def _without_micrographs(value: Any) -> Any:
    """Scores of another split, without those of its micrographs: they are not needed here."""
    return {k: v for k, v in value.items() if k != "per_micrograph"} if isinstance(value, dict) else value


def _check_made_alike(curve: LearningCurve, config: RecordedConfig, environment: Mapping[str, Any]) -> None:
    """Refuse a run that was made with other data, measured elsewhere, or trained in another way."""
    expected = {
        "dataset_fingerprint": environment.get("dataset_fingerprint"),
        "split": environment["splits"][0],
    }
    protocol = config.protocol()
    for metrics in curve.iterations:
        differences = [
            f"{name.replace('_', ' ')} {str(metrics[name])[:12]} instead of {str(value)[:12]}"
            for name, value in expected.items()
            if metrics.get(name) is not None and value is not None and metrics[name] != value
        ]
        for part, values in (metrics.get("protocol") or {}).items():
            values, wanted = values or {}, protocol.get(part) or {}
            differences += [
                f"{part}.{key} {values.get(key)} instead of {wanted.get(key)}"
                for key in sorted({*values, *wanted})
                if values.get(key) != wanted.get(key)
            ]
        if differences:
            raise ExperimentError(
                f"{label(curve.run)}, seed {curve.seed} ({curve.folder}): cannot be compared with this "
                f"experiment, it was made with {'; '.join(differences)}; move it out of the folder"
            )


def label(run: str) -> str:
    """The name of a run as people write it."""
    special = {
        PROGRESSIVE: "Progressive Supervised",
        FULL_SUPERVISION: "Full Supervision",
        EQUAL_STEPS: "Full Supervision, Equal Steps",
    }
    return special.get(run, run.replace("_", " ").title())


def short_label(run: str) -> str:
    """The name of a run where space is scarce."""
    return label(run).removesuffix(" Sampling").removesuffix(" Supervised").removesuffix(" Supervision")


def mean_and_std(values: Sequence[float]) -> dict[str, float | None]:
    """Mean over seeds, and the sample standard deviation where there are two seeds or more."""
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
    }
