"""A training step as this project makes it, against the same step written plainly.

    python benchmarks/training_step.py [BASE_CHANNELS SIZE BATCH]

Plain is float32, contiguous memory, Adam as it comes. Ours is what `DeviceConfig` chooses on this
machine, channels-last memory and fused Adam. Both run in turn in one process; what counts is the
ratio, not the seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from cryoquery import AttentionUNet, CombinedLoss
from cryoquery.device import DeviceConfig, describe

N_ROUNDS = 7


def plain_step(base_channels: int, images: torch.Tensor, target: torch.Tensor) -> Callable[[], None]:
    """The way such scripts are usually written."""
    network, loss = AttentionUNet(base_channels=base_channels).to(images.device), CombinedLoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss(network(images), target).backward()
        optimizer.step()

    return step


def our_step(base_channels: int, images: torch.Tensor, target: torch.Tensor) -> Callable[[], None]:
    """As in `cryoquery.train.fit`."""
    fabric = DeviceConfig().fabric()
    network, loss = AttentionUNet(base_channels=base_channels), CombinedLoss()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    wrapped, optimizer = fabric.setup(network, optimizer)
    images = images.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        fabric.backward(loss(wrapped(images), target))
        optimizer.step()
        optimizer.zero_grad()

    return step


def main(base_channels: int = 16, size: int = 128, batch: int = 16) -> None:
    """Print seconds per step of both, and their ratio round by round."""
    fabric = DeviceConfig().fabric()
    images = torch.randn(batch, 1, size, size, device=fabric.device)
    target = (torch.rand_like(images) < 0.3).float()
    steps = {
        "plain": plain_step(base_channels, images, target),
        "ours": our_step(base_channels, images, target),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(N_ROUNDS):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if fabric.device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - started)
    ratios = sorted(a / b for a, b in zip(seconds["plain"][2:], seconds["ours"][2:], strict=True))
    precision = fabric.strategy.precision.precision
    print(f"{base_channels} channels, {batch} × {size}² on {describe(fabric)}, {precision}")
    for name, values in seconds.items():
        print(f"{name:5}  {min(values[2:]):.3f} s per step")
    print(f"ratio  {ratios[len(ratios) // 2]:.2f} (from {ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
