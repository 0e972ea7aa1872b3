"""Thousands of damaged files of coordinates: picks, or one clear line, and never anything else."""

from __future__ import annotations

import io
import resource
import time
from pathlib import Path

import numpy as np
import pytest
from tiers import take, thorough

from cryoquery.errors import CryoqueryError
from cryoquery.formats import Picks, read_coordinates, write_coordinates
from cryoquery.formats.names import SUFFIX_OF

SHARED_FORMATS = Path(__file__).parents[3] / "shared" / "formats"
N_FILES = take(2_000, 10_000)
LONGEST = 2_000
"""Bytes that are kept of a seed, so that ten thousand take seconds."""
SLOWEST_S = 5.0
MEMORY_BYTES = 300e6

HUGE = [b"1e999", b"-1e308", b"9" * 500, b"nan", b"inf", b"0x10", b"1_0", b"", b"-", b"1e5e5", "½".encode()]
ENCODINGS = ["utf-16", "utf-16-le", "utf-32", "cp037", "utf-8-sig"]


def seeds(folder: Path) -> list[bytes]:
    """Whole files of every format, and those that other programs wrote where they are at hand."""
    rng = np.random.default_rng(0)
    picks = Picks.of(
        rng.uniform(0, 4000, (30, 2)),
        micrograph=["Movies/mic_1.mrc"] * 30,
        scores=rng.normal(size=30),
        diameters_px=108,
    )
    contents = []
    for name, suffix in SUFFIX_OF.items():
        path = folder / f"seed_{name}{suffix}"
        write_coordinates(path, picks, pixel_size=1.5, micrograph_shapes=(4096, 4096))
        contents.append(path.read_bytes())
    if SHARED_FORMATS.is_dir():
        contents += [path.read_bytes()[:LONGEST] for path in sorted(SHARED_FORMATS.glob("*/*"))]
    return [content for content in contents if content]


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """A file with one to three things wrong."""
    for _ in range(rng.integers(1, 4)):
        content = DAMAGES[rng.integers(len(DAMAGES))](content, rng)
    return content


def place(content: bytes, rng: np.random.Generator) -> tuple[int, int]:
    start, end = sorted(rng.integers(0, len(content) + 1, 2).tolist())
    return start, min(end, start + int(rng.integers(1, 200)))


def truncate(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: place(content, rng)[0]]


def cut_out(content: bytes, rng: np.random.Generator) -> bytes:
    start, end = place(content, rng)
    return content[:start] + content[end:]


def repeat(content: bytes, rng: np.random.Generator) -> bytes:
    start, end = place(content, rng)
    return content[:end] + content[start:end] * 3 + content[end:]


def shuffle(content: bytes, rng: np.random.Generator) -> bytes:
    start, end = place(content, rng)
    window = np.frombuffer(content[start:end], np.uint8).copy()
    return content[:start] + rng.permutation(window).tobytes() + content[end:]


def flip_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for at in rng.integers(0, max(len(content), 1), 5).tolist():
        if at < len(changed):
            changed[at] = int(rng.integers(256))
    return bytes(changed)


def insert(content: bytes, rng: np.random.Generator) -> bytes:
    start, _ = place(content, rng)
    return content[:start] + rng.integers(0, 256, 10, dtype=np.uint8).tobytes() + content[start:]


def huge_number(content: bytes, rng: np.random.Generator) -> bytes:
    words = content.split(b" ")
    words[rng.integers(len(words))] = HUGE[rng.integers(len(HUGE))]
    return b" ".join(words)


def other_lines(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.split(b"\n")
    return b"\n".join(lines[i] for i in rng.permutation(len(lines)))


def other_encoding(content: bytes, rng: np.random.Generator) -> bytes:
    return content.decode("latin-1").encode(ENCODINGS[rng.integers(len(ENCODINGS))], "replace")


def one_line_less(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.split(b"\n")
    del lines[rng.integers(len(lines))]
    return b"\n".join(lines)


def huge_count(content: bytes, rng: np.random.Generator) -> bytes:
    return content.replace(b"'shape': (30,)", b"'shape': (10**12,)").replace(b"(30,)", b"(999999999999,)")


def empty(content: bytes, rng: np.random.Generator) -> bytes:
    return b"\n \t" * int(rng.integers(0, 3))


DAMAGES = [
    *(truncate, cut_out, repeat, shuffle, flip_bytes, insert, huge_number, other_lines),
    *(other_encoding, one_line_less, huge_count, empty),
]


def read_or_refuse(path: Path) -> Picks | str:
    try:
        return read_coordinates(path)
    except CryoqueryError as error:
        return str(error)


@thorough
def test_thousands_of_damaged_files(tmp_path: Path) -> None:
    contents = seeds(tmp_path)
    suffixes = [*SUFFIX_OF.values(), ".xyz"]
    rng = np.random.default_rng(20_240_607)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    n_read, slowest = 0, 0.0
    for i in range(N_FILES):
        path = tmp_path / f"damaged{suffixes[rng.integers(len(suffixes))]}"
        content = damaged(contents[i % len(contents)], rng)
        path.write_bytes(content)
        start = time.perf_counter()
        outcome = read_or_refuse(path)
        if isinstance(outcome, Picks):
            n_read += 1
            assert np.isfinite(outcome.centers_yx).all(), content
        else:
            assert str(path) in outcome, content
            assert "\n" not in outcome, content
        slowest = max(slowest, time.perf_counter() - start)
    assert N_FILES // 20 < n_read < N_FILES
    assert slowest < SLOWEST_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < MEMORY_BYTES


def npy(header: str, payload: bytes = b"") -> bytes:
    encoded = header.encode()
    return b"\x93NUMPY\x01\x00" + len(encoded).to_bytes(2, "little") + encoded + payload


LOCATION = "[('location/center_x_frac', '<f4'), ('location/center_y_frac', '<f4')]"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(f"{{'descr': {LOCATION}, 'fortran_order': False, 'shape': (10000000000000,)}}"), "truncated"),
        (npy(f"{{'descr': {LOCATION}, 'fortran_order': False, 'shape': (-3,)}}"), "cs"),
        (npy(f"{{'descr': {LOCATION}, 'fortran_order': False, 'shape': (2, 2)}}", bytes(32)), "shape"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", bytes(16)), "shape"),
        (npy("{'descr': [('a', 'V1e9')], 'fortran_order': False, 'shape': (2,)}"), "not a .cs file"),
        (npy("(" * 60_000), "not a .cs file"),
        (npy("__import__('os')"), "not a .cs file"),
        (b"\x93NUMPY", "not a .cs file"),
        (b"\x94CSDAT" + bytes(100), "compressed by cryosparc-tools"),
    ],
)
def test_headers_that_lie(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.cs").write_bytes(content)
    with pytest.raises(CryoqueryError, match=message):
        read_coordinates(tmp_path / "a.cs")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (pytest.fail, ("it was unpickled",))

    table = np.zeros(1, dtype=[("location/center_x_frac", "<f4"), ("location/micrograph_path", "O")])
    table["location/micrograph_path"][0] = Trap()
    stream = io.BytesIO()
    np.save(stream, table, allow_pickle=True)
    (tmp_path / "a.cs").write_bytes(stream.getvalue())
    with pytest.raises(CryoqueryError):
        read_coordinates(tmp_path / "a.cs")
