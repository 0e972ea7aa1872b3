from __future__ import annotations

from pathlib import Path

import pytest

from cryoquery.errors import DataError
from cryoquery.project.conditions import read_conditions


def table(folder: Path, *lines: str) -> Path:
    path = folder / "ctf.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("header", "value", "defocus_um"),
    [
        ("defocus", "2.1", 2.1),
        ("defocus", "-2.1", 2.1),
        ("defocus", "21000", 2.1),
        ("Defocus", "-21000", 2.1),
        ("defocus_um", "2.1", 2.1),
        ("Defocus (µm)", "2.1", 2.1),
        ("defocus_angstrom", "21000", 2.1),
        ("defocus_angstrom", "90", 0.009),
        ("Defocus [Å]", "21000", 2.1),
        ("rlnDefocusU", "21000", 2.1),
    ],
)
def test_the_unit_of_a_defocus(tmp_path: Path, header: str, value: str, defocus_um: float) -> None:
    rows = read_conditions(table(tmp_path, f"micrograph,{header}", f"a.mrc,{value}", "b.mrc,")).rows
    assert rows["a.mrc"].defocus_um == pytest.approx(defocus_um)
    assert rows["b.mrc"].defocus_um is None


def test_both_axes_of_a_defocus_are_averaged(tmp_path: Path) -> None:
    for rows in (("20000,22000", "10000,"), ("2.0,2.2", "1.0,")):
        path = table(tmp_path, "micrograph,defocusU,defocusV", f"a,{rows[0]}", f"b,{rows[1]}")
        found = read_conditions(path).rows
        assert [found[name].defocus_um for name in "ab"] == pytest.approx([2.1, 1.0])


def test_a_zero_of_a_fit_that_failed_is_of_any_unit(tmp_path: Path) -> None:
    rows = read_conditions(table(tmp_path, "micrograph,defocus", "a.mrc,21000", "b.mrc,0")).rows
    assert [rows[name].defocus_um for name in ("a.mrc", "b.mrc")] == [2.1, 0.0]


def test_a_column_of_two_units_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "micrograph,defocus", "a.mrc,2.1", "b.mrc,21000")
    with pytest.raises(DataError, match=r"ctf\.csv: defocus=2\.1 and 21000.*defocus_um or defocus_angstrom"):
        read_conditions(path)


def test_a_micrograph_that_is_named_twice_is_refused_where_the_rows_differ(tmp_path: Path) -> None:
    path = table(
        tmp_path, "micrograph,defocus_um,group", "a.mrc,1.5,left", "b.mrc,1.5,left", "a.mrc,1.5,right"
    )
    with pytest.raises(DataError, match=r"ctf\.csv: .*'a\.mrc' twice.*keep one"):
        read_conditions(path)
    path = table(tmp_path, "micrograph,defocus_um,ice", "a.mrc,1.5,", "b.mrc,1.5,", "a.mrc,1.50,nan")
    assert read_conditions(path).rows["a.mrc"].defocus_um == 1.5


def test_two_names_of_one_micrograph_are_refused_where_the_rows_differ(tmp_path: Path) -> None:
    files = [tmp_path / "a.mrc"]
    path = table(tmp_path, "micrograph,defocus_um", "job002/a.mrc,1.5", "./job003/a.mrc,2.5")
    with pytest.raises(
        DataError, match=r"ctf\.csv: 'job002/a\.mrc' and '\./job003/a\.mrc' .*a\.mrc.*keep one"
    ):
        read_conditions(path).match(files)
    path = table(tmp_path, "micrograph,defocus_um", "job002/a.mrc,1.5", "job003/a.mrc,1.5")
    assert read_conditions(path).match(files)[files[0]].defocus_um == 1.5


def test_the_row_of_the_right_folder_is_taken(tmp_path: Path) -> None:
    path = table(tmp_path, "micrograph,defocus_um", "left\\a.mrc,1.5", "./right/a.mrc,2.5")
    for folder, defocus_um in (("left", 1.5), ("right", 2.5)):
        (only,) = read_conditions(path).match([tmp_path / folder / "a.mrc"]).values()
        assert only.defocus_um == defocus_um


def test_empty_lines_of_a_spreadsheet_name_nothing(tmp_path: Path) -> None:
    path = table(tmp_path, "micrograph,defocus_um", "a.mrc,1.5", ",", " , ")
    assert list(read_conditions(path).rows) == ["a.mrc"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("micrograph,defocus_um\na,1.2\nb,1.5\n", "utf-16"),
        ("micrograph;defocus_um\na;1,2\nb;1,5\n", "utf-8"),
        ('"micrograph"\t"defocus_um"\n"1"\t"a"\t1.2\n"2"\t"b"\t1.5\n', "utf-8-sig"),
    ],
)
def test_tables_of_any_dialect(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "ctf.csv"
    path.write_bytes(text.encode(encoding))
    assert {name: row.defocus_um for name, row in read_conditions(path).rows.items()} == {"a": 1.2, "b": 1.5}


@pytest.mark.parametrize("value", ["inf", "-inf", "1e999", "1_000"])
def test_what_is_no_finite_number_is_refused(tmp_path: Path, value: str) -> None:
    path = table(tmp_path, "micrograph,defocus_um,ice", "a.mrc,1.5,1", f"b.mrc,{value},2")
    with pytest.raises(DataError, match=r"ctf\.csv: row 2, column defocus_um: .* is not a number; correct"):
        read_conditions(path)
