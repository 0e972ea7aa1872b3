"""Files of picks that can be read in several ways: read right, with a note, or refused with the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryoquery.errors import ConfigError, DataError
from cryoquery.formats import (
    Picks,
    read_by_micrograph,
    read_coordinates,
    read_header,
    read_micrograph,
    write_coordinates,
    write_micrograph,
)
from cryoquery.formats.convert import convert
from cryoquery.formats.names import SUFFIX_OF
from cryoquery.formats.reading import Reading


def put(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


STAR = "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n{}{}\n"

READ = {
    "names of rows by R": ("a.csv", '"x","y"\n"1",512.5,300\n"2",4,5\n', [[300, 512.5], [5, 4]]),
    "row names of R, tabs": ("a.tsv", "x\ty\n1\t512.5\t300\n2\t4\t5\n", [[300, 512.5], [5, 4]]),
    "names in quotes": ("a.csv", '"X-Coordinate", "Y-Coordinate"\n"512.5", "300"\n', [[300, 512.5]]),
    "semicolons": ("a.csv", "x;y\n512.5;300\n", [[300, 512.5]]),
    "decimal commas": ("a.csv", "x;y\n512,5;300,25\n", [[300.25, 512.5]]),
    "decimal commas, tabs": ("a.txt", "image_name\tx_coord\ty_coord\na\t512,5\t300\n", [[300, 512.5]]),
    "decimal commas in boxes": ("a.box", "100,5\t200\t36\t36\n", [[218, 118.5]]),
    "blanks in quotes": ("a.txt", 'image_name x_coord y_coord\n"grid 2" 512.5 300\n', [[300, 512.5]]),
    "a mark at the end": ("a.csv", "x,y,\n512.5,300,\n", [[300, 512.5]]),
    "comments before": ("a.csv", "# made by hand\nx,y\n512.5,300\n", [[300, 512.5]]),
    "units in names": ("a.csv", "X (px),Y (px)\n512.5,300\n", [[300, 512.5]]),
    "centers and sizes": ("a.csv", "center_x,center_y,width,height\n512.5,300,20,30\n", [[300, 512.5]]),
    "two corners": (
        "a.csv",
        "filename,width,height,xmin,ymin,xmax,ymax\na,512,512,100,200,140,220\n",
        [[210, 120]],
    ),
    "corner and size": ("a.csv", "x,y,w,h\n100,200,36,40\n", [[220, 118]]),
    "a .box with names": ("a.box", "x\ty\tw\th\n100\t200\t36\t40\n", [[220, 118]]),
    "a box from the right": ("a.box", "136 240 -36 -40\n", [[220, 118]]),
    "two corners by number": ("a.csv", "x0,y0,x1,y1\n100,200,140,220\n", [[210, 120]]),
    "a size of boxes": ("a.csv", "x,y,box_size\n512.5,300,36\n", [[300, 512.5]]),
    "line feeds of old Macs": ("a.star", STAR.format("", "512.5 300").replace("\n", "\r"), [[300, 512.5]]),
    "three decimals": ("a.csv", "x,y,diameter\n512.125,300.375,108\n", [[300.375, 512.125]]),
    "no third dimension": ("a.csv", "x,y,z\n512.5,300,0\n", [[300, 512.5]]),
}


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_dialects_that_are_clear_are_read(tmp_path: Path, kind: str, encoding: str) -> None:
    name, text, expected = READ[kind]
    (tmp_path / name).write_bytes(text.replace("\n", "\r\n").encode(encoding))
    assert read_coordinates(tmp_path / name).centers_yx.tolist() == expected


REFUSED = {
    "row names, perhaps": ("a.tsv", "image_name\tx_coord\ty_coord\n7\t1\t512\t300\n", "has 4 values for 3"),
    "decimal commas": ("a.csv", "x,y\n512,5,300,25\n", "line 2 has 4 values for 2 names"),
    "one decimal comma": ("a.csv", "x,y\n1,5,300\n2,5,300\n", "line 2 has 3 values for 2 names"),
    "marks of thousands": ("a.csv", "x,y\n1,512,300\n2,512,300\n", "line 2 has 3 values for 2 names"),
    "thousands or decimals": ("a.csv", "x;y\n1,512;2,300\n", "1,512 may be 1.512 or 1512"),
    "dots of thousands, tabs": ("a.txt", "x\ty\n1.512\t300\n2.010\t400\n", "1.512 may be 1.512 or 1512"),
    "Python's thousands": ("a.csv", "x,y\n1_512,300\n", "'1_512' is not a number"),
    "dots of thousands": ("a.csv", "x;y\n1.512;300\n", "1.512 may be 1.512 or 1512"),
    "blanks in a name": ("a.txt", "image_name x_coord y_coord\ngrid 2 512 300\n", "has 4 values for 3"),
    "an open quote": ("a.csv", 'x,y\n"512,300\n4,5\n6,7"\n8,9\n', "line 4: a quote"),
    "bare numbers": ("a.txt", "512 300\n4 5\n", "--columns x=1,y=2"),
    "bare boxes": ("a.txt", "512 300 36 36\n", "--columns x=1,y=2"),
    "IMOD": ("model.txt", "1 1 512.5 300 0\n1 1 4 5 0\n", "numbers without names"),
    "CTFFIND": ("a_ctf.txt", "# Output\n# Pixel\n1.0 23563.3 23003.1 40.2 0 0.11 4.5\n", "without names"),
    "CTFFIND in a .box": ("a.box", "1.0 23563.3 23003.1 40.2 0 0.11 4.5\n", "has 7 values"),
    "a title": ("a.csv", "Picks of Monday\nx,y\n512,300\n", "line 2 names the columns; take out"),
    "names as a comment": ("a.txt", "# x y\n512 300\n", "line 1 names the columns; take the # out"),
    "fractions that reach beyond": ("a.csv", "x,y\n0.1,-0.02\n1.03,0.8\n", "fractions"),
    "several classes of YOLO": ("a.txt", "0 0.3 0.3 0.1 0.1\n1 0.7 0.1 0.1 0.1\n", "several classes, 0 (1)"),
    "fractions": ("a.csv", "x,y,diameter\n0.1,0.2,0.07\n0.9,0.8,0.07\n", "between 0 and 1: fractions"),
    "fractions, and diameters in px": ("a.csv", "x,y,diameter\n0.1,0.2,99\n0.9,0.8,99\n", "fractions"),
    "YOLO": ("a.txt", "0 0.35 0.33 0.09 0.09\n0 0.7 0.1 0.09 0.09\n", "fractions of a micrograph"),
    "fractions in a STAR": ("a.star", STAR.format("", "0.5 0.25"), "fractions"),
    "three dimensions": ("a.csv", "x,y,z\n100,200,5\n100,200,50\n", "three dimensions"),
    "slices": ("a.csv", "X,Y,Slice\n100,200,1\n100,200,2\n", "three dimensions"),
    "depths": ("a.csv", "x,y,depth\n100,200,1\n100,200,2\n", "three dimensions"),
    "tomograms in a table": ("a.csv", "tomogram,x,y\nTS_1,512,300\n", "three dimensions"),
    "tomograms": (
        "a.star", STAR.format("_rlnTomoName\n", "5 6 TS_1"), "three dimensions",
    ),
    "corners alone": ("a.csv", "xmin,ymin\n100,200\n", "corners of boxes without their size"),
    "a column twice": ("a.csv", "x,y,x\n1,2,3\n", "2 columns are called x"),
    "lengths in other units": ("a.csv", "x_nm,y_nm\n1,2\n", "in another unit than pixels (x_nm,y_nm)"),
    "other names": ("a.csv", "row,col\n1,2\n", "no column x in its first line (row,col)"),
    "several classes": ("a.csv", "x,y,label\n1,2,ice\n3,4,virus\n", "--class which are particles"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_dialects_that_are_not_clear_are_refused(tmp_path: Path, kind: str) -> None:
    name, text, message = REFUSED[kind]
    with pytest.raises(DataError) as caught:
        read_coordinates(put(tmp_path / name, text))
    assert message in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_a_person_says_which_columns_are_what(tmp_path: Path) -> None:
    bare = put(tmp_path / "a.txt", "7 512.5 300 36 36\n8 4 5 36 36\n")
    assert read_coordinates(bare, reading=Reading.of("x=2,y=3")).centers_yx.tolist() == [[300, 512.5], [5, 4]]
    sized = Reading.of("x=2,y=3,width=4,height=5", "corner")
    assert read_coordinates(bare, reading=sized).centers_yx.tolist() == [[318, 530.5], [23, 22]]
    cornered = read_coordinates(bare, reading=Reading.of("x=2,y=3", "corner"), diameter_px=10)
    assert cornered.centers_yx.tolist() == [[305, 517.5], [10, 9]]
    named = put(tmp_path / "b.csv", "column,row,film\n1,2,a\n3,4,b\n")
    picks = read_coordinates(named, reading=Reading.of("x=column,y=Row,micrograph=3"))
    assert (picks.centers_yx.tolist(), picks.micrographs.tolist()) == ([[2, 1], [4, 3]], ["a", "b"])
    unnamed = put(tmp_path / "c.txt", "mic_1 512.5 300\nmic_2 4 5\n")
    picks = read_coordinates(unnamed, reading=Reading.of("micrograph=1,x=2,y=3"))
    assert picks.micrographs.tolist() == ["mic_1", "mic_2"]
    assert picks.notes == ()
    left = read_coordinates(bare, reading=Reading.of("x=2,y=3"))
    assert left.notes == ("columns 1, 4, 5 not looked at",)
    for said in ("x=1", "x=1,z=2", "x,y"):
        with pytest.raises(ConfigError, match="--columns"):
            Reading.of(said)
    with pytest.raises(DataError, match="no column 9 for y; its columns are 5 without names"):
        read_coordinates(bare, reading=Reading.of("x=2,y=9"))


def test_fractions_are_taken_where_a_person_says_so_and_the_size_is_known(tmp_path: Path) -> None:
    yolo = put(tmp_path / "a.txt", "0 0.5 0.25 0.1 0.2\n0 0.75 0.5 0.1 0.2\n")
    reading = Reading.of("x=2,y=3,width=4,height=5")
    picks = read_coordinates(yolo, micrograph_shape=(100, 200), reading=reading)
    assert picks.centers_yx.tolist() == [[25, 100], [50, 150]]
    assert picks.diameter_px == 20
    assert "taken times 200 x 100 px" in picks.notes[0]
    with pytest.raises(DataError, match="fractions"):
        read_coordinates(yolo, reading=reading)
    with pytest.raises(DataError, match="fractions"):
        read_coordinates(yolo, micrograph_shape=(100, 200))


NOTED = {
    "ends of helices by name": "x,y,helix\n5,2,1\n70,50,1\n6,8,2\n60,80,2\n",
    "starts and ends": "x,y,point\n5,2,start\n70,50,end\n6,8,start\n60,80,end\n",
    "ends in a row": "filament,x1,y1,x2,y2\n1,50,25,700,500\n2,60,80,600,800\n",
    "one helix on each micrograph": "micrograph,x,y,tube_id\na,5,2,1\na,7,5,1\nb,6,8,1\nb,9,9,1\n",
    "classes by number": "x,y,class\n5,2,0\n70,50,1\n",
}


@pytest.mark.parametrize("kind", NOTED)
def test_what_may_be_no_particles_is_noted(tmp_path: Path, kind: str) -> None:
    (note,) = read_coordinates(put(tmp_path / "a.csv", NOTED[kind])).notes
    assert "--class says which are particles" in note if "class" in kind else "ends" in note


def test_what_was_taken_is_noted(tmp_path: Path) -> None:
    table = put(tmp_path / "a.csv", "x,y,width,height\n100,200,36,36\n")
    assert "a corner of a box (--origin center if not)" in read_coordinates(table).notes[0]
    centers = read_coordinates(table, reading=Reading(origin="center"))
    assert (centers.centers_yx.tolist(), centers.notes) == ([[200, 100]], ())
    level = put(tmp_path / "level.csv", "x,y,z\n1,2,5\n3,4,5\n")
    assert "column z is the same for all picks" in read_coordinates(level).notes[0]
    ends = put(tmp_path / "helix.box", "1 1 9 9 -1\n80 70 9 9 -2\n")
    assert "ends of a helix" in read_coordinates(ends).notes[0]
    tubes = (
        "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnHelicalTubeID\n1 1 1\n80 70 1\n5 5 2\n6 9 2\n"
    )
    assert "ends" in read_coordinates(put(tmp_path / "a.star", tubes)).notes[0]
    assert not read_coordinates(put(tmp_path / "b.star", tubes + "7 7 2\n")).notes


def coco(annotations: list[dict[str, Any]], **more: Any) -> str:
    images = [{"id": 0, "file_name": "a.png", "width": 512, "height": 512}, {"id": 1, "file_name": "b.png"}]
    numbered = [{"id": i, "image_id": 0, **one} for i, one in enumerate(annotations)]
    return json.dumps({"images": images, "annotations": numbered, **more})


CLASSES = [{"id": 0, "name": "ice"}, {"id": 1, "name": "Particle"}, {"id": 2, "name": "virus"}]
BOXES = [{"category_id": i, "bbox": [100 * i, 0, 10, 10]} for i in (0, 1, 2)]


def test_of_several_classes_the_particles_are_taken(tmp_path: Path) -> None:
    path = put(tmp_path / "a.json", coco(BOXES, categories=CLASSES))
    picks = read_coordinates(path)
    assert picks.centers_yx.tolist() == [[5, 105]]
    assert "1 of class ice, 1 of class virus left out" in picks.notes[0]
    assert read_coordinates(path, reading=Reading.of(classes="Virus")).centers_yx.tolist() == [[5, 205]]
    assert len(read_coordinates(path, reading=Reading.of(classes="particle,virus"))) == 2
    put(path, coco(BOXES[::2], categories=CLASSES))
    assert len(read_coordinates(path)) == 0
    put(path, coco(BOXES[::2], categories=CLASSES[::2]))
    with pytest.raises(DataError, match=r"several classes, ice \(1\), virus \(1\); say with --class"):
        read_coordinates(path)
    with pytest.raises(DataError, match="no class carbon; its classes are ice"):
        read_coordinates(path, reading=Reading.of(classes="carbon"))
    put(path, coco(BOXES[2:], categories=CLASSES[::2]))
    assert "class virus taken for particles" in read_coordinates(path).notes[0]
    put(
        path,
        coco([*BOXES[1:2], {"category_id": 1, "bbox": [0, 0, 300, 300], "iscrowd": 1}], categories=CLASSES),
    )
    assert len(read_coordinates(path)) == 1


def test_classes_by_number_and_those_to_be_ignored(tmp_path: Path) -> None:
    outline = [0, 0, 9, 0, 9, 5]
    marks = [*BOXES, {"category_id": 0, "bbox": [0, 0, 9, 5], "segmentation": [outline]}]
    path = put(tmp_path / "a.json", coco(marks, categories=CLASSES))
    assert read_coordinates(path, reading=Reading.of(classes="2")).centers_yx.tolist() == [[5, 205]]
    picks = read_coordinates(path, reading=Reading.of(classes="1", ignored="ice"))
    assert picks.centers_yx.tolist() == [[5, 105]]
    assert [region.polygon_yx.tolist() for region in picks.regions] == [
        [[0, 0], [0, 10], [10, 10], [10, 0]],
        [[0, 0], [0, 9], [5, 9]],
    ]
    put(
        path,
        coco([*BOXES[1:2], {"category_id": 1, "bbox": [0, 0, 99, 99], "iscrowd": 1}], categories=CLASSES),
    )
    picks = read_coordinates(path)
    assert (len(picks), picks.regions[0].micrograph, len(picks.regions)) == (1, "a.png", 1)
    assert "1 marked as crowds" in picks.notes[0]
    table = put(tmp_path / "a.csv", "x,y,w,h,type\n10,20,4,6,virus\n1,2,3,4,ice\n")
    picks = read_coordinates(table, reading=Reading.of(ignored="Ice"))
    assert picks.centers_yx.tolist() == [[23, 12]]
    assert picks.regions[0].polygon_yx.tolist() == [[2, 1], [2, 4], [6, 4], [6, 1]]
    put(table, "x,y,type\n10,20,virus\n1,2,ice\n")
    with pytest.raises(DataError, match="a region to be ignored needs a size"):
        read_coordinates(table, reading=Reading.of(ignored="ice"))


def test_outlines_without_boxes_are_the_boxes_around_them(tmp_path: Path) -> None:
    around = {"segmentation": [[100, 200, 136, 200, 136, 236], [100, 236, 101, 236, 101, 235]]}
    for box in ({}, {"bbox": None}, {"bbox": []}, {"bbox": [0, 0, 0, 0]}):
        picks = read_coordinates(put(tmp_path / "a.json", coco([{**around, **box}])))
        assert (picks.centers_yx.tolist(), picks.diameter_px) == ([[218, 118]], 36)
        assert "1 outlines without boxes" in picks.notes[0]


@pytest.mark.parametrize("packed", [False, True])
def test_masks_without_boxes_are_the_boxes_around_them(tmp_path: Path, packed: bool) -> None:
    for rows, columns in ((slice(10, 20), slice(30, 45)), (slice(0, 50), slice(7, 9)), (slice(0, 3), [0])):
        mask = np.zeros((50, 60), dtype=int)
        mask[rows, columns] = 1
        edges = np.flatnonzero(np.diff(mask.T.ravel(), prepend=0))
        runs = np.diff([0, *edges, mask.size]).tolist()
        size = [50, 60]
        marks = [{"segmentation": {"size": size, "counts": packed_counts(runs) if packed else runs}}]
        picks = read_coordinates(put(tmp_path / "a.json", coco(marks)))
        ys, xs = np.nonzero(mask)
        assert picks.centers_yx.tolist() == [[(ys.min() + ys.max() + 1) / 2, (xs.min() + xs.max() + 1) / 2]]
        assert "1 outlines without boxes" in picks.notes[0]


def packed_counts(runs: list[int]) -> str:
    """Run lengths as pycocotools packs them (`rleToString` of its C code)."""
    text = ""
    for i, run in enumerate(runs):
        value, more = run - (runs[i - 2] if i > 2 else 0), True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


@pytest.mark.parametrize("text", ["x,y,{}\n1,2,True\n3,4,False\n", "x,y,{}\n1,2,yes\n3,4,no\n"])
@pytest.mark.parametrize("name", ["keep", "selected", "is_particle", "status"])
def test_columns_that_say_what_was_kept_are_classes(tmp_path: Path, text: str, name: str) -> None:
    table = put(tmp_path / "a.csv", text.format(name))
    with pytest.raises(DataError, match=r"several classes, .*say with --class"):
        read_coordinates(table)
    numbered = put(tmp_path / "b.csv", f"x,y,{name}\n1,2,1\n3,4,0\n")
    assert f"numbers of column {name} not looked at" in read_coordinates(numbered).notes[0]
    assert read_coordinates(numbered, reading=Reading.of(classes="1")).centers_yx.tolist() == [[2, 1]]


def test_boxes_beside_their_image_are_noted(tmp_path: Path) -> None:
    image = {"id": 0, "file_name": "a.png", "width": 400, "height": 300}
    corners = put(tmp_path / "a.json", coco([{"bbox": [100, 200, 136, 236]}], images=[image]))
    assert "1 of 1 boxes have their center outside of their image" in read_coordinates(corners).notes[0]


def test_points_and_mirrored_boxes_of_coco(tmp_path: Path) -> None:
    marks = [
        {"bbox": [120.5, 300.25, 0, 0], "keypoints": [120.5, 300.25, 2]},
        {"keypoints": [7, 8, 2]},
        {"bbox": [20.5, 30.5, 0, 0]},
        {"bbox": [136, 236, -36, -36]},
        {"bbox": [0, 0, 0, 0]},
    ]
    picks = read_coordinates(put(tmp_path / "a.json", coco(marks)))
    assert picks.centers_yx.tolist() == [[300.25, 120.5], [8, 7], [30.5, 20.5], [218, 118]]
    assert picks.diameters_px is not None
    np.testing.assert_array_equal(picks.diameters_px, [np.nan, np.nan, np.nan, 36])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (coco([], images=[{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}]), "listed twice"),
        (coco([], images=[{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]), "two have this id"),
        (coco([{"image_id": 9, "bbox": [1, 2, 3, 4]}]), "image 9, which is not in its list"),
        (
            coco([{"segmentation": [[1, 2, 3, 4]]}]),
            "annotation 0: no box, and its outline is neither of polygons nor",
        ),
        (
            coco([{"segmentation": {"size": [9, 9], "counts": "a"}}]),
            "nor a mask .RLE. that can be read; add bbox",
        ),
        (coco([{"keypoints": [1, 2, 2, 3, 4, 2]}]), "annotation 0: neither a box .bbox., nor one point, nor"),
        (coco([], categories=[{"id": 1, "name": "ice"}, {"id": 1, "name": "virus"}]), "both the category 1"),
    ],
)
def test_coco_that_contradicts_itself_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_coordinates(put(tmp_path / "a.json", text))


def test_images_without_boxes_are_micrographs_without_particles(tmp_path: Path) -> None:
    path = put(tmp_path / "a.json", coco([{"bbox": [1, 2, 4, 4]}]))
    by_name = read_by_micrograph(path)
    assert {name: len(picks) for name, picks in by_name.items()} == {"a.png": 1, "b.png": 0}
    convert(path, tmp_path / "boxes", format="box")
    assert (tmp_path / "boxes" / "b.box").read_text() == ""
    convert(tmp_path / "boxes", tmp_path / "again.json", diameter_px=4)
    assert {name: len(picks) for name, picks in read_by_micrograph(tmp_path / "again.json").items()} == {
        "a": 1,
        "b": 0,
    }


def test_a_table_for_all_beside_those_of_each_micrograph(tmp_path: Path) -> None:
    for name in "ab":
        write_coordinates(tmp_path / f"{name}.csv", Picks.of([[1, 2], [3, 4]]))
    both = Picks.of([[1, 2], [3, 4]], micrograph=["Movies/a.mrc", "Movies/b.mrc"])
    write_coordinates(tmp_path / "particles.star", both)
    with pytest.raises(
        DataError, match=r"a\.csv and particles\.star both have picks of micrograph Movies/a\.mrc"
    ):
        read_coordinates(tmp_path)
    assert len(read_coordinates(tmp_path, format="csv")) == 4
    (tmp_path / "two").mkdir()
    for i, folder in enumerate(("x", "y")):
        write_coordinates(tmp_path / "two" / f"{i}.star", Picks.of([[1, 2]], micrograph=f"{folder}/a.mrc"))
    assert len(read_coordinates(tmp_path / "two")) == 2


def test_names_that_are_not_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "\udce9chant.box"
    path.write_text("1 2 3 4\n")
    with pytest.raises(DataError, match=r"\\udce9chant\.box: its name is not UTF-8; rename it"):
        read_coordinates(path)


def test_names_of_micrographs_are_text_of_one_line(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
    for name, reason in (
        ("a\nb", "a line break is in its name"),
        ("\udce9", "its name is not UTF-8; rename"),
    ):
        write_micrograph(tmp_path / "seed.mrc", pixels)
        (tmp_path / "seed.mrc").rename(tmp_path / f"{name}.mrc")
        for read in (read_micrograph, read_header):
            with pytest.raises(DataError, match=reason) as caught:
                read(tmp_path / f"{name}.mrc")
            assert str(caught.value).isprintable()
        for suffix in SUFFIX_OF.values():
            picks = Picks.of([[1, 2]], micrograph=f"{name}.mrc", diameters_px=9)
            with pytest.raises(DataError, match=reason):
                write_coordinates(tmp_path / f"a{suffix}", picks, micrograph_shapes=(9, 9))


def test_nothing_is_written_that_would_be_refused(tmp_path: Path) -> None:
    for picks in (Picks.of([[np.nan, 1]]), Picks.of([[1, 2]], scores=[np.inf])):
        with pytest.raises(DataError, match="is not a finite number"):
            write_coordinates(tmp_path / "a.star", picks)
    assert not list(tmp_path.iterdir())


def test_a_locale_that_is_not_utf_8_is_named_as_the_cause(tmp_path: Path) -> None:
    path = tmp_path / "é.box".encode().decode("ascii", "surrogateescape")
    with pytest.raises(DataError, match=r"é\.box: its name is not read as UTF-8; set PYTHONUTF8=1"):
        read_coordinates(path)
