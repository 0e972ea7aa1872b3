"""A bounded pool of processes on this machine, each doing one run after the other.

A process that dies does not affect the others: its run is started again, a few times at most, and goes on
from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cryoquery.active.progress import Progress, RunStates
from cryoquery.active.run import Run
from cryoquery.data.dataset import Dataset
from cryoquery.errors import ExperimentError
from cryoquery.experiment.config import ExperimentConfig
from cryoquery.experiment.folder import n_threads
from cryoquery.experiment.run import RunOutcome, is_run_finished
from cryoquery.experiment.run_log import states
from cryoquery.network import capability
from cryoquery.signals import stoppable

MAX_ATTEMPTS = 3
"""A run whose process dies so often is given up."""
LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 20.0
"""Seconds that a process gets to stop at a checkpoint before it is killed."""


@dataclass
class _Worker:
    process: subprocess.Popen[str]
    gpus: str | None
    run: Run | None = None


@dataclass
class _Pool:
    """Workers, the runs that wait, and what became of the others."""

    config: ExperimentConfig
    n_threads: int
    waiting: deque[Run]
    answers: queue.Queue[tuple[_Worker, str]] = field(default_factory=queue.Queue)
    workers: list[_Worker] = field(default_factory=list)
    attempts: dict[Run, int] = field(default_factory=dict)
    outcomes: list[RunOutcome] = field(default_factory=list)

    def start_worker(self, gpus: str | None) -> None:
        """Start a process and give it a run, if there is one."""
        if not self.waiting:
            return
        environment = dict(os.environ, OMP_NUM_THREADS=str(self.n_threads))
        if gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpus
        program = [sys.executable, "-m", "cryoquery.experiment.executors.worker"]
        process = subprocess.Popen(
            [*program, str(self.config.out), str(self.n_threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            # Ctrl-C on a terminal goes to the whole group; the pool itself tells its workers to stop.
            start_new_session=True,
        )
        worker = _Worker(process, gpus)
        self.workers.append(worker)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()
        self.give_run(worker)

    def give_run(self, worker: _Worker) -> None:
        """Give the next run to a worker, or end the worker where no run is left."""
        assert worker.process.stdin is not None
        worker.run = self.waiting.popleft() if self.waiting else None
        try:
            if worker.run is None:
                worker.process.stdin.close()
            else:
                worker.process.stdin.write(json.dumps([worker.run.name, worker.run.seed]) + "\n")
                worker.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died; the thread that listens to it says so

    def handle(self, worker: _Worker, answer: str) -> None:
        """A worker has finished a run, or died."""
        run = worker.run
        if answer:
            assert run is not None
            self.outcomes.append(RunOutcome(run.name, run.seed, *json.loads(answer)))
            if self.outcomes[-1].fatal:
                self.waiting.clear()
            self.give_run(worker)
            return
        self.workers.remove(worker)
        status = _bury(worker)
        if run is not None and not is_run_finished(run):
            self.attempts[run] = self.attempts.get(run, 0) + 1
            if self.attempts[run] < MAX_ATTEMPTS:
                self.waiting.append(run)
            else:
                died = f"signal {-status}" if status < 0 else f"exit status {status}"
                reason = f"its process died {MAX_ATTEMPTS} times ({died}); see {run.folder / 'run.log'}"
                self.outcomes.append(RunOutcome(run.name, run.seed, reason))
        self.start_worker(worker.gpus)

    def stop(self) -> None:
        """Ask all workers to stop at the last checkpoint, and kill those that do not."""
        for worker in self.workers:
            worker.process.terminate()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and any(w.process.poll() is None for w in self.workers):
            time.sleep(0.05)
        for worker in self.workers:
            worker.process.kill()
            _bury(worker)

    def _listen(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        with contextlib.suppress(ValueError):  # the pipe was closed by `stop`
            for line in worker.process.stdout:
                self.answers.put((worker, line))
        self.answers.put((worker, ""))


def _bury(worker: _Worker) -> int:
    """The exit status of a process that has ended."""
    for pipe in (worker.process.stdin, worker.process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    return worker.process.wait()


def do_in_pool(config: ExperimentConfig, runs: Sequence[Run], progress: Progress, n: int) -> list[RunOutcome]:
    """Do ``runs`` in ``n`` processes; how each of them came out."""
    each = n_threads(config, max(1, len(os.sched_getaffinity(0)) // n))
    pool = _Pool(config, each, deque(runs))
    try:
        with stoppable():
            for gpus in _gpus_of_each(config, n):
                pool.start_worker(gpus)
            while pool.workers:
                with contextlib.suppress(queue.Empty):
                    pool.handle(*pool.answers.get(timeout=LOOK_SECONDS))
                progress(RunStates(states(runs)))
    finally:
        pool.stop()
    progress(RunStates(states(runs)))
    return pool.outcomes


def n_workers(config: ExperimentConfig, dataset: Dataset, runs: Sequence[Run]) -> int:
    """How many processes share the runs.

    Raises:
        ExperimentError: more workers are asked for than there are GPUs.
    """
    n_runs = sum(not is_run_finished(run) for run in runs)
    wanted = config.workers
    if _on_gpu(config):
        n_places = capability.n_gpus() // config.device.n_devices
        if wanted is not None and wanted > n_places:
            raise ExperimentError(f"workers={wanted}: the GPUs of this machine allow {n_places}; take fewer")
    else:
        n_cores = len(os.sched_getaffinity(0)) // (config.device.threads or 1) // config.device.n_devices
        n_places = min(n_cores, int(_free_memory() // _memory_of_one(config, dataset)))
    return max(1, min(n_runs, n_places if wanted is None else wanted))


def _on_gpu(config: ExperimentConfig) -> bool:
    return config.device.accelerator != "cpu" and capability.n_gpus() > 0


def _gpus_of_each(config: ExperimentConfig, n: int) -> list[str | None]:
    """`CUDA_VISIBLE_DEVICES` for each worker; None: as it is."""
    if not _on_gpu(config):
        return [None] * n
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = listed.split(",") if listed else [str(i) for i in range(capability.n_gpus())]
    each = config.device.n_devices
    return [",".join(gpus[i * each : (i + 1) * each]) for i in range(n)]


FIXED_BYTES = 600e6
"""What Python, torch and its libraries take."""
BYTES_PER_PIXEL_AND_CHANNEL = 200
"""Of activations in training, in float32, as measured for networks of 8 to 64 channels."""


def _memory_of_one(config: ExperimentConfig, dataset: Dataset) -> float:
    area = int(np.prod(dataset.images.shape[1:]))
    channels = config.model.base_channels
    weights = 16 * 7700 * channels**2  # weights, gradients and two moments of 7,700 · channels² numbers
    activations = BYTES_PER_PIXEL_AND_CHANNEL * config.training.batch_size * area * channels
    return FIXED_BYTES + weights + activations


def _free_memory() -> float:
    """Bytes that can be used on this machine without swapping, also inside a container."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    try:
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{what}").read_text()) for what in ("max", "current"))
        lines = Path("/sys/fs/cgroup/memory.stat").read_text().splitlines()
        cached = next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    except (OSError, ValueError, StopIteration):
        return free
    return min(free, limit - used + cached)
