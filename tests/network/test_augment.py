from __future__ import annotations

import torch

from cryoquery.data.dataset import IGNORE, PARTICLE
from cryoquery.network.augment import distort


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """Four images whose particle is a dark square in the middle."""
    masks = torch.zeros((4, 1, 64, 64), dtype=torch.uint8)
    masks[..., 24:40, 24:40] = PARTICLE
    return -3.0 * masks.float(), masks


def test_images_and_masks_are_changed_together() -> None:
    images, masks = scene()
    changed, moved = distort(images, masks, seed=1)
    assert changed.shape == images.shape
    assert moved.dtype == torch.uint8
    assert not torch.equal(moved, masks), "no size was changed"
    for image, mask in zip(changed, moved, strict=True):
        assert image[mask == PARTICLE].mean() < image[mask == 0].mean() - 1.5


def test_the_same_seed_gives_the_same_change() -> None:
    first, again, other = (distort(*scene(), seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_was_beyond_the_border_is_ignored() -> None:
    images = torch.zeros((32, 1, 32, 32))
    _, masks = distort(images, torch.full((32, 1, 32, 32), PARTICLE, dtype=torch.uint8), seed=3)
    assert set(masks.unique().tolist()) == {PARTICLE, IGNORE}
    _, masks = distort(images, torch.full((32, 1, 32, 32), IGNORE, dtype=torch.uint8), seed=3)
    assert set(masks.unique().tolist()) == {IGNORE}
    assert (masks[:, :, 8:24, 8:24] == IGNORE).all()
