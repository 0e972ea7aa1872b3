"""Find the micrographs of a new project: their files, names, sizes and groups."""

from __future__ import annotations

import glob
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryoquery.data.layouts.options import matched_part
from cryoquery.errors import CryoqueryError, ProjectError
from cryoquery.formats import (
    MICROGRAPH_SUFFIXES,
    choose_pixel_size,
    match_micrographs,
    micrograph_files,
    micrograph_stem,
    micrograph_suffix,
    read_header,
)
from cryoquery.formats.folders import is_visible_file
from cryoquery.formats.text_names import check_name
from cryoquery.formats.versions import one_version_each
from cryoquery.project.conditions import Conditions

DEFAULT_GROUP = "micrographs"


@dataclass(frozen=True)
class UsableMicrograph:
    """A micrograph that can be opened, and what is known of it."""

    name: str
    path: Path
    """As it was given."""
    shape: tuple[int, int]
    """(height, width) in pixels."""
    pixel_size: float | None
    """Å/px, where known."""
    group: str
    defocus_um: float | None = None
    ice: float | None = None


@dataclass(frozen=True)
class MicrographSearch:
    """The micrographs of a new project."""

    micrographs: tuple[UsableMicrograph, ...]
    failures: tuple[str, ...] = ()
    """Files whose header cannot be read, and why."""
    notes: tuple[str, ...] = field(default=())
    """What is doubtful, one line each."""


def micrograph_paths(given: Sequence[Path | str]) -> list[Path]:
    """The files that files, folders, STAR files and patterns stand for, each once, sorted within a pattern.

    Raises:
        ProjectError: one of them stands for no micrograph.
        DataError: a folder holds none.
    """
    paths: dict[str, Path] = {}
    for one in given:
        for path in _expand(str(one)):
            paths.setdefault(os.path.abspath(path), path)  # noqa: PTH100 - resolve() would follow links
    return list(paths.values())


def _expand(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix.lower() == ".star"):
        return micrograph_files(path)
    if path.is_file():
        matches = found = [path]
    else:
        matches = sorted(map(Path, glob.glob(_literal_where_there(path), recursive=True)))  # noqa: PTH207
        found = list(filter(is_visible_file, matches))
    found = list(filter(micrograph_suffix, found))
    if not found:
        reason = "no such file, and no pattern that finds any" if not matches else "no micrographs"
        raise ProjectError(
            f"--micrographs {pattern!r}: {reason}; they end in {' '.join(MICROGRAPH_SUFFIXES)}"
        )
    return found


def _literal_where_there(pattern: Path) -> str:
    """The pattern with the folders that are called like this, brackets and all, taken literally."""
    there, parts = Path(), []
    for part in pattern.parts:
        there /= part
        parts.append(glob.escape(part) if there.exists() else part)
    return str(Path(*parts))


def find_micrographs(
    paths: Sequence[Path],
    *,
    pixel_size: float | None = None,
    conditions: Conditions | None = None,
    group_pattern: str | None = None,
) -> MicrographSearch:
    """Read the headers of micrographs, and name and group them.

    Args:
        paths: files, each once.
        pixel_size: Å/px as stated; goes before what files say.
        conditions: defocus, ice and groups, as a table has them.
        group_pattern: regular expression; its first bracket, or all that it finds in the stem of the
            file or else in its path, is the group.

    Raises:
        ProjectError: no header can be read, two files cannot be told apart by name, or a name has no group.
        ConfigError: the pixel size cannot be used.
        DataError: no micrograph is in the table, or one is there twice.
    """
    paths, versions = one_version_each(paths)
    names = _names(paths)
    rows = conditions.match(paths) if conditions else {}
    optics = conditions.pixel_size if conditions else None
    found: list[UsableMicrograph] = []
    failures: list[str] = []
    doubts: Counter[str] = Counter()
    for name, path in zip(names, paths, strict=True):
        try:
            check_name(path)
            header = read_header(path)
        except (CryoqueryError, OSError) as error:
            failures.append(str(error))
            continue
        chosen = choose_pixel_size(pixel_size, optics, header.stated_pixel_size)
        doubts.update([chosen.note] if chosen.note else [])
        row = rows.get(path)
        found.append(
            UsableMicrograph(
                name=name,
                path=path,
                shape=header.shape,
                pixel_size=chosen.value,
                group=_group(path, group_pattern, row.group if row else None),
                defocus_um=row.defocus_um if row else None,
                ice=row.ice if row else None,
            )
        )
    if not found:
        raise ProjectError(f"none of the {len(paths)} micrographs can be read; the first: {failures[0]}")
    notes = [*versions, *(f"{_counted(n)}: {doubt}" for doubt, n in doubts.items())]
    if conditions and len(rows) < len(paths):
        notes.append(f"{conditions.path}: does not know {_counted(len(paths) - len(rows))} of {len(paths)}")
    return MicrographSearch(tuple(found), tuple(failures), tuple(notes))


def match_to_files(names: Iterable[str], files: Mapping[str, Path]) -> dict[str, str]:
    """The project's name of each micrograph that files of coordinates name; unknown ones are left out.

    Args:
        names: as in the coordinate files.
        files: of the project's micrographs, by their name.

    Raises:
        DataError: a name fits several micrographs.
    """
    by_path = {str(path): name for name, path in files.items()}
    found = match_micrographs(names, files.values(), allow_missing=True)
    return {stated: by_path[str(path)] for stated, path in found.items()}


def _names(paths: Sequence[Path]) -> list[str]:
    """The stem of each file, with its folder where stems are equal."""
    stems = Counter(micrograph_stem(path) for path in paths)
    names = []
    for path in paths:
        stem = micrograph_stem(path)
        names.append(stem if stems[stem] == 1 else f"{path.absolute().parent.name}/{stem}")
    by_name: dict[str, list[Path]] = defaultdict(list)
    for name, path in zip(names, paths, strict=True):
        by_name[name].append(path)
    if twice := next((same for same in by_name.values() if len(same) > 1), None):
        raise ProjectError(f"{twice[0]} and {twice[1]} have the same name; rename one, or give only one")
    return names


def _group(path: Path, pattern: str | None, stated: str | None) -> str:
    if pattern is None:
        return stated or DEFAULT_GROUP
    found = matched_part(pattern, micrograph_stem(path)) or matched_part(pattern, path.as_posix())
    if not found:
        raise ProjectError(f"--group-pattern {pattern!r}: finds nothing in {path}; correct it")
    return found


def _counted(n: int) -> str:
    return f"{n:,} micrograph{'' if n == 1 else 's'}"


def common_folder(path: Path, micrographs: Sequence[UsableMicrograph]) -> Path:
    """The folder that holds all micrographs; links to folders are followed, links to files are not."""
    folders = [os.fspath(one.path.absolute().parent.resolve()) for one in micrographs]
    common = Path(os.path.commonpath(folders))
    if path.resolve() == common or path.resolve() in common.parents:
        raise ProjectError(f"{path}: the micrographs lie in it; choose another folder for the project")
    return common


def stated_folder(path: Path, folder: Path) -> str:
    """Relative to the project where the micrographs lie beside it, so that both can move together."""
    parent = path.resolve().parent
    if folder == parent or parent in folder.parents:
        return (Path("..") / folder.relative_to(parent)).as_posix()
    return folder.as_posix()
