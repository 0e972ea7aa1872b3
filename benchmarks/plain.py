"""The reference of the benchmarks: training and scoring the way such scripts are usually written.

float32 and contiguous memory, Adam as it comes, one PNG file per image and one per mask that are decoded
again in every epoch, and one strategy after the other: each passes the whole pool through the network,
keeps the probability maps in files, and computes its score from those. The network and the loss are those
of the package; nothing else is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from cryoquery import AttentionUNet, CombinedLoss

SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "uncertainty": lambda p: 1 - np.maximum(p, 1 - p),
    "entropy": lambda p: -p * np.log(p + 1e-12) - (1 - p) * np.log(1 - p + 1e-12),
    "margin": lambda p: 1 - np.abs(p - (1 - p)),
}
PASSES = {
    "uncertainty": ("uncertainty",),
    "entropy": ("entropy",),
    "margin": ("margin",),
    "diversity": ("features",),
    "hybrid": ("uncertainty", "features"),
}
"""What each strategy wants to know, one pass over the pool each."""


class ImageFolder(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Images ``FOLDER/images/*.png`` with the masks of the same names in ``FOLDER/masks``."""

    def __init__(self, folder: Path) -> None:
        self.images = sorted((folder / "images").glob("*.png"))
        self.masks = [folder / "masks" / path.name for path in self.images]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image and mask, each (1, h, w) in float32."""
        image = np.array(Image.open(self.images[i]), dtype=np.float32)
        mask = np.array(Image.open(self.masks[i]), dtype=np.float32)
        return torch.from_numpy((image - 128) / 32)[None], torch.from_numpy(mask / 255)[None]


def write_folder(folder: Path, images: np.ndarray, masks: np.ndarray) -> None:
    """Write 8-bit images (n, h, w) and masks (n, h, w) of 0 and 1 as PNG files."""
    for name, stack, factor in (("images", images, 1), ("masks", masks, 255)):
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(stack):
            Image.fromarray(np.asarray(image) * np.uint8(factor)).save(
                folder / name / f"{i:06d}.png", compress_level=1
            )


class Trainer:
    """Network, loss and optimizer."""

    def __init__(self, base_channels: int, device: torch.device) -> None:
        self.device = device
        self.network = AttentionUNet(base_channels=base_channels).to(device)
        self.loss = CombinedLoss()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)

    def step(self, images: torch.Tensor, masks: torch.Tensor) -> float:
        """One step of the optimizer on images and masks (n, 1, h, w); returns the loss."""
        self.optimizer.zero_grad()
        loss = self.loss(self.network(images), masks)
        loss.backward()
        self.optimizer.step()
        return float(loss.item())

    def epoch(self, folder: Path, batch_size: int, n_workers: int) -> float:
        """Every image once, in random order; returns the mean loss."""
        self.network.train()
        loader = DataLoader(ImageFolder(folder), batch_size, shuffle=True, num_workers=n_workers)
        losses = [self.step(images.to(self.device), masks.to(self.device)) for images, masks in loader]
        return float(np.mean(losses))


def score_pool(
    strategy: str, network: AttentionUNet, folder: Path, scratch: Path, batch_size: int, n_workers: int
) -> list[np.ndarray]:
    """What a strategy wants to know of every image in ``folder``: for each of its `PASSES` (n, …)."""
    results = []
    for wanted in PASSES[strategy]:
        if wanted == "features":
            results.append(pool_features(network, folder, batch_size, n_workers))
        else:
            save_probability_maps(network, folder, scratch, batch_size, n_workers)
            maps = [np.load(path) for path in sorted(scratch.glob("*.npy"))]
            results.append(np.array([SCORES[wanted](probability).mean() for probability in maps]))
    return results


@torch.no_grad()
def save_probability_maps(
    network: AttentionUNet, folder: Path, scratch: Path, batch_size: int, n_workers: int
) -> None:
    """Leave the probabilities of each image in a file of its own."""
    network.eval()
    device = next(network.parameters()).device
    n = 0
    for images, _ in DataLoader(ImageFolder(folder), batch_size, num_workers=n_workers):
        for probability in torch.sigmoid(network(images.to(device))).cpu().numpy():
            np.save(scratch / f"{n:06d}.npy", probability[0])
            n += 1


@torch.no_grad()
def pool_features(network: AttentionUNet, folder: Path, batch_size: int, n_workers: int) -> np.ndarray:
    """Bottleneck features averaged over each image, (n, c)."""
    network.eval()
    device = next(network.parameters()).device
    features = []
    for images, _ in DataLoader(ImageFolder(folder), batch_size, num_workers=n_workers):
        _, maps = network.forward_with_features(images.to(device))
        features.append(maps.mean(dim=(2, 3)).cpu().numpy())
    return np.concatenate(features)
