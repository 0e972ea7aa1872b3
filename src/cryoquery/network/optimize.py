"""Optimizer steps: how a network is trained, on what, and the loop over epochs and batches.

One process runs it alone, or each of several on its share of every batch (`network.distributed`).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from cryoquery.config import CheckedModel
from cryoquery.data.dataset import IGNORE, PARTICLE
from cryoquery.data.pool import LabeledImages
from cryoquery.errors import CryoqueryError
from cryoquery.network import capability
from cryoquery.network.augment import distort
from cryoquery.network.checkpoint import Weights, load_checkpoint, save
from cryoquery.network.device import place
from cryoquery.network.loader import Batch, BatchLoader
from cryoquery.network.losses import CombinedLoss
from cryoquery.network.model import AttentionUNet, ModelConfig
from cryoquery.network.predict import network_input

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CHECKPOINT_SECONDS = 30.0
"""At least so long lies between two checkpoints of a training."""
MAX_RECALIBRATED = 1024
"""A thousand images estimate the statistics of batch normalization well enough (Wu & Johnson 2021)."""

Fraction = Annotated[float, Field(ge=0, lt=1)]


class TrainingConfig(CheckedModel):
    """How a network is fitted. The defaults are those of the protocol."""

    initial_epochs: int = Field(default=20, ge=1)
    """Epochs of a training from scratch."""
    epochs: int = Field(default=10, ge=1)
    """Epochs of a training that goes on from the weights of the iteration before."""
    min_steps: int = Field(default=0, ge=0)
    """Train more epochs where the stated ones would make fewer optimizer steps than this."""
    batch_size: int = Field(default=16, ge=1)
    initial_learning_rate: float = Field(default=1e-3, gt=0)
    learning_rate: float = Field(default=5e-4, gt=0)
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    focal_weight: float = Field(default=0.7, ge=0)
    dice_weight: float = Field(default=0.3, ge=0)
    focal_alpha: float = Field(default=0.25, ge=0, le=1)
    focal_gamma: float = Field(default=2.0, ge=0)
    """0 or at least 1: in between the gradient is infinite where the network is certain and right."""
    augment: bool = True
    """Turn and mirror every image at random (the 8 symmetries of the square)."""
    distort: bool = False
    """Change size, sharpness, noise and contrast of every image at random, see `network.augment`."""
    doubtful_background: Fraction = 0.0
    """Background on which the model that trainings start from gives a particle at least this probability is
    ignored, since labels may miss some; 0: none is. Without such a model it has no effect."""
    decay: Literal["none", "cosine"] = "none"
    """How the learning rate falls over a training."""
    averaging: Fraction = 0.0
    """The weights of a training are averaged over its steps, those of one step before counting so much of the
    next one's; 0: the last ones are the result (Polyak & Juditsky 1992)."""
    recalibrate: bool = True
    """Average the statistics of batch normalization once more at the end, over labeled images."""
    fine_tune: bool = True
    """Go on from the weights of the iteration before; false: always from scratch."""
    snapshots: int = Field(default=0, ge=0, le=32)
    """Weights of as many epochs from the last half of a training, the last among them, are kept beside the
    model as an ensemble; 0: none are."""

    @model_validator(mode="after")
    def _usable_loss(self) -> Self:
        if 0 < self.focal_gamma < 1:
            raise ValueError(f"focal_gamma={self.focal_gamma:g}: must be 0 or at least 1")
        if self.focal_weight + self.dice_weight == 0:
            raise ValueError("focal_weight=0 and dice_weight=0: nothing would be learned; give one a weight")
        return self

    def n_epochs(self, n_images: int, from_scratch: bool) -> int:
        """Epochs of one training on ``n_images``."""
        stated = self.initial_epochs if from_scratch else self.epochs
        return max(stated, math.ceil(self.min_steps / self.n_steps(n_images)))

    def n_steps(self, n_images: int) -> int:
        """Optimizer steps per epoch."""
        return math.ceil(n_images / self.batch_size)

    def n_snapshots(self, n_images: int, from_scratch: bool) -> int:
        """Weights that one training keeps, the last among them; 0: none but those of the model."""
        return min(self.snapshots, self.n_epochs(n_images, from_scratch))

    def n_recalibrated(self, n_images: int) -> int:
        """Images that the statistics of batch normalization are averaged over at the end."""
        return min(n_images, MAX_RECALIBRATED) if self.recalibrate else 0

    def loss(self) -> CombinedLoss:
        """The loss that training minimizes."""
        return CombinedLoss(self.focal_weight, self.dice_weight, self.focal_alpha, self.focal_gamma)


@dataclass(frozen=True)
class TrainingStep:
    """Where a training stands, for the callback ``watch``."""

    epoch: int
    n_epochs: int
    n_images: int
    """Images that this step passed through the network."""
    loss: float | None
    """Mean loss of the epoch, on its last step only: looking earlier would stall the device."""


OnStep = Callable[[TrainingStep], None]


