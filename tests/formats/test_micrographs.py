from __future__ import annotations

import bz2
import errno
import gzip
import os
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
from PIL import Image
from tiers import take, thorough

from cryoquery.errors import ConfigError, DataError
from cryoquery.formats import (
    believable_pixel_size,
    choose_pixel_size,
    micrograph_shape,
    micrograph_suffix,
    mrc,
    read_header,
    read_image,
    read_micrograph,
    write_micrograph,
)

SHAPE = (12, 20)


def ramp(dtype: type) -> np.ndarray:
    """First row darkest, so that a flip shows."""
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 120).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "mode"), [(np.int8, 0), (np.int16, 1), (np.float32, 2), (np.uint16, 6), (np.float16, 12)]
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_mrc_modes_round_trip_in_both_byte_orders(tmp_path: Path, dtype: type, mode: int, order: str) -> None:
    path = tmp_path / "a.b.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(ramp(dtype))
        mrc.voxel_size = 1.34
        assert mrc.header.mode == mode
    if order == ">":
        swap_bytes(path, np.dtype(dtype).itemsize)
    micrograph = read_micrograph(path)
    assert micrograph.pixels.dtype == np.float32
    assert np.array_equal(micrograph.pixels, ramp(dtype).astype(np.float32))
    assert micrograph.pixel_size == pytest.approx(1.34)
    assert micrograph_shape(path) == SHAPE


def swap_bytes(path: Path, itemsize: int) -> None:
    raw = bytearray(path.read_bytes())
    words = np.frombuffer(bytes(raw[:1024]), "<i4").copy()
    text = [26, 52, 53, *range(56, 256)]
    swapped = words.byteswap()
    swapped[text] = words[text]
    swapped[53] = np.frombuffer(b"\x11\x11\x00\x00", "<i4")[0]
    data = np.frombuffer(bytes(raw[1024:]), f"<u{itemsize}").byteswap()
    path.write_bytes(swapped.tobytes() + data.tobytes())


def with_words(path: Path, words: dict[int, bytes]) -> None:
    """Overwrite bytes of a header at the places given."""
    raw = bytearray(path.read_bytes())
    for at, content in words.items():
        raw[at : at + len(content)] = content
    path.write_bytes(raw)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


@pytest.mark.parametrize(
    ("per_pixel", "expected"),
    [(0.885, 0.885), (0, None), (1.0, None), (-1.77, None), (np.nan, None), (np.inf, None), (1e6, None)],
)
def test_mrc_pixel_size_is_believed_only_when_it_can_be_true(
    tmp_path: Path, per_pixel: float, expected: float | None
) -> None:
    path = tmp_path / "a.mrc"
    write_micrograph(path, ramp(np.float32))
    with_words(path, {40: floats(SHAPE[1] * per_pixel, SHAPE[0] * per_pixel)})
    assert read_micrograph(path).pixel_size == (expected and pytest.approx(expected))
    stated = read_header(path).stated_pixel_size
    assert stated is None if per_pixel == 0 else stated == pytest.approx(per_pixel, nan_ok=True)


def test_mrc_pixel_size_that_differs_along_x_and_y_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    write_micrograph(path, ramp(np.float32))
    with_words(path, {40: floats(SHAPE[1] * 1.5, SHAPE[0] * 3.0)})
    assert read_header(path).pixel_size is None
    with_words(path, {28: struct.pack("<i", 0)})
    assert read_header(path).pixel_size == pytest.approx(3.0)


