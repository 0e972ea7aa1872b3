"""Picks read from and written to files of any format, which is recognized from what the file holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.formats import boxes, coco, cryosparc, relion, star, tables
from cryoquery.formats.matching import micrograph_key, stem_of
from cryoquery.formats.picks import Picks, concatenate
from cryoquery.formats.relion import Optics
from cryoquery.storage.atomic import staged_directory, write_bytes

SUFFIX_OF = {
    "star": ".star",
    "box": ".box",
    "cbox": ".cbox",
    "csv": ".csv",
    "txt": ".txt",
    "cs": ".cs",
    "coco": ".json",
}
COORDINATE_FORMATS = tuple(SUFFIX_OF)
"""Names of the formats: RELION, EMAN, crYOLO, CryoPPP, Topaz, cryoSPARC, COCO."""

COORDINATE_SUFFIXES = tuple(SUFFIX_OF.values())
"""Endings of the files of picks that a folder is searched for."""

ONE_PER_FILE = ("box", "cbox", "csv")
"""Formats that have no place for the name of a micrograph: one file each, named like it."""

HEADERLESS = ("box", "cbox")
"""Formats in which an empty file means no picks."""

MAX_COORDINATE = 1e7
"""Pixels; what is beyond is no coordinate."""

PICK_ENDING = "_autopick"
JOB_FOLDER = re.compile(r"^(?:.*/)?[^/]+/job\d{3,}/")
"""What RELION puts before the name of a file that a job wrote."""


def read_coordinates(
    path: Path | str,
    *,
    format: str | None = None,
    diameter_px: float | None = None,
    micrograph_shape: tuple[int, int] | None = None,
) -> Picks:
    """Read the picks of a file, or of all files of coordinates in a folder.

    Args:
        path: a file of any of `COORDINATE_FORMATS`, recognized from what it holds; RELION's list of
            such files (``autopick.star``), which is followed; or a folder. Picks of a folder's files
            that do not name their micrograph get the file's own name, without endings like ``_autopick``.
        format: one of `COORDINATE_FORMATS`, to read a file as this one.
        diameter_px: of the particles, for picks whose file does not say.
        micrograph_shape: (height, width) in pixels, for a ``.cs`` file that does not say.

    Raises:
        DataError: the file is missing, of an unknown kind, damaged, or a coordinate is not a number.

    Examples:
        A corner and a box of 30 px, as EMAN writes them, are a center and a diameter here.

        >>> _ = Path("stack_07.box").write_text("10 20 30 30")
        >>> picks = read_coordinates("stack_07.box")
        >>> picks.centers_yx.tolist(), picks.diameter_px, picks.file_format
        ([[35.0, 25.0]], 30.0, 'box')
    """
    path = Path(path)
    if format is not None and format not in COORDINATE_FORMATS:
        raise DataError(f"{path}: unknown format {format!r}; one of {' '.join(COORDINATE_FORMATS)}")
    if path.is_dir():
        picks = _read_folder(path, format, micrograph_shape)
    else:
        picks = _read_file(path, format, micrograph_shape)
    if diameter_px is not None:
        known = np.full(len(picks), np.nan) if picks.diameters_px is None else picks.diameters_px
        picks = picks.replace(diameters_px=np.where(np.isnan(known), diameter_px, known))
    return picks


def read_optics_pixel_size(path: Path | str) -> float:
    """Å/px of the micrographs by the optics groups of a STAR file, such as ``micrographs_ctf.star``.

    Raises:
        DataError: the file is missing or damaged, states none, or several that differ.
    """
    path = Path(path)
    try:
        text = _decode(path, path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    size = relion.optics_pixel_size(star.read_tables(path, text))
    if size is None:
        raise DataError(f"{path}: its optics groups state no pixel size, or several; give --pixel-size")
    return size


def _read_file(path: Path, format: str | None, shape: tuple[int, int] | None, listed: bool = False) -> Picks:
    """Picks of one file; ``listed``: it comes from a list of files, and may not be one itself."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if format == "cs" or (format is None and cryosparc.is_cs(content)):
        picks = cryosparc.read_cs(path, content, shape)
    else:
        text = _decode(path, content)
        picks = _read_text(path, text, format or recognize(path, text), listed)
    _check(path, picks)
    return picks


