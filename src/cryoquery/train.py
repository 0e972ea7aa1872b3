"""Fit one network to labelled images, and keep it with the configuration that made it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from cryoquery.config import CheckedModel
from cryoquery.data.dataset import IGNORE, PARTICLE
from cryoquery.data.pool import LabeledImages
from cryoquery.errors import CryoqueryError, DataError
from cryoquery.losses import CombinedLoss
from cryoquery.model import AttentionUNet, ModelConfig
from cryoquery.predict import network_input
from cryoquery.records import write_bytes

Weights = Mapping[str, Tensor]
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
    recalibrate: bool = True
    """Average the statistics of batch normalization once more over the labelled images at the end."""
    fine_tune: bool = True
    """Go on from the weights of the iteration before; false: always from scratch."""

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

    def loss(self) -> CombinedLoss:
        """The loss that training minimizes."""
        return CombinedLoss(self.focal_weight, self.dice_weight, self.focal_alpha, self.focal_gamma)


@dataclass(frozen=True)
class Step:
    """Where a training stands; given to whoever watches."""

    epoch: int
    n_epochs: int
    n_images: int
    """Images that this step passed through the network."""
    loss: float | None
    """Mean loss of the epoch, on its last step only: looking earlier would stall the device."""


def fit(
    start: Weights,
    model: ModelConfig,
    labeled: LabeledImages,
    config: TrainingConfig,
    *,
    from_scratch: bool,
    seed: int,
    fabric: Fabric,
    watch: Callable[[Step], None] = lambda step: None,
) -> AttentionUNet:
    """Train a network that starts from the weights ``start``.

    The order of the images and their turns come from ``seed`` and the number of images alone, so
    that equal labelled sets give equal weights, whichever strategy chose them. The last weights are
    the result: no checkpoint is chosen on any split.

    Raises:
        CryoqueryError: the loss is not a finite number.
    """
    network = model.build()
    network.load_state_dict(start)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rate = config.initial_learning_rate if from_scratch else config.learning_rate
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, betas=config.betas, fused=True)
    wrapped, optimizer = fabric.setup(network, optimizer)
    loss_function = config.loss()
    rng = np.random.default_rng([seed, len(labeled)])
    n_epochs = config.n_epochs(len(labeled), from_scratch)
    wrapped.train()
    for epoch in range(n_epochs):
        losses = []
        batches = list(_batches(len(labeled), config.batch_size, rng))
        for at, positions in enumerate(batches):
            images, masks = _to_device(*labeled.batch(positions), fabric)
            if config.augment:
                turns = rng.integers(8, size=len(positions))
                images, masks = turn(images, turns), turn(masks, turns)
            valid = masks != IGNORE
            loss = loss_function(wrapped(network_input(images)), masks == PARTICLE, valid)
            fabric.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
            last = at == len(batches) - 1
            mean = _finite_mean(losses, epoch, rate) if last else None
            watch(Step(epoch, n_epochs, len(positions), mean))
    if config.recalibrate:
        _recalibrate(network, labeled, _batches(len(labeled), config.batch_size, rng), fabric)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values()):
        raise CryoqueryError(
            f"training: the last step broke the weights; lower the learning rate (now {rate})"
        )
    return network


@torch.no_grad()
def _recalibrate(
    network: AttentionUNet, labeled: LabeledImages, batches: Iterable[NDArray[np.int64]], fabric: Fabric
) -> None:
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
    for positions in batches:
        images, _ = _to_device(*labeled.batch(positions), fabric)
        with fabric.autocast():
            network(network_input(images))
    for layer, value in zip(layers, momentum, strict=True):
        layer.momentum = value


def _batches(n: int, batch_size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """A random order of ``n`` positions, dealt into batches of nearly equal size; none is dropped."""
    yield from np.array_split(rng.permutation(n), math.ceil(n / batch_size))


def _to_device(images: NDArray[np.uint8], masks: NDArray[np.uint8], fabric: Fabric) -> tuple[Tensor, Tensor]:
    tensors = [torch.from_numpy(array)[:, None] for array in (images, masks)]
    return fabric.to_device(tensors[0]), fabric.to_device(tensors[1])


def turn(images: Tensor, turns: NDArray[np.int64]) -> Tensor:
    """Apply to each image (n, c, h, w) one of the 8 symmetries of the square.

    Numbers 0 to 3 are quarter turns, 4 to 7 the same after mirroring. Images that are not square
    are only mirrored and turned by halves.
    """
    square = images.shape[-1] == images.shape[-2]
    out = torch.empty_like(images)
    for symmetry in np.unique(turns):
        at = torch.from_numpy(np.flatnonzero(turns == symmetry)).to(images.device)
        some = images[at]
        quarters = int(symmetry % 4) if square else 2 * int(symmetry % 2)
        if symmetry >= 4:
            some = some.flip(-1)
        out[at] = torch.rot90(some, quarters, (-2, -1))
    return out


def _finite_mean(losses: list[Tensor], epoch: int, rate: float) -> float:
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise CryoqueryError(
            f"training: the loss became {mean} in epoch {epoch + 1}; lower the learning rate (now {rate})"
        )
    return mean


@dataclass(frozen=True)
class SavedModel:
    """What a `model.pt` holds."""

    weights: Weights
    model: ModelConfig
    made_by: Mapping[str, Any]
    """How it was trained: training configuration, seed, digest of the training."""
    picking: Mapping[str, Any] | None
    """How to pick with it, see `cryoquery.tuning.PickingRecipe`; None in older files."""

    def build(self) -> AttentionUNet:
        """The network with these weights, in evaluation mode on the CPU."""
        network = self.model.build()
        network.load_state_dict(self.weights)
        return network.eval()


def save_model(
    path: Path,
    network: AttentionUNet,
    model: ModelConfig,
    made_by: Mapping[str, Any],
    picking: Mapping[str, Any] | None = None,
) -> None:
    """Write the weights with the configuration of the network and records of its making and use.

    Args:
        path: of the new `model.pt`.
        network: whose weights are kept.
        model: its configuration.
        made_by: how it was trained; plain types only.
        picking: how to pick with it, from `cryoquery.tuning.picking_recipe`; plain types only.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    content: dict[str, Any] = {"model": model.model_dump(), "made_by": dict(made_by), "weights": weights}
    if picking is not None:
        content["picking"] = dict(picking)
    stream = io.BytesIO()
    torch.save(content, stream)
    write_bytes(path, stream.getvalue())


def load_model(path: Path | str) -> AttentionUNet:
    """The network in a `model.pt`, in evaluation mode on the CPU. Nothing in the file is executed.

    Raises:
        DataError: the file is missing, damaged, or not written by `save_model`.
    """
    return read_model(Path(path)).build()


def load_weights(path: Path) -> tuple[Weights, ModelConfig, Mapping[str, Any]]:
    """Weights, configuration of the network, and record of how it was made.

    Raises:
        DataError: the file is missing, damaged, or not written by `save_model`.
    """
    saved = read_model(path)
    return saved.weights, saved.model, saved.made_by


def read_model(path: Path) -> SavedModel:
    """Everything in a `model.pt`. Nothing in the file is executed.

    Raises:
        DataError: the file is missing, damaged, or not written by `save_model`.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return SavedModel(
            content["weights"], ModelConfig(**content["model"]), content["made_by"], content.get("picking")
        )
    except FileNotFoundError:
        raise DataError(f"{path}: no such model") from None
    except Exception as error:  # torch.load raises many kinds on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a model written by cryoquery, or damaged ({reason})") from None
