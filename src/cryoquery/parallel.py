"""One training in several processes, each on a device of its own, through Lightning Fabric (DDP).

The global batch stays as configured: every process takes its share of each batch, in the order that one
process would take them. The loss is that of the whole batch, and on GPUs the statistics of batch
normalization are, too. On a CPU each process normalizes with those of its own share.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from cryoquery.model_file import Weights
from cryoquery.train import Step, Training, Watch, optimize


def optimize_together(
    training: Training, fabric: Fabric, n_processes: int, compiled: bool, watch: Watch
) -> Weights:
    """The weights that ``n_processes`` processes arrive at together.

    The processes are started afresh (*spawned*), so that a script that calls this needs the usual
    ``if __name__ == "__main__":``.

    Raises:
        CryoqueryError: the loss is not a finite number.
    """
    together = Fabric(
        accelerator=fabric.device.type,
        devices=n_processes,
        strategy="ddp_spawn",
        precision=fabric.strategy.precision.precision,
        plugins=[LightningEnvironment()],
    )
    n_threads = max(1, torch.get_num_threads() // n_processes)
    with _listening(watch) as steps:
        work = partial(_work, training=training, compiled=compiled, n_threads=n_threads, steps=steps)
        weights: Weights = together.launch(work)
    return weights


def _work(fabric: Fabric, training: Training, compiled: bool, n_threads: int, steps: Any) -> Weights:
    """What each process does; only what the first one returns is passed on."""
    if fabric.device.type == "cpu":
        torch.set_num_threads(n_threads)

    def tell(step: Step) -> None:
        if fabric.global_rank == 0:
            steps.put(step)

    network = optimize(training, fabric, compiled, tell)
    return {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}


@contextmanager
def _listening(watch: Callable[[Step], None]) -> Iterator[Any]:
    """A queue whose steps are passed on to ``watch`` by a thread."""
    steps = torch.multiprocessing.get_context("spawn").SimpleQueue()

    def pass_on() -> None:
        while (step := steps.get()) is not None:
            watch(step)

    listener = threading.Thread(target=pass_on, name="steps of all processes", daemon=True)
    listener.start()
    try:
        yield steps
    finally:
        steps.put(None)
        listener.join()
