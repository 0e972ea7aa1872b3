from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoquery.errors import ConfigError, DataError
from cryoquery.formats import Picks, micrograph_files, read_coordinates, write_coordinates, write_micrograph
from cryoquery.formats.convert import convert
from cryoquery.formats.placement import Placement, place

SHAPE = (40, 60)


@pytest.fixture
def micrographs(tmp_path: Path) -> Path:
    folder = tmp_path / "micrographs"
    folder.mkdir()
    for name in ("a.mrc", "b.mrc"):
        write_micrograph(folder / name, np.arange(SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(SHAPE))
    return folder


def some_picks(*names: str) -> Picks:
    n = len(names)
    return Picks.of(np.arange(2 * n).reshape(n, 2), micrograph=list(names), diameters_px=10, pixel_size=2.0)


def test_a_flip_counts_from_the_last_row(tmp_path: Path, micrographs: Path) -> None:
    write_coordinates(tmp_path / "in.star", some_picks("a.mrc", "b.mrc", "a.mrc"))
    convert(tmp_path / "in.star", tmp_path / "out.star", micrographs=micrographs, flip_y=True)
    picks = read_coordinates(tmp_path / "out.star")
    assert picks.micrographs.tolist() == ["a.mrc", "b.mrc", "a.mrc"]
    assert np.asarray(picks).tolist() == [[39, 1], [37, 3], [35, 5]]
    convert(tmp_path / "out.star", tmp_path / "back.star", micrographs=micrographs, flip_y=True)
    assert (tmp_path / "back.star").read_bytes() == (tmp_path / "in.star").read_bytes()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"swap_xy": True}, [[2, 1]]),
        ({"flip_x": True}, [[1, 57]]),
        ({"swap_xy": True, "flip_y": True}, [[37, 1]]),
        ({"scale": 4.0}, [[5.5, 9.5]]),
        ({"scale": 4.0, "swap_xy": True, "flip_y": True, "flip_x": True}, [[29.5, 53.5]]),
    ],
)
def test_the_order_is_scale_swap_flip(options: dict[str, float], expected: list[list[float]]) -> None:
    picks = Picks.of([[1, 2]], diameters_px=10, pixel_size=8)
    turned = place(
        picks, Placement.of(**{"swap_xy": False, "flip_y": False, "flip_x": False} | options), SHAPE
    )
    assert np.asarray(turned).tolist() == expected
    if "scale" in options:
        assert turned.diameter_px == 40
        assert turned.pixel_size == 2


def test_boxes_grow_with_the_scale(tmp_path: Path) -> None:
    (tmp_path / "a.cbox").write_text("10 20 8 8 0.5 7 9\n")
    convert(tmp_path / "a.cbox", tmp_path / "b.cbox", scale=2)
    picks = read_coordinates(tmp_path / "b.cbox")
    assert np.asarray(picks).tolist() == [[48.5, 28.5]]
    assert float(picks.extra["Width"][0]) == 16
    assert picks.diameter_px == 16


def test_names_come_from_the_micrographs(tmp_path: Path, micrographs: Path) -> None:
    write_coordinates(tmp_path / "a_autopick.box", some_picks("a"))
    written = convert(tmp_path / "a_autopick.box", tmp_path / "a.star", micrographs=micrographs)
    assert written.micrographs.tolist() == [(micrographs / "a.mrc").as_posix()]
    convert(tmp_path / "a_autopick.box", tmp_path / "a.txt")
    assert read_coordinates(tmp_path / "a.txt").micrographs.tolist() == ["a"]
    convert(tmp_path / "a_autopick.box", tmp_path / "plain.star")
    assert "rlnMicrographName" not in (tmp_path / "plain.star").read_text()
    write_coordinates(tmp_path / "c.box", some_picks("c"))
    with pytest.raises(DataError, match=r"'c' is none of the 2 files given; nearest: .*a\.mrc"):
        convert(tmp_path / "c.box", tmp_path / "c.star", micrographs=micrographs)


