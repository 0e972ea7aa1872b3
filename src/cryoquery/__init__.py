"""Active learning for cryo-EM particle picking: which micrographs to label next, and how many.

The names below are loaded when they are first used, so that `import cryoquery` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cryoquery import acquisition, formats, metrics
    from cryoquery.data.dataset import open_dataset
    from cryoquery.executors import run_experiment
    from cryoquery.experiment import ExperimentConfig, load_config
    from cryoquery.losses import CombinedLoss
    from cryoquery.model import AttentionUNet
    from cryoquery.model_file import load_model
    from cryoquery.pick.picker import load_picker, pick_particles
    from cryoquery.report import compare

_HOME = {
    "AttentionUNet": "model",
    "CombinedLoss": "losses",
    "ExperimentConfig": "experiment",
    "compare": "report",
    "load_config": "experiment",
    "load_model": "model_file",
    "load_picker": "pick",
    "open_dataset": "data.dataset",
    "pick_particles": "pick",
    "run_experiment": "executors",
}
_MODULES = ("acquisition", "formats", "metrics")

__all__ = [
    "AttentionUNet",
    "CombinedLoss",
    "ExperimentConfig",
    "acquisition",
    "compare",
    "formats",
    "load_config",
    "load_model",
    "load_picker",
    "metrics",
    "open_dataset",
    "pick_particles",
    "run_experiment",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"cryoquery.{name}")
    if name in _HOME:
        return getattr(import_module(f"cryoquery.{_HOME[name]}"), name)
    raise AttributeError(f"module 'cryoquery' has no attribute {name!r}")
