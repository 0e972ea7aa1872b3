"""An experiment: strategies × seeds and their baselines, in one folder, resumed by running it again."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import tomli_w
import torch
from pydantic import Field, field_validator, model_validator

from cryoquery.acquisition.strategies import check_known
from cryoquery.claims import alone
from cryoquery.config import CheckedModel, parse, read_toml
from cryoquery.data.dataset import Dataset, open_dataset
from cryoquery.device import DeviceConfig, describe
from cryoquery.errors import ConfigError, DataError, ExperimentError
from cryoquery.loop import MODEL, Iteration, Laboratory, Run, active_learning
from cryoquery.model import ModelConfig
from cryoquery.oracles import LabelCost, SimulatedOracle
from cryoquery.progress import Progress, Silent
from cryoquery.records import read_json, remove_leftovers, write_json, write_text
from cryoquery.store import Store
from cryoquery.train import TrainingConfig

FULL_SUPERVISION = "full_supervision"
PROGRESSIVE = "progressive_supervised"
OWN_STORE = ".store"


class Schedule(CheckedModel):
    """How many images are labelled in each iteration: by count, or by fraction of the training images."""

    counts: tuple[int, ...] | None = None
    fractions: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> Schedule:
        if (self.counts is None) == (self.fractions is None):
            raise ValueError("give either counts or fractions")
        steps: tuple[float, ...] = self.counts or self.fractions or ()
        if not steps or steps[0] <= 0 or any(b <= a for a, b in pairwise(steps)):
            raise ValueError(f"{list(steps)}: must be positive and increase")
        if self.fractions and self.fractions[-1] > 1:
            raise ValueError(f"fractions {list(self.fractions)}: must not exceed 1")
        return self

    def resolve(self, n_train: int) -> tuple[int, ...]:
        """Counts for a pool of ``n_train`` images; fractions are rounded half up.

        Raises:
            ConfigError: the pool is smaller than the schedule asks for, or too small to tell its steps apart.
        """
        if self.counts is not None:
            if self.counts[-1] > n_train:
                raise ConfigError(
                    f"schedule.counts: {self.counts[-1]} images are to be labelled, the pool has {n_train}; "
                    "use fractions, or counts up to that number"
                )
            return self.counts
        counts = tuple(int(fraction * n_train + 0.5) for fraction in self.fractions or ())
        if counts[0] < 1 or len(set(counts)) < len(counts):
            raise ConfigError(
                f"schedule.fractions: give {list(counts)} images of a pool of {n_train}; "
                "use fewer or larger steps"
            )
        return counts


class ExperimentConfig(CheckedModel):
    """Everything an experiment is made of. The defaults are those of the protocol."""

    dataset: Path
    """Folder of the dataset, relative to the working directory."""
    out: Path = Path("experiments/active_learning")
    """Folder for the results."""
    store: Path | None = None
    """Folder of finished trainings that experiments share; None: one in ``out``, for this one alone."""
    strategies: tuple[str, ...] = ("uncertainty", "entropy", "margin", "diversity", "hybrid", "random")
    baselines: tuple[Literal["full_supervision", "progressive_supervised"], ...] = (
        "full_supervision",
        "progressive_supervised",
    )
    seeds: tuple[int, ...] = (42, 43, 44)
    image_size: int | None = Field(default=None, ge=16, multiple_of=16)
    """Height and width the images must have; lets the plan be estimated before the data are there."""
    report_split: Literal["auto", "val", "test"] = "auto"
    """Split of the reported scores; auto: val where there is one, else test. The other is shown beside."""
    keep_models: Literal["all", "last", "none"] = "all"
    """Which `model.pt` stay once all runs of a seed are finished."""
    schedule: Schedule = Schedule(fractions=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0))
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    device: DeviceConfig = DeviceConfig()
    label_cost: LabelCost = LabelCost()
    """From labels to minutes, in the report."""

    @field_validator("strategies")
    @classmethod
    def _known_and_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            check_known(name)
        if len(set(names)) < len(names):
            raise ValueError("a strategy stands in the list twice; remove one")
        return names

    @field_validator("seeds")
    @classmethod
    def _some_and_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or min(seeds) < 0 or max(seeds) >= 2**63 or len(set(seeds)) < len(seeds):
            raise ValueError("give at least one seed, none below 0 or above 2⁶³ − 1, none twice")
        return seeds

    @model_validator(mode="after")
    def _something_to_do(self) -> ExperimentConfig:
        if not self.strategies and not self.baselines:
            raise ValueError("strategies and baselines are both empty; name at least one")
        return self

    def protocol(self) -> dict[str, Any]:
        """What all runs must have in common to be compared: the network, and how it is trained."""
        return {name: getattr(self, name).model_dump(mode="json") for name in ("model", "training")}


def load_config(path: Path | str, **changes: Any) -> ExperimentConfig:
    """Read an experiment's TOML file; ``changes`` replace its keys where they are not None.

    Raises:
        ConfigError: the file cannot be read, has an unknown key, or a value that cannot be used.
    """
    path = Path(path)
    values = read_toml(path) | {key: value for key, value in changes.items() if value is not None}
    return parse(ExperimentConfig, values, str(path))


def plan_runs(config: ExperimentConfig, n_train: int) -> list[Run]:
    """All runs of an experiment on ``n_train`` training images, seed by seed.

    Raises:
        ConfigError: the schedule does not fit the number of images.
    """
    counts = config.schedule.resolve(n_train)
    runs = []
    for seed in config.seeds:
        plans: list[tuple[str, str, tuple[int, ...], bool]] = [
            (f"{name}_sampling", name, counts, False) for name in config.strategies
        ]
        if FULL_SUPERVISION in config.baselines:
            plans.append((FULL_SUPERVISION, "random", (n_train,), True))
        if PROGRESSIVE in config.baselines:
            plans.append((PROGRESSIVE, "random", counts, True))
        for name, strategy, run_counts, from_scratch in plans:
            folder = config.out / name
            if len(config.seeds) > 1:
                folder /= f"seed_{seed}"
            runs.append(Run(name, strategy, seed, run_counts, folder, from_scratch))
    return runs


def run_experiment(
    config: ExperimentConfig | Mapping[str, Any] | Path | str, progress: Progress | None = None
) -> Path:
    """Run an experiment, or what is left of it, and return its folder.

    Args:
        config: a configuration, its values, or the path of a TOML file with them.
        progress: who is told how it goes.

    Raises:
        ConfigError: a key or value that cannot be used.
        DataError: the dataset is missing, damaged, or not the one the experiment began with.
        ExperimentError: the folder holds another experiment.
    """
    if isinstance(config, (str, Path)):
        config = load_config(config)
    elif isinstance(config, Mapping):
        config = parse(ExperimentConfig, config, "config")
    dataset = open_dataset(config.dataset)
    dataset.check_unchanged()
    lab = Laboratory(
        dataset=dataset,
        model=config.model,
        training=config.training,
        fabric=config.device.fabric(),
        splits=reported_splits(config, dataset),
        store=Store(config.store or config.out / OWN_STORE),
        device=config.device,
        progress=progress or Silent(),
        protocol=config.protocol(),
    )
    check_image_size(config, dataset)
    runs = plan_runs(config, len(lab.pool))
    with alone(config.out, lab.progress.waiting):
        remove_leftovers(config.out, alone=True)
        _open_folder(config, lab)
        for seed in config.seeds:
            finished = [
                active_learning(run, lab, SimulatedOracle(dataset)) for run in runs if run.seed == seed
            ]
            for iterations in finished:
                _drop_models(iterations, config.keep_models, lab.store if config.store is None else None)
    return config.out


def reported_splits(config: ExperimentConfig, dataset: Dataset) -> tuple[str, ...]:
    """The held-out splits that a dataset has, the reported one first.

    Raises:
        ConfigError: the dataset has no held-out images, or not the split that is to be reported.
    """
    held_out = [split for split in ("val", "test") if len(dataset.rows(split))]
    if not held_out:
        raise ConfigError(f"{dataset.path}: has no images in val or test; import it with --test-fraction")
    reported = held_out[0] if config.report_split == "auto" else config.report_split
    if reported not in held_out:
        raise ConfigError(f"report_split={reported!r}: {dataset.path} has only {', '.join(held_out)}")
    return (reported, *(split for split in held_out if split != reported))


def check_image_size(config: ExperimentConfig, dataset: Dataset) -> None:
    """Refuse a dataset whose images are not of the size the configuration states.

    Raises:
        ConfigError: they are not.
    """
    shape = dataset.images.shape[1:]
    if config.image_size is not None and shape != (config.image_size, config.image_size):
        raise ConfigError(
            f"image_size={config.image_size}: the images of {dataset.path} are {shape[0]}×{shape[1]}; "
            "import them at that size, or change image_size"
        )


def _open_folder(config: ExperimentConfig, lab: Laboratory) -> None:
    """Begin the experiment's folder, or check that it holds this experiment."""
    out = config.out
    config_file, environment_file = out / "config.toml", out / "environment.json"
    foreign = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    if foreign - {"config.toml", "environment.json"} and not config_file.is_file():
        raise ExperimentError(f"{out}: holds other files and no experiment; choose another folder with --out")
    if next(out.rglob("metrics.json"), None) is None:  # nothing is finished: anything may still change
        write_json(environment_file, _environment(lab))
    else:
        before = parse(ExperimentConfig, read_toml(config_file), str(config_file))
        _check_same(before, config)
        _check_same_ground(read_json(environment_file), lab, out)
        config = _united(before, config)
    write_text(config_file, tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))


