"""What an experiment will cost, before it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from cryoquery.data.dataset import ZERO_LEVEL, open_dataset
from cryoquery.data.pool import LabeledImages, Pool
from cryoquery.errors import DataError
from cryoquery.experiment import ExperimentConfig, check_image_size, plan_runs, reported_splits
from cryoquery.loop import Run
from cryoquery.model import initial_weights
from cryoquery.predict import Predictor
from cryoquery.train import TrainingConfig, fit

SAME_RANKING = {"margin": "uncertainty"}
"""Strategies that choose the same images by construction, and whose trainings are therefore the same."""


TRAINING_WEIGHT = 3
"""A training pass costs about three inference passes: one forward, two backward."""


@dataclass(frozen=True)
class Cost:
    """Images passed through the network."""

    n_training: int = 0
    """Forward and backward."""
    n_reused: int = 0
    """Not passed, because another run has trained the same already."""
    n_inference: int = 0
    """Forward only: scoring the pool, and measuring on held-out images."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.n_training + other.n_training,
            self.n_reused + other.n_reused,
            self.n_inference + other.n_inference,
        )

    @property
    def work(self) -> int:
        """The cost as one number, in inference passes."""
        return TRAINING_WEIGHT * self.n_training + self.n_inference


@dataclass(frozen=True)
class PlannedRun:
    """A run with the cost of each of its iterations."""

    run: Run
    iterations: tuple[Cost, ...]

    @property
    def cost(self) -> Cost:
        """The cost of the whole run."""
        return sum(self.iterations, Cost())


@dataclass(frozen=True)
class Plan:
    """All runs of an experiment, in the order they are done."""

    runs: tuple[PlannedRun, ...]
    n_train: int
    n_held_out: int | None
    """Held-out images; None where the dataset is not there yet."""
    image_shape: tuple[int, int] | None
    note: str | None
    """What could not be looked up."""

    @property
    def cost(self) -> Cost:
        """The cost of the whole experiment."""
        return sum((planned.cost for planned in self.runs), Cost())


def make_plan(config: ExperimentConfig) -> Plan:
    """The runs of an experiment and their cost.

    The dataset need not be there yet if the schedule has counts.

    Raises:
        ConfigError: the schedule does not fit the dataset.
        DataError: the dataset is not there, and the schedule needs it.
    """
    try:
        dataset = open_dataset(config.dataset)
    except DataError as error:
        if config.dataset.exists() or config.schedule.counts is None:
            raise
        n_train = config.schedule.counts[-1]
        size = config.image_size
        shape = (size, size) if size else None
        note: str | None = (
            f"{error}; planned for {n_train} training images, without measuring on held-out ones"
        )
        n_held_out: int | None = None
    else:
        check_image_size(config, dataset)
        n_train, note = len(dataset.rows("train")), None
        n_held_out = sum(len(dataset.rows(split)) for split in reported_splits(config, dataset))
        shape = (dataset.images.shape[1], dataset.images.shape[2])
    seen: set[tuple[object, ...]] = set()
    runs = tuple(
        _planned(run, n_train, n_held_out or 0, config.training, seen) for run in plan_runs(config, n_train)
    )
    return Plan(runs, n_train, n_held_out, shape, note)


def _planned(
    run: Run, n_train: int, n_held_out: int, training: TrainingConfig, seen: set[tuple[object, ...]]
) -> PlannedRun:
    costs = []
    for iteration, count in enumerate(run.counts):
        from_scratch = iteration == 0 or run.from_scratch or not training.fine_tune
        n_passes = count * training.n_epochs(count, from_scratch)
        key = _identity(run, iteration, n_train, from_scratch)
        reused = key in seen
        seen.add(key)
        scores_pool = iteration + 1 < len(run.counts) and run.strategy != "random"
        n_scored = n_train - count if scores_pool else 0
        costs.append(Cost(0, n_passes, n_scored) if reused else Cost(n_passes, 0, n_scored + n_held_out))
    return PlannedRun(run, tuple(costs))


def _identity(run: Run, iteration: int, n_train: int, from_scratch: bool) -> tuple[object, ...]:
    """Equal for trainings that are equal by construction."""
    if from_scratch and run.counts[iteration] == n_train:
        return (run.seed, "everything")
    if iteration == 0:
        return (run.seed, "initial set")
    choice = run.name if run.strategy == "random" else SAME_RANKING.get(run.strategy, run.strategy)
    return (run.seed, choice, iteration)


@dataclass(frozen=True)
class Speed:
    """Seconds per image on this machine, from a few timed steps."""

    training: float
    inference: float
    measured_on: str

    def estimate(self, plan: Plan) -> float:
        """Seconds for a whole plan."""
        return self.training * plan.cost.n_training + self.inference * plan.cost.n_inference


PROBE_BUDGET = 2 * 256 * 256 * 64
"""Images × pixels × channels of a timed step on a CPU: small enough to take about a second."""


def measure_speed(config: ExperimentConfig, image_shape: tuple[int, int]) -> Speed:
    """Time a few steps on images of noise.

    On a GPU the steps are real ones. On a CPU one large image may take a minute; there the steps are
    made of fewer and smaller images, and the time is scaled with the number of pixels.
    """
    fabric = config.device.fabric()
    height, width = image_shape
    batch = config.training.batch_size
    if fabric.device.type == "cpu":
        while height * width * config.model.base_channels > PROBE_BUDGET and min(height, width) >= 64:
            height, width = (side // 32 * 16 for side in (height, width))
        batch = max(1, min(batch, PROBE_BUDGET // (height * width * config.model.base_channels)))
    scale = image_shape[0] * image_shape[1] / (height * width)
    noise = np.random.default_rng(0).normal(ZERO_LEVEL, 32, (batch, height, width))
    levels = np.clip(noise, 0, 255).astype(np.uint8)
    pool = Pool(levels, np.full((batch, 2), [height, width]), ("",) * batch, ("",) * batch)
    masks = (levels > ZERO_LEVEL).astype(np.uint8)
    labeled = LabeledImages(pool, np.arange(batch), lambda indices: masks[indices])
    steps: list[float] = []
    network = fit(
        initial_weights(config.model, 0),
        config.model,
        labeled,
        config.training.model_copy(update={"initial_epochs": 4, "min_steps": 0, "batch_size": batch}),
        from_scratch=True,
        seed=0,
        fabric=fabric,
        watch=lambda step: steps.append(time.perf_counter()),
    )
    predictor = Predictor(network, fabric, batch)
    passes = [_seconds(predictor, levels) for _ in range(3)]
    return Speed(
        training=float(np.min(np.diff(steps))) / batch * scale,
        inference=min(passes[1:]) / batch * scale,
        measured_on=f"{batch} × {height}×{width} px on {fabric.device.type}",
    )


def _seconds(predictor: Predictor, levels: np.ndarray) -> float:
    started = time.perf_counter()
    for _ in predictor.stream(levels, np.arange(len(levels))):
        pass
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
