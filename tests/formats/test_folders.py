from __future__ import annotations

from pathlib import Path

import pytest

from cryoquery.errors import DataError
from cryoquery.formats import micrograph_files


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
