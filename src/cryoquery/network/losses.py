"""What training minimizes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cryoquery.errors import ConfigError


class CombinedLoss(nn.Module):
    """Weighted sum of the focal loss and the Dice loss.

    Focal loss (Lin et al. 2017, arXiv:1708.02002): the mean over valid pixels of
    ``α_t (1 − p_t)^γ · BCE`` with ``α_t = alpha`` on particles and ``1 − alpha`` on background.

    Dice loss (Milletari et al. 2016, arXiv:1606.04797): ``1 − 2 Σ p·t / (Σ p + Σ t)`` with the sums
    over all valid pixels of the *batch*, not of each image. An image without particles then counts
    through its false positives, as it does in the pooled F1 that is reported, instead of asking for
    the impossible Dice of an empty mask. A batch without any particle has no Dice score: the term is
    left out (0), and the focal loss alone teaches the background.

    Examples:
        >>> logits, target = torch.tensor([[9.0, -9.0]]), torch.tensor([[1.0, 0.0]])
        >>> loss = CombinedLoss()
        >>> bool(loss(logits, target) < 0.001 < loss(-logits, target))
        True
    """

    def __init__(
        self,
        focal_weight: float = 0.7,
        dice_weight: float = 0.3,
        alpha: float = 0.25,
        gamma: float = 2.0,
    ) -> None:
        """Set the weights.

        Raises:
            ConfigError: a negative weight or gamma, weights that are both zero, or alpha outside [0, 1].
        """
        super().__init__()
        if min(focal_weight, dice_weight) < 0 or focal_weight + dice_weight == 0:
            raise ConfigError(
                f"focal_weight={focal_weight}, dice_weight={dice_weight}: must not be negative nor both 0"
            )
        if not 0 <= alpha <= 1:
            raise ConfigError(f"alpha={alpha}: must lie in [0, 1]")
        if gamma < 0:
            raise ConfigError(f"gamma={gamma}: must not be negative")
        self.focal_weight = focal_weight
        self.dice_weight = dice_weight
        self.alpha = alpha
        self.gamma = gamma

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        valid: Tensor | None = None,
        total: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The loss, a scalar in float32.

        Args:
            logits: any shape, unbounded.
            target: same shape, 1 on particles and 0 on background.
            valid: same shape, 1 where a pixel counts and 0 where it does not (padding, ignored
                regions); None: every pixel counts.
            total: adds up a vector over the processes that share a batch, so that each of them gets
                the loss of the whole batch; None: this is the whole batch.
        """
        if logits.shape != target.shape:
            raise ValueError(f"CombinedLoss: logits {tuple(logits.shape)}, target {tuple(target.shape)}")
        logits = logits.float()
        target = target.float()
        weight = torch.ones_like(target) if valid is None else valid.float()
        # Whatever stands in ignored pixels must not reach the result, not even as 0 · NaN.
        target = torch.where(weight > 0, target, 0.0)
        p = torch.sigmoid(logits) * weight
        focal = (self._focal(logits, target) * weight).sum()
        sums = torch.stack([focal, weight.sum(), (p * target).sum(), p.sum(), target.sum()])
        focal, n_valid, overlap, p_sum, n_true = sums if total is None else total(sums)
        dice = torch.where(n_true > 0, 1 - 2 * overlap / (p_sum + n_true).clamp(min=1e-7), 0.0)
        loss: Tensor = self.focal_weight * focal / n_valid.clamp(min=1.0) + self.dice_weight * dice
        return loss

    def _focal(self, logits: Tensor, target: Tensor) -> Tensor:
        """Focal loss of each pixel."""
        cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        p_true = torch.exp(-cross_entropy)
        alpha = self.alpha * target + (1 - self.alpha) * (1 - target)
        per_pixel: Tensor = alpha * (1 - p_true) ** self.gamma * cross_entropy
        return per_pixel
