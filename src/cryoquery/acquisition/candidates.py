"""What a strategy may know of the images it chooses from: everything but their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cryoquery.acquisition.scores import PIXEL_SCORES
from cryoquery.data.pool import Pool
from cryoquery.errors import ConfigError
from cryoquery.predict import Predictor, compute_signals
from cryoquery.store import SignalRecord, SignalStore


class SignalSource(Protocol):
    """Yields what a network says of pool images, computing it when it is first asked for."""

    def mean_score(self, name: str, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean of a pixel score over the valid pixels of each image, (n,)."""

    def features(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Pooled bottleneck features, (n, c)."""


STRETCH = 4096
"""After so many images what the network said of them is kept, so that an interruption costs no more."""


class NetworkSignals:
    """Signals of one network over one pool; each image passes the network at most once.

    One pass yields all signals, so that a strategy that wants two of them costs no second pass, and
    what was computed is kept beside the model, so that a repeated or resumed query costs none at all:
    the network is loaded only where something is missing. What is kept per image is three numbers and
    a feature vector; pixel maps are not.
    """

    def __init__(
        self,
        load: Callable[[], Predictor],
        pool: Pool,
        store: SignalStore | None = None,
        watch: Callable[[int], None] = lambda n_images: None,
    ) -> None:
        self._load = load
        self._pool = pool
        self._store = store
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
        if self._known[indices].all():
            return
        if self._store is None:
            self._compute(indices)
            return
        with self._store.alone():
            for record in self._store.load():
                self._enter(record)
            self._compute(indices)

    def _compute(self, indices: NDArray[np.int64]) -> None:
        missing = indices[~self._known[indices]]
        if len(missing) == 0:
            return
        predictor = self._load()
        for start in range(0, len(missing), STRETCH):
            some = missing[start : start + STRETCH]
            signals = compute_signals(predictor, self._pool, some, PIXEL_SCORES, self._watch)
            record = SignalRecord(some, signals.scores, signals.features)
            self._enter(record)
            if self._store is not None:
                self._store.save(record)

    def _enter(self, record: SignalRecord) -> None:
        if set(record.scores) != set(self._scores):
            return  # kept by a version that knew other scores
        if self._features.size == 0:
            self._features = np.empty((len(self._pool), record.features.shape[1]), dtype=np.float32)
        for name, values in record.scores.items():
            self._scores[name][record.indices] = values
        self._features[record.indices] = record.features
        self._known[record.indices] = True


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
    learned: Callable[[], NDArray[np.float32]] | None = None
    """Gives features of all images of the pool that were learned without labels, where some were."""

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

    def pretrained_features(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features learned without labels: of the candidates (n, c), and of the labelled images (m, c).

        Raises:
            ConfigError: there are none.
        """
        if self.learned is None:
            raise ConfigError(
                "features learned without labels are asked for; add [pretraining] to the config, "
                "or leave out the strategies that need them"
            )
        features = self.learned()
        return features[self.indices], features[self.labeled]

    def without(self, taken: NDArray[np.int64]) -> Candidates:
        """The same candidates less the pool indices ``taken``, which count as labelled from here on."""
        return replace(
            self,
            indices=np.setdiff1d(self.indices, taken),
            labeled=np.union1d(self.labeled, taken),
        )
