"""Where and in which precision a network runs."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from cryoquery.config import CheckedModel
from cryoquery.errors import ConfigError

Precision = Literal["auto", "32-true", "bf16-mixed"]


class DeviceConfig(CheckedModel):
    """Device and precision; ``auto`` takes a GPU where there is one, and bfloat16 where it is fast."""

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "auto"

    def fabric(self) -> Fabric:
        """The Lightning Fabric that places networks and data on one device.

        Raises:
            ConfigError: there is no such device.
        """
        accelerator = self.accelerator
        if accelerator == "auto":
            accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        if accelerator == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device.accelerator='cuda': no GPU that torch can use; take 'cpu' or 'auto'")
        # A rerun is to give the same bits, on a GPU as far as cuDNN can.
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        precision = self.precision
        if precision == "auto":
            precision = "bf16-mixed" if _has_fast_bfloat16(accelerator) else "32-true"
        # Fabric announces its precision on every start; `environment.json` says it once.
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        # One process, also inside a Slurm job or under somebody's LT_ variables.
        environment = LightningEnvironment()
        return Fabric(accelerator=accelerator, devices=1, precision=precision, plugins=[environment])


def _has_fast_bfloat16(accelerator: str) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 on this machine."""
    if accelerator == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if accelerator == "cpu":
        capability = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(capability.get("amx_bf16") or capability.get("avx512_bf16"))
    return False


def describe(fabric: Fabric) -> str:
    """The device in words, for `environment.json`."""
    if fabric.device.type == "cuda":
        return torch.cuda.get_device_name(fabric.device)
    return f"{fabric.device.type}, {torch.get_num_threads()} threads"
