"""The command doctor: facts, and a verdict that can be bad."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import typer
from tiers import second_tier

from cryoquery.cli import doctor as command
from cryoquery.cli.doctor import Computed, doctor
from cryoquery.network.device import DeviceConfig

GOOD = Computed("cpu", f1=0.82, entropy=0.025, loss=0.127, picking_seconds=1.0, training_seconds=9.0)


@pytest.mark.parametrize(
    ("name", "value"), [("f1", 0.7), ("f1", math.nan), ("entropy", 0.2), ("loss", 0.14), ("loss", math.nan)]
)
def test_a_device_that_computes_something_else_fails(
    name: str, value: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def computed(device: DeviceConfig) -> Computed:
        return GOOD if device.precision == "32-true" else replace(GOOD, device="abacus", **{name: value})

    monkeypatch.setattr(command, "_computed", computed)
    with pytest.raises(typer.Exit) as ended:
        doctor()
    assert ended.value.exit_code == 1
    said = capsys.readouterr().out
    assert "FAILED: this device does not compute what a CPU does" in said
    assert "memory" in said
    assert "precision" in said


@second_tier
def test_this_machine_passes(capsys: pytest.CaptureFixture[str]) -> None:
    doctor()
    said = capsys.readouterr().out
    assert "passed" in said
    assert "cpu, float32: F1 0.8" in said
