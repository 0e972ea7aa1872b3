"""Finished runs of an experiment, read back from its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.config import parse, read_toml
from cryoquery.errors import ExperimentError
from cryoquery.experiment import FULL_SUPERVISION, PROGRESSIVE, ExperimentConfig, plan_runs
from cryoquery.loop import is_finished
from cryoquery.records import read_json


@dataclass(frozen=True)
class LearningCurve:
    """The scores of one run over its iterations."""

    run: str
    seed: int
    iterations: tuple[Mapping[str, Any], ...]
    """`metrics.json` of each iteration, in order."""

    def values(self, metric: str) -> NDArray[np.float64]:
        """A number of every iteration, (n,)."""
        return np.array([metrics[metric] for metrics in self.iterations], dtype=np.float64)

    @property
    def fractions(self) -> NDArray[np.float64]:
        """Labelled share of the training images, (n,) in (0, 1]."""
        return self.values("labeled_fraction")


@dataclass(frozen=True)
class Results:
    """What an experiment has to show so far."""

    config: ExperimentConfig
    environment: Mapping[str, Any]
    curves: tuple[LearningCurve, ...]
    """Runs that are finished, in the order of the configuration."""
    unfinished: tuple[str, ...]
    """Runs that are not, with how far they got."""

    def runs(self) -> list[str]:
        """Names of the runs with a curve, in order, full supervision last."""
        names = list(dict.fromkeys(curve.run for curve in self.curves))
        return sorted(names, key=lambda name: name == FULL_SUPERVISION)

    def of(self, run: str) -> list[LearningCurve]:
        """The curves of one run, by seed."""
        return sorted((curve for curve in self.curves if curve.run == run), key=lambda curve: curve.seed)

    def full_supervision(self) -> Mapping[int, Mapping[str, Any]]:
        """Metrics of full supervision by seed."""
        return {curve.seed: curve.iterations[-1] for curve in self.of(FULL_SUPERVISION)}


def read_results(experiment: Path | str) -> Results:
    """Read the finished runs of an experiment's folder.

    Raises:
        ExperimentError: the folder holds no experiment, or no run in it is finished.
    """
    experiment = Path(experiment)
    config_file = experiment / "config.toml"
    if not config_file.is_file():
        raise ExperimentError(f"{experiment}: holds no experiment (no config.toml); give the folder of one")
    environment = read_json(experiment / "environment.json")
    config = parse(ExperimentConfig, read_toml(config_file), str(config_file))
    config = config.model_copy(update={"out": experiment})
    curves, unfinished = [], []
    for run in plan_runs(config, environment["n_train_images"]):
        folders = [run.folder / f"iteration_{i}" for i in range(len(run.counts))]
        n_done = sum(is_finished(folder) for folder in folders)
        if n_done == len(folders):
            metrics = tuple(read_json(folder / "metrics.json") for folder in folders)
            curves.append(LearningCurve(run.name, run.seed, metrics))
        else:
            unfinished.append(f"{run.name}, seed {run.seed}: {n_done} of {len(folders)} iterations")
    if not curves:
        raise ExperimentError(f"{experiment}: no run is finished yet; run the experiment again to go on")
    return Results(config, environment, tuple(curves), tuple(unfinished))


def label(run: str) -> str:
    """The name of a run as people write it."""
    special = {PROGRESSIVE: "Progressive Supervised", FULL_SUPERVISION: "Full Supervision"}
    return special.get(run, run.replace("_", " ").title())


def mean_and_std(values: Sequence[float]) -> dict[str, float | None]:
    """Mean over seeds, and the sample standard deviation where there are two seeds or more."""
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
    }
