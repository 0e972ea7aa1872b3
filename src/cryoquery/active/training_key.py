"""Keys of trainings: digests of everything that their results are functions of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryoquery.active.run import Context, Run
from cryoquery.network.device import DeviceConfig
from cryoquery.storage.provenance import digest

TRAINING_VERSION = 1
"""Raised whenever a change of this program makes the same training come out otherwise."""


def cache_inputs(context: Context) -> dict[str, Any]:
    """What the results of all trainings of an experiment are functions of."""
    configured = {
        name: part.model_dump(mode="json") if part else None
        for name, part in (
            ("model", context.model),
            ("training", context.training),
            ("pretraining", context.pretraining),
        )
    }
    return shared_inputs(
        context.protocol | configured | {"start_sha256": context.start_sha256},
        context.device,
        context.dataset.fingerprint,
        context.splits,
        [context.fabric.device.type, str(context.fabric.strategy.precision.precision)],
        [TRAINING_VERSION, torch.__version__],
    )


def shared_inputs(
    protocol: Mapping[str, Any],
    device: DeviceConfig,
    fingerprint: str,
    splits: Sequence[str],
    device_and_precision: Sequence[str],
    versions: Sequence[Any],
) -> dict[str, Any]:
    """`cache_inputs`, from the protocol of an experiment and what was noted when it began."""
    return {
        **{
            name: protocol.get(name)
            for name in ("model", "training", "pretraining", "start_sha256", "oracle")
        },
        "dataset": fingerprint,
        "device": device_and_precision,
        "how": device.model_dump(mode="json", include={"n_devices", "deterministic", "compile"}),
        "version": versions,
        "splits": splits,
    }


def training_key(run: Run, context: Context, sets: Sequence[NDArray[np.int64]]) -> str:
    """What a training's result is a function of, digested: equal keys mean equal weights."""
    return key_from(run, cache_inputs(context), sets)


def key_from(run: Run, shared: Mapping[str, Any], sets: Sequence[NDArray[np.int64]]) -> str:
    """The key of a training on the last of ``sets`` from what all of an experiment have in common."""
    continues = fine_tunes(run, sets, shared["training"]["fine_tune"])
    everything = {
        **shared,
        "labeled": sets[-1].tolist(),
        "parent": key_from(run, shared, sets[:-1]) if continues else None,
        "seed": run.seed,
    }
    if run.n_steps is not None:
        everything["n_steps"] = run.n_steps[len(sets) - 1]
    return digest(everything)


def fine_tunes(run: Run, sets: Sequence[NDArray[np.int64]], fine_tune: bool) -> bool:
    """Whether a training goes on from the weights of the one before, instead of from scratch."""
    return len(sets) > 1 and not run.from_scratch and fine_tune


def pretraining_key(shared: Mapping[str, Any], seed: int) -> str:
    """The key of a seed's pretraining from what all of an experiment have in common."""
    names = ("dataset", "model", "device", "how", "version", "pretraining")
    return digest({**{name: shared[name] for name in names}, "seed": seed})
