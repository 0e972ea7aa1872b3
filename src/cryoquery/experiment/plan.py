"""What an experiment will cost, before it runs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from cryoquery.acquisition.candidates import Strategy
from cryoquery.acquisition.ensembles import ENSEMBLES
from cryoquery.acquisition.image_scores import BASE, FEATURES, LEARNED
from cryoquery.acquisition.strategies import strategy_of
from cryoquery.active.progress import TRAINING_WEIGHT
from cryoquery.active.run import Run
from cryoquery.data.dataset import ZERO_LEVEL, Dataset, open_dataset
from cryoquery.data.pool import LabeledImages, Pool
from cryoquery.errors import DataError
from cryoquery.experiment.config import ExperimentConfig, check_dataset, plan_runs, reported_splits
from cryoquery.network import capability
from cryoquery.network.model import initial_weights
from cryoquery.network.optimize import Training
from cryoquery.network.predict import Predictor
from cryoquery.network.train import fit
from cryoquery.picking.threshold import MAX_IMAGES, tuning_rows

SAME_RANKING = {"margin_sampling": "uncertainty_sampling"}
"""Runs that choose the same images by construction, and whose trainings are therefore the same."""


@dataclass(frozen=True)
class Cost:
    """Images passed through the network."""

    n_training: int = 0
    """Forward and backward."""
    n_inference: int = 0
    """Forward only: doubting background, recalibration, tuning the threshold, measuring on held-out images,
    scoring the pool."""
    n_saved_training: int = 0
    """Not passed, because another run does the same training."""
    n_saved_inference: int = 0
    """Not passed, because another run needs the same of the same network."""

    def __add__(self, other: Cost) -> Cost:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Cost(*(a + b for a, b in pairs))

    @property
    def work(self) -> int:
        """The cost as one number, in inference passes."""
        return TRAINING_WEIGHT * self.n_training + self.n_inference

    @property
    def saved(self) -> float:
        """The share of all passes that is not made, because identical work is done once."""
        n_saved = self.n_saved_training + self.n_saved_inference
        return n_saved / max(n_saved + self.n_training + self.n_inference, 1)


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
    image_shape: tuple[int, int] | None
    note: str | None
    """What could not be determined."""

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
        images = _Images(n_train)
    else:
        n_train, note = len(dataset.rows("train")), None
        images = _Images.of(dataset, check_dataset(config, dataset), n_train)
        shape = (dataset.images.shape[1], dataset.images.shape[2])
    seen: set[tuple[object, ...]] = set()
    runs = tuple(_planned(run, images, config, seen) for run in plan_runs(config, n_train))
    return Plan(runs, n_train, shape, note)


def planned_work(config: ExperimentConfig, dataset: Dataset, run: Run) -> list[int]:
    """The work that each iteration of one run takes, in inference passes, if no other run shares it."""
    n_train = len(dataset.rows("train"))
    images = _Images.of(dataset, reported_splits(config, dataset), n_train)
    return [cost.work for cost in _planned(run, images, config, set()).iterations]


@dataclass(frozen=True)
class _Images:
    """How many images there are, and what is done with them."""

    n_train: int
    image_shape: tuple[int, int] = (16, 16)
    n_held_out: int = 0
    n_tuned: int = 0
    """Validation images that thresholds are tuned on; 0: they are tuned on the labeled ones."""

    @classmethod
    def of(cls, dataset: Dataset, splits: Sequence[str], n_train: int) -> _Images:
        return cls(
            n_train,
            (dataset.images.shape[1], dataset.images.shape[2]),
            n_held_out=sum(len(dataset.rows(split)) for split in splits),
            n_tuned=len(tuning_rows(dataset, np.empty(0, np.int64), splits)[1]),
        )


def _planned(run: Run, pool: _Images, config: ExperimentConfig, seen: set[tuple[object, ...]]) -> PlannedRun:
    costs = []
    for iteration, count in enumerate(run.counts):
        training = run.training(config.training, iteration)
        from_scratch = iteration == 0 or run.from_scratch or not training.fine_tune
        key = _identity(run, iteration, pool.n_train, from_scratch)
        n_tuned = min(pool.n_tuned or count, MAX_IMAGES)
        n_networks = max(training.n_snapshots(count, from_scratch), 1)
        n_doubted = count if training.doubtful_background and config.start != "random" else 0
        n_after = n_doubted + n_networks * training.n_recalibrated(count) + n_tuned + pool.n_held_out
        cost = _once(Cost(count * training.n_epochs(count, from_scratch), n_after), ("trained", *key), seen)
        if iteration == 0 and config.pretraining is not None:
            n_views = 2 * config.pretraining.steps * min(config.pretraining.batch_size, pool.n_train)
            cost += _once(Cost(n_views, pool.n_train), (run.seed, "pretrained"), seen)
        if iteration + 1 < len(run.counts):
            n_snapshots = training.n_snapshots(count, from_scratch)
            strategy, pretrained = strategy_of(run.strategy), config.pretraining is not None
            cost += _query_cost(strategy, pool, count, n_snapshots, pretrained, key, seen)
        costs.append(cost)
    return PlannedRun(run, tuple(costs))


def _query_cost(
    strategy: Strategy,
    pool: _Images,
    count: int,
    n_snapshots: int,
    pretrained: bool,
    key: tuple[object, ...],
    seen: set[tuple[object, ...]],
) -> Cost:
    """The cost of what a strategy asks of one network, and of the ensembles that are made of it."""
    cost, needs, looks_at_labeled = Cost(), strategy.needs - {LEARNED}, strategy.looks_at_labeled
    if LEARNED in strategy.needs and not pretrained:
        needs, looks_at_labeled = needs | {FEATURES}, True
    for name in sorted({signal.ensemble for signal in needs}):
        wanted = {signal.key for signal in needs if signal.ensemble == name}
        n_images = pool.n_train - count
        if name:
            n_images *= ENSEMBLES[name].n_members(pool.image_shape, n_snapshots)
        marks = {("scored", one, *key) for one in wanted}
        n_passes = 0 if marks <= seen else 1
        # All that is wanted of one network comes from one pass.
        cost += Cost(0, n_passes * n_images, 0, (len(wanted) - n_passes) * n_images)
        seen |= marks if name else marks | {("scored", signal.key, *key) for signal in BASE}
    if looks_at_labeled:
        cost += _once(Cost(0, count), ("scored what is labeled", *key), seen)
    return cost


def _once(cost: Cost, key: tuple[object, ...], seen: set[tuple[object, ...]]) -> Cost:
    """The cost of work that is done once and saved from then on."""
    if key in seen:
        return Cost(0, 0, cost.n_training, cost.n_inference)
    seen.add(key)
    return cost


def _identity(run: Run, iteration: int, n_train: int, from_scratch: bool) -> tuple[object, ...]:
    """Equal for trainings that are equal by construction."""
    n_steps = run.n_steps and run.n_steps[iteration]
    if from_scratch and run.counts[iteration] == n_train:
        return (run.seed, "everything", n_steps)
    if iteration == 0:
        return (run.seed, "initial set", n_steps)
    return (run.seed, SAME_RANKING.get(run.name, run.name), iteration)


H200_FLOP_PER_SECOND = 3.55e14
"""45 % of the 790 TFLOP/s that its products of large matrices reach in bfloat16."""


def flop(config: ExperimentConfig, plan: Plan) -> float:
    """Floating point operations of a plan whose image size is known, as torch counts them.

    A training pass is taken to cost three inference passes: forward, and backward by inputs and weights.
    """
    assert plan.image_shape is not None, "the caller knows the size"
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        config.model.build()(torch.empty((1, 1, *plan.image_shape)))
    return float(counter.get_total_flops()) * (3 * plan.cost.n_training + plan.cost.n_inference)


@dataclass(frozen=True)
class Speed:
    """Seconds per image on this machine, from a few timed steps."""

    training: float
    inference: float
    measured_on: str
    on_gpu: bool

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
    training = config.training.model_copy(update={"initial_epochs": 4, "min_steps": 0, "batch_size": batch})
    network = fit(
        Training(
            initial_weights(config.model, 0), config.model, labeled, training, from_scratch=True, seed=0
        ),
        fabric,
        watch=lambda step: steps.append(time.perf_counter()),
    )
    predictor = Predictor(network, fabric, batch)
    passes = [_seconds(predictor, levels) for _ in range(3)]
    return Speed(
        training=float(np.min(np.diff(steps))) / batch * scale,
        inference=min(passes[1:]) / batch * scale,
        measured_on=f"{batch} × {height}×{width} px on {fabric.device.type}",
        on_gpu=fabric.device.type == "cuda",
    )


def _seconds(predictor: Predictor, levels: np.ndarray) -> float:
    started = time.perf_counter()
    for _ in predictor.stream(levels, np.arange(len(levels))):
        pass
    capability.finish(predictor.fabric.device)
    return time.perf_counter() - started