def _read_text(path: Path, text: str, format: str, listed: bool) -> Picks:
    if format in ("star", "cbox") and _STAR.search(text):
        found = star.read_tables(path, text)
        if not listed and (
            files := relion.read_listed(path, found, lambda p: _read_file(p, None, None, True))
        ):
            return concatenate([picks.with_micrograph(name) for name, picks in files])
        has_boxes = any(map(boxes.holds_boxes, found)) and not any(map(relion.holds_picks, found))
        return (boxes.read_cbox if has_boxes else relion.read_relion)(path, found)
    if format == "coco":
        return coco.read_coco(path, text)
    if format == "box":
        return boxes.read_box(path, text)
    if format == "cbox":
        return boxes.read_old_cbox(path, text)
    if format == "star":
        raise DataError(f"{path}: not a STAR file: no line begins with data_; check what it is")
    stated = tables.layout_of(next(filter(str.strip, text[:100_000].splitlines()), ""))
    usual = tables.CRYOPPP if format == "csv" else tables.TOPAZ
    return tables.read_table(path, text, stated if stated and stated.name == format else usual)


_STAR = re.compile(r"^\s*data_", re.MULTILINE)


def recognize(path: Path, text: str) -> str:
    """The format of a file of text; its name decides only what is empty. "star" may be a ``.cbox`` as well.

    Raises:
        DataError: it is none of them.
    """
    suffix = path.suffix.lower()
    first = next(filter(str.strip, text[:100_000].splitlines()), "")
    if not first.strip():
        named = next((name for name, own in SUFFIX_OF.items() if own == suffix), "")
        if named in HEADERLESS:
            return named
        raise DataError(f"{path}: empty; copy it again")
    if first.lstrip()[0] in "{[" and suffix not in (".box", ".cbox"):
        return "coco"
    if (layout := tables.layout_of(first)) is not None:
        return layout.name
    if (block := _STAR.search(text)) is not None and _begins_star(text[: block.start()]):
        return "star"
    values = boxes.box_rows(first)
    if values and _are_numbers(values[0][1][:4]) and len(values[0][1]) >= 4:
        return "cbox" if len(values[0][1]) >= 7 else "box"
    return _by_suffix(path, suffix, first)


def _begins_star(before: str) -> bool:
    """Whether only comments and empty lines stand before the first block."""
    return all(not line.strip() or line.lstrip().startswith("#") for line in before.splitlines())


def _are_numbers(texts: list[str]) -> bool:
    try:
        return all(np.isfinite(float(text)) for text in texts)
    except ValueError:
        return False


def _by_suffix(path: Path, suffix: str, first: str) -> str:
    """The format that the name promises, so that its reader can say what is wrong."""
    named = next((name for name, own in SUFFIX_OF.items() if own == suffix and name != "cs"), None)
    if named is not None:
        return named
    if suffix == ".cs":
        raise DataError(f"{path}: not a .cs file (it begins with {first[:20]!r}); copy it again")
    raise DataError(
        f"{path}: unknown suffix {suffix!r} and a content that is no format of coordinates (it begins with "
        f"{first.strip()[:30]!r}); coordinates are {' '.join(COORDINATE_SUFFIXES)}"
    )


def _decode(path: Path, content: bytes) -> str:
    """The text of a file: UTF-8, UTF-16 with its mark, or Latin-1 where there are no control characters."""
    try:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            text = content.decode("utf-16")
        else:
            text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if content.translate(None, _PRINTABLE):
            raise DataError(f"{path}: cannot be read as text ({error}); copy it again") from None
        text = content.decode("latin-1")
    if "\0" in text:
        raise DataError(f"{path}: cannot be read as text (it holds zero bytes); copy it again")
    return text


_PRINTABLE = bytes([9, 10, 13, *range(32, 127), *range(160, 256)])


def _check(path: Path, picks: Picks) -> None:
    too_large = np.abs(picks.centers_yx) > MAX_COORDINATE
    if too_large.any():
        value = picks.centers_yx[too_large][0]
        raise DataError(f"{path}: a coordinate of {value:g} px; no micrograph is that large, correct it")


SUFFIX_LIST = "coords_suffix"
"""How the file begins whose name says how the files of picks of a RELION 3.1 job end."""


