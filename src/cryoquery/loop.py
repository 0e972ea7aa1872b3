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

import hashlib
import json
import os
import shutil
import time
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from cryoquery import acquisition, train
from cryoquery.acquisition.candidates import Candidates, NetworkSignals
from cryoquery.data.dataset import Dataset
from cryoquery.data.pool import LabeledImages, Pool, as_indices
from cryoquery.errors import ExperimentError
from cryoquery.evaluate import evaluate, example_rows, predict_examples
from cryoquery.model import AttentionUNet, ModelConfig, initial_weights
from cryoquery.oracles import Oracle
from cryoquery.predict import Predictor
from cryoquery.progress import Progress, Silent
from cryoquery.records import read_json, staged_directory, write_json
from cryoquery.train import TrainingConfig
from cryoquery.tuning import picking_recipe

EXAMPLES = "examples.npz"


@dataclass(frozen=True)
class Run:
    """One strategy with one seed."""

    name: str
    """What its results are filed under, such as ``entropy_sampling``."""
    strategy: str
    """Its row in the table of strategies."""
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
    progress: Progress = field(default_factory=Silent)
    protocol: dict[str, Any] = field(default_factory=dict)
    """What every run must have in common to be compared, written to each `metrics.json`."""
    finished: dict[str, Path] = field(default_factory=dict)
    """Folder of a finished iteration by the key of its training: identical work is done once."""

    @cached_property
    def pool(self) -> Pool:
        """The training images without their labels."""
        return Pool.of(self.dataset)

    def remember(self, iteration: Iteration) -> None:
        """Let later runs find a training; one whose model was kept is worth more."""
        key = iteration.metrics["training_key"]
        if key not in self.finished or not (self.finished[key] / "model.pt").is_file():
            self.finished[key] = iteration.folder


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
        labeled = done[-1].labeled if done else initial_set(lab.pool, count, run.seed)
        if done:
            labeled = as_indices(np.concatenate([labeled, done[-1].query]))
        oracle.ask(labeled)
        if not is_finished(folder):
            started = time.perf_counter()
            with staged_directory(folder) as staged:
                network, metrics, how = train_and_evaluate(run, lab, oracle, labeled, done, staged)
                n_wanted = run.counts[number + 1] - count if number + 1 < len(run.counts) else 0
                query = choose(run, lab, network, labeled, n_wanted, number)
                write_json(staged / "labeled_indices.json", labeled.tolist())
                write_json(staged / "query.json", query)
                write_json(staged / "metrics.json", metrics | {"seconds": time.perf_counter() - started})
        done.append(read_iteration(folder, expected=labeled))
        lab.remember(done[-1])
        lab.progress.end(done[-1].metrics["f1"], how)
    return done


def initial_set(pool: Pool, n: int, seed: int) -> NDArray[np.int64]:
    """``n`` images drawn at random: the same for every strategy with this seed."""
    return np.sort(np.random.default_rng([seed]).choice(len(pool), n, replace=False))


def choose(
    run: Run, lab: Laboratory, network: AttentionUNet, labeled: NDArray[np.int64], n: int, iteration: int
) -> list[dict[str, Any]]:
    """The next query of ``n`` images, as written to `query.json`."""
    predictor = Predictor(network, lab.fabric, lab.training.batch_size)
    candidates = Candidates(
        indices=np.setdiff1d(np.arange(len(lab.pool)), labeled),
        labeled=labeled,
        groups=lab.pool.groups,
        signals=NetworkSignals(predictor, lab.pool, lab.progress.predicted),
        rng=np.random.default_rng([run.seed, zlib.crc32(run.name.encode()), iteration]),
    )
    choices = acquisition.select(run.strategy, candidates, n)
    return [
        {"index": choice.index, "score": choice.score, "rank": rank, "reason": choice.reason}
        for rank, choice in enumerate(choices)
    ]


def train_and_evaluate(
    run: Run,
    lab: Laboratory,
    oracle: Oracle,
    labeled: NDArray[np.int64],
    done: list[Iteration],
    staged: Path,
) -> tuple[AttentionUNet, dict[str, Any], str]:
    """Leave `model.pt` in ``staged``; return the network, what it scores, and how it was had."""
    parent = _parent(run, lab, done)
    key = training_key(run, lab, labeled, parent)
    twin = lab.finished.get(key)
    if twin is not None and not all((twin / name).is_file() for name in ("model.pt", EXAMPLES)):
        twin = None
    metrics = {
        "run": run.name,
        "strategy": run.strategy,
        "seed": run.seed,
        "iteration": len(done),
        "n_labeled_images": len(labeled),
        "n_labeled_particles": oracle.n_particles(labeled),
        "labeled_fraction": len(labeled) / len(lab.pool),
        "training_key": key,
        "reused_from": _short(twin),
        "dataset_fingerprint": lab.dataset.fingerprint,
        "protocol": lab.protocol,
    }
    if twin is not None:
        for name in ("model.pt", EXAMPLES):
            _link(twin / name, staged / name)
        network = train.load_model(staged / "model.pt")
        return network, read_iteration(twin).metrics | metrics, f"same training as {_short(twin)}"
    start = _weights(run, lab, oracle, done) if parent else None
    network = _train(run, lab, oracle, labeled, start)
    _save(network, run, lab, key, labeled, staged)
    return network, metrics | _measure(network, lab, staged), "trained"


