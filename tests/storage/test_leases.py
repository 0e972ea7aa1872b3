from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from leases_of_others import write_lease

from cryoquery.errors import ExperimentError
from cryoquery.storage import leases as leases
from cryoquery.storage.leases import LeaseObserver, Owner, alone, leased, take_away, try_lease

HOLDS = "from pathlib import Path; from cryoquery.storage.leases import try_lease; import sys, time\n"
HOLDS += "lease = try_lease(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"


def elsewhere() -> Owner:
    return replace(Owner.myself(), host="another-machine")


def test_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "c"
    first = try_lease(path)
    assert first is not None
    assert try_lease(path) is None
    first.release()
    assert not path.exists()
    second = try_lease(path)
    assert second is not None
    second.release()


def test_a_killed_owner_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with subprocess.Popen([sys.executable, "-c", HOLDS, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert try_lease(path) is None
        assert not LeaseObserver(path).is_abandoned()
        process.kill()
        process.wait()
    started = time.monotonic()
    with leased(path) as mine:
        assert mine
    assert time.monotonic() - started < 10


def test_a_process_number_that_was_used_again_fools_nobody() -> None:
    assert not Owner.myself().is_gone()
    assert replace(Owner.myself(), started="12").is_gone()
    assert not elsewhere().is_gone(), "it cannot be seen from here"


def test_an_owner_elsewhere_is_gone_when_its_counter_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "SILENT_SECONDS", 0.4)
    path = tmp_path / "c"
    watch = LeaseObserver(path)
    for beat in range(6):
        write_lease(path, elsewhere(), beat=beat)
        assert not watch.is_abandoned(), "it beats"
        time.sleep(0.1)
    assert watch.is_alive()
    time.sleep(0.6)
    assert watch.is_abandoned()
    with leased(path) as mine:
        assert mine


def test_waiting_ends_when_what_was_waited_for_is_there(tmp_path: Path) -> None:
    told: list[str] = []
    write_lease(tmp_path / "c", Owner.myself())
    threading.Timer(0.3, (tmp_path / "done").touch).start()
    with leased(tmp_path / "c", settled=(tmp_path / "done").exists, waiting=told.append) as mine:
        assert not mine
    assert told == [str(Owner.myself())]
    assert (tmp_path / "c").exists(), "the other one still has it"


def test_a_claim_that_changed_hands_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "c"
    write_lease(path, elsewhere(), token="new")
    take_away(path, token="old")
    assert "new" in path.read_text()
    take_away(path, token="new")
    assert not list(tmp_path.iterdir())


def test_a_claim_that_was_taken_over_is_not_removed_by_its_first_owner(tmp_path: Path) -> None:
    path = tmp_path / "c"
    lease = try_lease(path)
    assert lease is not None
    path.unlink()
    write_lease(path, elsewhere(), token="new")
    lease.release()
    assert "new" in path.read_text()


def test_an_owner_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.05)
    lease = try_lease(tmp_path / "c")
    assert lease is not None
    watch = LeaseObserver(tmp_path / "c")
    watch.is_abandoned()
    before = (tmp_path / "c").read_text()
    time.sleep(0.5)
    assert (tmp_path / "c").read_text() != before
    lease.release()
    assert not any("lease" in thread.name for thread in threading.enumerate())


def test_alone_refuses_and_names_who_is_there(tmp_path: Path) -> None:
    refusal = rf"process {os.getpid()} on .* is running this experiment"
    with alone(tmp_path / "e"), pytest.raises(ExperimentError, match=refusal):
        alone(tmp_path / "e").__enter__()
    assert not list((tmp_path / "e").iterdir())
    (tmp_path / "f").touch()
    with pytest.raises(ExperimentError, match="is a file"):
        alone(tmp_path / "f").__enter__()


@pytest.mark.parametrize("content", ["", "     3", "0\n{", "0\nnull\n"])
def test_a_claim_without_a_readable_owner_is_waited_for_and_then_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(leases, "SILENT_SECONDS", 0.2)
    (tmp_path / "c").write_text(content)
    assert not LeaseObserver(tmp_path / "c").is_abandoned()
    with leased(tmp_path / "c") as mine:
        assert mine