def _read_folder(folder: Path, format: str | None, shape: tuple[int, int] | None) -> Picks:
    for name in ("autopick.star", "manualpick.star"):
        if (folder / name).is_file():
            return _read_file(folder / name, "star", None)
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in COORDINATE_SUFFIXES and p.is_file())
    own = SUFFIX_OF.get(format or "", "")
    files = [p for p in files if not p.name.startswith(".") and p.suffix.lower().endswith(own)]
    # A picking job of RELION 3.1 says how its files end; others in its folder are about the job.
    endings = tuple(p.name.removeprefix(SUFFIX_LIST) for p in files if p.name.startswith(SUFFIX_LIST))
    if endings:
        files = [p for p in files if p.name.endswith(endings) and not p.name.startswith(SUFFIX_LIST)]
    if not files:
        raise DataError(f"{folder}: no files of coordinates; they end in {' '.join(COORDINATE_SUFFIXES)}")
    by_key: dict[str, Path] = {}
    for p in files:
        if (other := by_key.setdefault(micrograph_key(p.name), p)) is not p:
            raise DataError(
                f"{folder}: {other.relative_to(folder)} and {p.relative_to(folder)} are both of micrograph "
                f"{micrograph_key(p.name)}; give one subfolder, or one format with --format"
            )
    parts = [_read_file(p, format, shape).with_micrograph(key) for key, p in by_key.items()]
    return concatenate(parts)


def write_coordinates(
    path: Path | str,
    picks: Picks | NDArray[np.floating],
    *,
    format: str | None = None,
    pixel_size: float | None = None,
    optics: Optics | None = None,
    diameter_px: float | None = None,
    micrograph_shapes: Mapping[str, tuple[int, int]] | tuple[int, int] | None = None,
) -> None:
    """Write picks, whole or not at all.

    Args:
        path: a file, whose suffix says the format; or, without a suffix, a folder to make, which gets
            one file per micrograph. In RELION's format this is the folder of a picking job.
        picks: or an array (n, 2) or (n, 3) of (y, x[, diameter]) in pixels.
        format: one of `COORDINATE_FORMATS`; for a folder RELION's where it is not said.
        pixel_size: Å/px of the micrographs, for RELION's table of optics groups and for ``.cs``.
        optics: voltage and the like, for RELION's table of optics groups.
        diameter_px: for picks without one, where the format has boxes.
        micrograph_shapes: (height, width) in pixels of all, or of each by name; ``.cs`` needs them.

    Raises:
        DataError: the format is unknown, cannot hold several micrographs in a file, or lacks what it
            needs; or the folder is not empty.

    Examples:
        >>> picks = Picks.of([[35.5, 25], [70, 8]], micrograph="stack_07.mrc", scores=[0.9, 0.8])
        >>> write_coordinates("picks.star", picks, pixel_size=1.06)
        >>> read_coordinates("picks.star").centers_yx.tolist()
        [[35.5, 25.0], [70.0, 8.0]]
    """
    path = Path(path)
    picks = _prepared(picks, pixel_size, diameter_px)
    as_folder = path.is_dir() or not path.suffix or str(path).endswith("/")
    format = format or ("star" if as_folder else _format_of(path))
    if format not in COORDINATE_FORMATS:
        raise DataError(f"{path}: unknown format {format!r}; one of {' '.join(COORDINATE_FORMATS)}")
    shapes = _known_shapes(picks, micrograph_shapes)
    if as_folder:
        _write_folder(path, picks, format, pixel_size, optics, shapes)
        return
    if format in ONE_PER_FILE and len(set(picks.micrographs.tolist())) > 1:
        raise DataError(
            f"{path}: picks of {len(set(picks.micrographs.tolist()))} micrographs, and a {SUFFIX_OF[format]} "
            "file holds those of one; give a folder (a path without a suffix) to write one file for each"
        )
    write_bytes(path, _content(path, picks, format, pixel_size, optics, shapes))


def _prepared(
    picks: Picks | NDArray[np.floating], pixel_size: float | None, diameter_px: float | None
) -> Picks:
    if not isinstance(picks, Picks):
        rows = np.asarray(picks, dtype=np.float64)
        rows = rows.reshape(-1, rows.shape[-1] if rows.ndim == 2 and rows.shape[1] in (2, 3) else 3)
        picks = Picks.of(rows[:, :2], diameters_px=rows[:, 2] if rows.shape[1] == 3 else None)
    if diameter_px is not None and picks.diameters_px is None:
        picks = picks.replace(diameters_px=np.full(len(picks), float(diameter_px)))
    return picks if pixel_size is None else picks.replace(pixel_size=pixel_size)


