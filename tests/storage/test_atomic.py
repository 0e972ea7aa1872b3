from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cryoquery.errors import DataError, explain
from cryoquery.formats import write_coordinates
from cryoquery.storage.atomic import read_json, staged_directory

WRITES_AND_DIES = """
import os, sys
from pathlib import Path
from cryoquery.storage.atomic import write_file
with write_file(Path(sys.argv[1])) as stream:
    stream.write(b"half")
    os._exit(9)
"""


def test_everything_in_a_folder_is_on_the_disk_before_it_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = set()
    sync = os.fsync

    def remember(descriptor: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()).partition(".partial")[2])
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", remember)
    with staged_directory(tmp_path / "p") as staged:
        (staged / "dataset" / "deep").mkdir(parents=True)
        (staged / "dataset" / "deep" / "file").touch()
    assert {"", "/dataset", "/dataset/deep", "/dataset/deep/file"} <= synced


def test_an_export_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    path = tmp_path / "picks.star"
    killed = subprocess.run([sys.executable, "-c", WRITES_AND_DIES, path], check=False)
    assert killed.returncode == 9
    assert len(list(tmp_path.glob(".*.partial"))) == 1
    write_coordinates(path, [[1.0, 2.0]])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "9" * 5000, "NaN", "[Infinity]", "-Infinity", "{", '"\ud800"', ""]
)
def test_what_is_not_json_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match=r"a\.json: cannot be read as JSON"):
        read_json(path)


def test_names_that_are_not_utf8_are_a_users_mistake() -> None:
    name = os.fsdecode(b"mic_\xff.mrc")
    with pytest.raises(UnicodeEncodeError) as raised:
        name.encode()
    assert (
        explain(raised.value) == r"'mic_\udcff.mrc': a name that is not UTF-8; rename the file, and run again"
    )
    with pytest.raises(UnicodeEncodeError) as other:
        "é".encode("ascii")
    assert explain(other.value) is None
