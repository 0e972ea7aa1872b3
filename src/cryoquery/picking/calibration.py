"""Scores that mean something: of the picks with a score of 0.8 about 80 % are particles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import minimize
from scipy.special import expit, logit
from typing_extensions import Self

from cryoquery.config import CheckedModel
from cryoquery.picking.peaks import CERTAIN

SLOPE_SPREAD, OFFSET_SPREAD = 0.5, 1.0
"""How far calibrations usually are from none: standard deviations of the logarithm of the slope, and of the
offset. They decide where few labels say little."""


class Calibration(CheckedModel):
    """A straight line from the log-odds of raw scores to those of being a particle (Platt 1999).

    It rises, so that the order of picks stays.

    Examples:
        >>> doubtful = Calibration(slope=0.5, offset=-1.0)
        >>> float(doubtful.of(np.array(0.9)).round(2)), round(doubtful.raw(0.52), 1)
        (0.52, 0.9)
    """

    slope: float = Field(default=1.0, gt=0)
    offset: float = 0.0

    @classmethod
    def fitted(cls, scores: NDArray[np.float64], hits: NDArray[np.bool_]) -> Self:
        """The one that makes ``hits`` likeliest, drawn towards none where there are few.

        Args:
            scores: (n,) raw, in [0, 1].
            hits: (n,) whether these picks are particles.
        """
        x, y = _log_odds(scores), hits.astype(np.float64)

        def unlikely(at: NDArray[np.float64]) -> float:
            z = np.exp(at[0]) * x + at[1]
            prior = (at[0] / SLOPE_SPREAD) ** 2 + (at[1] / OFFSET_SPREAD) ** 2
            return float((np.logaddexp(0, z) - y * z).sum() + prior / 2)

        log_slope, offset = minimize(unlikely, np.zeros(2)).x.tolist()
        return cls(slope=float(np.exp(log_slope)), offset=offset)

    def of(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Raw scores (n,) in [0, 1] as chances of being a particle."""
        return np.asarray(expit(self.slope * _log_odds(scores) + self.offset))

    def raw(self, chance: float) -> float:
        """The raw score that has this chance, in [0, 1]."""
        return float(expit((logit(chance) - self.offset) / self.slope))


def _log_odds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.asarray(np.clip(logit(scores), -CERTAIN, CERTAIN))


def expected_f1(chances: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 to be expected of the picks from each of the thresholds (m,) on: (m,).

    Args:
        chances: (n,) of everything that might be a particle; particles that are not among it are left out.
        thresholds: (m,) in [0, 1].
    """
    ordered = np.sort(chances)[::-1]
    n_picks = np.searchsorted(-ordered, -thresholds, side="right")
    n_right = np.concatenate([[0.0], np.cumsum(ordered)])[n_picks]
    return np.asarray(2 * n_right / np.maximum(n_picks + ordered.sum(), 1e-9))