def _check_same_ground(begun: Mapping[str, Any], lab: Laboratory, out: Path) -> None:
    """Refuse to go on with other data, or on a device whose numbers differ."""
    fingerprint = begun.get("dataset_fingerprint")
    if fingerprint != lab.dataset.fingerprint:
        raise DataError(
            f"{lab.dataset.path}: changed since the experiment in {out} began (fingerprint "
            f"{lab.dataset.fingerprint[:12]}, was {str(fingerprint)[:12]}); bring the old dataset back "
            "or choose another folder with --out"
        )
    now = _environment(lab)
    for what in ("device_type", "precision"):
        if begun.get(what) != now[what]:
            raise ExperimentError(
                f"{out}: was begun with {what} {begun.get(what)}, here it is {now[what]}; go on there, "
                "or choose another folder with --out"
            )


def _united(before: ExperimentConfig, now: ExperimentConfig) -> ExperimentConfig:
    """``now`` with what an earlier call had and this one has not: finished runs stay in the report."""
    both = {
        key: tuple(dict.fromkeys((*getattr(before, key), *getattr(now, key))))
        for key in ("strategies", "baselines", "seeds")
    }
    return now.model_copy(update=both)


FREE_TO_CHANGE = {"dataset", "out", "store", "strategies", "baselines", "seeds", "keep_models", "label_cost"}
"""What may differ when an experiment is resumed: where things are, and what is added to it."""


