"""An experiment: strategies × seeds and their baselines, in one folder, resumed by running it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from cryoquery.acquisition.label_cost import LabelCost
from cryoquery.acquisition.strategies import check_free, check_known, load_plugin, strategy_of
from cryoquery.acquisition.typical import ColdStart
from cryoquery.active.oracles import NoiseConfig
from cryoquery.active.run import Run, run_name
from cryoquery.config import CheckedModel, parse, read_toml
from cryoquery.data.dataset import Dataset
from cryoquery.errors import ConfigError
from cryoquery.network.checkpoint import start_path
from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import ModelConfig
from cryoquery.network.optimize import TrainingConfig
from cryoquery.network.pretrain import PretrainingConfig
from cryoquery.slurm import SlurmConfig
from cryoquery.storage.atomic import sha256

FULL_SUPERVISION = "full_supervision"
EQUAL_STEPS = "full_supervision_equal_steps"
PROGRESSIVE = "progressive_supervised"


class Schedule(CheckedModel):
    """How many images are labeled in each iteration: by count, or by fraction of the training images."""

    counts: tuple[int, ...] | None = None
    fractions: tuple[float, ...] | None = None
    steps: Literal["by_epochs", "equal"] = "by_epochs"
    """Optimizer steps of an iteration: as many as its epochs make, which are more with more labels; or in
    every iteration equally many, those of all iterations evenly shared out."""

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
                    f"schedule.counts: {self.counts[-1]} images are to be labeled, the pool has {n_train}; "
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


class RecordedConfig(CheckedModel):
    """Everything an experiment is made of. The defaults are those of the protocol.

    Strategies are only names here, and no file of a user is run: what reads results needs no more.
    """

    dataset: Path
    """Folder of the dataset, relative to the working directory."""
    out: Path = Path("experiments/active_learning")
    """Folder for the results."""
    cache: Path | None = None
    """Folder of finished trainings that experiments share; None: one in ``out``, for this one alone."""
    plugins: tuple[Path, ...] = ()
    """Python files that register strategies, relative to the folder of the config."""
    expressions: dict[str, str] = Field(default_factory=dict)
    """Strategies by the names that this experiment gives them, each an expression of the grammar."""
    strategies: tuple[str, ...] = ("uncertainty", "entropy", "margin", "diversity", "hybrid", "random")
    baselines: tuple[
        Literal["full_supervision", "progressive_supervised", "full_supervision_equal_steps"], ...
    ] = ("full_supervision", "progressive_supervised")
    """Controls: all labels from the beginning; random subsets, each from scratch; and all labels with as many
    optimizer steps as a strategy takes in all of its iterations."""
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
    pretraining: PretrainingConfig | None = None
    """What trainings from scratch start from is learned on the unlabeled pool, once per seed; None: it is
    drawn at random."""
    start: str = "random"
    """What trainings from scratch start from: ``random`` weights, ``general``, the model that comes with the
    package, or the path of a `model.pt`, relative to the working directory."""
    start_sha256: str | None = None
    """Of that file; noted when the experiment begins."""
    cold_start: ColdStart = "random"
    """How the first images of each seed are chosen, for all strategies; all but random need pretraining."""
    device: DeviceConfig = DeviceConfig()
    executor: Literal["local", "slurm"] = "local"
    """Where runs are done: by processes on this machine, or by jobs of Slurm."""
    workers: int | None = Field(default=None, ge=1)
    """Local processes; None: one per GPU, or as many as cores and memory allow. 1: this process alone."""
    slurm: SlurmConfig = SlurmConfig()
    tensorboard: bool = False
    """Write events for TensorBoard into the folder of each run."""
    oracle: NoiseConfig = NoiseConfig()
    """Label noise of the simulated person; scores are always taken against the labels of the dataset."""
    label_cost: LabelCost = LabelCost()
    """From labels to minutes, in the report."""

    @field_validator("strategies")
    @classmethod
    def _once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("a strategy stands in the list twice; remove one")
        return names

    def strategy(self, name: str) -> str:
        """What a name under ``strategies`` stands for: a row of the table, or an expression."""
        return self.expressions.get(name, name)

    @field_validator("seeds")
    @classmethod
    def _some_and_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or min(seeds) < 0 or max(seeds) >= 2**63 or len(set(seeds)) < len(seeds):
            raise ValueError("give at least one seed, none below 0 or above 2⁶³ − 1, none twice")
        return seeds

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if not self.strategies and not self.baselines:
            raise ValueError("strategies and baselines are both empty; name at least one")
        return self

    @model_validator(mode="after")
    def _features_to_begin_with(self) -> Self:
        if self.start != "random" and self.pretraining is not None:
            raise ValueError(f"start={self.start!r} and [pretraining]: both say what to start from; drop one")
        if self.cold_start != "random" and self.pretraining is None:
            raise ValueError(
                f"cold_start={self.cold_start!r}: compares features learned without labels; "
                "add [pretraining], or take 'random'"
            )
        return self

    def protocol(self) -> dict[str, Any]:
        """What all runs must have in common to be compared: the network, how it is trained, who labels."""
        parts = self.model_dump(
            mode="json", include={"model", "training", "pretraining", "start_sha256", "oracle"}
        )
        return parts | {"first_images": {"cold_start": self.cold_start}}


class ExperimentConfig(RecordedConfig):
    """An experiment that can be run: its plugins are imported, and its strategies are known."""

    @model_validator(mode="before")
    @classmethod
    def _with_plugins(cls, values: dict[str, Any]) -> dict[str, Any]:
        plugins = values.get("plugins", ())
        for plugin in plugins if isinstance(plugins, (list, tuple)) else ():
            load_plugin(Path(plugin))
        return values

    @model_validator(mode="before")
    @classmethod
    def _with_start(cls, values: dict[str, Any]) -> dict[str, Any]:
        start = values.get("start", "random")
        if not isinstance(start, str) or (path := start_path(start)) is None:
            return values
        found, noted = sha256(path), values.get("start_sha256")
        if noted not in (None, found):
            raise ConfigError(
                f"start={start!r}: is another model than the one that the experiment began with; bring that "
                "one back, or choose another folder as out"
            )
        return {**values, "start_sha256": found}

    @field_validator("expressions")
    @classmethod
    def _readable(cls, expressions: dict[str, str]) -> dict[str, str]:
        for name, expression in expressions.items():
            check_free(name)
            with _blaming(f"expressions.{name}"):
                strategy_of(expression)
        return expressions

    @model_validator(mode="after")
    def _known(self) -> ExperimentConfig:
        for name in self.strategies:
            if name not in self.expressions:
                if not name.isidentifier():
                    with _blaming("strategies"):
                        strategy_of(name)
                    raise ConfigError(
                        f"strategies: {name!r}: give it a name under [expressions], and that name here"
                    )
                check_known(name)
            if self.training.snapshots < 2 and self._asks_for_snapshots(name):
                raise ConfigError(
                    f"strategies: {name}: needs snapshots of each training; set training.snapshots to "
                    'at least 2, or use the ensemble "dihedral"'
                )
        if self.training.snapshots and self.device.n_devices > 1:
            raise ConfigError("training.snapshots: are kept on one device only; set device.n_devices=1")
        return self

    def _asks_for_snapshots(self, name: str) -> bool:
        needs = strategy_of(self.strategy(name)).needs
        return any(signal.ensemble == "snapshots" for signal in needs)


@contextmanager
def _blaming(key: str) -> Iterator[None]:
    """Name the key that an error of the block is about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None


