"""Which file a name of a micrograph means, whatever folder, extension or ending programs gave it."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from cryoquery.errors import DataError
from cryoquery.formats.names import micrograph_key, micrograph_stem

N_CANDIDATES = 5

PathOrName = TypeVar("PathOrName", Path, str)


def match_micrographs(
    names: Iterable[str], micrograph_paths: Iterable[Path | str], *, allow_missing: bool = False
) -> dict[str, Path]:
    """The file of each named micrograph.

    Equal stems win; then stems that are equal once prefixes and suffixes are taken off. Of several
    files, the one that shares most folders with the name is taken, if there is one.

    Args:
        names: of micrographs, as files of picks have them; repeated ones are looked up once.
        micrograph_paths: the files there are.
        allow_missing: leave out names without a file, rather than refusing.

    Raises:
        DataError: a name fits no file, or several; the message lists the candidates.
    """
    paths = [Path(path) for path in dict.fromkeys(map(str, micrograph_paths))]
    by_stem, by_key = defaultdict(list), defaultdict(list)
    for path in paths:
        by_stem[micrograph_stem(path)].append(path)
        by_key[micrograph_key(path)].append(path)
    found: dict[str, Path] = {}
    missing: list[str] = []
    for name in dict.fromkeys(names):
        candidates = by_stem.get(micrograph_stem(name)) or by_key.get(micrograph_key(name)) or []
        candidates = nearest(name, candidates)
        if len(candidates) == 1:
            found[name] = candidates[0]
        elif candidates:
            shown = ", ".join(map(str, candidates[:N_CANDIDATES]))
            raise DataError(
                f"micrograph {name!r} may be any of {len(candidates)} files: {shown}; give only one of them"
            )
        else:
            missing.append(name)
    if missing and not allow_missing:
        raise DataError(_missing(missing, by_key, len(paths)))
    return found


def nearest(name: Path | str, candidates: Sequence[PathOrName]) -> list[PathOrName]:
    """Those candidates whose last folders agree with those of the name in most places."""
    if len(candidates) < 2:
        return list(candidates)
    folders = _folders(name)
    shared = []
    for candidate in candidates:
        own = _folders(candidate)
        n = next((i for i, pair in enumerate(zip(folders, own, strict=False)) if pair[0] != pair[1]), None)
        shared.append(min(len(folders), len(own)) if n is None else n)
    return [one for one, n in zip(candidates, shared, strict=True) if n == max(shared)]


def _folders(name: Path | str) -> list[str]:
    """The folders of a name, the last one first."""
    return str(name).replace("\\", "/").split("/")[-2::-1]


def _missing(missing: Sequence[str], by_key: dict[str, list[Path]], n_paths: int) -> str:
    name = missing[0]
    if not name:
        return "picks without the name of their micrograph; keep one file per micrograph, named like it"
    close = difflib.get_close_matches(micrograph_key(name), by_key, n=N_CANDIDATES, cutoff=0.0)
    shown = ", ".join(by_key[key][0].name for key in close) or "none"
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    return (
        f"micrograph {name!r}{more} is none of the {n_paths} files given; nearest: {shown}; check the names"
    )
