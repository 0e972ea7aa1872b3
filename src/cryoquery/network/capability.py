"""What the devices of this machine can do: every path that depends on one asks here.

Tests replace these functions, and go through the paths of a GPU on a CPU.
"""

from __future__ import annotations

import torch


def n_gpus() -> int:
    """GPUs that torch can use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def has_fast_bfloat16(accelerator: str) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 on this machine."""
    if accelerator == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if accelerator == "cpu":
        found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    return False


def free_bytes(device: torch.device) -> int:
    """Memory of its own that a device has left for images; 0 for a CPU, which reads them where they are."""
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    # What torch holds without using it is free for this, too.
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def copies_in_background(device: torch.device) -> bool:
    """Whether images are copied to a device while it computes."""
    return device.type == "cuda"


def shares_statistics(device: torch.device) -> bool:
    """Whether processes that train together can normalize a batch as one: torch has that for GPUs."""
    return device.type == "cuda"


def finish(device: torch.device) -> None:
    """Wait for what a device was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release(device: torch.device) -> None:
    """Give back what torch holds of a device's memory without using it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
