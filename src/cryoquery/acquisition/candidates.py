"""What a strategy may know of the images it chooses from: everything but their labels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.acquisition.ensembles import ENSEMBLES
from cryoquery.acquisition.image_scores import BASE, FEATURES, LEARNED, STATISTICS, Signal
from cryoquery.data.pool import Pool
from cryoquery.errors import ConfigError
from cryoquery.network.predict import Predictor, compute_signals
from cryoquery.storage.cache import SignalCache, SignalRecord

STRETCH = 4096
"""After so many images what the network said of them is kept, so that an interruption costs no more."""


class NetworkSignals:
    """Signals of one network over one pool; each image passes the network, or an ensemble, at most once.

    One pass yields all that is wanted of the network alone, and one of each ensemble all that is wanted
    of it. What was computed is kept beside the model, so that a repeated or resumed query costs none at
    all: the network is loaded only where something is missing. What is kept per image is a few numbers
    and vectors; pixel maps are not.
    """

    def __init__(
        self,
        load: Callable[[], Predictor],
        pool: Pool,
        cache: SignalCache | None = None,
        watch: Callable[[int], None] = lambda n_images: None,
        wanted: Collection[Signal] = (),
    ) -> None:
        """``wanted``: what a strategy will ask for beside what every pass yields."""
        self._load = load
        self._pool = pool
        self._cache = cache
        self._watch = watch
        others = set(wanted) - {*BASE, LEARNED}
        self._wanted = [*BASE, *sorted(others, key=lambda signal: signal.key)]
        self._known: dict[str, NDArray[np.bool_]] = {}
        self._values: dict[str, NDArray[Any]] = {}

    def values(self, signal: Signal, indices: NDArray[np.int64]) -> NDArray[Any]:
        """A number for each image, (n,), or a vector, (n, c)."""
        if not self._knows(signal, indices).all():
            if self._cache is None:
                self._compute(signal, indices)
            else:
                with self._cache.alone():
                    for record in self._cache.load():
                        self._enter(record)
                    self._compute(signal, indices)
        if len(indices) == 0 and signal.key not in self._values:
            return np.empty((0, 0) if signal == FEATURES else 0)
        return self._values[signal.key][indices]

    def _knows(self, signal: Signal, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        known = self._known.get(signal.key)
        return np.zeros(len(indices), dtype=bool) if known is None else known[indices]

    def _compute(self, signal: Signal, indices: NDArray[np.int64]) -> None:
        indices = indices[~self._knows(signal, indices)]
        if len(indices) == 0:
            return
        together = [one for one in self._wanted if one.ensemble == signal.ensemble]
        together += [] if signal in together else [signal]
        predictor = self._load()
        # What is known of an image is not computed again: another batch would round it otherwise.
        patterns, pattern_of = np.unique(
            np.stack([self._knows(one, indices) for one in together], axis=1), axis=0, return_inverse=True
        )
        for number, pattern in enumerate(patterns):
            missing = [one for one, is_known in zip(together, pattern, strict=True) if not is_known]
            rows = indices[pattern_of.reshape(-1) == number]
            for start in range(0, len(rows), STRETCH):
                self._pass(predictor, missing, rows[start : start + STRETCH])

    def _pass(self, predictor: Predictor, signals: Sequence[Signal], indices: NDArray[np.int64]) -> None:
        ensemble = ENSEMBLES[signals[0].ensemble] if signals[0].ensemble else None
        statistics = {signal.key: STATISTICS[signal] for signal in signals}
        values = compute_signals(predictor, self._pool, indices, statistics, self._watch, ensemble)
        record = SignalRecord(indices, values)
        self._enter(record)
        if self._cache is not None:
            self._cache.save(record)

    def _enter(self, record: SignalRecord) -> None:
        for key, values in record.values.items():
            if key not in self._values:
                self._values[key] = np.empty((len(self._pool), *values.shape[1:]), dtype=values.dtype)
                self._known[key] = np.zeros(len(self._pool), dtype=bool)
            self._values[key][record.indices] = values
            self._known[key][record.indices] = True


@dataclass(frozen=True)
class Candidates:
    """The unlabeled images that a query chooses from."""

    indices: NDArray[np.int64]
    """(n,) ascending indices into the pool."""
    labeled: NDArray[np.int64]
    """(m,) ascending indices of what is labeled."""
    groups: Sequence[str]
    """Group of every image of the pool."""
    signals: NetworkSignals
    rng: np.random.Generator
    learned: Callable[[], NDArray[np.float32]] | None = None
    """Gives features of all images of the pool that were learned without labels, where some were."""
    progress: float = 0.0
    """How far the schedule has come: 0 at the first query, 1 at the last."""

    def __len__(self) -> int:
        return len(self.indices)

    def values(self, signal: Signal) -> NDArray[Any]:
        """What a network says of each candidate: (n,) or (n, c)."""
        return self.signals.values(signal, self.indices)

    def features(self) -> NDArray[np.float32]:
        """Pooled bottleneck features of the candidates, (n, c)."""
        return self.values(FEATURES)

    def labeled_features(self) -> NDArray[np.float32]:
        """Pooled bottleneck features of the labeled images, (m, c)."""
        return self.signals.values(FEATURES, self.labeled)

    def at(self, rows: NDArray[np.int64]) -> Candidates:
        """Only the candidates in ``rows`` (k,) of these; nothing else changes."""
        return replace(self, indices=np.sort(self.indices[rows]))

    def pretrained_features(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features learned without labels: of the candidates (n, c), and of the labeled images (m, c).

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
        """The same candidates less the pool indices ``taken``, which count as labeled from here on."""
        return replace(
            self,
            indices=np.setdiff1d(self.indices, taken),
            labeled=np.union1d(self.labeled, taken),
        )


@dataclass(frozen=True)
class Choice:
    """One image of a query."""

    index: int
    """Index into the pool."""
    score: float
    reason: str


@dataclass(frozen=True)
class ImageScore:
    """One number per candidate, the higher the more worth a label."""

    label: str
    """What it is, in words, such as ``mean entropy``."""
    compute: Callable[[Candidates], NDArray[np.float64]]
    needs: frozenset[Signal] = frozenset()

    @classmethod
    def of(cls, label: str, signal: Signal) -> ImageScore:
        """A signal as it is."""
        return cls(label, lambda candidates: candidates.values(signal), frozenset({signal}))

    def __call__(self, candidates: Candidates) -> NDArray[np.float64]:
        """The score of each candidate, (n,)."""
        return self.compute(candidates)


Select = Callable[[Candidates, int], list[Choice]]
"""From candidates and a number n ≥ 1, at most theirs, to that many choices, best first, no image twice."""


@dataclass(frozen=True)
class Strategy:
    """How a query is chosen, and what that takes."""

    select: Select
    needs: frozenset[Signal] = frozenset()
    """What it asks for of the candidates."""
    looks_at_labeled: bool = False
    """Whether it asks for the features of the labeled images, too."""
    by_group: bool = False
    """Whether it needs a pool of more than one group."""

    def __call__(self, candidates: Candidates, n: int) -> list[Choice]:
        """The ``n`` choices, best first; none where ``n`` is 0."""
        return self.select(candidates, n) if n else []
