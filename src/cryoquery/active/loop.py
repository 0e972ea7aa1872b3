"""The active-learning loop: train, evaluate, query, ask, repeat. Start reading here.

A run is one strategy with one seed. An experiment calls `iterate` once per step of its schedule; a project
in which a person labels calls the same function once per step. Run it again after any interruption:
finished iterations are kept, and the rest comes out the same.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Collection, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery import acquisition
from cryoquery.acquisition.candidates import Candidates, NetworkSignals
from cryoquery.acquisition.strategies import strategy_of
from cryoquery.acquisition.typical import cold_start_set, draws_at_random
from cryoquery.active.initial_weights import is_pretrained, pretrained
from cryoquery.active.iteration import (
    MODEL,
    SNAPSHOTS,
    FinishedIteration,
    is_finished,
    read_iteration,
    return_to_cache,
    write_iteration,
)
from cryoquery.active.oracles import SimulatedOracle
from cryoquery.active.progress import IterationEnded, IterationStarted, PhaseStarted
from cryoquery.active.run import Context, Run
from cryoquery.active.training import train_and_evaluate
from cryoquery.active.training_key import training_key
from cryoquery.data.pool import as_indices
from cryoquery.errors import DataError, ExperimentError
from cryoquery.network.checkpoint import load_model, load_snapshots
from cryoquery.network.predict import Predictor
from cryoquery.network.pretrain import load_features
from cryoquery.storage.cache import SignalCache


@dataclass(frozen=True)
class Iteration:
    """A trained and evaluated network, and what it asks for next."""

    entry: Path
    """The folder of the cache with the model and its scores."""
    reused: bool
    """Whether the training was found in the cache."""
    query: list[dict[str, Any]]
    """Index, score, rank and reason of each image to label next, best first."""


def active_learning(run: Run, context: Context, oracle: SimulatedOracle) -> list[FinishedIteration]:
    """Do what is left of a run, and return all of its iterations."""
    done: list[FinishedIteration] = []
    for number, count in enumerate(run.counts):
        folder = run.folder / f"iteration_{number}"
        context.progress(IterationStarted(run.name, run.seed, number, len(run.counts), count))
        labeled = as_indices([*done[-1].labeled, *done[-1].query]) if done else first_set(run, context)
        oracle.ask(labeled)
        history = [*(iteration.labeled for iteration in done), labeled]
        facts = describe(run, context, oracle, history)
        n_wanted = run.counts[number + 1] - count if number + 1 < len(run.counts) else 0
        how = "found"
        if is_finished(folder):
            return_to_cache(folder, facts, context)
        else:
            started = time.perf_counter()
            iteration = iterate(
                run,
                context,
                oracle,
                history,
                n_wanted,
                progress=schedule_progress(number, len(run.counts)),
                rng=query_rng(run.seed, run.name, number),
            )
            how = "same training as another" if iteration.reused else "trained"
            seconds = {"seconds": time.perf_counter() - started, "reused": iteration.reused}
            write_iteration(folder, iteration.entry, labeled, iteration.query, facts | seconds)
        done.append(read_iteration(folder, labeled, n_wanted))
        if done[-1].metrics["training_key"] != facts["training_key"]:
            raise ExperimentError(
                f"{folder}: was trained otherwise than this configuration asks for; remove this folder and "
                "those after it, and run again"
            )
        context.progress(IterationEnded(done[-1].metrics["f1"], how))
    return done


def iterate(
    run: Run,
    context: Context,
    oracle: SimulatedOracle,
    history: Sequence[NDArray[np.int64]],
    n_query: int,
    *,
    progress: float,
    rng: np.random.Generator,
    skipped: Collection[int] = (),
    among: NDArray[np.int64] | None = None,
) -> Iteration:
    """One iteration: train on what is labeled, evaluate, and choose what to label next.

    Args:
        run: the strategy, the seed, and whether trainings go on from the one before.
        context: the dataset, the network, and how it is trained.
        oracle: was asked for all of ``history``.
        history: (n,) ascending pool indices of the labeled images of each iteration; this one is the last.
        n_query: images to ask for.
        progress: how far the schedule has come, 0 at the first query and 1 at the last.
        rng: draws the query where chance takes part in it.
        skipped: images without labels that are not asked for; they count as labeled, so that nothing
            like them is asked for either.
        among: (k,) a shortlist: only of these the strategy chooses, and looks at no others; None: of all.
    """
    # From scratch, or from the weights of the iteration before: `history` says which these are.
    entry, is_new = train_and_evaluate(run, context, oracle, history)
    context.progress(PhaseStarted("query"))

    def learned() -> NDArray[np.float32]:
        return load_features(pretrained(context, run.seed))

    query = query_from(
        run.strategy,
        context.pool.groups,
        _signals(run, context, entry),
        as_indices([*history[-1], *skipped]),
        n_query,
        progress=progress,
        rng=rng,
        learned=learned if context.pretraining else None,
        among=among,
    )
    return Iteration(entry, not is_new, query)


def _signals(run: Run, context: Context, entry: Path) -> NetworkSignals:
    """What the network in ``entry`` says of the pool; it is loaded only if a strategy asks."""

    def load() -> Predictor:
        return Predictor(
            load_model(entry / MODEL),
            context.fabric,
            context.training.batch_size,
            lambda: load_snapshots(entry / SNAPSHOTS, context.model),
        )

    needs = strategy_of(run.strategy).needs
    return NetworkSignals(load, context.pool, SignalCache(entry / "signals"), context.predicted, needs)


def query_from(
    strategy: str,
    groups: Sequence[str],
    signals: NetworkSignals,
    taken: NDArray[np.int64],
    n: int,
    *,
    progress: float,
    rng: np.random.Generator,
    learned: Callable[[], NDArray[np.float32]] | None = None,
    among: NDArray[np.int64] | None = None,
) -> list[dict[str, Any]]:
    """The query of ``n`` images that follows from ``signals`` of the pool, as written to `query.json`.

    Args:
        strategy: a row of the table, or an expression.
        groups: of all images of the pool.
        signals: what the network says of them.
        taken: ascending indices of what is labeled or not asked for.
        n: images to ask for.
        progress: as in `iterate`.
        rng: as in `iterate`.
        learned: gives features of the pool that were learned without labels, if any were.
        among: as in `iterate`.
    """
    candidates = Candidates(
        indices=np.setdiff1d(np.arange(len(groups)) if among is None else among, taken),
        labeled=taken,
        groups=groups,
        signals=signals,
        rng=rng,
        progress=progress,
        learned=learned,
    )
    choices = acquisition.select(strategy, candidates, n)
    return [
        {"index": choice.index, "score": choice.score, "rank": rank, "reason": choice.reason}
        for rank, choice in enumerate(choices)
    ]


def schedule_progress(iteration: int, n_iterations: int) -> float:
    """How far a schedule has come at the query of an iteration: 0 at the first query, 1 at the last."""
    return min(iteration / max(n_iterations - 2, 1), 1.0)


def query_rng(seed: int, name: str, iteration: int) -> np.random.Generator:
    """The generator of one query of the run ``name``."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), iteration])


