"""Time and memory that a small file may take, whatever it claims."""

from __future__ import annotations

import bz2
import contextlib
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from mrcfile.dtypes import HEADER_DTYPE
from tiers import take

from cryoquery.config import read_toml
from cryoquery.errors import ConfigError, DataError
from cryoquery.formats import read_coordinates, read_image
from cryoquery.formats.lengths import parse_length
from cryoquery.formats.star import read_tables, table_text

N_BYTES, SECONDS = take((30_000, 1.0), (1_000_000, 6.0))
"""What goes by the square of the length takes three seconds at the smaller one, the rest hundredths."""
STAR = "data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n"
PARTS = ("\n", " ", "\t\n", "\r\n", "'", '"a ', ";\n", "_a\n", "data_", "#", ",", "{")
MORE_PARTS = (
    *("\t", "\r", "\f\n", "\v", " \n", "\u2028", "\u00a0\n", '"', "' ", '" ', "'a ", "'a' ", "# ", "_", "_ "),
    *(
        "_a ",
        "data_\n",
        "loop_",
        "loop_\n",
        ",,\n",
        "1,",
        "1 ",
        "1 2\n",
        "1e",
        "-",
        ".",
        "[",
        "{}",
        '{"a":',
        "a/",
    ),
)


@pytest.mark.thorough
@pytest.mark.parametrize("suffix", ["star", "box", "csv"])
def test_no_text_takes_longer_than_its_length(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    for part in take(PARTS, PARTS + MORE_PARTS):
        for head, tail in (("", ""), (STAR, "!"), *take((), (("1 2 3 4\n", "!"),))):
            path.write_text(head + part * (N_BYTES // len(part)) + tail, newline="")
            started = time.process_time()
            with contextlib.suppress(DataError):
                read_coordinates(path)
            assert time.process_time() - started < SECONDS, (head, part, tail)


@pytest.mark.parametrize("text", ["a=" + "[" * 9000, "a=" + "9" * 5000, "a.b." * 9000 + "c=1", "a = é\n"])
def test_toml_that_cannot_be_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    started = time.process_time()
    (tmp_path / "a.toml").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match="cannot be read as TOML") as caught:
        read_toml(tmp_path / "a.toml")
    assert "\n" not in str(caught.value)
    assert time.process_time() - started < 1.0


def test_lengths_take_no_time() -> None:
    started = time.process_time()
    for text in (
        " " * 50_000 + "x",
        "1" + " " * 50_000 + "!",
        "1" * 50_000,
        "1e" * 20_000,
        "1" + "a" * 50_000,
    ):
        with pytest.raises(ConfigError):
            parse_length(text)
    assert time.process_time() - started < 2.0


def png(height: int, width: int) -> bytes:
    """One of zeros, one bit per pixel, as small as it can be."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
        )

    packer = zlib.compressobj(9)
    row = bytes(1 + -(-width // 8))
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def mrc_bz2(side: int, n_bytes: int) -> bytes:
    header = np.zeros((), HEADER_DTYPE)
    header["nx"] = header["ny"] = side
    header["nz"], header["mode"], header["map"] = 1, 2, b"MAP "
    return bz2.compress(header.tobytes() + bytes(n_bytes))


def test_pixels_are_bounded_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(png(12_000, 12_000))
    (tmp_path / "a.mrc.bz2").write_bytes(mrc_bz2(20_000, 1 << 20))
    (tmp_path / "b.mrc.bz2").write_bytes(mrc_bz2(11_000, 1 << 20))
    tracemalloc.start()
    for name, words in (
        ("a.png", "12000 x 12000 pixels, and at most 134,217,728 are read; .* CRYOQUERY_MAX_PIXELS"),
        ("a.mrc.bz2", "20000 x 20000 pixels, and at most"),
        ("b.mrc.bz2", "11000 x 11000 pixels, too many for a file"),
    ):
        with pytest.raises(DataError, match=words):
            read_image(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()
    (tmp_path / "c.png").write_bytes(png(200, 300))
    monkeypatch.setattr("cryoquery.formats.image_file.MAX_PIXELS", 60_000)
    assert read_image(tmp_path / "c.png").shape == (200, 300)
    monkeypatch.setattr("cryoquery.formats.image_file.MAX_PIXELS", 59_999)
    with pytest.raises(DataError, match="at most 59,999"):
        read_image(tmp_path / "c.png")


def test_what_stands_before_the_pixels_is_bounded(tmp_path: Path) -> None:
    header = np.zeros((), HEADER_DTYPE)
    header["nx"] = header["ny"] = 16
    header["nz"], header["mode"], header["map"], header["nsymbt"] = 1, 2, b"MAP ", 2**31 - 1
    (tmp_path / "a.mrc.bz2").write_bytes(bz2.compress(header.tobytes() + bytes(10_000)))
    with pytest.raises(DataError, match="2,147,484,671 bytes before the pixels"):
        read_image(tmp_path / "a.mrc.bz2")


def test_a_list_names_each_file_once(tmp_path: Path) -> None:
    (tmp_path / "picks.star").write_text(STAR + "1.0 2.0\n" * 1000)
    names = [f"m{i}.mrc" for i in range(500)]
    head = "data_coordinate_files\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographCoordinates #2\n"
    listed = "".join(f"{name} {tmp_path}/picks.star\n" for name in names)
    (tmp_path / "autopick.star").write_text(head + listed)
    with pytest.raises(DataError, match=r"lists .*picks\.star for m0\.mrc and for m1\.mrc"):
        read_coordinates(tmp_path / "autopick.star")
    (tmp_path / "autopick.star").write_text(head + f"m0.mrc {tmp_path}/picks.star\n" * 2)
    assert len(read_coordinates(tmp_path / "autopick.star")) == 1000


@pytest.mark.parametrize(
    "text",
    [
        "data_\n\nloop_\n" + "".join(f"_a{i}\n" for i in range(1500)) + "1\n" * 1500,
        "data_\n\nloop_\n" + "".join(f"_a{i}\n" for i in range(1500)) + "1 " * 1500 + "\n",
        ",".join(f"a{i}" for i in range(1500)) + "\n" + ",".join("1" for _ in range(1500)) + "\n",
    ],
)
def test_columns_are_bounded(tmp_path: Path, text: str) -> None:
    file = tmp_path / ("a.star" if text.startswith("data_") else "a.csv")
    file.write_text(text)
    with pytest.raises(DataError, match="more than 1000"):
        read_coordinates(file)


def test_names_keep_their_spaces(tmp_path: Path) -> None:
    names = ["a  b.mrc", "a\tb.mrc", " a.mrc ", "it's  a.mrc"]
    text = table_text("", {"rlnMicrographName": names, "x": ["1", "2", "3", "4"]})
    (table,) = read_tables(tmp_path / "a.star", text)
    assert list(table.columns["rlnMicrographName"]) == names
