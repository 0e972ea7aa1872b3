"""The network: an Attention U-Net, its configuration beside it."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from cryoquery.config import CheckedModel

N_LEVELS = 4
SIZE_MULTIPLE = 2**N_LEVELS


class ModelConfig(CheckedModel):
    """Size of the network; saved beside its weights."""

    base_channels: int = Field(default=64, ge=2, multiple_of=2)
    """Channels of the first level; each of the four levels below has twice as many."""

    def build(self) -> AttentionUNet:
        """The network with freshly drawn weights."""
        return AttentionUNet(base_channels=self.base_channels)


def _double_conv(n_in: int, n_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n in (n_in, n_out):
        layers += [nn.Conv2d(n, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class AttentionGate(nn.Module):
    """Additive attention gate (Oktay et al. 2018, arXiv:1804.03999).

    Weighs the features that skip a level, ``x`` (n, c, h, w), by what the level below has seen,
    ``gate`` (n, c, h, w): both are projected to half the channels, added, and reduced to one weight
    in [0, 1] per pixel.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.project_gate = nn.Sequential(nn.Conv2d(channels, half, 1), nn.BatchNorm2d(half))
        self.project_skip = nn.Sequential(nn.Conv2d(channels, half, 1), nn.BatchNorm2d(half))
        self.weigh = nn.Sequential(nn.Conv2d(half, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """The features ``x`` weighted, (n, c, h, w)."""
        weight = self.weigh(torch.relu(self.project_skip(x) + self.project_gate(gate)))
        gated: Tensor = x * weight  # (n, c, h, w) * (n, 1, h, w)
        return gated


class _Up(nn.Module):
    """One level up: upsample, gate what skipped, join, convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.gate = AttentionGate(channels)
        self.conv = _double_conv(2 * channels, channels)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        up = self.upsample(below)
        out: Tensor = self.conv(torch.cat([self.gate(skip, up), up], dim=1))
        return out


class AttentionUNet(nn.Module):
    """U-Net with additive attention gates on its skip connections.

    Four levels down, a bottleneck, four up; two 3×3 convolutions with batch normalization per
    level, widths ``base_channels · 2ⁱ``, 2×2 transposed convolutions, a 1×1 head. With 64 base
    channels and one input channel it has 31,393,901 parameters.

    Sources: Ronneberger et al. 2015 (arXiv:1505.04597), Oktay et al. 2018 (arXiv:1804.03999).

    Examples:
        >>> sum(weights.numel() for weights in AttentionUNet().parameters())
        31393901
        >>> AttentionUNet(base_channels=8)(torch.zeros(2, 1, 64, 48)).shape
        torch.Size([2, 1, 64, 48])
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, base_channels: int = 64) -> None:
        super().__init__()
        widths = [base_channels * 2**i for i in range(N_LEVELS + 1)]
        self.in_channels = in_channels
        self.base_channels = base_channels
        self.down = nn.ModuleList(
            _double_conv(n_in, n_out)
            for n_in, n_out in zip([in_channels, *widths[:-2]], widths[:-1], strict=True)
        )
        self.bottleneck = _double_conv(widths[-2], widths[-1])
        self.up = nn.ModuleList(_Up(width) for width in reversed(widths[:-1]))
        self.head = nn.Conv2d(base_channels, out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, out_channels, h, w) of images (n, in_channels, h, w).

        Raises:
            ValueError: the shape does not fit: another number of channels, or a height or width
                that is no multiple of 16.
        """
        return self.forward_with_features(images)[0]

    def forward_with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, out_channels, h, w) and bottleneck features (n, 16 · base_channels, h/16, w/16).

        Raises:
            ValueError: as `forward`.
        """
        logits, bottleneck, _ = self.forward_with_decoder(images)
        return logits, bottleneck

    def forward_with_decoder(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward_with_features`, and what the head sees: activations (n, base_channels, h, w).

        Raises:
            ValueError: as `forward`.
        """
        self._check(images)
        skips = []
        x = images
        for level in self.down:
            x = level(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        features: Tensor = self.bottleneck(x)
        x = features
        for level, skip in zip(self.up, reversed(skips), strict=True):
            x = level(x, skip)
        return self.head(x), features, x

    def _check(self, images: Tensor) -> None:
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1] != self.in_channels:
            raise ValueError(f"AttentionUNet: input {shape}: expected (n, {self.in_channels}, h, w)")
        if shape[2] % SIZE_MULTIPLE or shape[3] % SIZE_MULTIPLE or 0 in shape[2:]:
            fitting = tuple(max(1, -(-side // SIZE_MULTIPLE)) * SIZE_MULTIPLE for side in shape[2:])
            raise ValueError(
                f"AttentionUNet: input {shape[2]}×{shape[3]}: height and width must be multiples of "
                f"{SIZE_MULTIPLE}; pad to {fitting[0]}×{fitting[1]}"
            )


def initial_weights(config: ModelConfig, seed: int) -> dict[str, Any]:
    """The state dictionary of a fresh network, a function of configuration and seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return config.build().state_dict()