def test_the_word_of_the_user_goes_first_and_disagreement_is_noted() -> None:
    assert choose_pixel_size(1.77, 1.77, 1.77).note == ""
    assert choose_pixel_size(1.77, 1.8, None).note == ""
    chosen = choose_pixel_size(0.9, 1.8, 3.6, "a.mrc")
    assert (chosen.value, chosen.source) == (0.9, "stated")
    assert chosen.note == (
        "a.mrc: pixel size 0.9 Å/px from --pixel-size, but 1.8 in the STAR optics and 3.6 in its header"
    )
    assert choose_pixel_size(None, 1.8, 1.0).value == 1.8
    assert choose_pixel_size(None, 0.0, 3.6).source == "header"
    unknown = choose_pixel_size(None, None, 1.0, "a.mrc")
    assert unknown.value is None
    assert (
        unknown.note
        == "a.mrc: pixel size unknown (1 Å/px in the files is not believed); pass --pixel-size (Å/px)"
    )
    assert choose_pixel_size(1.0).value == 1.0, "a user who says 1 Å means it"
    for wrong in (0, -1, np.nan, np.inf):
        with pytest.raises(ConfigError, match="must be positive"):
            choose_pixel_size(wrong)
    assert [believable_pixel_size(v) for v in (0.05, 0.1, 100, 101, None)] == [None, 0.1, 100, None, None]


@pytest.mark.parametrize("extended", [b"", b"x" * 7, b"FEI1" * 200])
@pytest.mark.parametrize("compress", [None, gzip.compress, bz2.compress])
def test_extended_headers_are_skipped_and_whole_files_may_be_compressed(
    tmp_path: Path, extended: bytes, compress: Callable[[bytes], bytes] | None
) -> None:
    plain = tmp_path / "a.mrc"
    write_micrograph(plain, ramp(np.int16), 1.34)
    with_words(plain, {92: struct.pack("<i", len(extended)), 104: b"SERI"})
    raw = plain.read_bytes()
    raw = raw[:1024] + extended + raw[1024:]
    suffix = {None: ".mrc", gzip.compress: ".mrc.gz", bz2.compress: ".mrc.bz2"}[compress]
    for name in (f"b{suffix}", "named_wrongly.mrcs"):
        path = tmp_path / name
        path.write_bytes(compress(raw) if compress else raw)
        micrograph = read_micrograph(path)
        assert np.array_equal(micrograph.pixels, ramp(np.float32))
        assert micrograph.pixel_size == pytest.approx(1.34)
        assert micrograph_shape(path) == SHAPE


def test_suffixes_of_two_parts() -> None:
    assert micrograph_suffix("x/y.b.MRC.gz") == ".mrc.gz"
    assert micrograph_suffix("x/y.tiff") == ".tiff"
    assert micrograph_suffix("x/y.gz") == ""


def test_a_plain_mrc_takes_no_more_memory_than_its_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal(size=(1024, 2048)).astype(np.float32)
    write_micrograph(tmp_path / "a.mrc", pixels)
    read_micrograph(tmp_path / "a.mrc")
    tracemalloc.start()
    read = read_micrograph(tmp_path / "a.mrc").pixels
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(read, pixels)
    assert peak < 1.1 * pixels.nbytes


