"""How pickers are scored beside each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_comparisons import BENCHMARKS, load


def test_f1_at_the_own_threshold_and_at_that_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    peers = load("peers")
    truth = np.array([[10.0, 10], [50, 50]])
    data = peers.DataSet("toy", (Path("a"), Path("b")), (truth, truth), 20.0)
    good = peers.Found(truth, np.array([0.9, 0.8]), np.array([True, True]))
    noisy = peers.Found(
        np.vstack([truth, [[90.0, 90]]]), np.array([0.9, 0.8, 0.3]), np.array([True, True, True])
    )
    found = peers.scores(data, [good, noisy])
    assert found["default"] == pytest.approx((1 + 4 / 5) / 2)
    assert found["others"] >= found["default"]
    assert found["average_precision"] == pytest.approx(1)
    nothing = peers.Found(np.empty((0, 2)), np.empty(0), np.empty(0, dtype=bool))
    assert set(peers.scores(data, [nothing, nothing]).values()) == {0.0}
