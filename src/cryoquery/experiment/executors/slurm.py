"""Runs as jobs of Slurm, one task of an array for each, through submitit.

Where a run stands is judged by the files that it writes and by Slurm's queue; accounting is not needed. A
job that Slurm signals to stop, because of its time limit or to make room, ends its training at the last
checkpoint and puts itself into the queue again. One that vanishes is submitted again, a few times at most.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from cryoquery import slurm
from cryoquery.active.progress import Progress, RunStates
from cryoquery.active.run import Run
from cryoquery.errors import ConfigError, DataError, Stopped, explain
from cryoquery.experiment.config import ExperimentConfig, plan_runs, run_folder
from cryoquery.experiment.executors.local import MAX_ATTEMPTS
from cryoquery.experiment.folder import enter, equip, n_threads
from cryoquery.experiment.run import RunOutcome, do_run, is_run_finished
from cryoquery.experiment.run_log import RunLog, read_state, states
from cryoquery.signals import stoppable
from cryoquery.storage.atomic import read_json, write_json

FOLDER = ".slurm"
"""Of the jobs' files, in the experiment's folder."""


def do_on_slurm(
    config: ExperimentConfig, runs: Sequence[Run], progress: Progress, wait: bool
) -> list[RunOutcome]:
    """Put what is left of ``runs`` into Slurm's queue; how each came out, as far as it is known.

    Runs whose jobs are still in the queue are not submitted again.

    Raises:
        SlurmError: there is no Slurm here, it does not answer, or it refuses the jobs.
    """
    slurm.check_slurm()
    n_gpus, n_needed = config.slurm.gpus, config.device.n_devices
    if n_gpus < n_needed and (n_gpus or config.device.accelerator == "cuda"):
        raise ConfigError(
            f"slurm.gpus={n_gpus}: a run is to use {n_needed} (device.n_devices); ask for as many"
        )
    file = config.out / FOLDER / "jobs.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    jobs: dict[str, str] = {}
    with suppress(DataError):
        jobs = read_json(file)
    attempts: dict[Run, int] = {}
    slurm.queue(patience=())  # where Slurm does not answer at all, say so at once
    while True:
        queued = slurm.queue()
        left = [run for run in runs if not is_run_finished(run) and jobs.get(_key(run)) not in queued]
        failed = [run for run in left if attempts.get(run) and _has_failed(run)]
        again = [run for run in left if run not in failed and attempts.get(run, 0) < MAX_ATTEMPTS]
        if again:
            jobs |= dict(zip(map(_key, again), submit(config, again), strict=True))
            write_json(file, jobs)
            for run in again:
                attempts[run] = attempts.get(run, 0) + 1
        progress(RunStates(states(runs)))
        if not wait:
            return []
        if not again and all(is_run_finished(run) or run in left for run in runs):
            return [RunOutcome(run.name, run.seed, _reason(run)) for run in left]
        time.sleep(slurm.POLL_SECONDS)


def submit(config: ExperimentConfig, runs: Sequence[Run]) -> list[str]:
    """Submit ``runs`` as an array; their job numbers. Raises SlurmError where Slurm refuses them."""
    out = str(config.out.resolve())
    columns = [out] * len(runs), [run.name for run in runs], [run.seed for run in runs]
    return slurm.submit(config.out / FOLDER, config.slurm, "the config", work, *columns)


def work(out: str, name: str, seed: int) -> str:
    """What a job does: one run. It ends the process where it puts itself into the queue again."""
    try:
        with stoppable():
            config = enter(Path(out))
            torch.set_num_threads(n_threads(config, config.slurm.cpus))
            try:
                context = equip(config)
            except Exception as error:
                RunLog(run_folder(config, name, seed), name, seed, []).close(
                    "failed", explain(error) or repr(error)
                )
                raise
            run = next(r for r in plan_runs(config, len(context.pool)) if (r.name, r.seed) == (name, seed))
            return do_run(config, context, run).error
    except Stopped as stopped:
        slurm.leave(stopped, enter(Path(out)).slurm.max_requeues)


def _key(run: Run) -> str:
    """Under which the number of a run's last job is noted, for the next call."""
    return json.dumps([run.name, run.seed])


def _has_failed(run: Run) -> bool:
    return read_state(run.folder, run.name, run.seed).state == "failed"


def _reason(run: Run) -> str:
    state = read_state(run.folder, run.name, run.seed)
    return state.message or f"its job ended ({state.state}); see {run.folder / 'run.log'} and {FOLDER}/"
