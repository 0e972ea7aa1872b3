"""What trainings begin with: weights drawn at random, of a given model, or learned on the unlabeled pool."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cryoquery.active.run import Context
from cryoquery.active.training_key import cache_inputs, pretraining_key
from cryoquery.errors import ConfigError
from cryoquery.network.checkpoint import Weights, load_weights, save_model
from cryoquery.network.model import initial_weights
from cryoquery.network.pretrain import pretrain, pretrained_features, save_features

WEIGHTS = "model.pt"


def first_weights(context: Context, seed: int) -> Weights:
    """What a training from scratch starts from.

    Raises:
        ConfigError: the model to start from is a network of another size.
        DataError: it cannot be read.
    """
    if context.start is not None:
        weights, model, _ = load_weights(context.start)
        if model != context.model:
            raise ConfigError(
                f"start: {context.start} has model.base_channels={model.base_channels}, here it is "
                f"{context.model.base_channels}; set it to {model.base_channels}"
            )
        return weights
    if context.pretraining is None:
        return initial_weights(context.model, seed)
    return load_weights(pretrained(context, seed) / WEIGHTS)[0]


def is_pretrained(context: Context, seed: int) -> bool:
    """Whether the cache has what `pretrained` makes."""
    return context.cache.has(pretraining_key(cache_inputs(context), seed))


def pretrained(context: Context, seed: int) -> Path:
    """The folder of the cache with the weights that were learned without labels, and the pool's features.

    Both are made once per seed, by the first training that needs them.

    Raises:
        ConfigError: the context has no pretraining, or the pool is too small for one.
    """
    config = context.pretraining
    if config is None:
        raise ConfigError("features learned without labels are asked for; add [pretraining] to the config")
    key = pretraining_key(cache_inputs(context), seed)

    def make(folder: Path) -> None:
        watch, checkpoint = context.trained, context.cache.checkpoint(key)
        weights = pretrain(context.pool, context.model, config, context.fabric, seed, watch, checkpoint)
        network = context.model.build()
        network.load_state_dict(weights)
        made_by = {"pretraining": config.model_dump(mode="json"), "seed": seed}
        save_model(folder / WEIGHTS, network, context.model, made_by)
        everything, watch = np.arange(len(context.pool)), context.predicted
        features = pretrained_features(
            weights, context.model, context.pool, everything, context.fabric, watch=watch
        )
        save_features(folder, features)

    return context.cache.obtain(key, make, context.waiting)[0]
