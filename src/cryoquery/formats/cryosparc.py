"""cryoSPARC's ``.cs``: a NumPy structured array on disk, centers as fractions of the micrograph.

``center_x_frac`` and ``center_y_frac`` are fractions of the width and of the height; y counts from
the first row that is stored, which cryoSPARC shows at the bottom. docs/formats.md says how this is
known, and what it means for micrographs that were motion corrected elsewhere.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cryoquery.errors import DataError
from cryoquery.formats.columns import object_column
from cryoquery.formats.picks import Picks

NUMPY_MAGIC, CSDAT_MAGIC = b"\x93NUMPY", b"\x94CSDAT"
MAX_HEADER = 1_000_000
"""Characters of a header: NumPy's own limit of 10,000 is too few for a job with many classes."""

X, Y = "location/center_x_frac", "location/center_y_frac"
PATH, SHAPE, PIXEL_SIZE = (
    "location/micrograph_path",
    "location/micrograph_shape",
    "location/micrograph_psize_A",
)
SCORE = "pick_stats/ncc_score"
BESIDE_SCORE = {"pick_stats/power": "f4", "pick_stats/template_idx": "u4", "pick_stats/angle_rad": "f4"}
"""What else cryoSPARC wants to know of a pick with a score: 0 where nothing is known."""


def is_cs(content: bytes) -> bool:
    """Whether a file's content begins like a ``.cs`` file."""
    return content.startswith((NUMPY_MAGIC, CSDAT_MAGIC))


def read_cs(path: Path, content: bytes, micrograph_shape: tuple[int, int] | None = None) -> Picks:
    """Picks of a ``.cs`` file. Nothing is ever unpickled.

    Args:
        path: for messages.
        content: of the file.
        micrograph_shape: (height, width) in pixels, for a file that does not say.

    Raises:
        DataError: not a table, of Python objects, shorter than its header says, without locations,
            or without the size of the micrographs.
    """
    rows = _read_array(path, content)
    names = rows.dtype.names or ()
    if X not in names or Y not in names:
        found = sorted({name.split("/")[0] for name in names})[:8]
        raise DataError(
            f"{path}: no picks: no {X} (it has {', '.join(found)}); "
            "give the passthrough file of the job, where cryoSPARC puts locations"
        )
    shapes = _shapes(path, rows, micrograph_shape)
    fractions = np.column_stack([_plain(path, rows, Y), _plain(path, rows, X)])
    if not np.isfinite(fractions).all():
        row = int(np.flatnonzero(~np.isfinite(fractions).all(axis=1))[0])
        raise DataError(f"{path}: row {row}: a center is not a number; leave that pick out")
    micrographs = _names(rows)
    sizes = np.unique(_plain(path, rows, PIXEL_SIZE)) if PIXEL_SIZE in names else np.empty(0)
    scores = _plain(path, rows, SCORE) if SCORE in names else None
    kept = [name for name in names if name not in (X, Y, PATH, SHAPE, SCORE)]
    return Picks(
        fractions * shapes,
        micrographs,
        None if scores is None or not np.isfinite(scores).any() else scores,
        None,
        float(sizes[0]) if len(sizes) == 1 and 0 < sizes[0] < np.inf else None,
        {name: rows[name] for name in kept},
        shapes={
            name: (int(h), int(w)) for name, (h, w) in zip(micrographs.tolist(), shapes.tolist(), strict=True)
        },
        file_format="cs",
    )


def _read_array(path: Path, content: bytes) -> NDArray[Any]:
    if content.startswith(CSDAT_MAGIC):
        raise DataError(
            f"{path}: compressed by cryosparc-tools; save it with Dataset.save(path, format=NUMPY_FORMAT)"
        )
    stream = io.BytesIO(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read(stream, max_header_size=MAX_HEADER)
    except Exception as error:  # NumPy parses the header as Python, and a damaged one fails in any way
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise DataError(f"{path}: not a .cs file that can be read ({reason}); copy it again") from None
    if dtype.hasobject or not dtype.names or len(shape) != 1:
        raise DataError(
            f"{path}: {dtype.kind} array of shape {shape}; a .cs file is a table of numbers and texts"
        )
    n_there = (len(content) - stream.tell()) // max(dtype.itemsize, 1)
    if n_there < shape[0]:
        raise DataError(
            f"{path}: truncated: its header says {shape[0]} rows, {n_there} are there; copy it again"
        )
    return np.frombuffer(content, dtype, count=shape[0], offset=stream.tell())


def _plain(path: Path, rows: NDArray[Any], name: str) -> NDArray[np.float64]:
    """A field (n,) of numbers."""
    values = rows[name]
    if values.ndim != 1 or values.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: {name} is {values.dtype} {values.shape}, not one number per row; check the file"
        )
    return values.astype(np.float64)


