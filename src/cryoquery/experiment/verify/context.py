"""What all runs of an experiment depend on: its configuration, its environment, its dataset."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, PositiveInt

from cryoquery.active.training_key import pretraining_key, shared_inputs
from cryoquery.data.dataset import Dataset, open_dataset
from cryoquery.errors import DataError, ExperimentError
from cryoquery.experiment.config import RecordedConfig, reported_splits
from cryoquery.experiment.folder import CONFIG, ENVIRONMENT, OWN_CACHE, config_digest, read_config
from cryoquery.experiment.verify.checks import Checks
from cryoquery.experiment.verify.signals import NotKeptError
from cryoquery.network.pretrain import FEATURES, load_features


class Environment(BaseModel):
    """What `environment.json` must say of where an experiment began."""

    config_sha256: str
    dataset_fingerprint: str
    n_train_images: PositiveInt
    splits: Annotated[list[str], Field(min_length=1)]
    device_type: str
    precision: str
    training_version: int
    packages: dict[str, str]


@dataclass(frozen=True)
class VerifyContext:
    """What the checks of all runs need."""

    folder: Path
    config: RecordedConfig
    config_holds: bool
    """Whether `config.toml` is as it was; if not, nothing is compared with it."""
    environment: Environment | None
    """None where it is damaged or not there."""
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
        return tuple(self.environment.splits) if self.environment else ()

    @property
    def cache(self) -> Path:
        """The folder of finished trainings."""
        return self.config.cache or self.folder / OWN_CACHE

    def cache_inputs(self, fingerprint: str | None) -> dict[str, Any] | None:
        """What all trainings on the dataset with this fingerprint are functions of; None where unknown."""
        begun, protocol, device = self.environment, self.config.protocol(), self.config.device
        if begun is None or fingerprint is None:
            return None
        versions = [begun.training_version, begun.packages.get("torch")]
        where = [begun.device_type, begun.precision]
        return shared_inputs(protocol, device, fingerprint, self.splits, where, versions)

    def learned(self, seed: int) -> NDArray[np.float32]:
        """Features of all training images that a seed's pretraining left in the cache.

        Raises:
            NotKeptError: they are not there.
            DataError: the file is damaged, or holds features of other images.
        """
        cache_inputs = self.cache_inputs(self.environment.dataset_fingerprint if self.environment else None)
        if cache_inputs is None or self.config.pretraining is None or not self.config_holds:
            raise NotKeptError
        key = pretraining_key(cache_inputs, seed)
        folder = self.cache / key[:2] / key
        if not (folder / FEATURES).is_file():
            raise NotKeptError
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
    environment = checks.json(environment_file, Environment)
    config = checks.readable(config_file, lambda file: read_config(file.parent))
    if config is None:
        return None
    config_holds, found = True, config_digest(config)
    if environment is None:
        checks.skip("config.toml, since environment.json holds no digest of it")
    else:
        config_holds = checks.check(
            environment.config_sha256 == found,
            config_file,
            f"its digest is {found[:12]}, {environment.config_sha256[:12]} in environment.json: it was "
            f"changed after the experiment began (with cryoquery {environment.packages.get('cryoquery')})",
        )
    dataset = _check_dataset(config, environment, environment_file, checks)
    if dataset is not None:
        n_train = len(dataset.rows("train"))
        if environment is not None:
            checks.equal(environment_file, "n_train_images", environment.n_train_images, n_train)
    elif environment is not None:
        n_train = environment.n_train_images
    else:
        checks.skip("the runs, since the number of training images is not known")
        return None
    return VerifyContext(folder, config, config_holds, environment, dataset, n_train)


def _check_dataset(
    config: RecordedConfig, environment: Environment | None, environment_file: Path, checks: Checks
) -> Dataset | None:
    path = config.dataset
    if not path.is_dir():
        checks.skip(f"what needs the dataset, since it is not at {path}")
        return None
    dataset = checks.readable(path, _open_unchanged)
    if dataset is None:
        return None
    if environment is None:
        return dataset
    recorded = environment.dataset_fingerprint
    if not checks.check(
        recorded == dataset.fingerprint,
        environment_file,
        f"dataset_fingerprint is {recorded[:12]}, that of {path} is {dataset.fingerprint[:12]}",
    ):
        checks.skip(f"what needs the dataset, since {path} is another one")
        return None
    splits = checks.readable(path, lambda _: list(reported_splits(config, dataset)))
    checks.equal(environment_file, "splits", environment.splits, splits)
    return dataset


def _open_unchanged(path: Path) -> Dataset:
    try:
        dataset = open_dataset(path)
        dataset.check_unchanged()
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error!r})") from None
    return dataset