def test_an_mrc_that_shrinks_while_it_is_read_is_truncated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, layout_of = tmp_path / "a.mrc", mrc._layout
    write_micrograph(path, np.zeros((512, 512), np.float32))

    def shrink_after(*arguments: object) -> object:
        layout = layout_of(*arguments)  # type: ignore[arg-type]
        with path.open("r+b") as stream:
            stream.truncate(500_001)
        return layout

    monkeypatch.setattr(mrc, "_layout", shrink_after)
    with pytest.raises(DataError, match=r"a\.mrc: truncated: .* 1049600 bytes, and 500001 are there"):
        read_image(path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_bytes_in_either_order_of_a_large_image(tmp_path: Path, order: str) -> None:
    """In mode 0 the mode itself does not tell the order, and 4096 reads as 1,048,576 in the other."""
    path = tmp_path / "a.mrc"
    write_micrograph(path, np.tile(np.arange(4096) % 100, (16, 1)).astype(np.int8))
    if order == ">":
        swap_bytes(path, 1)
    assert micrograph_shape(path) == (16, 4096)


def test_mrc_without_map_identifier_only_if_its_size_fits(tmp_path: Path) -> None:
    path = tmp_path / "old.mrc"
    write_micrograph(path, ramp(np.float32))
    raw = bytearray(path.read_bytes())
    raw[208:216] = bytes(8)
    path.write_bytes(raw)
    assert np.array_equal(read_micrograph(path).pixels, ramp(np.float32))
    path.write_bytes(raw + b"more")
    with pytest.raises(DataError, match="not an MRC file"):
        read_micrograph(path)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("stamp", "flags", "range_", "expected"),
    [
        (1146047817, 0, (0, 0), 200),
        (1146047817, 1, (0, 0), -56),
        (0, 0, (0, 0), -56),
        (0, 0, (0, 200), 200),
        (0, 0, (-56, 119), -56),
    ],
)
def test_bytes_are_unsigned_where_imod_or_the_range_says_so(
    tmp_path: Path, order: str, stamp: int, flags: int, range_: tuple[int, int], expected: int
) -> None:
    path = tmp_path / "imod.mrc"
    write_micrograph(path, ramp(np.int8))
    with_words(path, {152: struct.pack("<ii", stamp, flags), 76: floats(*range_), 1024: b"\xc8"})
    if order == ">":
        swap_bytes(path, 1)
        with_words(path, {152: struct.pack(">ii", stamp, flags)})
    assert read_micrograph(path).pixels[0, 0] == expected


def test_a_stack_of_one_is_a_micrograph(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "a.mrcs") as mrc:
        mrc.set_data(ramp(np.float32)[None])
    assert np.array_equal(read_micrograph(tmp_path / "a.mrcs").pixels, ramp(np.float32))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".mrc"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_write_then_read_is_the_identity(tmp_path: Path, suffix: str, dtype: type) -> None:
    path = tmp_path / f"a{suffix}"
    write_micrograph(path, ramp(dtype))
    pixels = read_micrograph(path).pixels
    if suffix == ".png" and dtype == np.float32:
        pixels = pixels * (119 / 65535)
    np.testing.assert_allclose(pixels, ramp(dtype), atol=1e-3)
    assert micrograph_shape(path) == SHAPE
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint32, np.float64])
def test_tiff_types(tmp_path: Path, dtype: type) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp(dtype))
    assert np.array_equal(read_micrograph(tmp_path / "a.tif").pixels, ramp(np.float32))


def test_color_becomes_gray_and_first_row_stays_on_top(tmp_path: Path) -> None:
    colors = np.zeros((32, 32, 3), np.uint8)
    colors[:8] = 200
    Image.fromarray(colors).save(tmp_path / "a.jpg", quality=95)
    tifffile.imwrite(tmp_path / "a.tif", colors, photometric="rgb")
    for name in ("a.jpg", "a.tif"):
        pixels = read_micrograph(tmp_path / name).pixels
        assert pixels.shape == (32, 32)
        assert abs(pixels[:6].mean() - 200) < 5
        assert pixels[12:].mean() < 5


