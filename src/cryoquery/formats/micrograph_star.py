"""RELION's STAR files of micrographs, such as ``micrographs_ctf.star``: names, files and optics groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.formats import relion
from cryoquery.formats.columns import object_column
from cryoquery.formats.matching import match_micrographs
from cryoquery.formats.picks import Picks
from cryoquery.formats.recognize import decode
from cryoquery.formats.star import read_tables


@dataclass(frozen=True)
class MicrographStar:
    """What a STAR file says of micrographs."""

    path: Path
    names: tuple[str, ...]
    """(n,) as RELION knows them: their paths from the folder of its project."""
    groups: tuple[str, ...]
    """(n,) optics group of each, or empty where none are stated."""
    optics: Mapping[str, NDArray[np.object_]]
    """RELION's table of optics groups, (n_groups,) per label; empty where the file has none."""

    @property
    def pixel_size(self) -> float | None:
        """Å/px of the micrographs, where all optics groups agree."""
        return relion.pixel_size_of({}, self.optics)

    def files(self) -> list[Path]:
        """The files of the micrographs, looked for from here and from the folders above the STAR file.

        Raises:
            DataError: it names no micrographs.
        """
        if not self.names:
            raise DataError(f"{self.path}: names no micrographs; give a file like micrographs_ctf.star")
        return [relion.find_file(self.path, Path(name)) or Path(name) for name in self.names]

    def with_optics(self, picks: Picks) -> Picks:
        """Picks with the optics group of the micrograph that each is of.

        Raises:
            DataError: there are several groups, and a micrograph is not named here.
        """
        if not self.optics:
            return picks
        groups = self.optics[relion.OPTICS_GROUP].tolist()
        own = object_column([groups[0]] * len(picks))
        if len(groups) > 1:
            found = match_micrographs(picks.micrographs.tolist(), self.names)
            group_of = dict(zip(self.names, self.groups, strict=True))
            own = object_column([group_of[str(found[name])] for name in picks.micrographs.tolist()])
        extra = {n: column for n, column in picks.extra.items() if n not in relion.STATING_PIXEL_SIZE}
        optics = dict(self.optics)
        if "rlnMicrographPixelSize" in optics:  # nothing is binned yet
            optics["rlnImagePixelSize"] = optics["rlnMicrographPixelSize"]
        return picks.replace(
            extra=extra | {relion.OPTICS_GROUP: own},
            optics=optics,
            pixel_size=self.pixel_size or picks.pixel_size,
        )


def read_micrograph_star(path: Path | str) -> MicrographStar:
    """Read a STAR file of micrographs, or one that has only their optics groups.

    Raises:
        DataError: the file is missing or damaged.
    """
    path = Path(path)
    try:
        text = decode(path, path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    tables = read_tables(path, text)
    named = next((table.columns for table in tables if relion.names_micrographs(table)), {})
    names = tuple(dict.fromkeys(named.get(relion.MICROGRAPH, ())))
    groups = named.get(relion.OPTICS_GROUP, ())
    group_of = dict(zip(named.get(relion.MICROGRAPH, ()), groups, strict=False))
    return MicrographStar(
        path, names, tuple(group_of.get(name, "") for name in names), relion.optics_table(tables)
    )
