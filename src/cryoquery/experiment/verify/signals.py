"""Signals that a cache kept, read without changing it and without a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryoquery.acquisition.candidates import NetworkSignals
from cryoquery.data.pool import Pool
from cryoquery.errors import DataError
from cryoquery.experiment.verify.checks import Checks
from cryoquery.network.predict import Predictor
from cryoquery.storage.cache import SignalCache, SignalRecord, read_columns


class NotKeptError(Exception):
    """A signal was asked for that is not in the cache."""


def kept_signals(folder: Path, n_train: int, checks: Checks) -> NetworkSignals:
    """What a network said of a pool, as far as it was kept; read when it is first asked for.

    Where something of it is not kept, asking raises NotKeptError.
    """

    def load() -> Predictor:
        raise NotKeptError

    nothing, names = np.empty((n_train, 0, 0), dtype=np.uint8), ("",) * n_train
    pool = Pool(nothing, np.zeros((n_train, 2), dtype=np.int64), names, names)
    return NetworkSignals(load, pool, _CheckedSignals(folder, n_train, checks))


@dataclass(frozen=True)
class _CheckedSignals(SignalCache):
    """The cache of signals for who only looks: nothing is locked, removed or trusted."""

    n_train: int
    checks: Checks

    @contextmanager
    def alone(self) -> Iterator[None]:
        yield

    def load(self) -> list[SignalRecord]:
        found = (self.checks.readable(path, self._read) for path in sorted(self.folder.glob("*.npz")))
        return [record for record in found if record is not None]

    def _read(self, file: Path) -> SignalRecord:
        values = read_columns(file)
        indices = values.pop("indices", np.zeros(0))
        known = indices.dtype.kind == "i" and bool(np.isin(indices, np.arange(self.n_train)).all())
        if not known or not all(
            some.shape[:1] == indices.shape and some.dtype.kind in "if" and bool(np.isfinite(some).all())
            for some in values.values()
        ):
            raise DataError("holds no finite signals of training images")
        return SignalRecord(indices, values)
