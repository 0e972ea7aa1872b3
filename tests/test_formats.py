from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
from PIL import Image

from cryoquery.errors import DataError
from cryoquery.formats import (
    micrograph_shape,
    read_coordinates,
    read_micrograph,
    write_coordinates,
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


@pytest.mark.parametrize(("voxel", "expected"), [(0.0, None), (1.0, None), (0.885, 0.885)])
def test_mrc_pixel_size_is_believed_only_when_stated(
    tmp_path: Path, voxel: float, expected: float | None
) -> None:
    write_micrograph(tmp_path / "a.mrc", ramp(np.float32), voxel)
    assert read_micrograph(tmp_path / "a.mrc").pixel_size == (expected and pytest.approx(expected))


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


def test_unsigned_bytes_of_imod_are_unsigned(tmp_path: Path) -> None:
    path = tmp_path / "imod.mrc"
    write_micrograph(path, ramp(np.int8))
    raw = bytearray(path.read_bytes())
    raw[152:160] = np.array([1146047817, 0], "<i4").tobytes()
    raw[1024] = 200
    path.write_bytes(raw)
    assert read_micrograph(path).pixels[0, 0] == 200


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


def truncated(path: Path) -> None:
    write_micrograph(path, ramp(np.uint8))
    path.write_bytes(path.read_bytes()[: -30 if path.suffix == ".png" else -100])


def stack(path: Path) -> None:
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.zeros((3, *SHAPE), np.float32))


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
    "a.eer": (lambda path: path.write_bytes(b"x"), "unknown suffix '.eer'"),
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


def test_lzw_tiff_is_read_or_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(ramp(np.uint8)).save(path, compression="tiff_lzw")
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        with pytest.raises(DataError, match="install imagecodecs"):
            read_micrograph(path)
    else:
        assert np.array_equal(read_micrograph(path).pixels, ramp(np.float32))


def test_writing_refuses_other_suffixes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"use \.mrc"):
        write_micrograph(tmp_path / "a.jpg", ramp(np.uint8))
    with pytest.raises(DataError, match="unknown suffix"):
        write_coordinates(tmp_path / "a.xyz", np.zeros((1, 3)))
    assert not list(tmp_path.iterdir())


def test_coordinates_round_trip(tmp_path: Path) -> None:
    particles = np.array([[470.0, 1037.0, 108.0], [0.1, 1e-7, 1 / 3], [-5.0, 12.25, 108.0]])
    write_coordinates(tmp_path / "a.csv", particles)
    assert np.array_equal(read_coordinates(tmp_path / "a.csv"), particles)
    assert "1037,470,108\n" in (tmp_path / "a.csv").read_text()


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufeffdefocus, diameter ,Y-COORDINATE,X-Coordinate\nbad,10,2,1\n\nx,11,4,3\n", "utf-8")
    assert read_coordinates(path).tolist() == [[2, 1, 10], [4, 3, 11]]
    path.write_text("X-Coordinate,Y-Coordinate,Diameter\n")
    assert read_coordinates(path).shape == (0, 3)
    path.write_text("X-Coordinate,Y-Coordinate\n1,2\n")
    assert read_coordinates(path, diameter_px=9).tolist() == [[2, 1, 9]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("x,y,d\n1,2,3\n", "no column Y-Coordinate"),
        ("X-Coordinate,Y-Coordinate\n1,2\n", "no column Diameter"),
        ("X-Coordinate,Y-Coordinate,Diameter\n1,2,3\n4,five,6\n", "line 3, column Y-Coordinate: 'five'"),
        ("X-Coordinate,Y-Coordinate,Diameter\nnan,2,3\n", "line 2, column X-Coordinate: 'nan'"),
        ("X-Coordinate,Y-Coordinate,Diameter\n1,2,inf\n", "line 2, column Diameter: 'inf'"),
        ("X-Coordinate,Y-Coordinate,Diameter\n1,2\n", "line 2, column Diameter: ''"),
    ],
)
def test_what_is_no_coordinate_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "picks.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_coordinates(path)
    assert message in str(caught.value)
    assert "picks.csv" in str(caught.value)


def test_coordinates_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_coordinates(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as text"):
        read_coordinates(tmp_path / "a.csv")
