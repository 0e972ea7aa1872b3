from __future__ import annotations

from pathlib import Path

import gemmi
import numpy as np
import pytest

from cryoquery.errors import DataError
from cryoquery.formats import Optics, Picks, read_coordinates, read_optics_pixel_size, write_coordinates
from cryoquery.formats.star import read_tables, table_text

RELION_31 = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
og1 1 {0} 300.000000 2.7
og2 2 {1} 300.000000 2.7

# version 30001

data_particles

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnMicrographName #3
_rlnOpticsGroup #4
_rlnClassNumber #5
_rlnAutopickFigureOfMerit #6
 10.500000  20.250000 Movies/a.mrc 1 4 0.500000
 30.000000  40.000000 Movies/b.mrc 2 5 0.250000
"""


def read(tmp_path: Path, text: str) -> Picks:
    (tmp_path / "a.star").write_text(text)
    return read_coordinates(tmp_path / "a.star")


def test_optics_and_everything_else_is_carried_along(tmp_path: Path) -> None:
    picks = read(tmp_path, RELION_31.format("1.400000", "1.400000"))
    assert np.asarray(picks).tolist() == [[20.25, 10.5], [40, 30]]
    assert picks.micrographs.tolist() == ["Movies/a.mrc", "Movies/b.mrc"]
    assert picks.pixel_size == 1.4
    assert picks.extra["rlnClassNumber"].tolist() == ["4", "5"]
    assert picks.optics["rlnOpticsGroupName"].tolist() == ["og1", "og2"]
    write_coordinates(tmp_path / "b.star", picks)
    again = read_coordinates(tmp_path / "b.star")
    assert again.extra.keys() == picks.extra.keys()
    assert again.optics.keys() == picks.optics.keys()
    assert again.optics["rlnVoltage"].tolist() == ["300.000000"] * 2
    assert again.extra["rlnOpticsGroup"].tolist() == ["1", "2"]
    assert read(tmp_path, RELION_31.format("1.4", "2.8")).pixel_size is None


def test_the_layout_that_relion_and_cryosparc_import(tmp_path: Path) -> None:
    picks = Picks.of([[20.25, 10.5]], micrograph="Movies/a.mrc", scores=[0.5], diameters_px=80)
    write_coordinates(tmp_path / "a.star", picks, pixel_size=0.885, optics=Optics(200.0, 1.4, 0.07))
    optics, particles = gemmi.cif.read_file(str(tmp_path / "a.star"))
    assert (optics.name, particles.name) == ("optics", "particles")
    row = {tag: optics.find_loop(tag)[0] for tag in next(iter(optics)).loop.tags}
    assert row["_rlnOpticsGroupName"] == "opticsGroup1"
    assert row["_rlnOpticsGroup"] == "1"
    pixel_sizes = ("MicrographPixelSize", "MicrographOriginalPixelSize", "ImagePixelSize")
    for label, value in [
        *((name, 0.885) for name in pixel_sizes),
        ("Voltage", 200),
        ("SphericalAberration", 1.4),
        ("AmplitudeContrast", 0.07),
    ]:
        assert float(row[f"_rln{label}"]) == value
    row = {tag: particles.find_loop(tag)[0] for tag in next(iter(particles)).loop.tags}
    assert row == {
        "_rlnMicrographName": "Movies/a.mrc",
        "_rlnCoordinateX": "10.500000",
        "_rlnCoordinateY": "20.250000",
        "_rlnAutopickFigureOfMerit": "0.500000",
        "_rlnDiameter": "80.000000",
        "_rlnOpticsGroup": "1",
    }
    assert read_coordinates(tmp_path / "a.star").pixel_size == 0.885


def test_what_is_said_now_overrides_the_optics_that_were_read(tmp_path: Path) -> None:
    picks = read(tmp_path, RELION_31.format("1.4", "1.4"))
    write_coordinates(tmp_path / "b.star", picks, pixel_size=2.8, optics=Optics(200.0))
    again = read_coordinates(tmp_path / "b.star")
    assert again.pixel_size == 2.8
    assert again.optics["rlnVoltage"].tolist() == ["200.000000"] * 2
    assert again.optics["rlnOpticsGroupName"].tolist() == ["og1", "og2"]


def test_scores_that_are_not_known_come_back_as_they_were(tmp_path: Path) -> None:
    header = "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnAutopickFigureOfMerit\n"
    picks = read(tmp_path, f"{header}1 2 -999.0\n3 4 -999.0\n")
    assert picks.scores is None
    write_coordinates(tmp_path / "b.star", picks)
    assert "_rlnAutopickFigureOfMerit" in (tmp_path / "b.star").read_text()
    assert read(tmp_path, f"{header}1 2 -999.0\n3 4 0.5\n").scores is not None


LOOP = "data_particles\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"
LIKE_RELION = {
    "tabs and trailing blanks": "a.mrc\t1 \t2  \n",
    "carriage returns": "a.mrc 1 2\r\n\r\n",
    "no newline at the end": "a.mrc 1 2",
    "comments": "# one\na.mrc 1 2 # two\n# three\n",
    "quotes": "'a.mrc' \"1\" 2\n",
    "quotes around blanks": "'a b.mrc' 1 2\n",
    "an unbalanced quote": "'a.mrc 1 2\n",
    "a quote inside": "jo's.mrc 1 2\n",
    "a name like a keyword": "data_1.mrc 1 2\n",
    "a name like a label": "_a.mrc 1 2\n",
    "a name like a text field": ";a.mrc 1 2\n",
    "a dollar": "$a.mrc 1 2\n",
    "letters beyond ASCII": "µ.mrc 1 2\n",
    "an empty line within": "a.mrc 1 2\n\na.mrc 1 2\n",
    "another block of the same name": "a.mrc 1 2\n\ndata_particles\n_rlnAnglePsi 3\n",
    "a label twice": "a.mrc 1 2\n\ndata_x\n_a 1\n_a 2\n",
}


@pytest.mark.parametrize("name", LIKE_RELION)
def test_what_relion_reads_is_read(tmp_path: Path, name: str) -> None:
    picks = read(tmp_path, LOOP + LIKE_RELION[name])
    assert np.unique(np.asarray(picks), axis=0).tolist() == [[2, 1]]
    assert all(picks.micrographs)
    write_coordinates(tmp_path / "b.star", picks)
    again = read_coordinates(tmp_path / "b.star")
    assert again.micrographs.tolist() == picks.micrographs.tolist()


def test_rows_with_values_missing_are_not_shifted(tmp_path: Path) -> None:
    """Three rows of two values make two of three: gemmi alone would not notice."""
    text = LOOP.replace("#1\n", "#1\n_rlnAnglePsi #2\n")
    with pytest.raises(DataError, match="_rlnCoordinate"):
        read(tmp_path, text + "a.mrc 1 2\n" * 4)
    tail = LOOP.replace("_rlnMicrographName #1\n", "") + "_rlnAutopickFigureOfMerit #3\n"
    with pytest.raises(DataError, match="has 2 values where rows before have 3"):
        read(tmp_path, tail + "1 2 0.5\n3 4\n")
    assert np.asarray(read(tmp_path, tail + "1 2\n3 4\n5 6\n")).tolist() == [[2, 1], [4, 3], [6, 5]]


def test_the_two_ways_of_reading_agree(tmp_path: Path) -> None:
    from cryoquery.formats.star import _read_lines

    text = RELION_31.format("1.4", "1.4") + "\n\ndata_general\n\n_rlnNrClasses  3\n_rlnName 'a b'\n"
    path = tmp_path / "a.star"
    for one, other in zip(read_tables(path, text), _read_lines(path, text), strict=True):
        assert one.block == other.block
        assert {k: list(v) for k, v in one.columns.items()} == {k: list(v) for k, v in other.columns.items()}


def test_values_that_need_quotes_get_them() -> None:
    values = ["plain", "with blank", "", "it's", '"', "_label", "data_x", "#1", "two\nlines"]
    text = table_text("x", {"a": values, "b": values})
    table = read_tables(Path("x.star"), text)[0]
    expected = [*values[:-1], "two lines"]
    expected[4] = '"'
    assert list(table.columns["a"]) == list(table.columns["b"]) == expected


def test_the_first_table_with_coordinates_counts(tmp_path: Path) -> None:
    block = "data_{}\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n{} 2\n\n"
    picks = read(tmp_path, "data_a\n_rlnVoltage 300\n\n" + block.format("b", 1) + block.format("c", 5))
    assert np.asarray(picks).tolist() == [[2, 1]]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"rlnMagnification": "10000.0", "rlnDetectorPixelSize": "1.5"}, 1.5),
        ({"rlnMagnification": "10000.0", "rlnDetectorPixelSize": "1.5", "rlnImageName": "1@a.mrcs"}, None),
        ({"rlnMagnification": "0", "rlnDetectorPixelSize": "1.5"}, None),
        ({"rlnMicrographPixelSize": "1.5", "rlnMicrographOriginalPixelSize": "0.75"}, 1.5),
        ({"rlnMicrographOriginalPixelSize": "0.75", "rlnImagePixelSize": "3"}, 0.75),
        ({"rlnImagePixelSize": "3"}, None),
    ],
)
def test_pixel_size_of_the_micrographs(
    tmp_path: Path, columns: dict[str, str], expected: float | None
) -> None:
    columns = {"rlnCoordinateX": "1", "rlnCoordinateY": "2", **columns}
    text = table_text("particles", {name: [value] for name, value in columns.items()})
    assert read(tmp_path, text).pixel_size == expected


def test_the_pixel_size_of_optics_groups(tmp_path: Path) -> None:
    path = tmp_path / "micrographs_ctf.star"
    table = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnMicrographPixelSize\n"
    path.write_text(table + "1 0.885\n2 0.885\n")
    assert read_optics_pixel_size(path) == 0.885
    for rows in ("1 0.885\n2 1.1\n", "1 0\n"):
        path.write_text(table + rows)
        with pytest.raises(DataError, match="state no pixel size, or several; give --pixel-size"):
            read_optics_pixel_size(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_optics_pixel_size(tmp_path / "missing.star")


def test_a_label_that_is_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    head = "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateX\n"
    path.write_text(head + "1 2 1\n")
    assert read_coordinates(path).centers_yx.tolist() == [[2, 1]]
    path.write_text(head + "1 2 3\n")
    with pytest.raises(DataError, match=r"label _rlnCoordinateX is there twice, with different values"):
        read_coordinates(path)
