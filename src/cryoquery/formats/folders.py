"""Which files of a folder are micrographs, and which are coordinates."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cryoquery.errors import DataError
from cryoquery.formats.micrograph_star import read_micrograph_star
from cryoquery.formats.micrographs import MICROGRAPH_SUFFIXES, micrograph_suffix
from cryoquery.formats.names import COORDINATE_SUFFIXES


def is_visible_file(path: Path) -> bool:
    """Whether something found in a folder counts: no folder, and not hidden as macOS's ``._a.mrc`` is.

    A link that leads nowhere counts, so that reading it raises the error.
    """
    return not path.name.startswith(".") and not path.is_dir()


def visible_files(folder: Path) -> list[Path]:
    """The files of a folder that count, see `is_visible_file`, sorted."""
    return sorted(filter(is_visible_file, folder.iterdir()))


def micrograph_files(micrographs: Path | str | Iterable[Path | str]) -> list[Path]:
    """The files of micrographs: those given, those in the folder given, sorted, or those of a STAR file.

    Raises:
        DataError: the folder or the STAR file is missing or holds none.
    """
    if not isinstance(micrographs, Path | str):
        return [Path(path) for path in micrographs]
    folder = Path(micrographs)
    if folder.is_file():
        return read_micrograph_star(folder).files() if folder.suffix.lower() == ".star" else [folder]
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of micrographs")
    files = list(filter(micrograph_suffix, visible_files(folder)))
    if not files:
        raise DataError(f"{folder}: no micrographs in it; they end in {' '.join(MICROGRAPH_SUFFIXES)}")
    return files


def coordinate_files(folder: Path) -> list[Path]:
    """The files of coordinates in a folder and below it, sorted."""
    return sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in COORDINATE_SUFFIXES and is_visible_file(p)
    )
