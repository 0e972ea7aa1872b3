"""How long each strategy of an experiment takes to choose its first query."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from cryoquery.data.dataset import open_dataset
from cryoquery.errors import CryoqueryError
from cryoquery.experiment_folder import enter, equip
from cryoquery.loop import Run, choose, initial_set, trained
from cryoquery.oracles import SimulatedOracle
from cryoquery.report.runs import label


def query_seconds(folder: Path) -> tuple[int, int, list[list[str]]]:
    """Images of the first query, images of the pool, and a row for each strategy: its name and seconds.

    First with the pass over the pool, then again from the signals that are kept. A strategy that
    refuses says why.
    """
    config = enter(folder)
    seed, rows = config.seeds[0], []
    with tempfile.TemporaryDirectory() as place:
        lab = equip(
            config.model_copy(update={"out": Path(place), "store": None}), open_dataset(config.dataset)
        )
        counts = config.schedule.resolve(len(lab.pool))
        answers = SimulatedOracle(lab.dataset)
        labeled = initial_set(lab.pool, counts[0], seed)
        answers.ask(labeled)
        for strategy in config.strategies:
            run = Run(f"{strategy}_sampling", strategy, seed, counts, Path(place) / strategy)
            entry, _ = trained(run, lab, answers, [labeled])
            for kept in entry.glob("signals/*"):
                kept.unlink()
            seconds = []
            for _ in range(2):
                started = time.perf_counter()
                try:
                    choose(run, lab, entry, labeled, counts[1] - counts[0])
                except CryoqueryError as error:
                    seconds = [str(error), ""]
                    break
                seconds.append(f"{time.perf_counter() - started:.2f}")
            rows.append([label(run.name), *seconds])
    return counts[1] - counts[0], len(lab.pool), rows