def test_a_large_micrograph_is_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_micrograph(tmp_path / "a.png", ramp(np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read_micrograph(tmp_path / "a.png").pixels.shape == SHAPE


def nan_pixels(path: Path) -> None:
    pixels = ramp(np.float32)
    pixels[0, :3] = np.nan
    pixels[1, 0] = np.inf
    tifffile.imwrite(path, pixels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n_bad", [1, 3, 240])
def test_pixels_that_are_no_numbers_are_counted(tmp_path: Path, value: float, n_bad: int) -> None:
    pixels = ramp(np.float32)
    pixels.flat[np.random.default_rng(n_bad).permutation(pixels.size)[:n_bad]] = value
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    with pytest.raises(DataError, match=rf"a\.tif: {n_bad} of 240 pixels are NaN or infinite; repair it"):
        read_micrograph(tmp_path / "a.tif")


def truncated(path: Path) -> None:
    write_micrograph(path, ramp(np.uint8))
    path.write_bytes(path.read_bytes()[: -30 if path.suffix == ".png" else -100])


def stack(path: Path) -> None:
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.zeros((3, *SHAPE), np.float32))


def claims_to_be_huge(path: Path, words: dict[int, bytes]) -> None:
    plain = path.with_name("plain" + ("" if path.suffix == ".png" else ".mrc"))
    plain = path if path.suffix in (".png", ".mrc") else plain
    write_micrograph(plain, ramp(np.uint8))
    with_words(plain, words)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(plain.read_bytes()))


def truncated_gzip(path: Path) -> None:
    write_micrograph(path.with_name("plain.mrc"), ramp(np.uint8))
    path.write_bytes(gzip.compress(path.with_name("plain.mrc").read_bytes())[:-60])


def huge_tiff(path: Path) -> None:
    tifffile.imwrite(path, ramp(np.uint8), compression="deflate")
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages[0].tags[name].overwrite(10**6, dtype="I")


BAD_MICROGRAPHS = {
    "missing.mrc": (lambda _: None, "no such file"),
    "empty.mrc": (lambda path: path.write_bytes(b""), "0 bytes"),
    "short.mrc": (lambda path: path.write_bytes(b"x" * 100), "100 bytes"),
    "text.mrc": (lambda path: path.write_bytes(b"text " * 1000), "not an MRC file"),
    "truncated.mrc": (truncated, "truncated: its header says 20 x 12"),
    "truncated.png": (truncated, "damaged"),
    "truncated.tif": (truncated, "damaged"),
    "text.jpg": (lambda path: path.write_bytes(b"text " * 1000), "damaged"),
    "text.tif": (lambda path: path.write_bytes(b"text " * 1000), "damaged"),
    "nan.tif": (nan_pixels, "4 of 240 pixels are NaN or infinite"),
    "constant.mrc": (lambda path: write_micrograph(path, np.full(SHAPE, 7, np.float32)), "every pixel is 7"),
    "stack.mrc": (stack, "stack of 3 frames"),
    "stack.tif": (
        lambda path: tifffile.imwrite(path, np.zeros((4, *SHAPE), np.uint8), photometric="minisblack"),
        "stack of 4 frames",
    ),
    "huge.mrc": (lambda path: claims_to_be_huge(path, {0: struct.pack("<ii", 10**6, 10**6)}), "truncated"),
    "huge.mrc.gz": (
        lambda path: claims_to_be_huge(path, {0: struct.pack("<ii", 10**6, 10**6)}),
        "claims 1000000 x 1000000 pixels",
    ),
    "truncated.mrc.gz": (
        lambda path: claims_to_be_huge(path, {0: struct.pack("<ii", 1000, 1000)}),
        "truncated: its header says 1000 x 1000",
    ),
    "cut.mrc.gz": (truncated_gzip, "damaged"),
    "huge.png": (lambda path: claims_to_be_huge(path, {16: struct.pack(">ii", 10**6, 10**6)}), "damaged"),
    "huge.tif": (huge_tiff, "claims 1000000 x 1000000 pixels"),
    "complex.tif": (lambda path: tifffile.imwrite(path, ramp(np.complex64)), "pixels of type complex64"),
    "a.gif": (lambda path: path.write_bytes(b"x"), "unknown suffix '.gif'"),
    "text.eer": (lambda path: path.write_bytes(b"text " * 1000), "damaged"),
    "tiff.eer": (lambda path: tifffile.imwrite(path, ramp(np.uint8)), "no frames of electron events"),
}


@pytest.mark.parametrize("name", BAD_MICROGRAPHS)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    make, message = BAD_MICROGRAPHS[name]
    make(tmp_path / name)
    with pytest.raises(DataError) as caught:
        read_micrograph(tmp_path / name)
    assert message in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def lzw_tiff(path: Path) -> Path:
    Image.fromarray(ramp(np.uint8)).save(path, compression="tiff_lzw")
    return path


def test_lzw_tiff(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs", reason="the extra tiff is not installed")
    assert np.array_equal(read_micrograph(lzw_tiff(tmp_path / "a.tif")).pixels, ramp(np.float32))


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiff, eer = lzw_tiff(tmp_path / "a.tif"), tmp_path / "a.eer"
    write_eer(eer, hits(1, 2))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    monkeypatch.setattr(tifffile.tifffile, "imagecodecs", None)
    monkeypatch.setitem(tifffile.TIFF.DECOMPRESSORS._codecs, 5, None)
    monkeypatch.delitem(tifffile.TIFF.DECOMPRESSORS._codecs, 5)
    with pytest.raises(DataError, match=r"a\.tif: TIFF with LZW.* pip install \"cryoquery\[tiff\]\""):
        read_micrograph(tiff)
    with pytest.raises(DataError, match=r"a\.eer: EER needs .* pip install \"cryoquery\[eer\]\""):
        read_micrograph(eer)


@pytest.mark.parametrize(
    ("unit", "resolution", "expected"),
    [
        ("CENTIMETER", 1e8 / 1.77, 1.77),
        ("INCH", 2.54e8 / 1.77, 1.77),
        ("INCH", 72, None),
        ("NONE", 1e8, None),
    ],
)
def test_tiff_resolution_is_a_pixel_size_where_it_can_be_one(
    tmp_path: Path, unit: str, resolution: float, expected: float | None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(np.uint8), resolution=(resolution, resolution), resolutionunit=unit)
    assert read_micrograph(path).pixel_size == (expected and pytest.approx(expected, rel=1e-4))


def hits(seed: int, n_frames: int, shape: tuple[int, int] = (64, 96), share: float = 0.02) -> np.ndarray:
    return np.random.default_rng(seed).random((n_frames, *shape)) < share


def eer_events(frame: np.ndarray, skip_bits: int) -> bytes:
    """Distances between hits, least significant bit first; after each hit four bits within the pixel."""
    bits: list[int] = []
    furthest = 2**skip_bits - 1

    def put(value: int, n: int) -> None:
        bits.extend(value >> k & 1 for k in range(n))

    for distance in np.diff(np.flatnonzero([1, *frame.ravel(), 1])) - 1:
        for _ in range(int(distance) // furthest):
            put(furthest, skip_bits)
        put(int(distance) % furthest, skip_bits)
        put(9, 4)
    return np.packbits(bits, bitorder="little").tobytes()


def write_eer(
    path: Path, frames: np.ndarray, compression: int = 65001, metadata: bytes = b"<metadata></metadata>"
) -> None:
    """A BigTIFF with a page of events for each frame (n, h, w), as Falcon cameras write it."""
    height, width = frames.shape[1:]
    raw = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
    link = 8
    for frame in frames:
        events, tags = eer_events(frame, 8 if compression == 65000 else 7), [(256, 4, 1, width)]
        tags += [(257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1)]
        tags += [(273, 16, 1, len(raw)), (277, 3, 1, 1), (278, 4, 1, height), (279, 16, 1, len(events))]
        raw += events
        tags += [(65001, 7, len(metadata), len(raw))]
        raw += metadata
        struct.pack_into("<Q", raw, link, len(raw))
        raw += struct.pack("<Q", len(tags)) + b"".join(struct.pack("<HHQQ", *tag) for tag in tags)
        link = len(raw)
        raw += bytes(8)
    path.write_bytes(raw)


@pytest.mark.parametrize("compression", [65000, 65001, 65002])
def test_electron_events_are_summed(tmp_path: Path, compression: int) -> None:
    pytest.importorskip("imagecodecs", reason="the extra eer is not installed")
    frames, path = hits(0, 300 if compression == 65001 else 3), tmp_path / "a.eer"
    metadata = (
        b'<metadata><item name="numberOfFrames">%d</item>'
        b'<item name="sensorPixelSize.width" unit="m">9.3e-11</item></metadata>' % len(frames)
    )
    write_eer(path, frames, compression, metadata)
    micrograph = read_micrograph(path)
    assert np.array_equal(micrograph.pixels, frames.sum(axis=0))
    assert micrograph.pixel_size == pytest.approx(0.93)
    assert micrograph_shape(path) == (64, 96)
    write_eer(path, frames[: len(frames) // 2], compression, metadata)
    with pytest.raises(DataError, match="truncated"):
        read_micrograph(path)


def intact_files(folder: Path) -> list[Path]:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 20)).astype(np.uint8)
    write_micrograph(folder / "a.mrc", pixels.astype(np.float32), 1.5)
    write_micrograph(folder / "b.mrc", pixels, 1.5)
    for suffix, compress in ((".gz", gzip.compress), (".bz2", bz2.compress)):
        (folder / f"a.mrc{suffix}").write_bytes(compress((folder / "a.mrc").read_bytes()))
    tifffile.imwrite(folder / "a.tif", pixels)
    tifffile.imwrite(folder / "b.tif", pixels.astype(np.uint16), compression="deflate")
    tifffile.imwrite(folder / "c.tif", pixels.astype(np.float32), bigtiff=True, tile=(16, 16))
    lzw_tiff(folder / "d.tif")
    Image.fromarray(pixels).save(folder / "a.png")
    Image.fromarray(pixels.astype(np.uint16) * 200).save(folder / "b.png")
    Image.fromarray(pixels).save(folder / "a.jpg")
    Image.fromarray(np.dstack([pixels] * 3)).save(folder / "b.jpg", progressive=True)
    write_eer(folder / "a.eer", hits(0, 5, (24, 20), 0.1))
    return sorted(folder.iterdir())


def damaged(raw: bytes, rng: np.random.Generator) -> bytes:
    content, n = bytearray(raw), len(raw)
    a, b = sorted(rng.integers(0, n, 2).tolist())
    match int(rng.integers(7)):
        case 0:
            del content[a:]
        case 1:
            for at in rng.integers(0, n, int(rng.integers(1, 20))):
                content[at] = rng.integers(256)
        case 2:
            at = int(rng.integers(0, min(n - 8, 260)))
            content[at : at + 4] = struct.pack(
                "<>"[rng.integers(2)] + "i", rng.choice([-1, 10**6, 2**31 - 1])
            )
        case 3:
            at = int(rng.integers(0, n - 8))
            content[at : at + 8] = struct.pack("<q", rng.choice([-1, 2**40, 2**63 - 1]))
        case 4:
            content[a:b] = rng.permutation(list(content[a:b])).astype(np.uint8).tobytes()
        case 5:
            content[a:b] = bytes(b - a)
        case _:
            content[a:a] = rng.bytes(int(rng.integers(1, 64)))
    return bytes(content)


def refusal(read: Callable[[Path], object], path: Path) -> str | None:
    try:
        read(path)
    except DataError as error:
        return str(error)
    return None


@thorough
def test_damaged_files_give_an_image_or_one_line(tmp_path: Path) -> None:
    """Damaged files; no other error, no warning, and no memory for what a header claims."""
    rng = np.random.default_rng(20)
    intact = [(path.name, path.read_bytes()) for path in intact_files(tmp_path)]
    n, n_refused = take(400, 2000), 0
    tracemalloc.start()
    for _ in range(n):
        name, raw = intact[rng.integers(len(intact))]
        path = tmp_path / f"damaged_{name}"
        path.write_bytes(damaged(raw, rng))
        for read in (read_header, read_image):
            said = refusal(read, path)
            assert said is None or (name in said and "\n" not in said)
            n_refused += said is not None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_refused > 0.4 * n
    assert peak < 300 << 20


def test_writing_refuses_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"use \.mrc"):
        write_micrograph(tmp_path / "a.jpg", ramp(np.uint8))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".png"])
