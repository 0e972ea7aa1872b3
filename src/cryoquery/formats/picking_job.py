"""Folders of files of picks: those of RELION's picking jobs, which say what is what, and plain ones."""

from __future__ import annotations

from pathlib import Path

from cryoquery.errors import DataError
from cryoquery.formats import relion
from cryoquery.formats.folders import coordinate_files
from cryoquery.formats.micrograph_star import read_micrograph_star
from cryoquery.formats.names import COORDINATE_SUFFIXES
from cryoquery.formats.recognize import decode
from cryoquery.formats.star import read_tables

LISTS = ("autopick.star", "manualpick.star")
"""What RELION 4 and 5 call the list of the files of picks."""
SUFFIX_LIST = "coords_suffix"
"""How the file begins whose name says how the files of picks of a RELION 3.1 job end."""
SUMMARY = "summary.star"
"""How many picks ``relion_autopick`` has found on each micrograph."""
ABOUT_MICROGRAPHS = ("micrographs.star", SUMMARY)
"""Files of a job that name the micrographs."""
OTHERS = ("job.star", "job_pipeline.star", "default_pipeline.star", "RELION_OUTPUT_NODES.star")
"""Other files of a job that are not picks."""


def folder_of_job(path: Path) -> Path:
    """The folder of a job of RELION 3.1 where its ``coords_suffix_autopick.star`` is given, else ``path``."""
    return path.parent if path.name.startswith(SUFFIX_LIST) and path.is_file() else path


def files_of_picks(folder: Path, suffix: str = "") -> dict[Path, str]:
    """The files of picks in a folder, and the name of the micrograph of each, empty where only theirs tells.

    Args:
        folder: of a picking job of RELION, or any.
        suffix: only those that end so, where the folder is not a job's.

    Raises:
        DataError: there are none, or a file that the job lists is missing.
    """
    files = files_of_job(folder)
    if files is None:
        files = {path: "" for path in coordinate_files(folder) if path.suffix.lower().endswith(suffix)}
    if not files:
        raise DataError(f"{folder}: no files of coordinates; they end in {' '.join(COORDINATE_SUFFIXES)}")
    return files


def files_of_job(folder: Path) -> dict[Path, str] | None:
    """As `files_of_picks`; None where nothing in the folder says that a picking job of RELION wrote it."""
    for path in (folder / name for name in LISTS):
        if path.is_file():
            files = relion.listed_files(path, read_tables(path, decode(path, path.read_bytes())))
            if files is not None:
                return files
    lists = sorted(path for path in folder.glob(f"{SUFFIX_LIST}*") if path.is_file())
    if not lists and not (folder / SUMMARY).is_file():
        return None
    endings = tuple(path.name.removeprefix(SUFFIX_LIST) for path in lists)
    about = {*lists, *(folder / name for name in (*ABOUT_MICROGRAPHS, *OTHERS))}
    names = _names_of_job(folder, lists)
    found = {
        path: _micrograph_of(path, folder, names)
        for path in coordinate_files(folder)
        if path.name.endswith(endings or "") and path not in about
    }
    # Without a list of suffixes the files are those that are called like a micrograph.
    return found if lists else {path: name for path, name in found.items() if name}


def _names_of_job(folder: Path, lists: list[Path]) -> dict[str, str]:
    """The micrographs of a job by the place of their picks in its folder, without an ending."""
    stars = [star for path in lists if (star := _star_that_is_named(path))]
    stars += [path for name in ABOUT_MICROGRAPHS if (path := folder / name).is_file()]
    names = next((names for star in stars if (names := read_micrograph_star(star).names)), ())
    return {relion.place_of_picks(name).as_posix(): name for name in names}


def _star_that_is_named(path: Path) -> Path | None:
    """The STAR file of micrographs that ``coords_suffix_autopick.star`` names in its first line."""
    named = decode(path, path.read_bytes()).strip().splitlines()
    return relion.find_file(path, Path(named[0])) if named and named[0].endswith(".star") else None


def _micrograph_of(path: Path, folder: Path, names: dict[str, str]) -> str:
    """The micrograph of a file of picks, by RELION's rule: it lies in the same place and begins like it."""
    place = path.relative_to(folder).as_posix()
    cuts = [i for i, letter in enumerate(place) if letter in "_."]
    return next((names[place[:i]] for i in reversed(cuts) if place[:i] in names), "")
