"""Keys of trainings: digests of everything that their results are functions of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryoquery.active.run import Context, Run
from cryoquery.network.device import DeviceConfig
from cryoquery.network.pretrain import PretrainingConfig
from cryoquery.storage.provenance import digest

TRAINING_VERSION = 1
"""Raised whenever a change of this program makes the same training come out otherwise."""


def cache_inputs(context: Context) -> dict[str, Any]:
    """What the results of all trainings of an experiment are functions of."""
    return {
        "dataset": context.dataset.fingerprint,
        "training": context.training.model_dump(mode="json"),
        "model": context.model.model_dump(mode="json"),
        "device": [context.fabric.device.type, str(context.fabric.strategy.precision.precision)],
        "how": how_trained(context.device),
        "version": [TRAINING_VERSION, torch.__version__],
        "splits": context.splits,
        **pretraining_inputs(context.pretraining),
        **label_noise_of(context.protocol),
    }


def training_key(run: Run, context: Context, sets: Sequence[NDArray[np.int64]]) -> str:
    """What a training's result is a function of, digested: equal keys mean equal weights."""
    return key_from(run, cache_inputs(context), sets)


def how_trained(device: DeviceConfig) -> dict[str, Any]:
    """What of a device's configuration a training's result depends on."""
    return device.model_dump(mode="json", include={"n_devices", "deterministic", "compile"})


def key_from(run: Run, shared: Mapping[str, Any], sets: Sequence[NDArray[np.int64]]) -> str:
    """The key of a training on the last of ``sets`` from what all of an experiment have in common."""
    continues = fine_tunes(run, sets, shared["training"]["fine_tune"])
    everything = {
        **shared,
        "labeled": sets[-1].tolist(),
        "parent": key_from(run, shared, sets[:-1]) if continues else None,
        "seed": run.seed,
    }
    return digest(everything)


def fine_tunes(run: Run, sets: Sequence[NDArray[np.int64]], fine_tune: bool) -> bool:
    """Whether a training goes on from the weights of the one before, instead of from scratch."""
    return len(sets) > 1 and not run.from_scratch and fine_tune


def label_noise_of(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What label noise adds to keys; empty without any, so that such keys stay as they were."""
    return {"oracle": protocol["oracle"]} if "oracle" in protocol else {}


def pretraining_inputs(pretraining: PretrainingConfig | None) -> dict[str, Any]:
    """What a pretraining adds to keys and records; without one nothing, so that these stay as they were."""
    return {} if pretraining is None else {"pretraining": pretraining.model_dump(mode="json")}


def pretraining_key(shared: Mapping[str, Any], seed: int) -> str:
    """The key of a seed's pretraining from what all of an experiment have in common."""
    names = ("dataset", "model", "device", "how", "version", "pretraining")
    return digest({**{name: shared[name] for name in names}, "seed": seed})