def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    write_micrograph(path, ramp(np.uint8))
    before = path.read_bytes()

    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match=rf"No space left .*a\{suffix}'"):
            write_micrograph(path, ramp(np.uint8) + 1)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_a_write_that_fails_halfway_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wide"):
        write_micrograph(tmp_path / "a.mrc", ramp(np.float32), pixel_size="wide")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


LEVELS = (np.arange(12 * 20).reshape(12, 20) % 251).astype(np.uint8)
INVERTING = np.stack([np.linspace(65535, 0, 256)] * 3).astype(np.uint16)
SEEN_AS: dict[str, tuple[np.ndarray, dict[str, object]]] = {
    "0 is white, 8 bits": (255 - LEVELS, {"photometric": "miniswhite"}),
    "0 is white, 16 bits": (65535 - LEVELS.astype(np.uint16), {"photometric": "miniswhite"}),
    "0 is white, floats": (-LEVELS.astype(np.float32), {"photometric": "miniswhite"}),
    "a palette": (255 - LEVELS, {"photometric": "palette", "colormap": INVERTING}),
    "colors in planes": (np.stack([LEVELS] * 3), {"photometric": "rgb", "planarconfig": "separate"}),
    "gray and opacity": (
        np.stack([LEVELS, np.full_like(LEVELS, 255)], axis=-1),
        {"photometric": "minisblack", "extrasamples": ["unassalpha"], "planarconfig": "contig"},
    ),
}


