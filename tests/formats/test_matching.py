from __future__ import annotations

from pathlib import Path

import pytest

from cryoquery.errors import DataError
from cryoquery.formats import match_micrographs, micrograph_key

UID = "004823749823748923748"


@pytest.mark.parametrize(
    "name",
    [
        "mic_07",
        "mic_07.mrc",
        "Movies/mic_07.tiff",
        "C:\\data\\mic_07.MRC",
        f"J12/motioncorrected/{UID}_mic_07_patch_aligned_doseweighted.mrc",
        f"{UID}9_mic_07.mrc",
        "AutoPick/job007/Movies/mic_07_autopick.star",
        "mic_07_manualpick.star",
        "mic_07_DW.mrc",
        "mic_07_fractions_aligned_noDW.mrc.gz",
        "mic_07.cbox",
        "mic_07_particles.star",
    ],
)
def test_names_of_one_micrograph_match_it(name: str) -> None:
    micrographs = [Path("data/mic_06.mrc"), Path("data/mic_07.mrc"), Path("data/mic_070.mrc")]
    assert match_micrographs([name], micrographs) == {name: micrographs[1]}
    assert micrograph_key(name) == "mic_07"


@pytest.mark.parametrize("name", ["_autopick", "May08_03.05.02.bin", UID, f"{UID}_", "a", "_DW.mrc"])
def test_a_key_is_never_empty(name: str) -> None:
    assert micrograph_key(name)


def test_dots_within_a_name_stay() -> None:
    names = ["May08_03.05.02.bin.mrc", "May08_03.05.02.bin", "May08_03.05.02.bin.star"]
    path = Path("May08_03.05.02.bin.jpg")
    assert match_micrographs(names, [path, "May08_03.05.03.bin.jpg"]) == dict.fromkeys(names, path)


def test_equal_stems_win_over_stripped_ones() -> None:
    paths = [Path("a.mrc"), Path("a_DW.mrc")]
    assert match_micrographs(["x/a_DW.tif", "a"], paths) == {"x/a_DW.tif": paths[1], "a": paths[0]}


def test_folders_tell_equal_names_apart() -> None:
    paths = [Path("data/grid1/a.mrc"), Path("data/grid2/a.mrc")]
    found = match_micrographs(["Movies/grid2/a.mrc", "grid1/a_autopick.star"], paths)
    assert list(found.values()) == [paths[1], paths[0]]
    with pytest.raises(DataError, match=r"'a' may be any of 2 files: data/grid1/a.mrc, data/grid2/a.mrc"):
        match_micrographs(["a"], paths)


def test_stripping_that_makes_names_equal_is_ambiguous() -> None:
    with pytest.raises(DataError, match="any of 2 files"):
        match_micrographs(["a_autopick.star"], ["a_DW.mrc", "a_sum.mrc"])


def test_missing_names_list_the_nearest() -> None:
    paths = [f"mic_{i:03d}.mrc" for i in range(200)]
    with pytest.raises(
        DataError, match=r"'mic_1234' \(and 1 more\) is none of the 200 files given"
    ) as caught:
        match_micrographs(["mic_001", "mic_1234", "other"], paths)
    assert "mic_123.mrc" in str(caught.value)
    assert match_micrographs(["mic_001", "other"], paths, allow_missing=True) == {
        "mic_001": Path("mic_001.mrc")
    }
    with pytest.raises(DataError, match="without the name"):
        match_micrographs([""], paths)
    with pytest.raises(DataError, match="none of the 0 files given"):
        match_micrographs(["a"], [])
