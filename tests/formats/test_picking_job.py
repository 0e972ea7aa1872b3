"""Folders of RELION's picking jobs and STAR files of micrographs, as RELION leaves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoquery.data.layouts.match import coordinates_in
from cryoquery.errors import DataError
from cryoquery.formats import (
    Optics,
    Picks,
    micrograph_files,
    read_by_micrograph,
    read_coordinates,
    write_coordinates,
    write_micrograph,
)
from cryoquery.formats.convert import convert
from cryoquery.formats.micrograph_star import read_micrograph_star

PICKS = "data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n{} 2\n"
NAMES = ("MotionCorr/job002/Movies/x/a.mrc", "MotionCorr/job002/Movies/x/a_1.mrc", "Other/b.mrc")
GROUPS = """data_optics

loop_
_rlnOpticsGroupName
_rlnOpticsGroup
_rlnMicrographPixelSize
_rlnVoltage
_rlnSphericalAberration
one 1 1.5 300 2.7
two 2 1.5 200 1.4

data_micrographs

loop_
_rlnMicrographName
_rlnOpticsGroup
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job whose files of picks end in ``_log.star``; what else tells is left to the test."""
    monkeypatch.chdir(tmp_path)
    folder = Path("AutoPick/job004")
    for i, place in enumerate(("Movies/x/a", "Movies/x/a_1", "Other/b")):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{place}_log.star").write_text(PICKS.format(i))
    (folder / "job.star").write_text("data_job\n\n_rlnJobType 4\n")
    Path("mics.star").write_text(GROUPS + "".join(f"{n} {i % 2 + 1}\n" for i, n in enumerate(NAMES)))
    return folder


def rows(folder: Path) -> dict[str, float]:
    return {name: float(picks.centers_yx[0, 1]) for name, picks in read_by_micrograph(folder).items()}


def test_the_list_of_suffixes_says_which_files_are_picks_and_of_what(job: Path) -> None:
    (job / "coords_suffix_log.star").write_text("mics.star\n")
    assert rows(job) == dict(zip(NAMES, (0, 1, 2), strict=True))
    assert rows(job / "coords_suffix_log.star") == rows(job)
    assert coordinates_in(job).keys() == {"a", "a_1", "b"}
    (job / "Other" / "b_log.star").write_bytes(b"")
    assert not len(read_by_micrograph(job)[NAMES[2]])


def test_the_summary_of_relion_autopick_does_so_too(job: Path) -> None:
    summary = "data_\n\nloop_\n_rlnMicrographName\n_rlnGroupNrParticles\n"
    (job / "summary.star").write_text(summary + "".join(f"{name} 1\n" for name in NAMES))
    assert rows(job) == dict(zip(NAMES, (0, 1, 2), strict=True))


def test_imported_coordinates_name_no_micrographs(job: Path) -> None:
    """RELION 3.1 writes the pattern that was imported into the list of suffixes."""
    (job / "coords_suffix_log.star").write_text("Movies/*.mrc\n")
    assert rows(job) == {"a_log": 0, "a_1_log": 1, "b_log": 2}


def test_other_files_beside_a_list_do_not_count(job: Path) -> None:
    listed = "data_coordinate_files\n\nloop_\n_rlnMicrographName\n_rlnMicrographCoordinates\n"
    (job / "autopick.star").write_text(f"{listed}{NAMES[2]} AutoPick/job004/Other/b_log.star\n")
    assert rows(job) == {NAMES[2]: 2}
    (job / "Other" / "b_log.star").unlink()
    with pytest.raises(DataError, match="run from the folder of the RELION project"):
        read_coordinates(job)


def test_an_empty_file_of_a_picker_is_a_micrograph_without_picks(tmp_path: Path) -> None:
    (tmp_path / "a_autopick.star").write_bytes(b"")
    (tmp_path / "b_autopick.star").write_text(PICKS.format(1))
    assert {name: len(picks) for name, picks in read_by_micrograph(tmp_path).items()} == {"a": 0, "b": 1}


def test_each_pick_gets_the_optics_group_of_its_micrograph(job: Path) -> None:
    star = read_micrograph_star("mics.star")
    assert (star.names, star.groups, star.pixel_size) == (NAMES, ("1", "2", "1"), 1.5)
    picks = Picks.of([[1, 2], [3, 4]], micrograph=["a_1", "b.mrc"])
    write_coordinates("p.star", picks, star=star)
    again = read_coordinates("p.star")
    assert again.extra["rlnOpticsGroup"].tolist() == ["2", "1"]
    assert again.optics["rlnVoltage"].tolist() == ["300", "200"]
    assert again.pixel_size == 1.5
    with pytest.raises(DataError, match="'c' is none of the 3 files"):
        star.with_optics(picks.replace(micrographs=np.array(["c", "b"], dtype=object)))


def test_names_are_those_of_the_micrographs_given(job: Path) -> None:
    for name in NAMES:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write_micrograph(name, np.arange(20.0).reshape(4, 5), pixel_size=1.5)
    assert micrograph_files("mics.star") == [Path(name) for name in NAMES]
    boxes = Path("boxes")
    boxes.mkdir()
    for stem in ("a", "a_1", "b"):
        write_coordinates(boxes / f"{stem}.box", Picks.of([[1, 2]], diameters_px=2))
    for given in ("mics.star", NAMES):
        convert(boxes, "out.star", micrographs=given)
        assert read_coordinates("out.star").micrographs.tolist() == list(NAMES)
        convert(boxes, f"job_{len(given)}", micrographs=given)
        assert list(read_by_micrograph(Path(f"job_{len(given)}"))) == list(NAMES)
    assert Path("job_9/coords_suffix_autopick.star").read_text() == "mics.star\n"
    assert not Path("job_9/micrographs.star").exists()
    convert(boxes, "out.star", micrographs=NAMES, optics=Optics(200.0))
    assert read_coordinates("out.star").optics["rlnMicrographPixelSize"].tolist() == ["1.500000"], (
        "of headers"
    )
    named = Picks.of([[1, 2]], micrograph="b")
    write_coordinates("named.star", named)
    assert convert("named.star", "o.star", micrographs="mics.star").micrographs.tolist() == ["b"], "as read"
    renamed = convert("named.star", "o.star", micrographs="mics.star", client="relion")
    assert renamed.micrographs.tolist() == [NAMES[2]]


def test_optics_are_complete_or_not_there(tmp_path: Path) -> None:
    path, picks = tmp_path / "a.star", Picks.of([[1, 2]], micrograph="a.mrc")
    for optics, pixel_size in ((None, 1.5), (Optics(300.0), None), (None, None)):
        write_coordinates(path, picks, optics=optics, pixel_size=pixel_size)
        assert "data_optics" not in path.read_text()
        assert read_coordinates(path).pixel_size == pixel_size
    write_coordinates(path, picks, optics=Optics(300.0), pixel_size=1.5)
    assert read_coordinates(path).optics["rlnVoltage"].tolist() == ["300.000000"]
    with pytest.raises(DataError, match=r"cryosparc needs a table of optics groups; give --voltage"):
        write_coordinates(path, picks, pixel_size=1.5, client="cryosparc")


@pytest.mark.parametrize(("client", "y"), [(None, 3), ("cryosparc", 3), ("relion", 96)])
def test_rows_of_tiff_are_counted_as_the_client_does(tmp_path: Path, client: str | None, y: float) -> None:
    picks = Picks.of([[3, 4], [3, 4]], micrograph=["m/a.tif", "m/b.mrc"])
    out = tmp_path / "job"
    write_coordinates(out, picks, micrograph_shapes=(100, 50), client=client)  # type: ignore[arg-type]
    assert np.asarray(read_coordinates(out)).tolist() == [[y, 4], [3, 4]]
    with pytest.raises(DataError, match=r"relion reads m/a\.tif from the last row on.*give --micrographs"):
        write_coordinates(tmp_path / "b", picks, client="relion")
