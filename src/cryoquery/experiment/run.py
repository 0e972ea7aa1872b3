"""One run of an experiment, done by whichever process has it: a worker, a job, or this one."""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass, replace

from cryoquery.active.iteration import MODEL, read_iteration
from cryoquery.active.loop import active_learning
from cryoquery.active.oracles import make_oracle
from cryoquery.active.progress import Progress, all_of, silent
from cryoquery.active.run import Context, Run
from cryoquery.errors import CryoqueryError, explain
from cryoquery.experiment.config import ExperimentConfig, RecordedConfig, plan_runs
from cryoquery.experiment.folder import OWN_CACHE, read_config
from cryoquery.experiment.plan import planned_work
from cryoquery.experiment.run_log import LEASE, RunLog
from cryoquery.experiment.tensorboard import TensorBoardLog
from cryoquery.storage.cache import Cache
from cryoquery.storage.leases import leased

FATAL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)


@dataclass(frozen=True)
class RunOutcome:
    """What became of a run."""

    run: str
    seed: int
    error: str = ""
    """Why it could not be finished; empty: it is."""
    fatal: bool = False
    """Whether other runs would fail for the same reason: the disk is full, or its server is gone."""


def do_run(config: ExperimentConfig, context: Context, run: Run, progress: Progress = silent) -> RunOutcome:
    """Do what is left of a run. Errors end up in the outcome and in its log.

    Another process that is at work on the same run is waited for.
    """
    planned = planned_work(config, context.dataset, run)
    run_log = RunLog(run.folder, run.name, run.seed, planned)
    listeners: list[Progress] = [progress, run_log]
    try:
        if config.tensorboard:
            listeners.append(TensorBoardLog(run.folder / "tensorboard"))
        watched = replace(context, progress=all_of(*listeners))
        with leased(run.folder / LEASE, waiting=watched.waiting):
            oracle = make_oracle(context.dataset, config.oracle, run.seed)
            active_learning(run, watched, oracle)
    except Exception as error:
        reason = explain(error)
        run_log.close("failed", reason or f"{type(error).__name__}: {error}")
        if reason is None:
            raise
        return RunOutcome(
            run.name, run.seed, reason, isinstance(error, OSError) and error.errno in FATAL_ERRNOS
        )
    except BaseException as error:
        run_log.close("stopped", str(error) or type(error).__name__)
        raise
    run_log.close("finished")
    with suppress(CryoqueryError, OSError):  # another run's files may be damaged; this one is finished
        drop_models(read_config(config.out), context, run.seed)
    return RunOutcome(run.name, run.seed)


def is_run_finished(run: Run) -> bool:
    """Whether every iteration of a run is there."""
    folders = (run.folder / f"iteration_{number}" for number in range(len(run.counts)))
    return all((folder / "metrics.json").is_file() for folder in folders)


def drop_models(config: RecordedConfig, context: Context, seed: int) -> None:
    """Once all runs of a seed are finished, remove the models that are not to stay.

    They are removed from the experiment's own cache, too, but not from a shared one.
    """
    runs = [run for run in plan_runs(config, len(context.pool)) if run.seed == seed]
    if config.keep_models == "all" or not all(map(is_run_finished, runs)):
        return
    kept = set()
    for run in runs:
        last = len(run.counts) - 1
        for number in range(len(run.counts)):
            folder = run.folder / f"iteration_{number}"
            key = read_iteration(folder).metrics["training_key"]
            if config.keep_models == "last" and number == last:
                kept.add(key)
            else:
                (folder / MODEL).unlink(missing_ok=True)
            if config.cache is None and key not in kept:
                Cache(config.out / OWN_CACHE).discard(key)
