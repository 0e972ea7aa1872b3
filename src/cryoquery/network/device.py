"""Where and in which precision a network runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field

from cryoquery.config import CheckedModel
from cryoquery.errors import ConfigError
from cryoquery.network import capability
from cryoquery.network.model import AttentionUNet

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Precision = Literal["auto", "32-true", "bf16-mixed"]

NARROW = 16
"""Networks with fewer channels at the first level keep the plain layout in bfloat16 on a CPU."""


class DeviceConfig(CheckedModel):
    """Device and precision; ``auto`` takes a GPU where there is one, and bfloat16 where it is fast."""

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "auto"
    n_devices: int = Field(default=1, ge=1)
    """GPUs that share one training, or processes on a CPU; the batch stays as it is and is divided."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of each process; None: the cores, divided among the processes. They decide on the last
    bits of a result on a CPU."""
    deterministic: bool = True
    """Give the same bits in a rerun; false: let cuDNN choose and try faster algorithms on a GPU."""
    compile: bool = False
    """Train through `torch.compile`, which takes a minute to begin with and needs a C++ compiler."""

    def chosen(self) -> tuple[str, Literal["32-true", "bf16-mixed"]]:
        """Accelerator and precision on this machine, neither of them ``auto``.

        Raises:
            ConfigError: there is no such device.
        """
        n_gpus, accelerator = capability.n_gpus(), self.accelerator
        if accelerator == "auto":
            accelerator = "cuda" if n_gpus else "cpu"
        if accelerator == "cuda" and not n_gpus:
            raise ConfigError("device.accelerator='cuda': no GPU that torch can use; take 'cpu' or 'auto'")
        if accelerator == "cuda" and self.n_devices > n_gpus:
            raise ConfigError(f"device.n_devices={self.n_devices}: this machine has {n_gpus} GPU(s)")
        if self.precision != "auto":
            return accelerator, self.precision
        return accelerator, "bf16-mixed" if capability.has_fast_bfloat16(accelerator) else "32-true"

    def fabric(self) -> Fabric:
        """The Lightning Fabric that places networks and data on one device.

        Raises:
            ConfigError: there is no such device.
        """
        accelerator, precision = self.chosen()
        torch.backends.cudnn.deterministic = self.deterministic
        torch.backends.cudnn.benchmark = not self.deterministic
        from lightning_fabric import Fabric  # a second and a half: only where something is computed
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment

        # Fabric announces its precision on every start; `environment.json` says it once.
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        # One process, also inside a Slurm job or where LT_ variables are set.
        environment = LightningEnvironment()
        return Fabric(accelerator=accelerator, devices=1, precision=precision, plugins=[environment])


@contextmanager
def using_threads(n: int | None) -> Iterator[None]:
    """Compute with ``n`` CPU threads while the block runs; None: with as many as before."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(n or before)
        yield
    finally:
        torch.set_num_threads(before)


def place(network: AttentionUNet, fabric: Fabric) -> AttentionUNet:
    """Move a network to its device, in the layout in which it runs fastest there.

    Channels last, but for narrow networks in bfloat16 on a CPU: their few channels do not fill the
    vector units, and oneDNN does better with a layout of its own (`benchmarks/training.py`).
    """
    low_precision = str(fabric.strategy.precision.precision) != "32-true"
    narrow = fabric.device.type == "cpu" and low_precision and network.base_channels < NARROW
    layout = torch.contiguous_format if narrow else torch.channels_last
    return network.to(fabric.device).to(memory_format=layout)  # type: ignore[call-overload, no-any-return]


def describe(fabric: Fabric) -> str:
    """The device in words, for `environment.json`."""
    if fabric.device.type == "cuda":
        return torch.cuda.get_device_name(fabric.device)
    return f"{fabric.device.type}, {torch.get_num_threads()} threads"
