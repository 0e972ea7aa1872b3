"""Images as other microscopes and other programs would have shown them: size, sharpness, noise, contrast."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cryoquery.data.dataset import IGNORE

SIZE = 0.08
"""Standard deviation of the logarithm of the size."""
CONTRAST = 0.15
"""Of the logarithm of the contrast."""
BRIGHTNESS = 0.1
"""Of the offset, in standard deviations of the image."""
NOISE = 0.7
"""Largest standard deviation of added noise, in those of the image; a third of the images get some."""
SHARE = 0.3
"""Of the images that are blurred, and of those that get noise."""
_KERNEL = (0.054, 0.244, 0.404, 0.244, 0.054)
"""A Gaussian of σ = 1 px."""


def distort(images: Tensor, masks: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Change each image at random; the same for the same seed.

    Args:
        images: (n, 1, h, w) in standard deviations.
        masks: (n, 1, h, w) of 8 bits: background, particle, or `IGNORE`.
        seed: of the changes.

    Returns:
        images and masks of the same shapes; what was beyond the border is to be ignored.
    """
    n, device = len(images), images.device
    generator = torch.Generator(device).manual_seed(seed)
    normal = torch.randn((n, 3), generator=generator, device=device)
    uniform = torch.rand((n, 4), generator=generator, device=device)
    size = torch.exp(SIZE * normal[:, 0])
    theta = torch.zeros((n, 2, 3), device=device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / size
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    # Shifted by one, so that the zeros beyond the border stand for nothing that a mask says.
    shifted = F.grid_sample(masks.float() + 1, grid, mode="nearest", align_corners=False)
    masks = torch.where(shifted == 0, float(IGNORE), shifted - 1).to(torch.uint8)
    blurred = _each(uniform[:, 0] * (uniform[:, 1] < SHARE))
    images = torch.lerp(images, _blur(images), blurred)
    noise = torch.randn(images.shape, generator=generator, device=device)
    images = images + _each(NOISE * uniform[:, 2] * (uniform[:, 3] < SHARE)) * noise
    return images * _each(torch.exp(CONTRAST * normal[:, 1])) + _each(BRIGHTNESS * normal[:, 2]), masks


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _blur(images: Tensor) -> Tensor:
    kernel = torch.tensor(_KERNEL, device=images.device)
    padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, 5)), kernel.view(1, 1, 5, 1))
