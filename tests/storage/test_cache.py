from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from cryoquery.storage.cache import Cache, SignalCache, SignalRecord
from cryoquery.storage.leases import Owner

KEY = "ab12"
MAKES_SLOWLY = """
import os, sys, time
from pathlib import Path
from cryoquery.storage.cache import Cache

def make(folder):
    (Path(sys.argv[1]) / f"made-by-{os.getpid()}").touch()
    (folder / "model.pt").write_bytes(b"first half, ")
    print("half", flush=True)
    time.sleep(float(sys.argv[2]))
    (folder / "model.pt").write_bytes(b"first half, second half")

print(Cache(Path(sys.argv[1]) / "cache").obtain("ab12", make)[1], flush=True)
"""


def make(folder: Path) -> None:
    (folder / "model.pt").write_bytes(b"first half, second half")


def refuse(folder: Path) -> None:
    raise AssertionError("made again")


def start(folder: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAKES_SLOWLY, folder, str(seconds)], stdout=subprocess.PIPE, text=True
    )


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.find(KEY) is None
    entry, made = cache.obtain(KEY, make)
    assert made
    assert (entry, False) == cache.obtain(KEY, refuse)
    assert cache.has(KEY)


def test_processes_that_want_the_same_make_it_once(tmp_path: Path) -> None:
    processes = [start(tmp_path, 1.0) for _ in range(3)]
    said = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sorted(words[-1] for words in said) == ["False", "False", "True"]
    assert len(list(tmp_path.glob("made-by-*"))) == 1


def test_a_half_written_entry_is_never_used(tmp_path: Path) -> None:
    process = start(tmp_path, 60)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    cache = Cache(tmp_path / "cache")
    assert cache.find(KEY) is None
    entry, made = cache.obtain(KEY, make)
    assert made
    assert (entry / "model.pt").read_bytes() == b"first half, second half"
    assert {path.name for path in entry.parent.iterdir()} == {KEY}, "nothing half-written stays"


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(AssertionError, match="made again"):
        cache.obtain(KEY, refuse)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert cache.obtain(KEY, make)[1]


@pytest.mark.parametrize("harm", ["change", "shorten", "remove", "manifest"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, harm: str) -> None:
    cache = Cache(tmp_path)
    entry, _ = cache.obtain(KEY, make)
    path = entry / ("entry.json" if harm == "manifest" else "model.pt")
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes({"change": b"x" * 23, "shorten": b"first", "manifest": b"{"}[harm])
    assert cache.find(KEY) is None
    entry, made = cache.obtain(KEY, make)
    assert made
    assert (entry / "model.pt").read_bytes() == b"first half, second half"


def record(n: int, first: int = 0) -> SignalRecord:
    values = np.arange(first, first + n, dtype=np.float64)
    return SignalRecord(
        values.astype(np.int64), {"entropy": values / 3, "features": np.ones((n, 4), np.float32)}
    )


def test_signals_come_back_to_the_bit(tmp_path: Path) -> None:
    cache = SignalCache(tmp_path / "signals")
    assert cache.load() == []
    for some in (record(5), record(3, first=5)):
        cache.save(some)
    found = cache.load()
    assert [len(some.indices) for some in found] == [5, 3]
    assert np.array_equal(found[1].values["entropy"], record(3, first=5).values["entropy"])


def test_damaged_signals_are_thrown_away(tmp_path: Path) -> None:
    cache = SignalCache(tmp_path / "signals")
    cache.save(record(5))
    cache.save(record(3, first=5))
    path = min(cache.folder.glob("*.npz"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert [some.indices.tolist() for some in cache.load()] == [[5, 6, 7]]
    assert not path.exists()


def test_a_damaged_entry_with_the_claim_of_a_dead_process_is_made_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    entry, _ = cache.obtain(KEY, make)
    (entry / "model.pt").write_bytes(b"x")
    gone = replace(Owner.myself(), started="1")
    lease = entry.with_name(f"{KEY}.lease")
    lease.write_text(f"{0:12d}\n{json.dumps({'token': 'dead', **asdict(gone)})}\n")
    entry, made = cache.obtain(KEY, make)
    assert made
    assert not lease.exists()


def test_what_one_left_that_was_killed_on_its_way_home_is_removed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    entry, _ = cache.obtain(KEY, make)
    gone = replace(Owner.myself(), started="1")
    lease = entry.with_name(f"{KEY}.lease")
    lease.write_text(f"{0:12d}\n{json.dumps({'token': 'dead', **asdict(gone)})}\n")
    cache.checkpoint(KEY).write_bytes(b"large")
    cache.obtain(KEY, refuse)
    assert {path.name for path in entry.parent.iterdir()} == {KEY}
