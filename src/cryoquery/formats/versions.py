"""Of several versions of one field of view that lie in one folder, the one to take.

Programs leave a micrograph beside itself without dose weighting, binned, denoised, and as a power
spectrum. These show the same particles or none, so one of them is taken.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from cryoquery.formats.names import micrograph_stem

VERSIONS = (
    ("_doseweighted", "_dw"),
    ("",),
    ("_dws",),
    ("_nodw", "_nondw", "_unweighted"),
    ("_denoised", "_deconv"),
    ("_shr", "_shrunk", "_bin", "_binned", "_small", "_lowres", "_thumb", "_thumbnail", "_preview"),
    ("_ps", "_power", "_powerspectrum", "_fft", "_ctf", "_avrot", "_diag"),
)
"""Endings of names, the version that is taken first: dose weighted, as it is called plainly, and so on."""
_RANK = {ending: rank for rank, endings in enumerate(VERSIONS) for ending in endings}
_ENDING = re.compile(rf"({'|'.join(filter(None, _RANK))})$|(_bin|_shr)[\d.]+$", re.IGNORECASE)
N_SHOWN = 3


def one_version_each(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """The files that are left where several in a folder are versions of one field, and a note on the others.

    Args:
        paths: of micrographs.

    Returns:
        The files to take, in their order, and notes.
    """
    paths = list(paths)
    fields: dict[tuple[Path, str], list[tuple[int, Path]]] = defaultdict(list)
    for path in paths:
        field, rank = _field(path)
        fields[path.parent, field].append((rank, path))
    taken: set[Path] = set()
    for versions in fields.values():
        first = min((rank, micrograph_stem(path)) for rank, path in versions)
        taken |= {path for rank, path in versions if (rank, micrograph_stem(path)) == first}
    left_out = [path.name for path in paths if path not in taken]
    if not left_out:
        return paths, []
    shown = ", ".join(left_out[:N_SHOWN]) + (", …" if len(left_out) > N_SHOWN else "")
    note = (
        f"left out {len(left_out)} other versions of micrographs that are there ({shown}); the dose-weighted "
        "one is taken, else the one without an ending; for others give their own pattern"
    )
    return [path for path in paths if path in taken], [note]


def _field(path: Path) -> tuple[str, int]:
    """The name without endings of versions, and the rank of its version: that of its last ending to take."""
    name, ranks = micrograph_stem(path), []
    while (match := _ENDING.search(name)) and match.start() > 0:
        ranks.append(_RANK[(match[1] or match[2]).lower()])
        name = name[: match.start()]
    return name, max(ranks, default=_RANK[""])