def _weights(run: Run, lab: Laboratory, oracle: Oracle, done: list[Iteration]) -> train.Weights:
    """The weights of the last finished iteration; trained again where its model was not kept."""
    last = done[-1]
    twin = lab.finished.get(last.metrics["training_key"], last.folder)
    for folder in (last.folder, twin):
        if (folder / "model.pt").is_file():
            return train.load_weights(folder / "model.pt")[0]
    start = _weights(run, lab, oracle, done[:-1]) if _parent(run, lab, done[:-1]) else None
    network = _train(run, lab, oracle, last.labeled, start)
    _save(network, run, lab, last.metrics["training_key"], last.labeled, last.folder)
    return network.state_dict()


def _parent(run: Run, lab: Laboratory, done: list[Iteration]) -> Iteration | None:
    """The iteration whose weights the next training goes on from; None: it starts from scratch."""
    return done[-1] if done and not run.from_scratch and lab.training.fine_tune else None


def _save(
    network: AttentionUNet, run: Run, lab: Laboratory, key: str, labeled: NDArray[np.int64], folder: Path
) -> None:
    made_by = {"training": lab.training.model_dump(mode="json"), "seed": run.seed, "training_key": key}
    predictor = Predictor(network, lab.fabric, lab.training.batch_size)
    picking = picking_recipe(predictor, lab.dataset, labeled, lab.splits)
    train.save_model(folder / "model.pt", network, lab.model, made_by, picking)


def _train(
    run: Run,
    lab: Laboratory,
    oracle: Oracle,
    labeled: NDArray[np.int64],
    start: train.Weights | None,
) -> AttentionUNet:
    """A network fitted to ``labeled``, going on from ``start``, or from scratch where that is None."""

    def watch(step: train.Step) -> None:
        lab.progress.trained(step.n_images)
        if step.loss is not None:
            lab.progress.epoch(step.epoch + 1, step.n_epochs, step.loss)

    return train.fit(
        initial_weights(lab.model, run.seed) if start is None else start,
        lab.model,
        LabeledImages(lab.pool, labeled, oracle.masks),
        lab.training,
        from_scratch=start is None,
        seed=run.seed,
        fabric=lab.fabric,
        watch=watch,
    )


def _measure(network: AttentionUNet, lab: Laboratory, staged: Path) -> dict[str, Any]:
    """Scores on the reported split, and beside them those on the others; leaves `examples.npz`."""
    predictor = Predictor(network, lab.fabric, lab.training.batch_size)
    rows = example_rows(lab.dataset, lab.splits[0])
    np.savez_compressed(
        staged / EXAMPLES, rows=rows, probability=predict_examples(predictor, lab.dataset, rows)
    )
    reported, *others = (
        evaluate(predictor, lab.dataset, split, lab.progress.predicted) for split in lab.splits
    )
    return reported | {scores["split"]: scores for scores in others}


def training_key(run: Run, lab: Laboratory, labeled: NDArray[np.int64], parent: Iteration | None) -> str:
    """What a training's result is a function of, digested: equal keys mean equal weights."""
    ingredients = {
        "dataset": lab.dataset.fingerprint,
        "labeled": labeled.tolist(),
        "parent": parent.metrics["training_key"] if parent else None,
        "training": lab.training.model_dump(mode="json"),
        "model": lab.model.model_dump(mode="json"),
        "precision": str(lab.fabric.strategy.precision.precision),
        "device": lab.fabric.device.type,
        "splits": lab.splits,
        "seed": run.seed,
    }
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


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


def read_iteration(folder: Path, expected: NDArray[np.int64] | None = None) -> Iteration:
    """What a finished iteration left on disk.

    Raises:
        DataError: a file is missing or damaged.
        ExperimentError: it was trained on other images than ``expected``.
    """
    labeled = np.array(read_json(folder / "labeled_indices.json"), dtype=np.int64)
    query = np.array([choice["index"] for choice in read_json(folder / "query.json")], dtype=np.int64)
    if expected is not None and not np.array_equal(labeled, expected):
        raise ExperimentError(
            f"{folder}: was trained on other images than the query before it asks for; "
            "remove this folder and those after it, and run again"
        )
    return Iteration(folder, labeled, query, read_json(folder / "metrics.json"))


def _short(folder: Path | None) -> str | None:
    """A folder within its experiment: ``margin_sampling/seed_1/iteration_0``."""
    if folder is None:
        return None
    n_parts = 3 if folder.parent.name.startswith("seed_") else 2
    return "/".join(folder.parts[-n_parts:])


def _link(source: Path, target: Path) -> None:
    """A second name for a file where the file system can, a copy where it cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
