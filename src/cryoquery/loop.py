"""The active-learning loop: train, evaluate, query, ask, repeat. Start reading here.

A run is one strategy with one seed. Each iteration leaves a folder that appears whole or not at all::

    iteration_3/
      model.pt               the weights, with the configuration that made them
      metrics.json           scores on held-out images, costs, provenance
      labeled_indices.json   the images it was trained on
      query.json             the images to label next: index, score, rank, reason
      examples.npz           predictions on a few fixed held-out images, for the report

Run it again after any interruption: finished iterations are kept, and the rest comes out the same.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from cryoquery import acquisition, train
from cryoquery.acquisition.candidates import Candidates, NetworkSignals, SignalSource
from cryoquery.acquisition.strategies import strategy_of
from cryoquery.acquisition.typical import ColdStart, cold_start_set, draws_at_random
from cryoquery.beginning import first_weights, is_pretrained, pretrained
from cryoquery.data.dataset import Dataset
from cryoquery.data.pool import LabeledImages, Pool, as_indices
from cryoquery.device import DeviceConfig
from cryoquery.errors import DataError, ExperimentError
from cryoquery.evaluate import evaluate, example_rows, predict_examples
from cryoquery.keys import goes_on, ingredient_of, training_key
from cryoquery.model import AttentionUNet, ModelConfig
from cryoquery.model_file import (
    Weights,
    load_model,
    load_snapshots,
    load_weights,
    save_model,
    save_snapshots,
)
from cryoquery.oracles import Oracle
from cryoquery.predict import Predictor
from cryoquery.pretrain import PretrainingConfig, load_features
from cryoquery.progress import Progress, Silent
from cryoquery.records import (
    SupersededError,
    is_whole_archive,
    link,
    read_json,
    sha256,
    staged_directory,
    write_json,
)
from cryoquery.store import SignalStore, Store
from cryoquery.train import Training, TrainingConfig
from cryoquery.tuning import picking_recipe

MODEL, SCORES, EXAMPLES, SNAPSHOTS = "model.pt", "scores.json", "examples.npz", "snapshots.pt"


@dataclass(frozen=True)
class Run:
    """One strategy with one seed."""

    name: str
    """What its results are filed under, such as ``entropy_sampling``."""
    strategy: str
    """Its row in the table of strategies, or an expression."""
    seed: int
    counts: tuple[int, ...]
    """How many images are labelled in each iteration."""
    folder: Path
    from_scratch: bool = False
    """Train every iteration from fresh weights instead of those of the one before."""


@dataclass(frozen=True)
class Laboratory:
    """What all runs of an experiment share."""

    dataset: Dataset
    model: ModelConfig
    training: TrainingConfig
    fabric: Fabric
    splits: tuple[str, ...]
    """Held-out splits to measure on; the first is the one that is reported."""
    store: Store
    """Finished trainings: identical work is done once."""
    device: DeviceConfig = field(default_factory=DeviceConfig)
    pretraining: PretrainingConfig | None = None
    """How trainings from scratch get their first weights; None: drawn at random."""
    cold_start: ColdStart = "random"
    """How the first images of a seed are chosen."""
    progress: Progress = field(default_factory=Silent)
    protocol: dict[str, Any] = field(default_factory=dict)
    """What every run must have in common to be compared, written to each `metrics.json`."""

    @cached_property
    def pool(self) -> Pool:
        """The training images without their labels."""
        return Pool.of(self.dataset)


@dataclass(frozen=True)
class Iteration:
    """What a finished iteration left on disk."""

    folder: Path
    labeled: NDArray[np.int64]
    query: NDArray[np.int64]
    metrics: dict[str, Any]


def active_learning(run: Run, lab: Laboratory, oracle: Oracle) -> list[Iteration]:
    """Do what is left of a run, and return all of its iterations."""
    done: list[Iteration] = []
    for number, count in enumerate(run.counts):
        folder = run.folder / f"iteration_{number}"
        lab.progress.begin(run.name, run.seed, number, len(run.counts), count)
        how = "found"
        labeled = done[-1].labeled if done else first_set(run, lab)
        if done:
            labeled = as_indices(np.concatenate([labeled, done[-1].query]))
        oracle.ask(labeled)
        sets = [*(iteration.labeled for iteration in done), labeled]
        about = describe(run, lab, oracle, sets)
        n_wanted = run.counts[number + 1] - count if number + 1 < len(run.counts) else 0
        if is_finished(folder):
            _enter(folder, about, lab)
        else:
            started = time.perf_counter()
            entry, here = trained(run, lab, oracle, sets)
            how = "trained" if here else "same training as another"
            query = choose(run, lab, entry, labeled, n_wanted)
            # Somebody who took over while this process was suspended leaves the same.
            with suppress(SupersededError), staged_directory(folder) as staged:
                for name in (MODEL, EXAMPLES):
                    link(entry / name, staged / name)
                write_json(staged / "labeled_indices.json", labeled.tolist())
                write_json(staged / "query.json", query)
                seconds = {"seconds": time.perf_counter() - started, "reused": not here}
                write_json(staged / "metrics.json", read_json(entry / SCORES) | about | seconds)
        done.append(read_iteration(folder, labeled, n_wanted))
        if done[-1].metrics["training_key"] != about["training_key"]:
            raise ExperimentError(
                f"{folder}: was trained otherwise than this configuration asks for; remove this folder and "
                "those after it, and run again"
            )
        lab.progress.end(done[-1].metrics["f1"], how)
    return done


def describe(run: Run, lab: Laboratory, oracle: Oracle, sets: Sequence[NDArray[np.int64]]) -> dict[str, Any]:
    """What `metrics.json` says of an iteration beside its scores: where it belongs, and its costs."""
    labeled = sets[-1]
    return {
        "run": run.name,
        "strategy": run.strategy,
        "seed": run.seed,
        "iteration": len(sets) - 1,
        "n_labeled_images": len(labeled),
        "n_labeled_particles": oracle.n_particles(labeled),
        "labeled_fraction": len(labeled) / len(lab.pool),
        "training_key": training_key(run, lab, sets),
        "dataset_fingerprint": lab.dataset.fingerprint,
        "protocol": lab.protocol,
    }


def initial_set(pool: Sized, n: int, seed: int) -> NDArray[np.int64]:
    """``n`` images drawn at random: the same for every strategy with this seed."""
    return np.sort(np.random.default_rng([seed]).choice(len(pool), n, replace=False))


def first_set(run: Run, lab: Laboratory) -> NDArray[np.int64]:
    """The images that a run begins with: the same for every strategy with this seed."""
    n = run.counts[0]
    if draws_at_random(lab.cold_start, n, len(lab.pool)):
        return initial_set(lab.pool, n, run.seed)
    folder = run.folder / "iteration_0"
    if is_finished(folder) and not is_pretrained(lab, run.seed):  # the store is gone, which nobody needs
        labeled = read_iteration(folder).labeled
        if len(labeled) != n or not np.isin(labeled, np.arange(len(lab.pool))).all():
            raise DataError(f"{folder}: labeled_indices.json is damaged; remove this folder and run again")
        return labeled
    features = load_features(pretrained(lab, run.seed))
    return cold_start_set(lab.cold_start, features, n, run.seed)


def choose(
    run: Run, lab: Laboratory, entry: Path, labeled: NDArray[np.int64], n: int
) -> list[dict[str, Any]]:
    """The next query of ``n`` images by the network in ``entry``, as written to `query.json`."""

    def load() -> Predictor:
        network = load_model(entry / MODEL)
        return Predictor(
            network,
            lab.fabric,
            lab.training.batch_size,
            lambda: load_snapshots(entry / SNAPSHOTS, lab.model),
        )

    wanted = strategy_of(run.strategy).needs
    store = SignalStore(entry / "signals")
    signals = NetworkSignals(load, lab.pool, store, lab.progress.predicted, wanted)
    learned = None if lab.pretraining is None else lambda: load_features(pretrained(lab, run.seed))
    return query_from(run, lab.pool.groups, signals, labeled, n, learned)


def query_from(
    run: Run,
    groups: Sequence[str],
    signals: SignalSource,
    labeled: NDArray[np.int64],
    n: int,
    learned: Callable[[], NDArray[np.float32]] | None = None,
) -> list[dict[str, Any]]:
    """The query that follows from ``signals`` of the pool, whose images belong to ``groups``.

    ``learned`` gives the features of all images of the pool that were learned without labels, if any were.
    """
    iteration = run.counts.index(len(labeled))
    candidates = Candidates(
        indices=np.setdiff1d(np.arange(len(groups)), labeled),
        labeled=labeled,
        groups=groups,
        signals=signals,
        rng=np.random.default_rng([run.seed, zlib.crc32(run.name.encode()), iteration]),
        progress=min(iteration / max(len(run.counts) - 2, 1), 1.0),
        learned=learned,
    )
    choices = acquisition.select(run.strategy, candidates, n)
    return [
        {"index": choice.index, "score": choice.score, "rank": rank, "reason": choice.reason}
        for rank, choice in enumerate(choices)
    ]


def trained(
    run: Run, lab: Laboratory, oracle: Oracle, sets: Sequence[NDArray[np.int64]]
) -> tuple[Path, bool]:
    """The training on the last of the labelled ``sets``, one per iteration; and whether it was done here.

    It is looked up by its key, and done where nobody has done it. So are those that it goes on from,
    where their models were not kept.
    """
    labeled, continues = sets[-1], goes_on(run, sets, lab.training.fine_tune)
    key = training_key(run, lab, sets)

    def make(folder: Path) -> None:
        start = load_weights(trained(run, lab, oracle, sets[:-1])[0] / MODEL)[0] if continues else None
        snapshots: list[Weights] = []
        network = _fit(run, lab, oracle, labeled, start, lab.store.checkpoint(key), snapshots)
        if lab.training.snapshots:
            save_snapshots(folder / SNAPSHOTS, snapshots)
        predictor = Predictor(network, lab.fabric, lab.training.batch_size)
        made_by = {"training": lab.training.model_dump(mode="json"), "seed": run.seed, "training_key": key}
        made_by |= ingredient_of(lab.pretraining)
        picking = picking_recipe(predictor, oracle.labels, labeled, lab.splits, lab.progress.predicted)
        save_model(folder / MODEL, network, lab.model, made_by, picking)
        _measure(predictor, lab, folder)

    return lab.store.obtain(key, make, lab.progress.waiting)


def _fit(
    run: Run,
    lab: Laboratory,
    oracle: Oracle,
    labeled: NDArray[np.int64],
    start: Weights | None,
    checkpoint: Path,
    snapshots: list[Weights],
) -> AttentionUNet:
    """A network fitted to ``labeled``, going on from ``start``, or from scratch where that is None."""

    def watch(step: train.Step) -> None:
        lab.progress.trained(step.n_images)
        if step.loss is not None:
            lab.progress.epoch(step.epoch + 1, step.n_epochs, step.loss)

    training = Training(
        start=first_weights(lab, run.seed) if start is None else start,
        model=lab.model,
        labeled=LabeledImages(lab.pool, labeled, oracle.masks),
        config=lab.training,
        from_scratch=start is None,
        seed=run.seed,
    )
    network = train.fit(training, lab.fabric, watch, lab.device, checkpoint, snapshots)
    lab.progress.predicted((1 + len(snapshots)) * lab.training.n_recalibrated(len(labeled)))
    return network


def _measure(predictor: Predictor, lab: Laboratory, folder: Path) -> None:
    """Leave scores on the reported split, and beside them those on the others, and `examples.npz`."""
    rows = example_rows(lab.dataset, lab.splits[0])
    probability = predict_examples(predictor, lab.dataset, rows)
    lab.progress.predicted(len(rows))
    np.savez_compressed(folder / EXAMPLES, rows=rows, probability=probability)
    reported, *others = (
        evaluate(predictor, lab.dataset, split, lab.progress.predicted) for split in lab.splits
    )
    beside = {scores["split"]: scores for scores in others}
    write_json(folder / SCORES, reported | beside | {"model_sha256": sha256(folder / MODEL)})


def _enter(folder: Path, about: dict[str, Any], lab: Laboratory) -> None:
    """Give the store a training that a finished iteration has and the store has lost."""
    key = about["training_key"]
    if lab.store.has(key) or not (folder / MODEL).is_file() or lab.training.snapshots:
        return  # an iteration holds no snapshots
    with _reading(folder):
        metrics = read_json(folder / "metrics.json")
        same, digest = metrics["training_key"] == key, metrics["model_sha256"]
    if not same or sha256(folder / MODEL) != digest or not is_whole_archive(folder / EXAMPLES):
        return  # damaged: whoever needs it trains it again

    def make(entry: Path) -> None:
        for name in (MODEL, EXAMPLES):
            link(folder / name, entry / name)
        own = {*about, "seconds", "reused"}
        write_json(entry / SCORES, {name: value for name, value in metrics.items() if name not in own})

    lab.store.obtain(key, make)


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Say what to do about a finished iteration whose files cannot be made sense of.

    Raises:
        DataError: the block could not.
    """
    try:
        yield
    except DataError as error:
        raise DataError(f"{error}; remove the folder {folder} and run again") from None
    except (LookupError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{folder}: files are damaged ({reason}); remove this folder and run again") from None


def is_finished(folder: Path) -> bool:
    """Whether an iteration is there.

    Raises:
        ExperimentError: it appeared whole, but somebody took files out of it.
    """
    if (folder / "metrics.json").is_file():
        return True
    if folder.exists() and any(folder.iterdir()):
        raise ExperimentError(f"{folder}: has no metrics.json; remove this folder and run again")
    return False


def read_iteration(
    folder: Path, expected: NDArray[np.int64] | None = None, n_wanted: int | None = None
) -> Iteration:
    """What a finished iteration left on disk.

    Raises:
        DataError: a file is missing or damaged, or does not ask for ``n_wanted`` new images.
        ExperimentError: it was trained on other images than ``expected``.
    """
    with _reading(folder):
        labeled = np.array(read_json(folder / "labeled_indices.json"), dtype=np.int64)
        query = np.array([choice["index"] for choice in read_json(folder / "query.json")], dtype=np.int64)
        metrics = read_json(folder / "metrics.json")
        float(metrics["f1"]), str(metrics["training_key"])
    if expected is not None and not np.array_equal(labeled, expected):
        raise ExperimentError(
            f"{folder}: was trained on other images than the query before it asks for; "
            "remove this folder and those after it, and run again"
        )
    n_new = len(np.setdiff1d(query, labeled))
    if n_wanted is not None and not len(query) == n_new == n_wanted:
        raise DataError(
            f"{folder / 'query.json'}: asks for {n_new} new images, the schedule for {n_wanted}; "
            f"remove the folder {folder} and run again"
        )
    return Iteration(folder, labeled, query, metrics)
