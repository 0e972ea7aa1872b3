from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoquery.errors import DataError
from cryoquery.formats import Optics, Picks, concatenate, read_coordinates, write_coordinates

CSV = "X-Coordinate,Y-Coordinate,Diameter\n1037,470,108\n3,4.5,108\n"
TOPAZ = "image_name\tx_coord\ty_coord\tscore\nmic_1\t1037\t470\t2.5\nmic_2\t3\t4.5\t-1\n"
BOX = "1000 400 74 140\n"
BOX_SCORED = "983\t416\t108\t108\t0.5\n-51 -49.5 108 108 0.25\n"
OLD_CBOX = "983.0\t416.0\t108\t108\t0.5\t100\t110\n"
CBOX = """
data_global

_cbox_format_version 1.0

data_cryolo

loop_
_CoordinateX #1
_CoordinateY #2
_CoordinateZ #3
_Width #4
_Height #5
_EstWidth #6
_EstHeight #7
_Confidence #8
983.0 416.0 <NA> 108.0 108.0 100.0 110.0 0.5
-51.0 -49.5 <NA> 108.0 108.0 <NA> <NA> 0.25

data_cryolo_include

loop_
_slice_index #1

"""
STAR = (
    "\ndata_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnAnglePsi #3\n1037 470 -999\n3.0 4.5 12\n"
)
COCO = (
    '{"images": [{"id": 7, "file_name": "mic_1.jpg", "height": 100, "width": 200}], "annotations": '
    '[{"id": 1, "image_id": 7, "bbox": [983, 416, 108, 108]}, {"image_id": 7, "bbox": [0, 0, 0, 0]}]}'
)


def put(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "expected", "diameter", "scores", "file_format"),
    [
        (CSV, [[470, 1037], [4.5, 3]], 108, None, "csv"),
        (TOPAZ, [[470, 1037], [4.5, 3]], None, [2.5, -1], "txt"),
        (BOX, [[470, 1037]], 140, None, "box"),
        (BOX_SCORED, [[470, 1037], [4.5, 3]], 108, [0.5, 0.25], "box"),
        (OLD_CBOX, [[470, 1037]], 105, [0.5], "cbox"),
        (CBOX, [[470, 1037], [4.5, 3]], 106.5, [0.5, 0.25], "cbox"),
        (STAR, [[470, 1037], [4.5, 3]], None, None, "star"),
        (COCO, [[470, 1037]], 108, None, "coco"),
    ],
)
@pytest.mark.parametrize("suffix", [".star", ".txt", ".box", ".csv", ".picks"])
def test_the_format_follows_from_the_content(
    tmp_path: Path,
    text: str,
    expected: list[list[float]],
    diameter: float | None,
    scores: list[float] | None,
    file_format: str,
    suffix: str,
) -> None:
    if text.startswith("{") and suffix == ".box":
        return
    if text == OLD_CBOX or (text in (BOX, BOX_SCORED) and suffix != ".box"):
        if suffix == ".box":  # a row of CTFFIND has seven numbers, too
            picks = read_coordinates(put(tmp_path / "a.cbox", text))
            assert (picks.file_format, np.asarray(picks).tolist()) == (file_format, expected)
        with pytest.raises(DataError, match=r"numbers without names|where the first has|has 7 values"):
            read_coordinates(put(tmp_path / f"a{suffix}", text))
        return
    picks = read_coordinates(put(tmp_path / f"a{suffix}", text))
    assert picks.file_format == file_format
    assert np.asarray(picks).tolist() == expected
    assert picks.diameter_px == diameter
    assert (None if picks.scores is None else picks.scores.tolist()) == scores


