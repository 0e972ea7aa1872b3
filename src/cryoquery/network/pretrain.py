"""Learn features of a pool's images without any label: a start for trainings, and for the first choice.

The encoder of the network sees two views of each image, other parts of it, turned, brightened and with
noise added, and learns to describe them alike while its descriptions of different images stay spread out
and uncorrelated: VICReg (Bardes et al. 2022, arXiv:2105.04906), which needs neither pairs of images that
differ for sure nor large batches. The decoder is left as it was drawn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from cryoquery.config import CheckedModel
from cryoquery.data.pool import Pool, valid_pixels
from cryoquery.errors import ConfigError, CryoqueryError, DataError
from cryoquery.network.checkpoint import Weights, load_checkpoint, save
from cryoquery.network.device import place
from cryoquery.network.loader import ahead, apply_symmetries, to_device
from cryoquery.network.model import SIZE_MULTIPLE, AttentionUNet, ModelConfig, initial_weights
from cryoquery.network.predict import Predictor, masked_mean, network_input
from cryoquery.storage.atomic import write_file

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CHECKPOINT_SECONDS = 30.0
"""At least so long lies between two checkpoints."""
FEATURES = "features.npy"
"""File with the features of all pool images, beside the weights."""
_PROJECTED = 256
"""Dimensions in which views are compared."""
_INVARIANCE, _VARIANCE, _COVARIANCE = 25.0, 25.0, 1.0
"""Weights of the terms of the loss, those of the paper."""
_WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""

Watch = Callable[[int], None]
"""Called after each step with the number of images that passed the network."""


class PretrainingConfig(CheckedModel):
    """How a network is prepared on unlabeled images."""

    steps: int = Field(default=300, ge=1)
    """Optimizer steps; each takes two views of every image of its batch."""
    batch_size: int = Field(default=32, ge=2)
    """Different images per step; a smaller pool is taken whole."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Highest of the AdamW optimizer; it rises over the first tenth of the steps and falls as a cosine."""
    weight_decay: float = Field(default=1e-4, ge=0)
    view_px: int = Field(default=256, ge=SIZE_MULTIPLE, multiple_of=SIZE_MULTIPLE)
    """Largest side of a view; it is at most three quarters of the image's shorter side."""
    gain: float = Field(default=0.2, ge=0)
    """Standard deviation of the logarithm of a view's contrast, and of its brightness (standard
    deviations of the image)."""
    noise: float = Field(default=0.5, ge=0)
    """Largest standard deviation of the noise that a view gets (standard deviations of the image)."""