def _format_of(path: Path) -> str:
    suffix = path.suffix.lower()
    format = next((name for name, own in SUFFIX_OF.items() if own == suffix), None)
    if format is None:
        raise DataError(
            f"{path}: unknown suffix {path.suffix!r}; coordinates are {' '.join(COORDINATE_SUFFIXES)}"
        )
    return format


def _known_shapes(
    picks: Picks, given: Mapping[str, tuple[int, int]] | tuple[int, int] | None
) -> dict[str, tuple[int, int]]:
    if isinstance(given, tuple):
        return dict.fromkeys(picks.micrographs.tolist(), given)
    return {**picks.shapes, **(given or {})}


def _content(
    path: Path,
    picks: Picks,
    format: str,
    pixel_size: float | None,
    optics: Optics | None,
    shapes: Mapping[str, tuple[int, int]],
) -> bytes:
    if format == "cs":
        return cryosparc.cs_bytes(picks, _rows_of_shapes(path, picks, shapes))
    if format == "star":
        text = relion.relion_text(picks, pixel_size, optics)
    elif format == "coco":
        text = coco.coco_text(path, picks, shapes)
    elif format in HEADERLESS:
        text = (boxes.box_text if format == "box" else boxes.cbox_text)(path, picks)
    else:
        text = tables.table_text(picks, tables.CRYOPPP if format == "csv" else tables.TOPAZ)
    return text.encode()


def _rows_of_shapes(path: Path, picks: Picks, shapes: Mapping[str, tuple[int, int]]) -> NDArray[np.float64]:
    names = picks.micrographs.tolist()
    missing = next((name for name in dict.fromkeys(names) if name not in shapes), None)
    if missing is not None:
        raise DataError(
            f"{path}: a .cs file holds fractions, and the size of micrograph {missing!r} is not known; "
            "give --micrographs"
        )
    return np.array([shapes[name] for name in names], dtype=np.float64).reshape(-1, 2)


def _write_folder(
    folder: Path,
    picks: Picks,
    format: str,
    pixel_size: float | None,
    optics: Optics | None,
    shapes: Mapping[str, tuple[int, int]],
) -> None:
    """One file per micrograph; in RELION's format with the lists that make a picking job of the folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: exists and is not empty; give another folder")
    by_micrograph = dict(picks.by_micrograph())
    for name in shapes:  # a micrograph without picks gets a file as well: it was looked at
        by_micrograph.setdefault(name, picks.rows(np.zeros(len(picks), dtype=bool)))
    if "" in by_micrograph:
        raise DataError(f"{folder}: picks without the name of their micrograph; write them to a file")
    places = {name: _place(name, format) for name in by_micrograph}
    twice = next((place for place, n in Counter(places.values()).items() if n > 1), None)
    if twice is not None:
        both = [name for name, place in places.items() if place == twice]
        raise DataError(f"{folder}: {both[0]} and {both[1]} would both be written to {twice}; rename one")
    with staged_directory(folder) as staged:
        for name, part in by_micrograph.items():
            (staged / places[name]).parent.mkdir(parents=True, exist_ok=True)
            if format == "star":
                content = relion.one_micrograph_text(part).encode()
            else:
                content = _content(folder / places[name], part, format, pixel_size, optics, shapes)
            (staged / places[name]).write_bytes(content)
        if format == "star":
            names = list(places)
            files = [(PurePosixPath(folder) / places[name]).as_posix() for name in names]
            listed = {
                "autopick.star": relion.list_text(names, files),
                "micrographs.star": relion.micrographs_text(picks, names, pixel_size, optics),
                f"coords_suffix{PICK_ENDING}.star": f"{(folder / 'micrographs.star').as_posix()}\n",
            }
            for name, text in listed.items():
                (staged / name).write_text(text, encoding="utf-8")


def _place(name: str, format: str) -> str:
    """Where in the folder the picks of a micrograph go.

    RELION looks for them under the micrograph's own folder, without the part that its jobs add.
    """
    if format != "star":
        return stem_of(name) + SUFFIX_OF[format]
    inner = PurePosixPath(JOB_FOLDER.sub("", name))
    folder = "" if inner.is_absolute() or ".." in inner.parts else inner.parent.as_posix()
    return (PurePosixPath(folder) / f"{stem_of(name)}{PICK_ENDING}.star").as_posix()


__all__ = [
    "COORDINATE_FORMATS",
    "COORDINATE_SUFFIXES",
    "read_coordinates",
    "write_coordinates",
]
