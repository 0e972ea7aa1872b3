"""A trained network in a file, with the configuration that made it and how to pick with it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cryoquery.errors import DataError
from cryoquery.network.model import AttentionUNet, ModelConfig
from cryoquery.storage.atomic import write_bytes

Weights = Mapping[str, Tensor]

SHIPPED = {"general": Path(__file__).parent / "models" / "general.pt"}
"""Models that come with the package, by the names that they are called by."""


def model_path(name: Path | str) -> Path:
    """The file of a model: one that comes with the package, by its name, or else a path.

    Raises:
        DataError: there is no such file.
    """
    path = SHIPPED.get(str(name), Path(name))
    if not path.is_file():
        raise DataError(f"{path}: no such model; give the path of a model.pt, or {', '.join(SHIPPED)}")
    return path


def start_path(name: str) -> Path | None:
    """The file of the model that trainings start from; None for ``random``.

    Raises:
        DataError: there is no such file.
    """
    return None if name == "random" else model_path(name)


@dataclass(frozen=True)
class SavedModel:
    """What a `model.pt` holds."""

    weights: Weights
    model: ModelConfig
    made_by: Mapping[str, Any]
    """How it was trained: training configuration, seed, digest of the training."""
    picking: Mapping[str, Any] | None
    """How to pick with it, see `cryoquery.picking.threshold.PickingRecipe`; None in older files."""

    def build(self) -> AttentionUNet:
        """The network with these weights, in evaluation mode on the CPU."""
        network = self.model.build()
        network.load_state_dict(self.weights)
        return network.eval()


def save_model(
    path: Path,
    network: AttentionUNet,
    model: ModelConfig,
    made_by: Mapping[str, Any],
    picking: Mapping[str, Any] | None = None,
) -> None:
    """Write the weights with the configuration of the network and records of its making and use.

    Args:
        path: of the new `model.pt`.
        network: whose weights are kept.
        model: its configuration.
        made_by: how it was trained; plain types only.
        picking: how to pick with it, from `cryoquery.picking.threshold.picking_recipe`; plain types only.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    content: dict[str, Any] = {"model": model.model_dump(), "made_by": dict(made_by), "weights": weights}
    if picking is not None:
        content["picking"] = dict(picking)
    save(path, content)


def save(path: Path, content: Any) -> None:
    """Write what `torch.load` reads, whole or not at all.

    It is put together in memory: of a disk that fails, torch says nothing but that a position is unexpected.
    """
    stream = io.BytesIO()
    torch.save(content, stream)
    write_bytes(path, stream.getvalue())


def load_model(path: Path | str) -> AttentionUNet:
    """The network in a `model.pt`, in evaluation mode on the CPU. Nothing in the file is executed.

    Raises:
        DataError: the file is missing, damaged, or not written by `save_model`.
    """
    return read_model(Path(path)).build()


def load_weights(path: Path) -> tuple[Weights, ModelConfig, Mapping[str, Any]]:
    """Weights, configuration of the network, and record of how it was made.

    Raises:
        DataError: the file is missing, damaged, or not written by `save_model`.
    """
    saved = read_model(path)
    return saved.weights, saved.model, saved.made_by


def read_model(path: Path) -> SavedModel:
    """Everything in a `model.pt`. Nothing in the file is executed.

    Raises:
        DataError: the file is missing, damaged, or not written by `save_model`.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        saved = SavedModel(
            content["weights"], ModelConfig(**content["model"]), content["made_by"], content.get("picking")
        )
        fits = _fits(saved)
    except FileNotFoundError:
        raise DataError(f"{path}: no such model") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except Exception:  # torch.load raises many kinds, and advises to trust the file
        raise DataError(
            f"{path}: not a model written by cryoquery; give the model.pt of a run or a step "
            "(if it is one, it is damaged: train it again)"
        ) from None
    if not fits:
        raise DataError(f"{path}: its weights do not fit its configuration; damaged, train it again")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in saved.weights.values()):
        raise DataError(f"{path}: some of its weights are not finite and would pick nothing; train it again")
    return replace(saved, weights={name: _single(tensor) for name, tensor in saved.weights.items()})


def _fits(saved: SavedModel) -> bool:
    """Whether weights are there in the sizes that the configuration asks for; no memory is taken for more."""
    shapes = {name: tensor.shape for name, tensor in saved.weights.items()}
    whole = all(
        tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
        for tensor in saved.weights.values()
    )
    return whole and shapes == _shapes(saved.model)


@lru_cache
def _shapes(model: ModelConfig) -> dict[str, torch.Size]:
    """The shape of every weight."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in model.build().state_dict().items()}


def _single(tensor: Tensor) -> Tensor:
    """In single precision, what may be stored in half."""
    return tensor.float() if tensor.is_floating_point() else tensor


def save_snapshots(path: Path, snapshots: Sequence[Weights]) -> None:
    """Write earlier weights of a training, first to last."""
    save(path, [dict(weights) for weights in snapshots])


def load_snapshots(path: Path, model: ModelConfig) -> list[AttentionUNet]:
    """The networks of `save_snapshots`, in evaluation mode on the CPU; none where there is no such file.

    Raises:
        DataError: the file is damaged.
    """
    if not path.is_file():
        return []
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return [SavedModel(weights, model, {}, None).build() for weights in saved]
    except Exception as error:  # torch.load raises many kinds on damaged files
        raise DataError(
            f"{path}: damaged ({type(error).__name__}); remove its folder and run again"
        ) from None


def load_checkpoint(path: Path | None) -> dict[str, Any] | None:
    """What an interrupted training left; None where there is nothing, or a damaged file: it starts anew."""
    if path is None or not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch.load raises many kinds on damaged files
        return None
    return state