@dataclass(frozen=True)
class Pretraining:
    """What is prepared, on which images, and how."""

    pool: Pool
    model: ModelConfig
    config: PretrainingConfig
    seed: int

    @property
    def n_images(self) -> int:
        """Images in every batch."""
        return min(self.config.batch_size, len(self.pool))

    @property
    def view_px(self) -> int:
        """Side of a view: small enough for the content of every image."""
        side = min(int(self.pool.content.min()) * 3 // 4, self.config.view_px)
        fitting: int = max(SIZE_MULTIPLE, side // SIZE_MULTIPLE * SIZE_MULTIPLE)
        return fitting

    def batches(self, first: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The steps from ``first`` on, each with its images: every image once before any comes again."""
        per_epoch = len(self.pool) // self.n_images
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for step in range(first, self.config.steps):
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.pool))
            start = step % per_epoch * self.n_images
            yield step, order[start : start + self.n_images]

    def learning_rate(self, step: int) -> float:
        """Of one step."""
        n_warm = max(1, int(_WARM_UP * self.config.steps))
        risen = min(1.0, (step + 1) / n_warm)
        fallen = max(0, step + 1 - n_warm) / max(1, self.config.steps - n_warm + 1)
        return self.config.learning_rate * risen * (1 + math.cos(math.pi * fallen)) / 2


def pretrain(
    pool: Pool,
    model: ModelConfig,
    config: PretrainingConfig,
    fabric: Fabric,
    seed: int,
    watch: Watch = lambda n_images: None,
    checkpoint: Path | None = None,
) -> Weights:
    """Weights of a network whose encoder knows the images of ``pool``; the same for the same seed.

    Args:
        pool: the images; they have no labels.
        model: size of the network.
        config: how long, and how views are made.
        fabric: the device.
        seed: of the first weights, the order and the views.
        watch: called after each step with the number of views that passed the network.
        checkpoint: file to go on from after an interruption, to the same bits as without one; None:
            none is kept.

    Returns:
        the state dictionary on the CPU.

    Raises:
        ConfigError: the pool has fewer than two images.
        CryoqueryError: the loss is not a finite number.
    """
    if len(pool) < 2:
        raise ConfigError(
            f"pretraining: the pool has {len(pool)} image(s), two are needed; leave [pretraining] out"
        )
    network = model.build()
    network.load_state_dict(initial_weights(model, seed))
    siamese = _Siamese(place(network, fabric), seed).to(fabric.device)
    _optimize(Pretraining(pool, model, config, seed), siamese, fabric, watch, checkpoint)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}


def _optimize(
    what: Pretraining, siamese: _Siamese, fabric: Fabric, watch: Watch, checkpoint: Path | None
) -> None:
    """Fit the encoder in ``siamese``."""
    optimizer = torch.optim.AdamW(siamese.parameters(), weight_decay=what.config.weight_decay, fused=True)
    n_done, saved = _go_on(checkpoint, siamese, optimizer), time.monotonic()
    wrapped, optimizer = fabric.setup(siamese, optimizer)
    wrapped.train()
    batches = list(what.batches(n_done))
    loaded = ahead(lambda batch: make_views(what, *batch), batches)
    for (step, _), views in zip(batches, loaded, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = what.learning_rate(step)
        first, second = wrapped(torch.cat([_on(view, fabric) for view in views])).float().chunk(2)
        loss = vicreg(first, second)
        if not math.isfinite(loss.item()):
            raise CryoqueryError(
                f"pretraining: the loss became {loss.item()} in step {step + 1}; lower its learning_rate "
                f"(now {what.config.learning_rate})"
            )
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        watch(len(first) + len(second))
        if checkpoint is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
            state = {"n_done": step + 1, "siamese": siamese.state_dict()}
            save(checkpoint, state | {"optimizer": optimizer.state_dict()})
            saved = time.monotonic()


class _Siamese(nn.Module):
    """The encoder of a network, and what maps its pooled features to where views are compared."""

    def __init__(self, network: AttentionUNet, seed: int) -> None:
        super().__init__()
        self.network = network
        n_features = network.base_channels * SIZE_MULTIPLE
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.project = nn.Sequential(
                nn.Linear(n_features, _PROJECTED),
                nn.BatchNorm1d(_PROJECTED),
                nn.ReLU(),
                nn.Linear(_PROJECTED, _PROJECTED),
            )

    def forward(self, views: Tensor) -> Tensor:
        """Projections (n, 256) of views (n, 1, h, w)."""
        x = views
        for level in self.network.down:
            x = nn.functional.max_pool2d(level(x), 2)
        projected: Tensor = self.project(self.network.bottleneck(x).mean(dim=(-2, -1)))
        return projected


def vicreg(first: Tensor, second: Tensor) -> Tensor:
    """The loss of two views' projections (n, d): differences, lack of spread, and correlations.

    Source: Bardes et al. 2022 (arXiv:2105.04906), with its weights 25, 25 and 1.
    """
    total = _INVARIANCE * nn.functional.mse_loss(first, second)
    for views in (first, second):
        centered = views - views.mean(dim=0)
        spread = (centered.square().sum(dim=0) / (len(views) - 1) + 1e-4).sqrt()
        covariance = centered.T @ centered / (len(views) - 1)
        correlated = covariance.square().sum() - covariance.diagonal().square().sum()
        total = total + _VARIANCE * torch.relu(1 - spread).mean() / 2
        total = total + _COVARIANCE * correlated / views.shape[1]
    return total


@dataclass(frozen=True)
class View:
    """One view of each image of a batch, before it is on the device."""

    levels: NDArray[np.uint8]
    """(k, v, v) parts of the images."""
    symmetries: NDArray[np.int64]
    """(k,) see `cryoquery.network.loader.turn`."""
    gain: NDArray[np.float32]
    """(k, 1, 1, 1) factors of the contrast."""
    brightness: NDArray[np.float32]
    """(k, 1, 1, 1) in standard deviations of the image."""
    noise: NDArray[np.float32]
    """(k, 1, v, v) in standard deviations of the image."""


def make_views(what: Pretraining, step: int, indices: NDArray[np.int64]) -> list[View]:
    """Two views of the pool images ``indices`` (k,), which depend on the step and the seed alone."""
    rng = np.random.default_rng([what.seed, 1, step])
    images, content = what.pool.read(indices), what.pool.content[indices]
    side, config, shape = what.view_px, what.config, (len(indices), 1, 1, 1)
    views = []
    for _ in range(2):
        corners = rng.integers(np.maximum(content - side, 0) + 1)
        parts = [
            image[top : top + side, left : left + side]
            for image, (top, left) in zip(images, corners, strict=True)
        ]
        strength = (config.noise * rng.random(shape)).astype(np.float32)
        views.append(
            View(
                levels=np.stack(parts),
                symmetries=rng.integers(8, size=len(indices)),
                gain=np.exp(rng.normal(0, config.gain, shape)).astype(np.float32),
                brightness=rng.normal(0, config.gain, shape).astype(np.float32),
                noise=strength * rng.standard_normal((len(indices), 1, side, side), dtype=np.float32),
            )
        )
    return views


def _on(view: View, fabric: Fabric) -> Tensor:
    """The pixels of a view, (k, 1, v, v), on the device."""
    device = fabric.device
    images = apply_symmetries(to_device(view.levels, device), torch.from_numpy(view.symmetries).to(device))
    gain, brightness, noise = (
        torch.from_numpy(values).to(device) for values in (view.gain, view.brightness, view.noise)
    )
    return (network_input(images) * gain + brightness + noise).contiguous(memory_format=torch.channels_last)


def _go_on(checkpoint: Path | None, siamese: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put back what an interrupted pretraining had reached; how many steps that is."""
    if (state := load_checkpoint(checkpoint)) is None:
        return 0
    siamese.load_state_dict(state["siamese"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["n_done"])


def pretrained_features(
    weights: Weights,
    model: ModelConfig,
    pool: Pool,
    indices: NDArray[np.int64],
    fabric: Fabric,
    batch_size: int = 16,
    watch: Watch = lambda n_images: None,
) -> NDArray[np.float32]:
    """Bottleneck features of the ``pool`` images ``indices`` (n,), averaged over their content: (n, c).

    Args:
        weights: from `pretrain`.
        model: size of the network.
        pool: the images.
        indices: which of them.
        fabric: the device.
        batch_size: images that pass the network together.
        watch: called after each batch with its number of images.
    """
    network = model.build()
    network.load_state_dict(weights)
    features = np.empty((len(indices), model.base_channels * SIZE_MULTIPLE), dtype=np.float32)
    for batch in Predictor(network, fabric, batch_size).stream(pool.levels, indices):
        shape = batch.features.shape[-2:]
        content = -(-pool.content[indices[batch.positions]] // SIZE_MULTIPLE)
        cells = torch.from_numpy(valid_pixels(content, *shape)).to(batch.features.device)
        with torch.inference_mode():
            features[batch.positions] = masked_mean(batch.features, cells).float().cpu().numpy()
        watch(len(batch.positions))
    return features


def save_features(folder: Path, features: NDArray[np.float32]) -> None:
    """Leave the features (n, c) of all pool images in ``folder``."""
    with write_file(folder / FEATURES) as stream:
        np.save(stream, features, allow_pickle=False)


def load_features(folder: Path) -> NDArray[np.float32]:
    """The features (n, c) that `save_features` left in ``folder``.

    Raises:
        DataError: the file is missing or damaged.
    """
    file = folder / FEATURES
    try:
        features = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except Exception as error:  # NumPy raises many kinds on damaged files
        raise DataError(f"{file}: cannot be read as NumPy array ({type(error).__name__})") from None
    if features.ndim != 2 or features.dtype != np.float32 or not np.isfinite(features).all():
        raise DataError(f"{file}: holds no finite features (n, c)")
    return features  # type: ignore[no-any-return]