def describe(
    run: Run, context: Context, oracle: SimulatedOracle, history: Sequence[NDArray[np.int64]]
) -> dict[str, Any]:
    """What `metrics.json` says of an iteration beside its scores: where it belongs, and its costs."""
    labeled = history[-1]
    return {
        "run": run.name,
        "strategy": run.strategy,
        "seed": run.seed,
        "iteration": len(history) - 1,
        "n_labeled_images": len(labeled),
        "n_labeled_particles": oracle.n_particles(labeled),
        "labeled_fraction": len(labeled) / len(context.pool),
        "training_key": training_key(run, context, history),
        "dataset_fingerprint": context.dataset.fingerprint,
        "protocol": context.protocol,
    }


def initial_set(pool: Sized, n: int, seed: int) -> NDArray[np.int64]:
    """``n`` images drawn at random: the same for every strategy with this seed."""
    return np.sort(np.random.default_rng([seed]).choice(len(pool), n, replace=False))


def first_set(run: Run, context: Context) -> NDArray[np.int64]:
    """The images that a run begins with: the same for every strategy with this seed."""
    n = run.counts[0]
    if draws_at_random(context.cold_start, n, len(context.pool)):
        return initial_set(context.pool, n, run.seed)
    folder = run.folder / "iteration_0"
    if is_finished(folder) and not is_pretrained(context, run.seed):  # the cache is gone, and not needed
        labeled = read_iteration(folder).labeled
        if len(labeled) != n or not np.isin(labeled, np.arange(len(context.pool))).all():
            raise DataError(f"{folder}: labeled_indices.json is damaged; remove this folder and run again")
        return labeled
    features = load_features(pretrained(context, run.seed))
    return cold_start_set(context.cold_start, features, n, run.seed)