@pytest.mark.parametrize("kind", SEEN_AS)
def test_tiff_is_read_as_it_is_to_be_seen(tmp_path: Path, kind: str) -> None:
    stored, how = SEEN_AS[kind]
    tifffile.imwrite(tmp_path / "a.tif", stored, **how)
    pixels = read_image(tmp_path / "a.tif")
    assert read_header(tmp_path / "a.tif").shape == pixels.shape == LEVELS.shape
    assert np.corrcoef(pixels.ravel(), LEVELS.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("thumbnail_first", [False, True])
def test_a_thumbnail_beside_the_image_is_passed_over(tmp_path: Path, thumbnail_first: bool) -> None:
    pages = [(LEVELS, 0), (LEVELS[::4, ::4].copy(), 1)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page, reduced in pages[:: -1 if thumbnail_first else 1]:
            writer.write(page, photometric="minisblack", subfiletype=reduced)
    assert np.array_equal(read_image(tmp_path / "a.tif"), LEVELS)


@pytest.mark.parametrize(
    "how", [{"imagej": True}, {"volumetric": True}, {"ome": True}, {}, {"planarconfig": "separate"}]
)
def test_a_movie_in_any_number_of_pages_is_a_stack(tmp_path: Path, how: dict[str, object]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.stack([LEVELS] * 6), photometric="minisblack", **how)
    with pytest.raises(DataError, match="a stack of 6 frames; a micrograph is one"):
        read_header(tmp_path / "a.tif")


@pytest.mark.parametrize(("center", "dtype"), [(0, np.int8), (128, np.uint8)])
def test_bytes_without_a_hint_are_read_as_they_spread_least(tmp_path: Path, center: int, dtype: type) -> None:
    path = tmp_path / "a.mrc"
    pixels = np.random.default_rng(0).normal(center, 20, SHAPE).round().astype(dtype)
    mrcfile.write(path, pixels.view(np.int8), voxel_size=1.5)
    with_words(path, {76: floats(0, -1, -2)})
    assert np.array_equal(read_image(path), pixels)


def test_no_frames_are_named_as_the_cause(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    write_micrograph(path, ramp(np.float32))
    with_words(path, {8: bytes(4)})
    with pytest.raises(DataError, match=r"0 frames \(nz\) in its header"):
        read_header(path)


def test_pixels_that_are_no_numbers_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 pixels to write are NaN or infinite"):
        write_micrograph(tmp_path / "a.mrc", np.array([[1.0, np.nan]]))
    assert not list(tmp_path.iterdir())
