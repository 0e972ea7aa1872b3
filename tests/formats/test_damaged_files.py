"""Thousands of damaged files: what is in them, or one clear line, and never anything else.

They are read in a process of their own, which tells how much memory it took, and never are on a disk, which
would take most of the time.
"""

from __future__ import annotations

import io
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from tiers import take, thorough

from cryoquery.config import read_toml
from cryoquery.errors import CryoqueryError
from cryoquery.formats import Picks, read_coordinates, write_coordinates
from cryoquery.formats.micrograph_star import read_micrograph_star
from cryoquery.formats.names import SUFFIX_OF
from cryoquery.project.conditions import read_conditions
from cryoquery.project.label_files import read_labels

SHARED_FORMATS = Path(__file__).parents[3] / "shared" / "formats"
N_FILES, PARTS = take((5_000, 1), (45_000, 4))
"""With those that are a little wrong (`test_mutated_files`), 200,000."""
LONGEST = 2_000
"""Bytes that are kept of a seed, so that a hundred thousand take a minute."""
SECONDS_PER_BYTE = 1e-6
SLOWEST_S = 0.5
"""Of one file, of a processor's time; they are of some thousand bytes."""
MEMORY_BYTES = 1e9
"""Of all of the process, the program itself included."""

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
    contents += OTHERS
    if SHARED_FORMATS.is_dir():
        contents += [path.read_bytes()[:LONGEST] for path in sorted(SHARED_FORMATS.glob("*/*"))]
    return [content for content in contents if content]


TABLE = "micrograph,defocus_u,ice\n" + "".join(f"mic_{i}.mrc,{9000 + i},0.{i}\n" for i in range(9))
OPTICS = """data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnMicrographPixelSize #2\n1 1.5\n
data_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\n_rlnDefocusU #3\nmic_1.mrc 1 9000.5
"""
LABELS = """{"kind": "cryoquery labels", "version": 1, "project": "a", "labels": [{"micrograph": "mic_1",
"path": "Movies/mic_1.mrc", "region": null, "status": "submitted", "empty": false,
"particles": [[1.5, 2], [3, 4]], "diameters_px": [9, null],
"regions": [{"kind": "ignore", "polygon": [[0, 0], [9, 0], [9, 9]]}]}]}"""
TOML = (
    'dataset = "a"\nstrategies = ["random", "entropy"]\nseeds = [0, 1]\n[training]\nepochs = 3\nrate = 1e-3\n'
)
OTHERS = [TABLE.encode(), OPTICS.encode(), LABELS.encode(), TOML.encode()]


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


@contextmanager
def in_memory(contents: dict[Path, bytes]) -> Iterator[None]:
    """Files that are there without being on a disk."""
    is_file, read_bytes = Path.is_file, Path.read_bytes
    with (
        mock.patch.object(Path, "is_file", lambda path: path in contents or is_file(path)),
        mock.patch.object(
            Path, "read_bytes", lambda path: contents[path] if path in contents else read_bytes(path)
        ),
    ):
        yield


def read_or_refuse(path: Path, read: Callable[[Path], Any] = read_coordinates) -> Any:
    """What is read, or the line of refusal."""
    try:
        return read(path)
    except CryoqueryError as error:
        return str(error)


def read_as_labels(path: Path) -> Any:
    return read_labels(path, {"mic_1": Path("mic_1.mrc")}, {"mic_1": (4096, 4096)}, force=True)


_READERS = (read_conditions, read_micrograph_star, read_as_labels, read_toml)
OTHER_READERS = dict(zip(OTHERS, _READERS, strict=True))
"""What else reads files that people give, by a seed; each tenth file of other seeds goes to one of them."""


def try_many(n: int, contents: list[bytes], seed: int) -> tuple[int, int]:
    """Read many damaged files; how many were read, and the most bytes of memory that the process had."""
    suffixes = [*SUFFIX_OF.values(), ".xyz"]
    rng = np.random.default_rng([20_240_607, seed])
    n_read, n_bytes, seconds = 0, 0, 0.0
    there: dict[Path, bytes] = {}
    with in_memory(there):
        for i in range(n):
            path = Path(f"/nowhere/damaged{suffixes[rng.integers(len(suffixes))]}")
            content = damaged(contents[i % len(contents)], rng)
            there.clear()
            there[path] = content
            read = OTHER_READERS.get(contents[i % len(contents)], read_coordinates)
            if i % 10 == 0:
                read = list(OTHER_READERS.values())[rng.integers(len(OTHERS))]
            start = time.process_time()
            outcome = read_or_refuse(path, read)
            took = time.process_time() - start
            if isinstance(outcome, str):
                assert str(path) in outcome, content
                assert "\n" not in outcome, content
            elif isinstance(outcome, Picks):
                n_read += 1
                assert np.isfinite(outcome.centers_yx).all(), content
            assert took < SLOWEST_S, content
            n_bytes, seconds = n_bytes + len(content), seconds + took
    assert seconds < SECONDS_PER_BYTE * n_bytes
    # What getrusage says would include the process that this one was started from.
    (peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    return n_read, int(peak.split()[1]) * 1024


@thorough
@pytest.mark.parametrize("seed", range(PARTS))
def test_thousands_of_damaged_files(tmp_path: Path, seed: int) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        n_read, memory = alone.submit(try_many, N_FILES, seeds(tmp_path), seed).result()
    assert N_FILES // 20 < n_read < N_FILES
    assert memory < MEMORY_BYTES


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
