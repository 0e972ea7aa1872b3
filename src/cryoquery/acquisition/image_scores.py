"""From the maps of an image to one number; which pixels count matters more than which pixel score.

Every function takes the maps of k images and gives (k,) finite numbers ≥ 0 in float64. Averages over
the predicted foreground, its boundary or its objects fall back on an image where nothing is predicted
to the hundredth of its pixels that are most like particles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from cryoquery.acquisition.scores import PIXEL_SCORES, entropy
from cryoquery.errors import ConfigError
from cryoquery.network.predict import Maps, Statistic, masked_mean

FOREGROUND = 0.5
"""Pixels of at least this probability are predicted to be of a particle."""
FALL_BACK = 0.01
"""Share of the pixels that stands for the foreground where none is predicted."""
_CERTAIN = 1e-6
"""Below this variance of a constant prediction an image is all of one kind."""


@dataclass(frozen=True)
class PixelScore:
    """How uncertain a network, or an ensemble, is of each pixel."""

    name: str
    ensemble: str = ""
    """Name of the ensemble; empty: the network alone."""

    @property
    def key(self) -> str:
        """What identifies it among what is kept of a network."""
        return f"{self.name}@{self.ensemble}" if self.ensemble else self.name

    def __call__(self, maps: Maps) -> Tensor:
        """The score of each pixel, (k, h, w)."""
        if self.name == "expected_entropy":
            assert maps.expected_entropy is not None, "of an ensemble"
            return maps.expected_entropy
        if self.name == "mutual_information":
            assert maps.expected_entropy is not None, "of an ensemble"
            # The difference of two numbers of 32 bits can fall a little below 0.
            return (entropy(maps.probability) - maps.expected_entropy).clamp(min=0)
        return PIXEL_SCORES[self.name](maps.probability)


@dataclass(frozen=True)
class Signal:
    """Something that one pass of a network, or of an ensemble, says of each image."""

    key: str
    """What it is kept under beside the model."""
    ensemble: str = ""
    """Name of the ensemble that makes the pass; empty: the network alone."""


STATISTICS: dict[Signal, Statistic] = {}
"""How each signal is computed; filled by `make_signal`."""


def make_signal(key: str, statistic: Statistic, ensemble: str = "") -> Signal:
    """A signal whose ``key`` says all that its ``statistic`` depends on."""
    signal = Signal(key, ensemble)
    STATISTICS[signal] = statistic
    return signal


def reduced(reduce: Callable[..., Tensor], name: str, score: PixelScore, *values: float) -> Signal:
    """The signal ``reduce(score, maps, *values)``; ``name`` and ``values`` go into its key."""
    parts = ",".join([score.key, *(f"{value:g}" for value in values)])
    # The means of the protocol go by the name of the pixel score alone.
    key = score.key if name == "mean" else f"{name}({parts})"
    return make_signal(key, lambda maps: reduce(score(maps), maps, *values), score.ensemble)


def mean(score: Tensor, maps: Maps) -> Tensor:
    """Mean over the image."""
    return masked_mean(score[:, None], maps.valid)[:, 0]


def top_fraction(score: Tensor, maps: Maps, fraction: float) -> Tensor:
    """Mean over the share ``fraction`` of the pixels, at least one, where the score is highest."""
    return _mean_of_highest(score, score, maps.valid, fraction)


def foreground(score: Tensor, maps: Maps) -> Tensor:
    """Mean over the pixels that are predicted to be of a particle (after arXiv:2401.16298, target-aware)."""
    inside = (maps.probability >= FOREGROUND) & maps.valid
    return _mean_within(score, inside, maps)


def boundary(score: Tensor, maps: Maps, width_px: int) -> Tensor:
    """Mean over the pixels at most ``width_px`` from the predicted boundary (boundary-aware, as above)."""
    inside = (maps.probability >= FOREGROUND) & maps.valid
    outside = (maps.probability < FOREGROUND) & maps.valid
    return _mean_within(score, _grown(inside, width_px) & _grown(outside, width_px) & maps.valid, maps)


def n_particles(maps: Maps) -> Tensor:
    """Expected number of particles: the sum of the probabilities in discs."""
    if maps.disc_px is None:
        raise ConfigError(
            "the expected number of particles: the diameter is not known; state it with --diameter-px"
        )
    area = torch.from_numpy(np.pi / 4 * np.maximum(maps.disc_px, 1) ** 2)
    return _sum(maps.probability, maps.valid) / area.to(maps.probability.device)


def per_particle(score: Tensor, maps: Maps) -> Tensor:
    """Sum over the image in discs, per expected particle (at least one)."""
    one = torch.ones((), dtype=torch.float64, device=score.device)
    as_particles = Maps(score, maps.valid, maps.disc_px)
    return n_particles(as_particles) / torch.maximum(n_particles(maps), one)


def objects(score: Tensor, maps: Maps) -> Tensor:
    """Mean over the connected predicted objects of the mean within each: a small one counts like a large."""
    inside = ((maps.probability >= FOREGROUND) & maps.valid).cpu().numpy()
    values = score.double().cpu().numpy()
    means = _mean_within(score, torch.from_numpy(inside).to(score.device), maps)
    for row, (mask, value) in enumerate(zip(inside, values, strict=True)):
        label, n = ndimage.label(mask)
        if n:
            within = np.bincount(label[mask], value[mask], n + 1)[1:] / np.bincount(label[mask])[1:]
            means[row] = float(within.mean())
    return means


def skill(maps: Maps) -> Tensor:
    """Brier skill score that a calibrated network expects of its map: 1 − mean p (1 − p) / (p̄ (1 − p̄)).

    In [0, 1] (Murphy 1973: resolution over uncertainty). 1: sure of each pixel; 0: it says of all pixels
    the same, so that it knows no more than how much of the image particles cover. That is where networks
    end on micrographs that cannot be learned, however many labels they have seen. It is also what is left
    of the expected Dice Σp² / Σp above the share p̄ that any guess reaches: (Σp² / Σp − p̄) / (1 − p̄).
    """
    p = maps.probability.double()
    n = maps.valid.sum(dim=(1, 2))
    share = _sum(p, maps.valid) / n
    constant = share * (1 - share)
    found = 1 - _sum(p * (1 - p), maps.valid) / n / constant.clamp(min=_CERTAIN)
    # A network that predicts nothing anywhere has no skill.
    return torch.where(constant > _CERTAIN, found.clamp(min=0, max=1), 0.0)


def pooled_features(maps: Maps) -> Tensor:
    """Activations of the bottleneck, averaged over the content: (k, c) float32."""
    assert maps.bottleneck is not None, "of the network alone"
    assert maps.cells is not None
    return masked_mean(maps.bottleneck, maps.cells).float()


def pooled_gradients(maps: Maps) -> Tensor:
    """Gradient of the cross-entropy at the predicted label in the last layer, pooled: (k, 2 (c + 1)) float32.

    Of one pixel it is (p − ŷ) (h, 1) for activations h (c,) before the head. Over pixels it is averaged
    apart for ŷ = 1 and ŷ = 0: their signs differ, and would cancel (after arXiv:1906.03671, § 3).
    """
    assert maps.decoder is not None, "of the network alone"
    error = maps.probability - (maps.probability >= FOREGROUND).float()
    error = torch.where(maps.valid, error, 0.0)
    n_valid = maps.valid.sum(dim=(1, 2))[:, None]
    signs = torch.stack([error.clamp(max=0), error.clamp(min=0)], dim=1).flatten(2)  # (k, 2, n)
    # Image by image: the activations of a batch in 32 bits may not fit beside it.
    by_h = torch.stack([s @ h.float().flatten(1).T for s, h in zip(signs, maps.decoder, strict=True)])
    return torch.cat([by_h, signs.sum(dim=2, keepdim=True)], dim=2).flatten(1) / n_valid


FEATURES = make_signal("features", pooled_features)
GRADIENTS = make_signal("gradients", pooled_gradients)
LEARNED = Signal("learned")
"""Features learned without labels, of labeled images too; the network's own where there are none."""
BASE = (*(reduced(mean, "mean", PixelScore(name)) for name in PIXEL_SCORES), FEATURES)
"""What every pass of a network alone yields: strategies that share a network share it."""


