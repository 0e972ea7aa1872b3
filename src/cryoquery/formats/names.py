"""What the name of a file says: the format of picks, and the micrograph they are of."""

from __future__ import annotations

import re
from pathlib import Path

from cryoquery.formats.micrographs import MICROGRAPH_SUFFIXES

SUFFIX_OF = {
    "star": ".star",
    "box": ".box",
    "cbox": ".cbox",
    "csv": ".csv",
    "txt": ".txt",
    "cs": ".cs",
    "coco": ".json",
}
FORMAT_OF = {suffix: name for name, suffix in SUFFIX_OF.items()}
COORDINATE_FORMATS = tuple(SUFFIX_OF)
"""Names of the formats: RELION, EMAN, crYOLO, CryoPPP, Topaz, cryoSPARC, COCO."""

COORDINATE_SUFFIXES = tuple(SUFFIX_OF.values())
"""Endings of the files of picks that a folder is searched for."""

ONE_PER_FILE = ("box", "cbox", "csv")
"""Formats that have no place for the name of a micrograph: one file each, named like it."""

EXTENSIONS = frozenset((*MICROGRAPH_SUFFIXES, ".gz", ".bz2", *COORDINATE_SUFFIXES))
"""What is taken off the end of a name, as often as it is there."""

PREFIX = re.compile(r"^(?:\d{21,22}_)+")
"""The uid that cryoSPARC puts before the names of what it imports."""

SUFFIXES = (
    *("_patch_aligned", "_rigid_aligned", "_aligned", "_doseweighted", "_dw", "_nodw", "_sum", "_frames"),
    *("_fractions", "_movie", "_mic", "_ctf", "_denoised", "_extract", "_mask"),
    *("_autopick", "_manualpick", "_topazpick", "_topaz", "_cryolo", "_automatch"),
    *("_pick", "_picks", "_picked", "_particles", "_particle", "_coords", "_coordinates", "_boxes"),
)
"""What programs append to the name of a micrograph."""


def micrograph_stem(name: Path | str) -> str:
    """The name of a micrograph without folders, also those of Windows, and without known extensions."""
    stem = str(name).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    while (cut := stem.rfind(".")) > 0 and stem[cut:].lower() in EXTENSIONS:
        stem = stem[:cut]
    return stem


def micrograph_key(name: Path | str) -> str:
    """The stem of a name without cryoSPARC's uid and the endings of `SUFFIXES`; never empty."""
    key = micrograph_stem(name)
    key = PREFIX.sub("", key) or key
    while suffix := next((s for s in SUFFIXES if key.lower().endswith(s) and len(key) > len(s)), None):
        key = key[: -len(suffix)]
    return key
