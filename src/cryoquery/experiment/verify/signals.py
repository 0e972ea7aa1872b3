"""Signals that a cache kept, read without changing it and without a network."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoquery.acquisition.image_scores import Signal
from cryoquery.experiment.verify.checks import Checks
from cryoquery.experiment.verify.files import read_columns

Columns = dict[str, NDArray[np.float64]]


class NotKeptError(Exception):
    """A signal was asked for that is not in the cache."""


class KeptSignals:
    """What a network said of a pool, as far as it was kept; read when it is first asked for."""

    def __init__(self, folder: Path, n_train: int, checks: Checks) -> None:
        self._folder = folder
        self._n_train = n_train
        self._checks = checks

    def values(self, signal: Signal, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `cryoquery.acquisition.candidates.SignalSource`.

        Raises:
            NotKeptError: something of it is not kept.
        """
        known, columns = self._kept
        if signal.key not in columns or not known[signal.key][indices].all():
            raise NotKeptError(signal.key)
        return columns[signal.key][indices]

    @cached_property
    def _kept(self) -> tuple[dict[str, NDArray[np.bool_]], Columns]:
        known: dict[str, NDArray[np.bool_]] = {}
        columns = Columns()
        for path in sorted(self._folder.glob("*.npz")):
            record = self._checks.readable(path, read_columns)
            if record is None or not self._checks.check(
                _is_sound(record, self._n_train), path, "holds no finite signals of training images"
            ):
                continue
            indices = record.pop("indices")
            for name, values in record.items():
                if name not in columns:
                    columns[name] = np.empty((self._n_train, *values.shape[1:]), dtype=values.dtype)
                    known[name] = np.zeros(self._n_train, dtype=bool)
                if columns[name].shape[1:] == values.shape[1:]:
                    columns[name][indices] = values
                    known[name][indices] = True
        return known, columns


def _is_sound(record: Columns, n_train: int) -> bool:
    indices = record.get("indices")
    if indices is None or indices.ndim != 1 or indices.dtype.kind != "i":
        return False
    if len(indices) and (indices.min() < 0 or indices.max() >= n_train):
        return False
    return all(
        values.ndim in (1, 2)
        and len(values) == len(indices)
        and values.dtype.kind in "if"
        and bool(np.isfinite(values).all())
        for values in record.values()
    )
