"""Every format to every other and back: what both can hold is there again."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryoquery.formats import COORDINATE_FORMATS, Picks, read_coordinates, write_coordinates
from cryoquery.formats.names import ONE_PER_FILE, SUFFIX_OF

SHAPE = (4096, 11520)
TOLERANCE_PX = 0.005
WITHOUT_DIAMETER = ("txt", "cs")

coordinate = st.floats(-50, SHAPE[1], allow_nan=False, width=64).filter(lambda value: not 0 < value < 1)
score = st.floats(-1000, 1000, allow_nan=False, width=32).filter(lambda value: value != -999)
diameter = st.floats(1, 1000, width=32)


@st.composite
def some_picks(draw: st.DrawFn) -> Picks:
    n = draw(st.integers(1, 5))
    column = st.lists(coordinate, min_size=n, max_size=n)
    return Picks.of(
        np.column_stack([draw(column), draw(column)]),
        micrograph="mic_1",
        scores=draw(st.none() | st.lists(score, min_size=n, max_size=n)),
        diameters_px=draw(st.lists(diameter, min_size=n, max_size=n)),
    )


def through(folder: Path, picks: Picks, *formats: str) -> Picks:
    """What is left of picks that went through files of these formats."""
    for i, name in enumerate(formats):
        path = folder / f"{i}{SUFFIX_OF[name]}"
        write_coordinates(
            path, picks, diameter_px=100.0, micrograph_shapes=dict.fromkeys(picks.micrographs.tolist(), SHAPE)
        )
        picks = read_coordinates(path)
        assert picks.file_format == name
    return picks


@pytest.mark.parametrize("pair", list(itertools.product(COORDINATE_FORMATS, repeat=2)), ids="-".join)
@settings(max_examples=5, deadline=None)
@given(picks=some_picks())
def test_every_pair_of_formats(pair: tuple[str, str], picks: Picks) -> None:
    with tempfile.TemporaryDirectory() as folder:
        again = through(Path(folder), picks, *pair, pair[0])
    assert np.abs(again.centers_yx - picks.centers_yx).max() <= TOLERANCE_PX
    written = None if picks.scores is None else set(np.unique(np.round(picks.scores, 6)).tolist())
    if written is not None and not written <= {0.0, -1.0, -2.0, -3.0}:
        assert again.scores is not None
        np.testing.assert_allclose(again.scores, picks.scores, rtol=1e-6, atol=1e-6)
    if picks.diameters_px is not None and not set(pair) & set(WITHOUT_DIAMETER):
        np.testing.assert_allclose(again.diameters_px, picks.diameters_px, atol=TOLERANCE_PX)
    if not set(pair) & set(ONE_PER_FILE):
        assert again.micrographs.tolist() == picks.micrographs.tolist()


TABLES = ("star", "csv", "txt", "coco")


@pytest.mark.parametrize("pair", list(itertools.product(TABLES, repeat=2)), ids="-".join)
def test_tables_carry_what_they_do_not_know(tmp_path: Path, pair: tuple[str, str]) -> None:
    picks = Picks.of([[1, 2], [3, 4]], micrograph="mic_1", diameters_px=9)
    picks = picks.replace(extra={"rlnClassNumber": np.array(["1", "2"], dtype=object)})
    assert through(tmp_path, picks, *pair, pair[0]).extra["rlnClassNumber"].tolist() == ["1", "2"]


def test_cs_keeps_its_fields(tmp_path: Path) -> None:
    table = np.zeros(
        2,
        dtype=[
            ("uid", "<u8"),
            ("location/micrograph_uid", "<u8"),
            ("location/micrograph_path", "S40"),
            ("location/micrograph_shape", "<u4", (2,)),
            ("location/center_x_frac", "<f4"),
            ("location/center_y_frac", "<f4"),
            ("location/micrograph_psize_A", "<f4"),
            ("pick_stats/ncc_score", "<f4"),
            ("alignments2D/shift", "<f4", (2,)),
        ],
    )
    table["uid"] = [2**63 + 1, 7]
    table["location/micrograph_path"] = [b"J1/imported/004823749823748923748_a.mrc", b"J1/b.mrc"]
    table["location/micrograph_shape"] = [[4092, 5760]] * 2
    table["location/center_x_frac"], table["location/center_y_frac"] = [0.25, 0.5], [0.5, 0.125]
    table["location/micrograph_psize_A"], table["pick_stats/ncc_score"] = 1.5, [0.5, 0.75]
    table["alignments2D/shift"] = [[1, 2], [3, 4]]
    with (tmp_path / "a.cs").open("wb") as stream:
        np.save(stream, table)
    picks = read_coordinates(tmp_path / "a.cs")
    assert np.asarray(picks).tolist() == [[2046, 1440], [511.5, 2880]]
    assert picks.pixel_size == 1.5
    assert picks.scores is not None
    assert picks.scores.tolist() == [0.5, 0.75]
    assert picks.shapes["J1/b.mrc"] == (4092, 5760)
    write_coordinates(tmp_path / "b.cs", picks)
    again = np.load(tmp_path / "b.cs")
    assert {name: again[name].tolist() for name in table.dtype.names} == {
        name: table[name].tolist() for name in table.dtype.names
    }


def test_new_cs_files_have_different_uids(tmp_path: Path) -> None:
    picks = Picks.of(np.zeros((1000, 2)), micrograph=["a", "b"] * 500)
    write_coordinates(tmp_path / "a.cs", picks, micrograph_shapes=SHAPE)
    table = np.load(tmp_path / "a.cs")
    assert len(np.unique(table["uid"])) == 1000
    assert len(np.unique(table["location/micrograph_uid"])) == 2
    assert not set(table["uid"].tolist()) & set(table["location/micrograph_uid"].tolist())


def test_cs_without_the_size_of_its_micrographs(tmp_path: Path) -> None:
    table = np.zeros(1, dtype=[("location/center_x_frac", "<f4"), ("location/center_y_frac", "<f4")])
    table["location/center_x_frac"] = 0.5
    with (tmp_path / "a.cs").open("wb") as stream:
        np.save(stream, table)
    picks = read_coordinates(tmp_path / "a.cs", micrograph_shape=(100, 200))
    assert np.asarray(picks).tolist() == [[0, 100]]