def _sum(score: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, score, 0.0).sum(dim=(1, 2), dtype=torch.float64)


def _mean_within(score: Tensor, inside: Tensor, maps: Maps) -> Tensor:
    n = inside.sum(dim=(1, 2))
    mean = _sum(score, inside) / n.clamp(min=1)
    if bool((n > 0).all()):
        return mean
    return torch.where(n > 0, mean, _mean_of_highest(score, maps.probability, maps.valid, FALL_BACK))


def _mean_of_highest(score: Tensor, by: Tensor, valid: Tensor, fraction: float) -> Tensor:
    """Mean of ``score`` over the share of the ``valid`` pixels where ``by`` is highest."""
    n = (valid.sum(dim=(1, 2)) * fraction).round().long().clamp(min=1)
    flat = torch.where(valid, by, -1.0).flatten(1)
    at = flat.topk(int(n.max()), dim=1).indices
    totals = score.flatten(1).gather(1, at).double().cumsum(dim=1)
    return totals.gather(1, n[:, None] - 1)[:, 0] / n


def _grown(mask: Tensor, by_px: int) -> Tensor:
    grown: Tensor = torch.nn.functional.max_pool2d(mask[:, None].float(), 2 * by_px + 1, 1, by_px)
    return grown[:, 0] > 0
