"""What the trainings of a seed begin with: weights drawn at random, or learned on the unlabelled pool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cryoquery.errors import ConfigError
from cryoquery.keys import ingredient_of, ingredients, pretraining_key
from cryoquery.model import initial_weights
from cryoquery.model_file import Weights, load_weights, save_model
from cryoquery.pretrain import pretrain, pretrained_features, save_features

if TYPE_CHECKING:
    from cryoquery.loop import Laboratory

WEIGHTS = "model.pt"


def first_weights(lab: Laboratory, seed: int) -> Weights:
    """What a training from scratch starts from."""
    if lab.pretraining is None:
        return initial_weights(lab.model, seed)
    return load_weights(pretrained(lab, seed) / WEIGHTS)[0]


def is_pretrained(lab: Laboratory, seed: int) -> bool:
    """Whether the store has what `pretrained` makes."""
    return lab.store.has(pretraining_key(ingredients(lab), seed))


def pretrained(lab: Laboratory, seed: int) -> Path:
    """The folder of the store with the weights that were learned without labels, and the pool's features.

    Both are made once per seed, by whoever needs them first.

    Raises:
        ConfigError: the laboratory has no pretraining, or the pool is too small for one.
    """
    config = lab.pretraining
    if config is None:
        raise ConfigError("features learned without labels are asked for; add [pretraining] to the config")
    key = pretraining_key(ingredients(lab), seed)

    def make(folder: Path) -> None:
        watch, checkpoint = lab.progress.trained, lab.store.checkpoint(key)
        weights = pretrain(lab.pool, lab.model, config, lab.fabric, seed, watch, checkpoint)
        network = lab.model.build()
        network.load_state_dict(weights)
        save_model(folder / WEIGHTS, network, lab.model, ingredient_of(config) | {"seed": seed})
        everything, watch = np.arange(len(lab.pool)), lab.progress.predicted
        features = pretrained_features(weights, lab.model, lab.pool, everything, lab.fabric, watch=watch)
        save_features(folder, features)

    return lab.store.obtain(key, make, lab.progress.waiting)[0]
