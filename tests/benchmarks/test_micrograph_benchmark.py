from __future__ import annotations

from pathlib import Path

import pytest
from tiers import second_tier

pytestmark = second_tier

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_it_runs_at_toy_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import micrographs

    sizes = micrographs.Sizes(side=300, diameter=60, micrographs=2, tile=64, base_channels=2, workers=2)
    monkeypatch.setattr(micrographs, "N_ROUNDS", 1)
    paths = micrographs.write_examples(tmp_path, sizes, 2)
    assert min(micrographs.time_import(paths, tmp_path, sizes)) > 0
    picker = micrographs.make_picker(sizes)
    assert min(micrographs.time_picking(picker, paths, tmp_path, sizes)) > 0
    rate, shape = micrographs.time_network(picker, paths[0], sizes)
    assert rate > 0
    assert shape == (90, 90)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux tells the peak of a process")
def test_peak_memory_in_mib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import micrographs

    sizes = micrographs.Sizes(side=300, diameter=60, tile=64, base_channels=2, workers=2)
    paths = micrographs.write_examples(tmp_path, sizes, 1)
    assert 10 < micrographs.peak_of_import(paths, tmp_path / "d", sizes) < 1e5
    assert 10 < micrographs.peak_of_picking(paths, tmp_path / "p.star", sizes) < 1e5
