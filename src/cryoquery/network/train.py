"""Fit one network to labeled images, on one device or on several."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cryoquery.errors import ConfigError, CryoqueryError
from cryoquery.network.checkpoint import Weights
from cryoquery.network.device import DeviceConfig, place
from cryoquery.network.distributed import optimize_distributed
from cryoquery.network.loader import BatchLoader
from cryoquery.network.model import AttentionUNet
from cryoquery.network.optimize import OnStep, Training, copied_weights, optimize
from cryoquery.network.predict import network_input

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def fit(
    training: Training,
    fabric: Fabric,
    watch: OnStep = lambda step: None,
    device: DeviceConfig | None = None,
    checkpoint: Path | None = None,
    snapshots: list[Weights] | None = None,
) -> AttentionUNet:
    """Train a network; the last weights are the result, none is chosen on any split.

    Args:
        training: what is to be done.
        fabric: the device that the network ends up on.
        watch: called with every step.
        device: says how many devices share the work, and whether to compile; None: one, and no.
        checkpoint: file to go on from after an interruption, written now and then between epochs; with
            it the result has the same bits as without an interruption. None: none is kept.
        snapshots: filled with the earlier weights that the configuration asks for, each with statistics
            of its own; None: none are kept.

    Raises:
        CryoqueryError: the loss is not a finite number.
        ConfigError: torch cannot compile on this machine, or several devices are to keep snapshots.
    """
    device = device or DeviceConfig()
    n_devices = min(device.n_devices, _smallest_batch(training))
    if n_devices > 1 and training.config.snapshots:
        raise ConfigError("training.snapshots: are kept on one device only; set device.n_devices=1")
    if n_devices > 1:
        network = training.model.build()
        network.load_state_dict(
            optimize_distributed(training, fabric, n_devices, watch, device.compile, checkpoint)
        )
        place(network, fabric)
    else:
        try:
            network = optimize(training, fabric, watch, device.compile, checkpoint, kept=snapshots)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            raise ConfigError(
                f"device.compile=true: torch cannot compile here ({type(error).__name__}); install a C++ "
                "compiler, or set it to false"
            ) from error
    if training.config.recalibrate:
        *_, batches = training.epochs()
        feed = BatchLoader(training.labeled, fabric, resident=False)
        _recalibrate(network, feed(batches), fabric)
        for i, weights in enumerate(snapshots or ()):
            earlier = training.model.build()
            earlier.load_state_dict(weights)
            _recalibrate(place(earlier, fabric), feed(batches), fabric)
            snapshots[i] = copied_weights(earlier)  # type: ignore[index]
    if not all(bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values()):
        rate = training.learning_rate
        raise CryoqueryError(
            f"training: the last step broke the weights; lower the learning rate (now {rate})"
        )
    return network


def _smallest_batch(training: Training) -> int:
    n = len(training.labeled)
    return n // training.config.n_steps(n)


@torch.no_grad()
def _recalibrate(network: AttentionUNet, batches: Iterable[tuple[Tensor, Tensor]], fabric: Fabric) -> None:
    """Replace the running statistics of batch normalization by those of the final weights.

    Running statistics trail the weights by some tens of steps, and a training on few images has no
    more than that: what the network learned is then hidden by statistics of what it was before
    (Wu & Johnson 2021, arXiv:2105.07576, section 3). The weights are not touched. The batches must
    be mixed as in training: the variance within a batch of one protein misses that between proteins.
    """
    layers = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momentum = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over batches
    network.train()
    for images, _ in batches:
        with fabric.autocast():
            network(network_input(images))
    for layer, value in zip(layers, momentum, strict=True):
        layer.momentum = value
