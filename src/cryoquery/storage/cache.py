"""Finished trainings, found by their key: identical work is done once, also across experiments.

::

    CACHE/3f/3fa9…/
      entry.json      the SHA-256 of the other files
      model.pt  scores.json  examples.npz
      signals/        scores and features of pool images, as far as they were asked for

A key is the digest of everything that a training is a function of, so that every process that makes an
entry makes the same. An entry appears whole, is checked when it is found, and is never changed; one that is
damaged is thrown away and made again. Nothing in a cache is needed by a finished experiment: its folders hold
names of their own for the files (hard links, where the file system has them).
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.storage.atomic import (
    SupersededError,
    read_json,
    remove_leftovers,
    sha256,
    staged_directory,
    write_file,
    write_json,
)
from cryoquery.storage.leases import LeaseObserver, leased

MANIFEST = "entry.json"


@dataclass(frozen=True)
class Cache:
    """A folder of finished trainings, shared by processes, machines and experiments."""

    folder: Path

    def find(self, key: str) -> Path | None:
        """The folder of an entry; None where there is none, or a damaged one."""
        entry = self._entry(key)
        try:
            files = read_json(entry / MANIFEST).items()
            if files and all(sha256(entry / name) == digest for name, digest in files):
                return entry
        except (DataError, OSError, AttributeError, ValueError):
            pass
        return None

    def obtain(
        self, key: str, make: Callable[[Path], None], waiting: Callable[[str], None] = lambda owner: None
    ) -> tuple[Path, bool]:
        """The folder of an entry, made by ``make`` (which fills the folder it is given) where needed.

        Only one process makes an entry; the others wait for it. A damaged one is thrown away first.

        Returns:
            the folder, and whether it was made here.
        """

        def is_there() -> bool:
            return self.find(key) is not None

        while True:
            if (entry := self.find(key)) is not None:
                self._tidy(key)
                return entry, False
            path = self._entry(key)
            with leased(self._lease(key), settled=is_there, waiting=waiting) as mine:
                if mine and self.find(key) is None:
                    self.discard(key)
                    with contextlib.suppress(SupersededError):
                        self._make(path, make)
                        self.checkpoint(key).unlink(missing_ok=True)
                        return path, True

    def has(self, key: str) -> bool:
        """Whether there is an entry, whole or damaged."""
        return self._entry(key).is_dir()

    def checkpoint(self, key: str) -> Path:
        """Where the process that makes an entry may keep what it has reached, in case it is interrupted."""
        return self._entry(key).with_name(f"{key}.checkpoint")

    def discard(self, key: str) -> None:
        """Remove an entry: for other processes it is gone at once."""
        entry = self._entry(key)
        aside = entry.with_name(f".{key}.{uuid.uuid4().hex}.discarded")
        with contextlib.suppress(FileNotFoundError):
            entry.rename(aside)
        # Also what was set aside by a process that was killed before it was through with removing it.
        for left_over in entry.parent.glob(f".{key}.*.discarded"):
            shutil.rmtree(left_over, ignore_errors=True)

    def _entry(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _lease(self, key: str) -> Path:
        return self._entry(key).with_name(f"{key}.lease")

    def _tidy(self, key: str) -> None:
        """Remove the lease and the checkpoint of a process that was killed right after making the entry."""
        LeaseObserver(self._lease(key)).remove_abandoned()
        if not self._lease(key).exists():
            self.checkpoint(key).unlink(missing_ok=True)

    @staticmethod
    def _make(path: Path, make: Callable[[Path], None]) -> None:
        with staged_directory(path) as staged:
            make(staged)
            files = sorted(file.relative_to(staged) for file in staged.rglob("*") if file.is_file())
            write_json(staged / MANIFEST, {str(name): sha256(staged / name) for name in files})


@dataclass(frozen=True)
class SignalRecord:
    """Signals of some pool images, from one part of the pass over the pool."""

    indices: NDArray[np.int64]
    values: Mapping[str, NDArray[Any]]
    """By the name of the signal: a number for each image, (n,), or a vector, (n, c)."""


def read_columns(file: Path) -> dict[str, NDArray[Any]]:
    """The arrays in an `.npz` file. Nothing in the file is executed.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as columns:
            return {name: columns[name] for name in columns.files}
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds on damaged files
        raise DataError(f"{file}: cannot be read as NumPy arrays ({error!r})") from None


@dataclass(frozen=True)
class SignalCache:
    """The signals of one network over the pool, kept beside its model."""

    folder: Path

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from computing the same while the block runs."""
        with leased(self.folder.with_name("signals.lease")):
            remove_leftovers(self.folder, alone=True)
            yield

    def load(self) -> list[SignalRecord]:
        """Everything that is kept; damaged files are removed."""
        records = []
        for path in sorted(self.folder.glob("*.npz")):
            try:
                values = read_columns(path)
                indices = values.pop("indices")
            except (DataError, KeyError):
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                continue
            records.append(SignalRecord(indices, values))
        return records

    def save(self, record: SignalRecord) -> None:
        """Keep the signals of some images, whole or not at all."""
        self.folder.mkdir(exist_ok=True)
        known_by = zlib.crc32(" ".join(sorted(record.values)).encode())
        name = f"{int(record.indices[0]):09d}-{len(record.indices)}-{known_by:08x}.npz"
        columns = {**record.values, "indices": record.indices}
        with write_file(self.folder / name) as stream:
            np.savez(stream, **columns)  # type: ignore[arg-type]
