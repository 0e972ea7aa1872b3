"""Four short runs: enough for executors to share out, and what is compared of their results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from cryoquery.data.dataset import Dataset
from cryoquery.network.checkpoint import load_weights

FOUR_RUNS = {
    "strategies": ["entropy", "margin", "uncertainty"],
    "baselines": ["full_supervision"],
    "seeds": [1],
    "schedule": {"counts": [2, 4, 6]},
    "model": {"base_channels": 2},
    "training": {"initial_epochs": 2, "epochs": 1},
    "device": {"threads": 1},
}


def four_runs(dataset: Dataset, out: Path, **changes: Any) -> dict[str, Any]:
    return FOUR_RUNS | {"dataset": str(dataset.path), "out": str(out)} | changes


def results(experiment: Path) -> dict[str, object]:
    """Everything that describes a result, by its place in the experiment."""
    found: dict[str, object] = {}
    for path in sorted(experiment.glob("*/**/iteration_*/*")):
        name = str(path.relative_to(experiment))
        if path.name == "metrics.json":
            found[name] = json.loads(path.read_text()) | {"seconds": 0, "reused": False}
        elif path.suffix == ".json":
            found[name] = json.loads(path.read_text())
        elif path.name == "model.pt":
            weights = load_weights(path)[0]
            found[name] = {key: value.numpy().tobytes() for key, value in weights.items()}
        else:
            with np.load(path) as file:
                found[name] = {key: file[key].tobytes() for key in file.files}
    return found
