"""What a run is, and what all runs of an experiment share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryoquery.acquisition.typical import ColdStart
from cryoquery.active.progress import ImagesPassed, Progress, Waiting, silent
from cryoquery.data.dataset import Dataset
from cryoquery.data.pool import Pool
from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import ModelConfig
from cryoquery.network.optimize import TrainingConfig
from cryoquery.network.pretrain import PretrainingConfig
from cryoquery.storage.atomic import sha256
from cryoquery.storage.cache import Cache

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Run:
    """One strategy with one seed."""

    name: str
    """What its results are filed under, such as ``entropy_sampling``."""
    strategy: str
    """Its row in the table of strategies, or an expression."""
    seed: int
    counts: tuple[int, ...]
    """How many images are labeled in each iteration."""
    folder: Path
    from_scratch: bool = False
    """Train every iteration from fresh weights instead of those of the one before."""
    n_steps: tuple[int, ...] | None = None
    """Optimizer steps of each iteration, rounded up to whole epochs; None: those of the configured epochs."""

    def training(self, config: TrainingConfig, iteration: int) -> TrainingConfig:
        """How an iteration trains: as configured, but for the number of epochs where steps are given."""
        if self.n_steps is None:
            return config
        epochs = {"initial_epochs": 1, "epochs": 1, "min_steps": self.n_steps[iteration]}
        return config.model_copy(update=epochs)


@dataclass(frozen=True)
class Context:
    """What all runs of an experiment share, or all steps of a project."""

    dataset: Dataset
    model: ModelConfig
    training: TrainingConfig
    fabric: Fabric
    splits: tuple[str, ...]
    """Held-out splits to measure on; the first is the one that is reported."""
    cache: Cache
    """Finished trainings: identical work is done once."""
    device: DeviceConfig = field(default_factory=DeviceConfig)
    pretraining: PretrainingConfig | None = None
    """How trainings from scratch get their first weights; None: drawn at random, or those of ``start``."""
    start: Path | None = None
    """A model whose weights trainings from scratch begin with."""
    cold_start: ColdStart = "random"
    """How the first images of a seed are chosen."""
    progress: Progress = silent
    protocol: dict[str, Any] = field(default_factory=dict)
    """What every run must have in common to be compared, written to each `metrics.json`."""

    @cached_property
    def start_sha256(self) -> str | None:
        """Of the file ``start``."""
        return None if self.start is None else sha256(self.start)

    @cached_property
    def pool(self) -> Pool:
        """The training images without their labels."""
        return Pool.of(self.dataset)

    def trained(self, n_images: int) -> None:
        """Report that so many images passed the network forward and backward."""
        self.progress(ImagesPassed(n_images, trained=True))

    def predicted(self, n_images: int) -> None:
        """Report that so many images passed the network forward."""
        self.progress(ImagesPassed(n_images, trained=False))

    def waiting(self, owner: str) -> None:
        """Report that another process does the work, and that this one waits for it."""
        self.progress(Waiting(owner))


def run_name(strategy: str) -> str:
    """What the runs of a strategy are filed under: part of what their queries are drawn from."""
    return f"{strategy}_sampling"
