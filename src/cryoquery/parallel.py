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
from typing import Any, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from numpy.typing import NDArray
from torch import Tensor

from cryoquery.model_file import Weights
from cryoquery.train import Step, Training, Watch, optimize

Result = TypeVar("Result")


def optimize_together(
    training: Training, fabric: Fabric, n_processes: int, compiled: bool, watch: Watch
) -> Weights:
    """The weights that ``n_processes`` processes arrive at together.

    The processes are started afresh (*spawned*), so that a script that calls this needs the usual
    ``if __name__ == "__main__":``.

    Raises:
        CryoqueryError: the loss is not a finite number.
    """
    n_threads = max(1, torch.get_num_threads() // n_processes)
    with _listening(watch) as steps:
        work = partial(_work, training=training, compiled=compiled, n_threads=n_threads, steps=steps)
        arrays = launch(work, n_processes, fabric)
    return {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}


def launch(work: Callable[[Fabric], Result], n_processes: int, fabric: Fabric) -> Result:
    """What ``work`` returns in the first of ``n_processes``, each with a device like that of ``fabric``.

    It must not return tensors: they would be memory of a process that has ended.
    """
    together = Fabric(
        accelerator=fabric.device.type,
        devices=n_processes,
        strategy="ddp_spawn",
        precision=fabric.strategy.precision.precision,
        plugins=[LightningEnvironment()],
    )
    result: Result = together.launch(partial(_leaving_together, work=work))
    return result


def _leaving_together(fabric: Fabric, work: Callable[[Fabric], Result]) -> Result:
    result = work(fabric)
    # A process that leaves while another still talks to it takes that one down.
    fabric.barrier()
    torch.distributed.destroy_process_group()
    return result


def total_over_processes(sums: Tensor) -> Tensor:
    """The sum of a tensor over all processes, of which gradients can be taken."""
    total: Tensor = _Total.apply(sums)  # type: ignore[no-untyped-call]
    return total


class _Total(torch.autograd.Function):
    """Every process has the total, and what it does with it moves the part of each of the others."""

    @staticmethod
    def forward(context: Any, sums: Tensor) -> Tensor:
        return _all_reduced(sums)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _all_reduced(gradient)


def _all_reduced(values: Tensor) -> Tensor:
    total = values.detach().clone()
    torch.distributed.all_reduce(total)
    return total


def _work(
    fabric: Fabric, training: Training, compiled: bool, n_threads: int, steps: Any
) -> dict[str, NDArray[np.generic]]:
    """What each process does; only what the first one returns is passed on."""
    if fabric.device.type == "cpu":
        torch.set_num_threads(n_threads)

    def tell(step: Step) -> None:
        if fabric.global_rank == 0:
            steps.put(step)

    network = optimize(training, fabric, tell, compiled, total_over_processes)
    # Arrays, because tensors would be passed on as memory of a process that is about to end.
    return {name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()}


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
