"""The whole protocol in small: six strategies, both baselines, three seeds, ten iterations, two channels."""

from __future__ import annotations

from pathlib import Path

from cryoquery.data.dataset import Dataset

SAMPLING = ("uncertainty", "entropy", "margin", "diversity", "hybrid", "random")
SEEDS = (42, 43, 44)

SMALL_PROTOCOL = {
    "strategies": list(SAMPLING),
    "baselines": ["full_supervision", "progressive_supervised"],
    "seeds": list(SEEDS),
    "schedule": {"fractions": [i / 10 for i in range(1, 11)]},
    "model": {"base_channels": 2},
    "training": {"initial_epochs": 2, "epochs": 1},
    "workers": 1,
}


def small(data: Dataset, out: Path, **changes: object) -> dict:
    return SMALL_PROTOCOL | {"dataset": str(data.path), "out": str(out)} | changes


def iterations(experiment: Path) -> dict[str, Path]:
    return {
        str(path.parent.relative_to(experiment)): path.parent for path in experiment.rglob("metrics.json")
    }
