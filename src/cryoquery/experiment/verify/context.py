"""What all runs of an experiment depend on: its configuration, its environment, its dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.active.training_key import (
    TRAINING_VERSION,
    how_trained,
    label_noise_of,
    pretraining_inputs,
    pretraining_key,
)
from cryoquery.data.dataset import Dataset, open_dataset
from cryoquery.errors import DataError, ExperimentError
from cryoquery.experiment.config import RecordedConfig, reported_splits
from cryoquery.experiment.folder import CONFIG, ENVIRONMENT, OWN_CACHE, config_digest, read_config
from cryoquery.experiment.verify.checks import Checks
from cryoquery.experiment.verify.signals import NotKeptError
from cryoquery.network.pretrain import FEATURES, load_features


@dataclass(frozen=True)
class VerifyContext:
    """What the checks of all runs need."""

    folder: Path
    config: RecordedConfig
    config_holds: bool
    """Whether `config.toml` is as it was; if not, nothing is compared with it."""
    environment: Mapping[str, Any]
    dataset: Dataset | None
    """The dataset the experiment was begun with; None where it is not there."""
    n_train: int

    @property
    def environment_file(self) -> Path:
        """The file that ``environment`` was read from."""
        return self.folder / ENVIRONMENT

    @property
    def splits(self) -> tuple[str, ...]:
        """Held-out splits that were measured on, the reported one first; empty where that is not known."""
        splits = self.environment.get("splits")
        known = isinstance(splits, list) and all(isinstance(split, str) for split in splits)
        return tuple(splits) if known else ()  # type: ignore[arg-type]

    @property
    def cache(self) -> Path:
        """The folder of finished trainings."""
        return self.config.cache or self.folder / OWN_CACHE

    def cache_inputs(self, fingerprint: object) -> dict[str, Any] | None:
        """What all trainings on the dataset with this fingerprint are functions of; None where unknown."""
        begun, packages = self.environment, self.environment.get("packages")
        torch_version = packages.get("torch") if isinstance(packages, dict) else None
        device = [begun.get("device_type"), begun.get("precision")]
        if not self.splits or torch_version is None or None in [*device, fingerprint]:
            return None
        return {
            "dataset": fingerprint,
            "training": self.config.training.model_dump(mode="json"),
            "model": self.config.model.model_dump(mode="json"),
            "device": device,
            "how": how_trained(self.config.device),
            "version": [begun.get("training_version", TRAINING_VERSION), torch_version],
            "splits": self.splits,
            **pretraining_inputs(self.config.pretraining),
            **label_noise_of(self.config.protocol()),
        }

    def learned(self, seed: int) -> NDArray[np.float32]:
        """Features of all training images that a seed's pretraining left in the cache.

        Raises:
            NotKeptError: they are not there.
            DataError: the file is damaged, or holds features of other images.
        """
        cache_inputs = self.cache_inputs(self.environment.get("dataset_fingerprint"))
        if cache_inputs is None or self.config.pretraining is None or not self.config_holds:
            raise NotKeptError("features learned without labels")
        key = pretraining_key(cache_inputs, seed)
        folder = self.cache / key[:2] / key
        if not (folder / FEATURES).is_file():
            raise NotKeptError("features learned without labels")
        features = load_features(folder)
        if len(features) != self.n_train:
            raise DataError(f"{folder / FEATURES}: holds {len(features)} images, the pool {self.n_train}")
        return features

    @cached_property
    def groups(self) -> tuple[str, ...] | None:
        """Group of every training image; None where the dataset is not there."""
        if self.dataset is None:
            return None
        return tuple(record.group for record in self.dataset.records[: self.n_train])


def read_context(folder: Path, checks: Checks) -> VerifyContext | None:
    """Read and check what all runs depend on; None where it is too little to check anything.

    Raises:
        ExperimentError: ``folder`` holds no experiment.
    """
    config_file, environment_file = folder / CONFIG, folder / ENVIRONMENT
    if not config_file.is_file():
        raise ExperimentError(f"{folder}: holds no experiment (no config.toml); give the folder of one")
    environment = checks.json(environment_file, dict) or {}
    config = checks.readable(config_file, lambda file: read_config(file.parent))
    if config is None:
        return None
    config_holds = _check_config(config_file, config, environment, checks)
    dataset = _check_dataset(config, environment, environment_file, checks)
    n_train = environment.get("n_train_images")
    if dataset is not None:
        n_there = len(dataset.rows("train"))
        if environment:
            checks.equal(environment_file, "n_train_images", n_train, n_there)
        n_train = n_there
    elif environment:
        checks.check(type(n_train) is int and n_train > 0, environment_file, f"n_train_images is {n_train!r}")
    if type(n_train) is not int or n_train < 1:
        checks.skip("the runs, since the number of training images is not known")
        return None
    return VerifyContext(folder, config, config_holds, environment, dataset, n_train)


def _check_config(file: Path, config: RecordedConfig, environment: Mapping[str, Any], checks: Checks) -> bool:
    recorded = environment.get("config_sha256")
    if recorded is None:
        checks.skip("config.toml, since environment.json holds no digest of it")
        return True
    packages = environment.get("packages")
    begun_with = packages.get("cryoquery") if isinstance(packages, dict) else None
    found = config_digest(config)
    return checks.check(
        recorded == found,
        file,
        f"its digest is {found[:12]}, {str(recorded)[:12]} in environment.json: it was changed after the "
        f"experiment began (with cryoquery {begun_with})",
    )


def _check_dataset(
    config: RecordedConfig, environment: Mapping[str, Any], environment_file: Path, checks: Checks
) -> Dataset | None:
    path = config.dataset
    if not path.is_dir():
        checks.skip(f"what needs the dataset, since it is not at {path}")
        return None
    dataset = checks.readable(path, _open_unchanged)
    if dataset is None:
        return None
    recorded = environment.get("dataset_fingerprint")
    if environment and not checks.check(
        recorded == dataset.fingerprint,
        environment_file,
        f"dataset_fingerprint is {str(recorded)[:12]}, that of {path} is {dataset.fingerprint[:12]}",
    ):
        checks.skip(f"what needs the dataset, since {path} is another one")
        return None
    if environment:
        splits = checks.readable(path, lambda _: list(reported_splits(config, dataset)))
        checks.equal(environment_file, "splits", environment.get("splits"), splits)
    return dataset


def _open_unchanged(path: Path) -> Dataset:
    try:
        dataset = open_dataset(path)
        dataset.check_unchanged()
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error!r})") from None
    return dataset