@pytest.mark.parametrize("text", [CSV, TOPAZ, BOX_SCORED, CBOX, STAR, COCO])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings_and_line_ends(tmp_path: Path, text: str, encoding: str) -> None:
    suffix = ".box" if text is BOX_SCORED else ".txt"
    plain = read_coordinates(put(tmp_path / f"a{suffix}", text))
    for i, changed in enumerate((text.replace("\n", "\r\n"), text.rstrip("\n"))):
        path = tmp_path / f"{i}{suffix}"
        path.write_bytes(changed.encode(encoding))
        assert np.array_equal(read_coordinates(path), plain)


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufeffdefocus, diameter ,Y-COORDINATE,X-Coordinate\nbad,10,2,1\n\nx,11,4,3\n", "utf-8")
    picks = read_coordinates(path)
    assert np.asarray(picks).tolist() == [[2, 1], [4, 3]]
    assert picks.diameters_px is not None
    assert picks.diameters_px.tolist() == [10, 11]
    assert picks.extra["defocus"].tolist() == ["bad", "x"]
    path.write_text("X-Coordinate,Y-Coordinate,Diameter\n")
    assert len(read_coordinates(path)) == 0
    path.write_text("X-Coordinate,Y-Coordinate\n1,2\n")
    assert read_coordinates(path).diameters_px is None
    assert read_coordinates(path, diameter_px=9).diameter_px == 9


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "empty"),
        ("a.star", "", "empty"),
        ("a.csv", "p,q,d\n1,2,3\n", "no column x in its first line (p,q,d)"),
        (
            "a.csv",
            "X-Coordinate,Y-Coordinate,Diameter\n1,2,3\n4,five,6\n",
            "line 3, column Y-Coordinate: 'five'",
        ),
        ("a.csv", "X-Coordinate,Y-Coordinate,Diameter\nnan,2,3\n", "line 2, column X-Coordinate: 'nan'"),
        ("a.csv", "X-Coordinate,Y-Coordinate,Diameter\n1,2,inf\n", "line 2, column Diameter: 'inf'"),
        ("a.csv", "X-Coordinate,Y-Coordinate,Diameter\n1\n", "line 2 has 1 values for 3 names in line 1"),
        ("a.csv", "X-Coordinate,Y-Coordinate\n1e300,2\n", "1e+300 px"),
        ("a.txt", "x_coord\tscore\n1\t2\n", "no column ycoord"),
        ("a.box", "1 2 3 4\nsixty 2 3 4\n", "line 2, column x: 'sixty'"),
        ("a.box", "1 2 3 4\n1 2 3\n", "line 2 has 3 values where the first has 4"),
        ("a.box", "../2d_center.box", "line 1 has 1 values"),
        ("a.cbox", "data_cryolo\nloop_\n_CoordinateX\n1\n", "no coordinates"),
        ("a.star", "data_\n_rlnNrClasses 3\n", "no table with _rlnCoordinateX"),
        ("a.star", STAR + "7 8\n9\n", "line 10 has 2 values where rows before have 3"),
        ("a.star", STAR + "7 8 9 10\n", "line 10 has 4 values for 3 labels"),
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "[" * 100_000, "cannot be read as JSON"),
        ("a.json", '{"annotations": [{"bbox": [1, 2, 3]}]}', "annotation 0: bbox [1, 2, 3]"),
        ("a.json", '{"annotations": [{"bbox": [1, 2, 3, 1%s]}]}' % ("0" * 400), "is not four numbers"),
        ("a.json", "[3]", "must be lists of objects"),
        ("a.cs", "text", "not a .cs file"),
        ("a.xyz", "hello", "unknown suffix '.xyz'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_coordinates(put(tmp_path / name, text))
    assert message in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_coordinates(tmp_path / "a.csv")
    for content in (b"\xff\xfe\x00", b"X-Coordinate\x00", b"data_\xc3\x28\x01"):
        (tmp_path / "a.csv").write_bytes(content)
        with pytest.raises(DataError, match=r"cannot be read as text|holds zero bytes"):
            read_coordinates(tmp_path / "a.csv")
    with pytest.raises(DataError, match="unknown format 'spider'"):
        read_coordinates(tmp_path / "a.csv", format="spider")


@pytest.mark.parametrize("suffix", [".box", ".cbox"])
def test_empty_boxes_are_no_picks(tmp_path: Path, suffix: str) -> None:
    assert len(read_coordinates(put(tmp_path / f"a{suffix}", ""))) == 0


def test_the_fifth_column_of_eman_1_is_no_score(tmp_path: Path) -> None:
    picks = read_coordinates(put(tmp_path / "a.box", "1 2 10 10 -3\n5 6 10 10 -3\n"))
    assert picks.scores is None
    write_coordinates(tmp_path / "b.box", picks)
    assert (tmp_path / "b.box").read_text() == "1\t2\t10\t10\t-3\n5\t6\t10\t10\t-3\n"


def test_arrays_are_written_as_picks(tmp_path: Path) -> None:
    rows = np.array([[470.0, 1037.0, 108.0], [0.1, 1e-7, 1 / 3], [-5.0, 12.25, 108.0]])
    write_coordinates(tmp_path / "a.csv", rows)
    picks = read_coordinates(tmp_path / "a.csv")
    assert np.array_equal(picks.centers_yx, rows[:, :2])
    assert np.array_equal(picks.diameters_px, rows[:, 2])
    assert "1037,470,108\n" in (tmp_path / "a.csv").read_text()
    write_coordinates(tmp_path / "b.csv", rows[:, :2])
    assert read_coordinates(tmp_path / "b.csv").diameters_px is None
    write_coordinates(tmp_path / "c.csv", np.empty((0, 3)))
    assert len(read_coordinates(tmp_path / "c.csv")) == 0


def test_writing_says_what_it_lacks(tmp_path: Path) -> None:
    two = Picks.of([[1, 2], [3, 4]], micrograph=["a.mrc", "b.mrc"])
    refusals = {
        "a.xyz": "unknown suffix",
        "a.csv": "picks of 2 micrographs",
        "a.json": "no diameter",
        "a.cs": "the size of micrograph 'a.mrc' is not known",
    }
    for name, message in refusals.items():
        with pytest.raises(DataError, match=message):
            write_coordinates(tmp_path / name, two)
    with pytest.raises(DataError, match="boxes need a size"):
        write_coordinates(tmp_path / "a.box", Picks.of([[1, 2]]))
    assert not list(tmp_path.iterdir())


def test_picks_can_be_taken_apart_and_put_together() -> None:
    picks = Picks.of([[1, 2], [3, 4], [5, 6]], micrograph=["b", "a", "b"], scores=[0.1, 0.2, 0.3])
    picks = picks.replace(extra={"k": np.array(["x", "y", "z"], dtype=object)})
    apart = picks.by_micrograph()
    assert list(apart) == ["b", "a"]
    assert np.asarray(apart["b"]).tolist() == [[1, 2], [5, 6]]
    assert apart["b"].extra["k"].tolist() == ["x", "z"]
    bare = Picks.of([[7, 8]], diameters_px=5)
    together = concatenate([apart["b"], bare.with_micrograph("c")])
    assert together.micrographs.tolist() == ["b", "b", "c"]
    np.testing.assert_array_equal(together.scores, [0.1, 0.3, np.nan])
    np.testing.assert_array_equal(together.diameters_px, [np.nan, np.nan, 5])
    assert together.extra["k"].tolist() == ["x", "z", ""]
    assert len(concatenate([])) == 0
    assert len(picks.rows(np.zeros(3, bool)).by_micrograph()) == 0


def test_a_folder_of_boxes_gets_names_from_its_files(tmp_path: Path) -> None:
    put(tmp_path / "mic_1_autopick.box", BOX_SCORED)
    put(tmp_path / "mic_2.cbox", "")
    put(tmp_path / "mic_3.star", STAR)
    picks = read_coordinates(tmp_path)
    assert picks.micrographs.tolist() == ["mic_1", "mic_1", "mic_3", "mic_3"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no files of coordinates"):
        read_coordinates(tmp_path / "empty")


@pytest.mark.parametrize("file_format", ["box", "cbox", "csv", "star", "txt", "coco"])
def test_one_file_per_micrograph(tmp_path: Path, file_format: str) -> None:
    names = ["MotionCorr/job002/Movies/a.mrc", "MotionCorr/job002/Movies/b.mrc"]
    picks = Picks.of([[1, 2], [3, 4], [5, 6]], micrograph=[names[1], names[0], names[1]], diameters_px=8)
    write_coordinates(tmp_path / "out", picks, format=file_format)
    again = read_coordinates(tmp_path / "out").by_micrograph()
    kept = {name.rsplit("/", 1)[-1].split(".")[0]: np.asarray(part).tolist() for name, part in again.items()}
    assert kept == {"b": [[1, 2], [5, 6]], "a": [[3, 4]]}
    with pytest.raises(DataError, match="not empty"):
        write_coordinates(tmp_path / "out", picks, format=file_format)


def test_a_folder_is_refused_where_files_would_be_lost(tmp_path: Path) -> None:
    picks = Picks.of([[1, 2], [3, 4]], micrograph=["x/a.mrc", "y/a.mrc"], diameters_px=8)
    with pytest.raises(DataError, match=r"would both be written to a\.box"):
        write_coordinates(tmp_path / "out", picks, format="box")
    with pytest.raises(DataError, match="without the name"):
        write_coordinates(tmp_path / "out", picks.replace(micrographs=np.array(["", ""], object)))
    assert not (tmp_path / "out").exists()


def test_the_folder_of_a_relion_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["MotionCorr/job002/Movies/a.mrc", "b.mrc"]
    picks = Picks.of([[1, 2], [3, 4]], micrograph=names, scores=[0.5, 0.25])
    write_coordinates("AutoPick/job007", picks, pixel_size=1.5, optics=Optics(200.0))
    job = Path("AutoPick/job007")
    listed = (job / "autopick.star").read_text()
    assert "data_coordinate_files" in listed
    assert f"{names[0]} AutoPick/job007/Movies/a_autopick.star\n" in listed
    assert (job / "coords_suffix_autopick.star").read_text() == "AutoPick/job007/micrographs.star\n"
    assert "_rlnMicrographPixelSize" in (job / "micrographs.star").read_text()
    one = (job / "Movies" / "a_autopick.star").read_text()
    assert "data_\n" in one
    assert "rlnMicrographName" not in one
    assert "optics" not in one
    for source in (job, job / "autopick.star", tmp_path / "AutoPick" / "job007"):
        again = read_coordinates(source)
        assert again.micrographs.tolist() == names
        assert np.array_equal(again, picks)
        assert again.scores is not None
        assert again.scores.tolist() == [0.5, 0.25]
    (job / "b_autopick.star").unlink()
    with pytest.raises(DataError, match="which is not there"):
        read_coordinates(job)


def test_a_list_of_files_that_lists_itself_ends(tmp_path: Path) -> None:
    text = "data_coordinate_files\nloop_\n_rlnMicrographName\n_rlnMicrographCoordinates\na.mrc {}\n"
    put(tmp_path / "a.star", text.format("b.star"))
    put(tmp_path / "b.star", text.format("a.star"))
    with pytest.raises(DataError, match="no coordinates"):
        read_coordinates(tmp_path / "a.star")
    put(tmp_path / "c.star", text.format("c.star"))
    with pytest.raises(DataError, match="not there"):
        read_coordinates(tmp_path / "c.star")


def test_unknown_scores_and_diameters_stay_unknown(tmp_path: Path) -> None:
    picks = Picks.of([[1, 2], [3, 4]], scores=[0.5, np.nan], diameters_px=[10, np.nan])
    for name in ("a.star", "a.csv"):
        write_coordinates(tmp_path / name, picks)
        back = read_coordinates(tmp_path / name)
        assert back.diameters_px is not None
        assert back.diameters_px.tolist() == pytest.approx([10, np.nan], nan_ok=True)
        assert back.diameter_px == 10
    again = read_coordinates(tmp_path / "a.star").scores
    assert again is not None
    assert again.tolist() == pytest.approx([0.5, np.nan], nan_ok=True)


def test_two_files_of_one_micrograph_in_a_folder(tmp_path: Path) -> None:
    """As crYOLO leaves them: the same picks in several formats."""
    for name in ("CBOX/a.cbox", "EMAN/a.box"):
        (tmp_path / name).parent.mkdir()
        write_coordinates(tmp_path / name, Picks.of([[10, 20]], diameters_px=8))
    with pytest.raises(DataError, match=r"CBOX/a\.cbox and EMAN/a\.box both have picks of micrograph a"):
        read_coordinates(tmp_path)
    assert len(read_coordinates(tmp_path / "CBOX")) == 1
    assert len(read_coordinates(tmp_path, format="box")) == 1


def test_the_folder_of_a_picking_job_of_relion_3(tmp_path: Path) -> None:
    (tmp_path / "Movies").mkdir()
    for name in "ab":
        write_coordinates(tmp_path / "Movies" / f"{name}_autopick.star", Picks.of([[1, 2]]))
    (tmp_path / "coords_suffix_autopick.star").write_text("CtfFind/job003/micrographs_ctf.star\n")
    for name in ("job.star", "default_pipeline.star", "micrographs_ctf.star"):
        (tmp_path / name).write_text("data_job\n\n_rlnJobType 4\n")
    (tmp_path / "note.txt").write_text("what was done\n")
    assert sorted(read_coordinates(tmp_path).micrographs.tolist()) == ["a", "b"]


def test_a_table_written_by_hand_may_name_its_micrographs(tmp_path: Path) -> None:
    for header in ("micrograph,x,y", "Micrograph,X-Coordinate,Y-Coordinate"):
        path = tmp_path / "picks.csv"
        path.write_text(f"{header}\nmic_1,1037,470\nmic_2,3,4.5\n")
        picks = read_coordinates(path)
        assert picks.micrographs.tolist() == ["mic_1", "mic_2"]
        assert picks.centers_yx.tolist() == [[470, 1037], [4.5, 3]]


@pytest.mark.parametrize(
    "name",
    ["a.mrc", "a.mrc.gz", "a.mrcs.bz2", "a.eer", "a.JPEG", "Movies/a.tiff", "C:\\data\\a.mrc", "data\\a.eer"],
)
def test_topaz_knows_micrographs_by_their_stem(tmp_path: Path, name: str) -> None:
    write_coordinates(tmp_path / "picks.txt", Picks.of([[10, 20]], micrograph=name))
    assert (tmp_path / "picks.txt").read_text() == "image_name\tx_coord\ty_coord\na\t20\t10\n"


def test_dots_in_the_name_of_a_micrograph_stay_for_topaz(tmp_path: Path) -> None:
    write_coordinates(tmp_path / "picks.txt", Picks.of([[10, 20]], micrograph="x/May08_03.05.02.bin.mrc"))
    assert read_coordinates(tmp_path / "picks.txt").micrographs.tolist() == ["May08_03.05.02.bin"]


def test_micrographs_that_topaz_could_not_tell_apart_are_refused(tmp_path: Path) -> None:
    picks = Picks.of([[1, 2], [3, 4]], micrograph=["x/a.mrc", "y\\a.eer"])
    with pytest.raises(
        DataError, match=r"picks\.txt: x/a\.mrc and y\\a\.eer would both be written to a; rename"
    ):
        write_coordinates(tmp_path / "picks.txt", picks)