@dataclass(frozen=True)
class Training:
    """What is trained, from what, on which images, and how."""

    start: Weights
    model: ModelConfig
    labeled: LabeledImages
    config: TrainingConfig
    from_scratch: bool
    seed: int

    @property
    def n_epochs(self) -> int:
        """Epochs of this training."""
        return self.config.n_epochs(len(self.labeled), self.from_scratch)

    @property
    def learning_rate(self) -> float:
        """Of the Adam optimizer, at the beginning."""
        return self.config.initial_learning_rate if self.from_scratch else self.config.learning_rate

    def rate_at(self, progress: float) -> float:
        """The learning rate where so much of the training, in [0, 1), is done."""
        falls = self.config.decay == "cosine"
        return self.learning_rate * ((1 + math.cos(math.pi * progress)) / 2 if falls else 1.0)

    @property
    def snapshots_after(self) -> set[int]:
        """After how many epochs weights are kept beside the last: evenly within the last half."""
        n = self.config.n_snapshots(len(self.labeled), self.from_scratch)
        stride = max(1, self.n_epochs // (2 * max(n, 1)))
        return {self.n_epochs - i * stride for i in range(1, n)}

    def epochs(self) -> Iterator[list[Batch]]:
        """The batches of each epoch, and of one more for the recalibration.

        Order and symmetries come from the seed and the number of images alone, so that equal labeled
        sets give equal weights, whichever strategy chose them and however many devices there are.
        """
        n = len(self.labeled)
        rng = np.random.default_rng([self.seed, n])
        for _ in range(self.n_epochs):
            order = rng.permutation(n)
            symmetries = rng.integers(8, size=n) if self.config.augment else None
            yield _batches(order, symmetries, self.config.n_steps(n))
        n_last = self.config.n_recalibrated(n)
        yield _batches(rng.permutation(n)[:n_last], None, self.config.n_steps(max(n_last, 1)))


def _batches(order: NDArray[np.int64], symmetries: NDArray[np.int64] | None, n: int) -> list[Batch]:
    """Even batches: no image is dropped, and none is alone with its statistics."""
    turned = [None] * n if symmetries is None else np.array_split(symmetries, n)
    return [Batch(*both) for both in zip(np.array_split(order, n), turned, strict=True)]


def optimize(
    training: Training,
    fabric: Fabric,
    watch: OnStep,
    compiled: bool = False,
    checkpoint: Path | None = None,
    total: Callable[[Tensor], Tensor] | None = None,
    kept: list[Weights] | None = None,
) -> AttentionUNet:
    """All optimizer steps of a training; in each of the processes of ``fabric``, on its share of each batch.

    Args:
        training: what is to be done.
        fabric: the device, and which of how many processes this is.
        watch: called with every step.
        compiled: go through `torch.compile`.
        checkpoint: see `fit`.
        total: adds up a vector over the processes, see `CombinedLoss`; None: there is one.
        kept: filled with the weights after the epochs `Training.snapshots_after`; None: none are kept.

    Raises:
        CryoqueryError: the loss is not a finite number.
    """
    network = training.model.build()
    network.load_state_dict(training.start)
    place(network, fabric)
    if fabric.world_size > 1 and capability.shares_statistics(fabric.device):
        network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    rate, betas = training.learning_rate, training.config.betas
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, betas=betas, fused=True)
    module: Any = torch.compile(network) if compiled else network
    average = copy.deepcopy(network) if training.config.averaging else None
    wrapped, optimizer = fabric.setup(module, optimizer)
    loss_function, feed = training.config.loss(), BatchLoader(training.labeled, fabric)
    wrapped.train()
    n_epochs, saved = training.n_epochs, time.monotonic()
    n_done = _resume(checkpoint, network, average, optimizer, kept)
    for epoch, batches in zip(range(n_epochs), training.epochs(), strict=False):
        if epoch < n_done:
            continue
        shares = [batch.share(fabric.global_rank, fabric.world_size) for batch in batches]
        losses: list[Tensor] = []
        for batch, (levels, masks) in zip(batches, feed(shares), strict=True):
            step, images = epoch * len(batches) + len(losses), network_input(levels)
            if training.config.distort:
                images, masks = distort(images, masks, _seed(training.seed, step, fabric.global_rank))
            for group in optimizer.param_groups:
                group["lr"] = training.rate_at(step / (n_epochs * len(batches)))
            loss = loss_function(wrapped(images), masks == PARTICLE, masks != IGNORE, total)
            fabric.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            if average is not None:
                _follow(average, network, min(training.config.averaging, (1 + step) / (10 + step)))
            losses.append(loss.detach())
            mean = _finite_mean(losses, epoch, rate) if len(losses) == len(batches) else None
            watch(TrainingStep(epoch, n_epochs, len(batch.positions), mean))
        if kept is not None and epoch + 1 in training.snapshots_after:
            kept.append(copied_weights(network))
        due = time.monotonic() - saved > CHECKPOINT_SECONDS and epoch + 1 < n_epochs
        if checkpoint is not None and due and fabric.global_rank == 0:
            state = {
                "n_done": epoch + 1,
                "network": network.state_dict(),
                "average": None if average is None else average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "snapshots": kept or [],
            }
            save(checkpoint, state)
            saved = time.monotonic()
    return network if average is None else average


def _seed(seed: int, step: int, rank: int) -> int:
    """Of the changes of one batch in one process."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)


@torch.no_grad()
def _follow(average: AttentionUNet, network: AttentionUNet, kept: float) -> None:
    """Move the ``average`` towards the ``network``; so much of it is ``kept``."""
    for mean, now in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        mean.copy_(torch.lerp(now, mean, kept) if mean.is_floating_point() else now)


def copied_weights(network: AttentionUNet) -> Weights:
    """The weights on the CPU, which further training does not touch."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _resume(
    checkpoint: Path | None,
    network: AttentionUNet,
    average: AttentionUNet | None,
    optimizer: torch.optim.Optimizer,
    kept: list[Weights] | None,
) -> int:
    """Put back what an interrupted training had reached; how many epochs that is."""
    if (state := load_checkpoint(checkpoint)) is None:
        return 0
    network.load_state_dict(state["network"])
    if average is not None:
        average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    if kept is not None:
        kept[:] = state["snapshots"]
    return int(state["n_done"])


def _finite_mean(losses: list[Tensor], epoch: int, rate: float) -> float:
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise CryoqueryError(
            f"training: the loss became {mean} in epoch {epoch + 1}; lower the learning rate (now {rate})"
        )
    return mean
