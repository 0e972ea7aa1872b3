"""What a strategy may know of the images it chooses from: everything but their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cryoquery.acquisition.scores import PIXEL_SCORES
from cryoquery.data.pool import Pool
from cryoquery.predict import Predictor, compute_signals


class SignalSource(Protocol):
    """Yields what a network says of pool images, computing it when it is first asked for."""

    def mean_score(self, name: str, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean of a pixel score over the valid pixels of each image, (n,)."""

    def features(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Pooled bottleneck features, (n, c)."""


class NetworkSignals:
    """Signals of one network over one pool; each image passes the network at most once.

    One pass yields all signals, so that a strategy that wants two of them costs no second pass.
    What is kept per image is three numbers and a feature vector; pixel maps are not.
    """

    def __init__(
        self, predictor: Predictor, pool: Pool, watch: Callable[[int], None] = lambda n_images: None
    ) -> None:
        self._predictor = predictor
        self._pool = pool
        self._watch = watch
        self._known = np.zeros(len(pool), dtype=bool)
        self._scores = {name: np.empty(len(pool)) for name in PIXEL_SCORES}
        self._features = np.empty((0, 0), dtype=np.float32)

    def mean_score(self, name: str, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `SignalSource`."""
        self._ensure(indices)
        return self._scores[name][indices]

    def features(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `SignalSource`."""
        self._ensure(indices)
        return self._features[indices]

    def _ensure(self, indices: NDArray[np.int64]) -> None:
        missing = indices[~self._known[indices]]
        if len(missing) == 0:
            return
        signals = compute_signals(self._predictor, self._pool, missing, PIXEL_SCORES, self._watch)
        if self._features.size == 0:
            self._features = np.empty((len(self._pool), signals.features.shape[1]), dtype=np.float32)
        for name, values in signals.scores.items():
            self._scores[name][missing] = values
        self._features[missing] = signals.features
        self._known[missing] = True


@dataclass(frozen=True)
class Candidates:
    """The unlabelled images that a query chooses from."""

    indices: NDArray[np.int64]
    """(n,) ascending indices into the pool."""
    labeled: NDArray[np.int64]
    """(m,) ascending indices of what is labelled."""
    groups: Sequence[str]
    """Group of every image of the pool."""
    signals: SignalSource
    rng: np.random.Generator

    def __len__(self) -> int:
        return len(self.indices)

    def mean_score(self, name: str) -> NDArray[np.float64]:
        """Mean of the pixel score ``name`` over each candidate, (n,)."""
        return self.signals.mean_score(name, self.indices)

    def features(self) -> NDArray[np.float32]:
        """Pooled bottleneck features of the candidates, (n, c)."""
        return self.signals.features(self.indices)

    def labeled_features(self) -> NDArray[np.float32]:
        """Pooled bottleneck features of the labelled images, (m, c)."""
        return self.signals.features(self.labeled)

    def without(self, taken: NDArray[np.int64]) -> Candidates:
        """The same candidates less the pool indices ``taken``, which count as labelled from here on."""
        return replace(
            self,
            indices=np.setdiff1d(self.indices, taken),
            labeled=np.union1d(self.labeled, taken),
        )
