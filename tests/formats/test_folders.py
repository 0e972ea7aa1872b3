from __future__ import annotations

from pathlib import Path

import pytest

from cryoquery.errors import DataError
from cryoquery.formats import Picks, micrograph_files, read_by_micrograph, write_coordinates


def litter(folder: Path) -> None:
    """What lies in a folder of micrographs and is none: resource forks, other hidden files, folders."""
    for name in ("._a.mrc", ".hidden.tif", ".DS_Store"):
        (folder / name).write_bytes(b"\x00\x05\x16\x07")
    (folder / "movies.mrc").mkdir()


def test_hidden_files_and_folders_are_no_micrographs(tmp_path: Path) -> None:
    litter(tmp_path)
    with pytest.raises(DataError, match="no micrographs in it"):
        micrograph_files(tmp_path)
    for name in ("b.MRC", "a.mrc.gz", "c.eer", "d.txt"):
        (tmp_path / name).write_bytes(b"1")
    assert [path.name for path in micrograph_files(tmp_path)] == ["a.mrc.gz", "b.MRC", "c.eer"]


def test_a_link_that_leads_nowhere_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.mrc").symlink_to("elsewhere.mrc")
    assert micrograph_files(tmp_path) == [tmp_path / "a.mrc"]


SOME = Picks.of([[10, 20], [30, 40]], micrograph=["x/a.mrc", "x/a.mrc"], diameters_px=8)


def counts(path: Path) -> dict[str, int]:
    return {name: len(picks) for name, picks in read_by_micrograph(path).items()}


@pytest.mark.parametrize("file_format", ["box", "cbox", "csv", "star"])
def test_files_of_a_folder_without_picks_are_micrographs_without_any(
    tmp_path: Path, file_format: str
) -> None:
    shapes = {"x/a.mrc": (50, 60), "x/b.mrc": (50, 60)}
    write_coordinates(tmp_path / "picks", SOME, format=file_format, micrograph_shapes=shapes)
    (tmp_path / "picks" / "._c.box").write_bytes(b"")
    a, b = ("x/a.mrc", "x/b.mrc") if file_format == "star" else ("a", "b")
    assert counts(tmp_path / "picks") == {a: 2, b: 0}
    if file_format == "star":
        assert counts(tmp_path / "picks" / "autopick.star") == {a: 2, b: 0}


def test_a_file_without_picks_is_of_its_own_micrograph_where_it_could_name_no_other(tmp_path: Path) -> None:
    for name, found in (("b_autopick.box", {"b": 0}), ("all.star", {}), ("all.txt", {})):
        write_coordinates(tmp_path / name, SOME.rows(slice(0, 0)))
        assert counts(tmp_path / name) == found
    write_coordinates(tmp_path / "b.csv", SOME)
    assert counts(tmp_path / "b.csv") == {"b": 2}
    write_coordinates(tmp_path / "all.star", SOME)
    assert counts(tmp_path / "all.star") == {"x/a.mrc": 2}
