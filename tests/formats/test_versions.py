from __future__ import annotations

from pathlib import Path

import pytest

from cryoquery.formats.versions import one_version_each


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["a", "a_PS", "a_noDW", "a_shr"], ["a"]),
        (["a", "a_DW", "a_DWS"], ["a_DW"]),
        (["x_patch_aligned", "x_patch_aligned_doseweighted"], ["x_patch_aligned_doseweighted"]),
        (["a_DW", "a_DW_denoised", "a_DW_bin4"], ["a_DW"]),
        (["a_bin2", "a_bin4"], ["a_bin2"]),
        (["a_noDW", "a_noDW_PS", "b_PS"], ["a_noDW", "b_PS"]),
        (["a_noDW", "b_noDW"], ["a_noDW", "b_noDW"]),
        (["grid_ps1", "grid_ps2", "shr_1"], ["grid_ps1", "grid_ps2", "shr_1"]),
    ],
)
def test_of_several_versions_of_a_field_one_is_taken(names: list[str], taken: list[str]) -> None:
    paths = [Path(f"Movies/{name}.mrc") for name in names]
    kept, notes = one_version_each(paths)
    assert [path.stem for path in kept] == taken
    left_out = [name for name in names if name not in taken]
    assert len(notes) == bool(left_out)
    assert all(f"{name}.mrc" in notes[0] for name in left_out[:3])


def test_versions_in_other_folders_are_other_micrographs() -> None:
    paths = [Path("x/a.mrc"), Path("y/a_noDW.mrc")]
    assert one_version_each(paths) == (paths, [])
