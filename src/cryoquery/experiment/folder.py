"""The folder of an experiment: begun once, entered by every process that works in it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w
import torch

from cryoquery.active.run import Context, Run
from cryoquery.active.training_key import TRAINING_VERSION
from cryoquery.config import parse, read_toml
from cryoquery.data.dataset import Dataset, open_dataset
from cryoquery.errors import DataError, ExperimentError
from cryoquery.experiment.config import (
    ExperimentConfig,
    RecordedConfig,
    check_dataset,
    load_config,
    plan_runs,
)
from cryoquery.network.checkpoint import start_path
from cryoquery.network.device import describe
from cryoquery.storage.atomic import read_json, write_json, write_text
from cryoquery.storage.cache import Cache
from cryoquery.storage.leases import LeaseObserver, leased
from cryoquery.storage.provenance import digest, source_commit

CONFIG, ENVIRONMENT, OWN_CACHE = "config.toml", "environment.json", ".cache"

FREE_TO_CHANGE = {
    "dataset",
    "out",
    "cache",
    "plugins",
    "expressions",
    "strategies",
    "baselines",
    "seeds",
    "keep_models",
    "label_cost",
    "executor",
    "workers",
    "slurm",
    "tensorboard",
}
"""What may differ when an experiment is resumed: where things are, where work is done, and what is added."""


def begin(config: ExperimentConfig, dataset: Dataset) -> ExperimentConfig:
    """Begin the folder ``config.out``, or go on in it; what is written to its `config.toml`.

    Raises:
        DataError: the dataset is not the one the experiment began with.
        ExperimentError: the folder holds another experiment, or something else.
    """
    out = config.out
    foreign = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    if foreign - {CONFIG, ENVIRONMENT} and not (out / CONFIG).is_file():
        raise ExperimentError(f"{out}: holds other files and no experiment; choose another folder with --out")
    if is_begun(out) or ((out / ENVIRONMENT).is_file() and _is_run_under_way(out)):
        before = read_config(out)
        _check_same(before, config)
        _check_same_data(read_environment(out), dataset, out)
        config = _united(before, config)
    else:  # nothing is finished, and no run is under way: anything may still change
        (out / ENVIRONMENT).unlink(missing_ok=True)
    write_text(out / CONFIG, tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))
    return config


def is_begun(out: Path) -> bool:
    """Whether an iteration of the experiment in ``out`` is finished."""
    return next(out.rglob("metrics.json"), None) is not None


def _is_run_under_way(out: Path) -> bool:
    """Whether a run is under way, in a job of Slurm say."""
    return any(
        not LeaseObserver(lease).is_abandoned() for lease in out.rglob(".running") if lease.parent != out
    )


def enter(out: Path) -> ExperimentConfig:
    """The configuration of the experiment in ``out``, for a process that works in it.

    Raises:
        ExperimentError: there is none.
        ConfigError: its `config.toml` was damaged.
    """
    return load_config(_config_file(out), out=out)


def read_config(out: Path) -> RecordedConfig:
    """The configuration of the experiment in ``out``, for who reads its results: no plugin is run.

    Raises:
        ExperimentError: there is none.
        ConfigError: its `config.toml` was damaged.
    """
    file = _config_file(out)
    return parse(RecordedConfig, read_toml(file) | {"out": out}, str(file))


def _config_file(out: Path) -> Path:
    if not (out / CONFIG).is_file():
        raise ExperimentError(f"{out}: holds no experiment (no {CONFIG}); give the folder of one")
    return out / CONFIG


def planned_runs(config: RecordedConfig) -> list[Run]:
    """The runs of the experiment in ``config.out``, by the number of images that it began with.

    The dataset is needed only as long as nothing was begun: it may be elsewhere, or its path relative to
    another working directory.

    Raises:
        DataError: what the experiment noted is damaged; or it noted nothing, and its dataset is not there.
    """
    file = config.out / ENVIRONMENT
    if not file.is_file():
        return plan_runs(config, len(open_dataset(config.dataset).rows("train")))
    n_train = read_environment(config.out).get("n_train_images")
    if type(n_train) is not int:
        raise DataError(f"{file}: n_train_images is {n_train!r}, not a number; bring the file back")
    return plan_runs(config, n_train)


def n_threads(config: ExperimentConfig, otherwise: int) -> int:
    """CPU threads of each process: as configured, else as the experiment was begun with, else ``otherwise``.

    A resumed experiment keeps its number, because it decides on the last bits.
    """
    if config.device.threads is not None:
        return config.device.threads
    file = config.out / ENVIRONMENT
    begun = read_environment(config.out).get("threads") if file.is_file() else None
    return min(begun, len(os.sched_getaffinity(0))) if isinstance(begun, int) and begun > 0 else otherwise


def equip(config: ExperimentConfig, dataset: Dataset | None = None) -> Context:
    """What a process needs to work on an experiment; the first one notes where it works.

    Raises:
        DataError: the dataset is missing or damaged.
        ExperimentError: the device or precision is not the one that the experiment was begun with.
    """
    dataset = dataset or open_dataset(config.dataset)
    context = Context(
        dataset=dataset,
        model=config.model,
        training=config.training,
        fabric=config.device.fabric(),
        splits=check_dataset(config, dataset),
        cache=Cache(config.cache or config.out / OWN_CACHE),
        device=config.device,
        pretraining=config.pretraining,
        start=start_path(config.start),
        cold_start=config.cold_start,
        protocol=config.protocol(),
    )
    with leased(config.out / ".environment.lease"):
        file = config.out / ENVIRONMENT
        if file.is_file():
            _check_same_environment(read_environment(config.out), context, config.out)
        else:
            write_json(file, _begun(context, config))
    return context


def read_environment(out: Path) -> Mapping[str, Any]:
    """What was noted when the experiment began.

    Raises:
        DataError: the file is damaged.
    """
    way_out = "bring it back, or choose another folder with --out"
    try:
        found = read_json(out / ENVIRONMENT)
    except DataError as error:
        raise DataError(f"{error}; {way_out}") from None
    if not isinstance(found, Mapping):
        raise DataError(f"{out / ENVIRONMENT}: is no table of values; {way_out}")
    return found


def _check_same_data(begun: Mapping[str, Any], dataset: Dataset, out: Path) -> None:
    fingerprint = begun.get("dataset_fingerprint")
    if fingerprint != dataset.fingerprint:
        raise DataError(
            f"{dataset.path}: changed since the experiment in {out} began (fingerprint "
            f"{dataset.fingerprint[:12]}, was {str(fingerprint)[:12]}); bring the old dataset back "
            "or choose another folder with --out"
        )


def _check_same_environment(begun: Mapping[str, Any], context: Context, out: Path) -> None:
    """Refuse to go on with other data, or on a device whose numbers differ."""
    _check_same_data(begun, context.dataset, out)
    then, now = ({**what, **what.get("packages", {})} for what in (begun, _environment(context)))
    remedies = dict.fromkeys(("device_type", "precision", "training_version"), "go on there")
    for what, remedy in (remedies | {"torch": "install that version again"}).items():
        if then.get(what) != now[what]:
            raise ExperimentError(
                f"{out}: was begun with {what} {then.get(what)}, here it is {now[what]}; {remedy}, "
                "or choose another folder with --out"
            )


def _united(before: RecordedConfig, now: ExperimentConfig) -> ExperimentConfig:
    """``now`` with what an earlier call had and this one has not: finished runs stay in the report."""
    both = {
        key: tuple(dict.fromkeys((*getattr(before, key), *getattr(now, key))))
        for key in ("strategies", "baselines", "seeds")
    }
    expressions = {**before.expressions, **now.expressions}
    return now.model_copy(update={**both, "expressions": expressions})


def _check_same(before: RecordedConfig, now: ExperimentConfig) -> None:
    old, new = (config.model_dump(exclude=FREE_TO_CHANGE) for config in (before, now))
    changed = [key for key in old if old[key] != new[key]]
    if changed:
        raise ExperimentError(
            f"{now.out}: was begun with another {', '.join(changed)}; choose another folder with --out"
        )
    for name in set(before.strategies) & set(now.strategies):
        if before.strategy(name) != now.strategy(name):
            raise ExperimentError(
                f"{now.out}: strategy {name} was begun as {before.strategy(name)}, now it is "
                f"{now.strategy(name)}; give the new one another name"
            )
    if (len(before.seeds) > 1) != (len(now.seeds) > 1):
        raise ExperimentError(
            f"{now.out}: was begun with {len(before.seeds)} seed(s), now there are {len(now.seeds)}; "
            "one seed and several are filed differently: choose another folder with --out"
        )


def config_digest(config: RecordedConfig) -> str:
    """SHA-256 of all of a configuration that stays the same as long as the experiment is resumed."""
    return digest(config.model_dump(mode="json", exclude=FREE_TO_CHANGE))


def _begun(context: Context, config: RecordedConfig) -> dict[str, Any]:
    """What is noted when an experiment begins."""
    noted = {"started": datetime.now(timezone.utc).date().isoformat(), "config_sha256": config_digest(config)}
    return _environment(context) | noted


def _environment(context: Context) -> dict[str, Any]:
    packages = ("cryoquery", "torch", "lightning-fabric", "numpy", "scipy", "scikit-learn")
    return {
        "dataset_fingerprint": context.dataset.fingerprint,
        "n_train_images": len(context.pool),
        "splits": list(context.splits),
        "device": describe(context.fabric),
        "device_type": context.fabric.device.type,
        "precision": str(context.fabric.strategy.precision.precision),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "commit": source_commit(),
        "training_version": TRAINING_VERSION,
    }