def load_config(path: Path | str, **changes: Any) -> ExperimentConfig:
    """Read an experiment's TOML file; ``changes`` replace its keys where they are not None.

    Raises:
        ConfigError: the file cannot be read, has an unknown key, or a value that cannot be used.
    """
    path = Path(path)
    values = read_toml(path) | {key: value for key, value in changes.items() if value is not None}
    if isinstance(values.get("plugins"), list):
        values["plugins"] = [str((path.parent / str(file)).resolve()) for file in values["plugins"]]
    return parse(ExperimentConfig, values, str(path))


def plan_runs(config: RecordedConfig, n_train: int) -> list[Run]:
    """All runs of an experiment on ``n_train`` training images, seed by seed.

    Raises:
        ConfigError: the schedule does not fit the number of images.
    """
    counts = config.schedule.resolve(n_train)
    total = total_steps(config, counts)
    even = total // len(counts)
    shared = (*(len(counts) - 1) * (even,), total - (len(counts) - 1) * even)
    n_steps = shared if config.schedule.steps == "equal" else None
    baselines: dict[str, tuple[tuple[int, ...], tuple[int, ...] | None]] = {
        FULL_SUPERVISION: ((n_train,), None),
        EQUAL_STEPS: ((n_train,), (total,)),
        PROGRESSIVE: (counts, n_steps),
    }
    runs = []
    for seed in config.seeds:
        for name in config.strategies:
            folder = run_folder(config, run_name(name), seed)
            strategy = config.strategy(name)
            runs.append(Run(run_name(name), strategy, seed, counts, folder, n_steps=n_steps))
        for name, (run_counts, run_steps) in baselines.items():
            if name in config.baselines:
                folder = run_folder(config, name, seed)
                runs.append(Run(name, "random", seed, run_counts, folder, True, run_steps))
    return runs


def total_steps(config: RecordedConfig, counts: Sequence[int]) -> int:
    """Optimizer steps that a strategy takes in all iterations."""
    training = config.training
    return sum(
        training.n_steps(count) * training.n_epochs(count, i == 0 or not training.fine_tune)
        for i, count in enumerate(counts)
    )


def run_folder(config: RecordedConfig, name: str, seed: int) -> Path:
    """Where a run is filed; several seeds have folders of their own."""
    return config.out / name / f"seed_{seed}" if len(config.seeds) > 1 else config.out / name


def reported_splits(config: RecordedConfig, dataset: Dataset) -> tuple[str, ...]:
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


def check_dataset(config: ExperimentConfig, dataset: Dataset) -> tuple[str, ...]:
    """Refuse a dataset that does not fit a configuration; returns its `reported_splits`.

    Raises:
        ConfigError: images are not of the size that is stated, there are none to report on, or all training
            images are of one group, and a strategy needs several.
    """
    shape = dataset.images.shape[1:]
    if config.image_size is not None and shape != (config.image_size, config.image_size):
        raise ConfigError(
            f"image_size={config.image_size}: the images of {dataset.path} are {shape[0]}×{shape[1]}; "
            "import them at that size, or change image_size"
        )
    if len({record.group for record in dataset.records if record.split == "train"}) == 1:
        for name in config.strategies:
            if strategy_of(config.strategy(name)).by_group:
                raise ConfigError(
                    f"strategies: {name}: all training images of {dataset.path} belong to one group; "
                    "choose one that needs no groups, such as random or clustered(…)"
                )
    return reported_splits(config, dataset)