def _names(rows: NDArray[Any]) -> NDArray[np.object_]:
    """(n,) names of the micrographs; empty where the file has none."""
    if PATH not in (rows.dtype.names or ()) or rows[PATH].dtype.kind not in "SU" or rows[PATH].ndim != 1:
        return object_column([""] * len(rows))
    values = rows[PATH].tolist()
    decoded = {v: v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in set(values)}
    return object_column([decoded[value] for value in values])


def _shapes(path: Path, rows: NDArray[Any], given: tuple[int, int] | None) -> NDArray[np.float64]:
    """(n, 2) height and width of the micrograph of each row, in pixels."""
    if (
        SHAPE in (rows.dtype.names or ())
        and rows[SHAPE].shape[1:] == (2,)
        and rows[SHAPE].dtype.kind in "iuf"
    ):
        shapes = rows[SHAPE].astype(np.float64)
        good = ((shapes >= 1) & (shapes < 2**24)).all(axis=1)
        if good.all():
            return shapes
        if given is None:
            bad = shapes[~good][0].tolist()
            raise DataError(f"{path}: {SHAPE} of {bad}, and centers are fractions of it; give --micrographs")
    if given is None:
        raise DataError(f"{path}: no {SHAPE}, and centers are fractions of it; give --micrographs")
    return np.tile(np.array(given, dtype=np.float64), (len(rows), 1))


def cs_bytes(picks: Picks, shapes: NDArray[np.float64]) -> bytes:
    """A ``.cs`` file of picks.

    Args:
        picks: to write; fields that were read from a ``.cs`` file are written as they were.
        shapes: (n, 2) height and width of the micrograph of each pick, in pixels.
    """
    n = len(picks)
    texts = [name.encode() for name in picks.micrographs.tolist()]
    fields: dict[str, NDArray[Any]] = {"uid": _uids(n)}
    distinct = list(dict.fromkeys(texts))
    uid_of = dict(zip(distinct, _uids(len(distinct), start=1 << 40), strict=True))
    fields["location/micrograph_uid"] = np.array([uid_of[name] for name in texts], dtype=np.uint64)
    fields["location/exp_group_id"] = np.ones(n, np.uint32)
    own = {name: v for name, v in picks.extra.items() if name == "uid" or "/" in name}
    fields.update({name: values for name, values in own.items() if values.dtype.kind in "fiubSU"})
    fields[PATH] = np.array(texts or [], dtype=f"S{max(map(len, texts), default=1) or 1}")
    fields[SHAPE] = shapes.astype(np.uint32)
    fractions = picks.centers_yx / shapes
    fields[X], fields[Y] = fractions[:, 1].astype(np.float32), fractions[:, 0].astype(np.float32)
    if picks.pixel_size is not None:
        fields[PIXEL_SIZE] = np.full(n, picks.pixel_size, np.float32)
    if picks.scores is not None:
        fields[SCORE] = picks.scores.astype(np.float32)
        for name, kind in BESIDE_SCORE.items():
            fields.setdefault(name, np.zeros(n, kind))
    table = np.zeros(n, dtype=[(name, v.dtype.str, v.shape[1:]) for name, v in fields.items()])
    for name, values in fields.items():
        table[name] = values
    stream = io.BytesIO()
    np.save(stream, table, allow_pickle=False)
    return stream.getvalue()


def _uids(n: int, start: int = 1) -> NDArray[np.uint64]:
    """(n,) different 64-bit numbers that look like cryoSPARC's: one round of splitmix64 of a count."""
    z = np.arange(start, start + n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
