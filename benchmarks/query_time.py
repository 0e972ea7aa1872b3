"""How long each strategy of an experiment takes to choose its first query."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from cryoquery.active.loop import initial_set, iterate, query_rng
from cryoquery.active.oracles import SimulatedOracle
from cryoquery.active.run import Run, run_name
from cryoquery.active.training import train_and_evaluate
from cryoquery.data.dataset import open_dataset
from cryoquery.errors import CryoqueryError
from cryoquery.experiment.folder import enter, equip
from cryoquery.report.runs import label


def query_seconds(folder: Path) -> tuple[int, int, list[list[str]]]:
    """Images of the first query, images of the pool, and a row for each strategy: its name and seconds.

    First with the pass over the pool, then again from the signals that are kept. A strategy that
    refuses says why.
    """
    config = enter(folder)
    seed, rows = config.seeds[0], []
    with tempfile.TemporaryDirectory() as place:
        context = equip(
            config.model_copy(update={"out": Path(place), "cache": None}), open_dataset(config.dataset)
        )
        counts = config.schedule.resolve(len(context.pool))
        answers = SimulatedOracle(context.dataset)
        labeled = initial_set(context.pool, counts[0], seed)
        answers.ask(labeled)
        for strategy in config.strategies:
            run = Run(run_name(strategy), strategy, seed, counts, Path(place) / strategy)
            entry, _ = train_and_evaluate(run, context, answers, [labeled])
            for kept in entry.glob("signals/*"):
                kept.unlink()
            seconds = []
            for _ in range(2):
                started = time.perf_counter()
                try:
                    rng = query_rng(seed, run.name, 0)
                    iterate(run, context, answers, [labeled], counts[1] - counts[0], progress=0.0, rng=rng)
                except CryoqueryError as error:
                    seconds = [str(error), ""]
                    break
                seconds.append(f"{time.perf_counter() - started:.2f}")
            rows.append([label(run.name), *seconds])
    return counts[1] - counts[0], len(context.pool), rows
