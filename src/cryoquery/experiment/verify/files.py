"""Files that are checked: read once, also where links give them several names, and never trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.network.checkpoint import read_model
from cryoquery.network.model import ModelConfig
from cryoquery.storage.atomic import sha256

Identity: TypeAlias = "tuple[int, int]"
Maker: TypeAlias = "tuple[ModelConfig, Mapping[str, Any]]"


@dataclass
class Files:
    """What is in files, each of which is read once whatever the number of its names."""

    _digests: dict[Identity, str] = field(default_factory=dict)
    _makers: dict[Identity, Maker] = field(default_factory=dict)

    def digest(self, file: Path) -> str:
        """SHA-256 of a file.

        Raises:
            OSError: it cannot be read.
        """
        if (identity := _identity(file)) not in self._digests:
            self._digests[identity] = sha256(file)
        return self._digests[identity]

    def maker(self, model_file: Path) -> Maker:
        """Configuration of the network in a `model.pt`, and how it was trained.

        Raises:
            DataError: the file is damaged, or not written by `cryoquery.network.checkpoint.save_model`.
            OSError: it cannot be read.
        """
        if (identity := _identity(model_file)) not in self._makers:
            saved = read_model(model_file)
            self._makers[identity] = saved.model, saved.made_by if isinstance(saved.made_by, dict) else {}
        return self._makers[identity]


def _identity(file: Path) -> Identity:
    status = file.stat()
    return status.st_dev, status.st_ino


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