def test_fractions_need_the_micrographs(tmp_path: Path, micrographs: Path) -> None:
    write_coordinates(tmp_path / "in.star", some_picks("a.mrc", "b.mrc"))
    with pytest.raises(DataError, match="give --micrographs"):
        convert(tmp_path / "in.star", tmp_path / "out.cs")
    convert(tmp_path / "in.star", tmp_path / "out.cs", micrographs=sorted(micrographs.iterdir()))
    assert np.load(tmp_path / "out.cs")["location/micrograph_shape"].tolist() == [[40, 60]] * 2
    convert(tmp_path / "out.cs", tmp_path / "again.star", flip_y=True)
    np.testing.assert_allclose(read_coordinates(tmp_path / "again.star"), [[39, 1], [37, 3]], atol=1e-5)


def test_a_file_for_all_becomes_a_folder(tmp_path: Path) -> None:
    write_coordinates(tmp_path / "in.star", some_picks("a.mrc", "b.mrc", "a.mrc"))
    convert(tmp_path / "in.star", tmp_path / "boxes", format="box")
    assert sorted(path.name for path in (tmp_path / "boxes").iterdir()) == ["a.box", "b.box"]
    convert(tmp_path / "boxes", tmp_path / "back.txt")
    assert read_coordinates(tmp_path / "back.txt").micrographs.tolist() == ["a", "a", "b"]


def test_what_cannot_be_converted_is_named(tmp_path: Path, micrographs: Path) -> None:
    write_coordinates(tmp_path / "in.star", some_picks("a.mrc"))
    with pytest.raises(ConfigError, match="scale=0"):
        convert(tmp_path / "in.star", tmp_path / "out.star", scale=0)
    with pytest.raises(DataError, match=r"size of micrograph 'a\.mrc' must be known"):
        convert(tmp_path / "in.star", tmp_path / "out.star", flip_x=True)
    with pytest.raises(DataError, match="no such folder"):
        micrograph_files(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no micrographs in it"):
        micrograph_files(tmp_path / "empty")


def test_the_pixel_size_follows_the_scale(tmp_path: Path) -> None:
    write_coordinates(tmp_path / "in.star", some_picks("a.mrc"))
    convert(tmp_path / "in.star", tmp_path / "out.star", scale=2)
    assert read_coordinates(tmp_path / "out.star").pixel_size == 1
    convert(tmp_path / "in.star", tmp_path / "out.star", scale=2, pixel_size=0.9)
    assert read_coordinates(tmp_path / "out.star").pixel_size == 0.9


@pytest.mark.parametrize(("options", "size"), [({"scale": 2.0}, 1.0), ({"pixel_size": 1.3}, 1.3)])
def test_a_pixel_size_of_before_is_not_kept(tmp_path: Path, options: dict[str, float], size: float) -> None:
    (tmp_path / "a.star").write_text(
        "data_\n\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnMicrographPixelSize\n1 2 2.0\n3 4 2.0\n"
    )
    convert(tmp_path / "a.star", tmp_path / "b.star", **options)  # type: ignore[arg-type]
    assert read_coordinates(tmp_path / "b.star").pixel_size == pytest.approx(size)


@pytest.mark.parametrize(
    "options", [{"pixel_size": 0.0}, {"pixel_size": -1.0}, {"diameter_px": float("nan")}]
)
def test_numbers_that_cannot_be(tmp_path: Path, options: dict[str, float]) -> None:
    write_coordinates(tmp_path / "a.csv", some_picks("a"))
    with pytest.raises(ConfigError, match="must be a positive number"):
        convert(tmp_path / "a.csv", tmp_path / "b.star", **options)  # type: ignore[arg-type]


def test_outlines_that_would_stay_behind_are_dropped(tmp_path: Path) -> None:
    picks = some_picks("a")
    picks = picks.replace(extra={"segmentation": np.array(["[[0, 0]]"] * len(picks), dtype=object)})
    assert "segmentation" not in place(picks, Placement.of(False, True, False), SHAPE).extra
    assert "segmentation" in place(picks, Placement(), SHAPE).extra