def _check_same(before: ExperimentConfig, now: ExperimentConfig) -> None:
    old, new = (config.model_dump(exclude=FREE_TO_CHANGE) for config in (before, now))
    changed = [key for key in old if old[key] != new[key]]
    if changed:
        raise ExperimentError(
            f"{now.out}: was begun with another {', '.join(changed)}; choose another folder with --out"
        )
    if (len(before.seeds) > 1) != (len(now.seeds) > 1):
        raise ExperimentError(
            f"{now.out}: was begun with {len(before.seeds)} seed(s), now there are {len(now.seeds)}; "
            "one seed and several are filed differently: choose another folder with --out"
        )


def _environment(lab: Laboratory) -> dict[str, Any]:
    packages = ("cryoquery", "torch", "lightning-fabric", "numpy", "scipy", "scikit-learn")
    return {
        "dataset_fingerprint": lab.dataset.fingerprint,
        "n_train_images": len(lab.pool),
        "splits": list(lab.splits),
        "device": describe(lab.fabric),
        "device_type": lab.fabric.device.type,
        "precision": str(lab.fabric.strategy.precision.precision),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in packages},
    }


def _drop_models(iterations: list[Iteration], keep: str, store: Store | None) -> None:
    """Remove the models that are not to stay, also from the experiment's own ``store``."""
    droppable = {"all": [], "last": iterations[:-1], "none": iterations}[keep]
    for iteration in droppable:
        (iteration.folder / MODEL).unlink(missing_ok=True)
        if store is not None:
            store.discard(iteration.metrics["training_key"])
