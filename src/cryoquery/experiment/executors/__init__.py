"""Where the runs of an experiment are done: in this process, in several local ones, or in jobs of Slurm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cryoquery.active.progress import Progress, Waiting, silent
from cryoquery.active.run import Run
from cryoquery.config import parse
from cryoquery.data.dataset import open_dataset
from cryoquery.errors import UnfinishedRunsError
from cryoquery.experiment.config import ExperimentConfig, check_dataset, load_config, plan_runs
from cryoquery.experiment.executors.local import do_in_pool, n_workers
from cryoquery.experiment.folder import begin, equip, n_threads
from cryoquery.experiment.run import RunOutcome, do_run, is_run_finished
from cryoquery.network.device import using_threads
from cryoquery.signals import stoppable
from cryoquery.storage.atomic import remove_leftovers
from cryoquery.storage.leases import alone


def run_experiment(
    config: ExperimentConfig | Mapping[str, Any] | Path | str,
    progress: Progress = silent,
    wait: bool = True,
) -> Path:
    """Run an experiment, or what is left of it, and return its folder.

    Args:
        config: a configuration, its values, or the path of a TOML file with them.
        progress: called with each event of the work.
        wait: with Slurm, stay until all jobs have ended; false: return once they are in the queue.

    Raises:
        ConfigError: a key or value that cannot be used.
        DataError: the dataset is missing, damaged, or not the one the experiment began with.
        ExperimentError: the folder holds another experiment, or some runs could not be finished: the
            message says which and why. The others are.
    """
    if isinstance(config, (str, Path)):
        config = load_config(config)
    elif isinstance(config, Mapping):
        config = parse(ExperimentConfig, config, "config")
    dataset = open_dataset(config.dataset)
    dataset.check_unchanged()
    check_dataset(config, dataset)
    runs = schedule_order(plan_runs(config, len(dataset.rows("train"))))
    with alone(config.out, lambda owner: progress(Waiting(owner))):
        # Jobs of Slurm may be at work on other machines.
        remove_leftovers(config.out, alone=config.executor == "local")
        written = begin(config, dataset)
        if config.executor == "slurm":
            from cryoquery.experiment.executors.slurm import do_on_slurm

            outcomes = do_on_slurm(written, runs, progress, wait)
        elif (n := n_workers(config, dataset, runs)) > 1:
            outcomes = do_in_pool(written, runs, progress, n)
        else:
            outcomes = do_here(written, runs, progress)
    if wait or config.executor == "local":
        _tell_what_is_missing(config, runs, outcomes)
    return config.out


def schedule_order(runs: Sequence[Run]) -> list[Run]:
    """Runs in the order in which to begin them, so that few of them wait for what others train.

    Seeds share nothing, so they alternate; margin sampling repeats what uncertainty sampling does, and
    comes last, as does progressive supervision, which ends in full supervision.
    """
    late = ("margin_sampling", "progressive_supervised")
    strategies = list(dict.fromkeys(run.name for run in runs))
    return sorted(runs, key=lambda run: (run.name in late, strategies.index(run.name)))


def do_here(config: ExperimentConfig, runs: Sequence[Run], progress: Progress) -> list[RunOutcome]:
    """Do ``runs`` in this process, one after the other; how each of them came out."""
    outcomes: list[RunOutcome] = []
    with stoppable(), using_threads(n_threads(config, torch.get_num_threads())):
        context = equip(config)
        for run in runs:
            outcomes.append(do_run(config, context, run, progress))
            if outcomes[-1].fatal:
                break
    return outcomes


def _tell_what_is_missing(
    config: ExperimentConfig, runs: Sequence[Run], outcomes: Sequence[RunOutcome]
) -> None:
    """Raise an error that says which runs are not finished and why, in one line where one reason will do."""
    missing = [run for run in runs if not is_run_finished(run)]
    if not missing:
        return
    reasons = {(outcome.run, outcome.seed): outcome.error for outcome in outcomes if outcome.error}
    # A run may have failed with its last file written, and kept the others from being begun.
    failed = [run for run in runs if (run.name, run.seed) in reasons]
    head = f"{config.out}: {len(missing)} of {len(runs)} runs are not finished"
    if len(failed) == 1:
        name, seed = failed[0].name, failed[0].seed
        raise UnfinishedRunsError(f"{head}; {name} seed {seed}: {reasons[name, seed]}")
    lines = [f"  {run.name} seed {run.seed}: {reasons[run.name, run.seed]}" for run in failed]
    raise UnfinishedRunsError("\n".join([f"{head}; run again to go on", *lines]))
