"""One training in several processes, each on a device of its own, through Lightning Fabric (DDP).

The global batch stays as configured: every process takes its share of each batch, in the order that one
process would take them. The loss is that of the whole batch, and on GPUs the statistics of batch
normalization are, too. On a CPU each process normalizes with those of its own share.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.distributed.nn.functional import all_reduce
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from cryoquery.errors import CryoqueryError
from cryoquery.network import capability
from cryoquery.network.checkpoint import Weights
from cryoquery.network.optimize import OnStep, Training, TrainingStep, optimize

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Result = TypeVar("Result")


def optimize_distributed(
    training: Training,
    fabric: Fabric,
    n_processes: int,
    watch: OnStep,
    compiled: bool = False,
    checkpoint: Path | None = None,
) -> Weights:
    """The weights that ``n_processes`` processes arrive at together.

    The processes are started afresh (*spawned*), so that a script that calls this needs the usual
    ``if __name__ == "__main__":``.

    Raises:
        CryoqueryError: the loss is not a finite number, or a process was lost.
    """
    n_threads = max(1, torch.get_num_threads() // n_processes)
    with tempfile.TemporaryDirectory() as folder, _listening(watch) as steps:
        file = Path(folder) / "weights.pt"
        work = partial(
            _work,
            training=training,
            compiled=compiled,
            checkpoint=checkpoint,
            deterministic=torch.backends.cudnn.deterministic,
            n_threads=n_threads,
            steps=steps,
            file=file,
        )
        try:
            launch(work, n_processes, fabric)
        except (ProcessRaisedException, ProcessExitedException) as error:
            kind, _, reason = str(error).strip().splitlines()[-1].partition(": ")
            if kind.startswith("cryoquery.errors."):
                raise CryoqueryError(reason) from error
            raise RuntimeError(f"training on {n_processes} devices: {kind}: {reason}") from error
        except BaseException:
            for child in torch.multiprocessing.active_children():
                child.kill()
                child.join()
            raise
        weights: Weights = torch.load(file, weights_only=True)
    return weights


def launch(work: Callable[[Fabric], Result], n_processes: int, fabric: Fabric) -> Result:
    """What ``work`` returns in the first of ``n_processes``, each with a device like that of ``fabric``.

    What it returns must be small and hold no tensors: it goes through a pipe that is read only
    after all processes have ended.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    # Fabric would use the port of an earlier training again, which another process may have by now.
    os.environ.pop("MASTER_PORT", None)
    capability.release(fabric.device)
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
    """The sum of a tensor over all processes, of which gradients can be taken.

    Every process has the total, and what it does with it moves the part of each of the others.
    """
    total: Tensor = all_reduce(sums)  # type: ignore[no-untyped-call]
    return total


def _work(
    fabric: Fabric,
    training: Training,
    compiled: bool,
    checkpoint: Path | None,
    deterministic: bool,
    n_threads: int,
    steps: Any,
    file: Path,
) -> None:
    """What each process does; the first one leaves the weights in ``file``."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the process that started this one answers them
    torch.backends.cudnn.deterministic = deterministic
    if fabric.device.type == "cpu":
        torch.set_num_threads(n_threads)

    def tell(step: TrainingStep) -> None:
        if fabric.global_rank == 0:
            steps.put(step)

    network = optimize(training, fabric, tell, compiled, checkpoint, total_over_processes)
    if fabric.global_rank == 0:
        torch.save({name: tensor.cpu() for name, tensor in network.state_dict().items()}, file)


@contextmanager
def _listening(watch: Callable[[TrainingStep], None]) -> Iterator[Any]:
    """A queue whose steps are passed on to ``watch`` by a thread."""
    steps = torch.multiprocessing.get_context("spawn").SimpleQueue()
    over = threading.Event()
    errors: list[Exception] = []

    def hear(step: TrainingStep) -> None:
        try:
            watch(step)
        except Exception as error:
            # Ended last: a process whose steps are not read would wait forever.
            errors.append(error)

    def pass_on() -> None:
        while not (over.is_set() and steps.empty()):
            if steps.empty():
                over.wait(0.05)
            else:
                hear(steps.get())

    listener = threading.Thread(target=pass_on, name="steps of all processes", daemon=True)
    listener.start()
    try:
        yield steps
    finally:
        over.set()
        listener.join(5)
    if errors:
        raise errors[0]
