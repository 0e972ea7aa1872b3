"""How uncertain a network is of one pixel, for probabilities of a particle.

Each function takes a NumPy array or a torch tensor of any shape in [0, 1] and returns the same kind,
shape and precision; each is symmetric under p ↔ 1 − p and largest at p = 1/2.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import scipy.special
import torch

Array = TypeVar("Array", np.ndarray, torch.Tensor)


def least_confidence(p: Array) -> Array:
    """``1 − max(p, 1 − p)``, in [0, 1/2] (Lewis & Gale 1994, arXiv:cmp-lg/9407020).

    Args:
        p: any shape, in [0, 1]: the probability that a pixel belongs to a particle.

    Examples:
        >>> least_confidence(np.array([0.0, 0.25, 0.5, 0.75])).tolist()
        [0.0, 0.25, 0.5, 0.25]
    """
    # min(p, 1 − p) is the same number, without the rounding of a second subtraction.
    if isinstance(p, torch.Tensor):
        return torch.minimum(p, 1 - p)
    least: Array = np.minimum(p, 1 - np.asarray(p))
    return least


def entropy(p: Array) -> Array:
    """``−p ln p − (1 − p) ln(1 − p)``, in [0, ln 2] (Shannon 1948); 0 at p = 0 and p = 1.

    Args:
        p: any shape, in [0, 1]: the probability that a pixel belongs to a particle.

    Examples:
        >>> entropy(np.array([0.0, 0.1, 0.5, 0.9, 1.0])).round(3).tolist()
        [0.0, 0.325, 0.693, 0.325, 0.0]
    """
    if isinstance(p, torch.Tensor):
        total: Array = torch.special.entr(p) + torch.special.entr(1 - p)
        return total
    total = scipy.special.entr(p) + scipy.special.entr(1 - np.asarray(p))
    return total


def margin(p: Array) -> Array:
    """``1 − |p − (1 − p)|``, in [0, 1] (Scheffer et al. 2001): small margins score high.

    For two classes this is twice `least_confidence`, and it is computed as such: doubling is exact
    in floating point, so the two rank images identically to the last one.

    Args:
        p: any shape, in [0, 1]: the probability that a pixel belongs to a particle.

    Examples:
        >>> margin(np.array([0.0, 0.25, 0.5])).tolist()
        [0.0, 0.5, 1.0]
    """
    return 2 * least_confidence(p)


PIXEL_SCORES = {"least_confidence": least_confidence, "entropy": entropy, "margin": margin}
