from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from scipy.special import expit

from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import ModelConfig, initial_weights
from cryoquery.network.predict import Predictor
from cryoquery.picking.tiles import EXACT_SIDE_PX, predict_tiled, predict_turned, tile_starts

FABRIC = DeviceConfig(accelerator="cpu", precision="32-true").fabric()


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    config = ModelConfig(base_channels=2)
    network = config.build()
    network.load_state_dict(initial_weights(config, 3))
    return Predictor(network, FABRIC, batch_size=2)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(60, 200, (height, width)).astype(np.uint8)


def in_one_pass(predictor: Predictor, levels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    padded = np.full(shape, 128, np.uint8)
    padded[: levels.shape[0], : levels.shape[1]] = levels
    batch = next(predictor.stream(padded[None], np.array([0])))
    return cast(np.ndarray, expit(batch.logits[0].numpy()[: levels.shape[0], : levels.shape[1]]))


def test_an_image_that_fits_a_tile_is_predicted_as_in_training(predictor: Predictor) -> None:
    levels = noise(50, 61)
    assert np.array_equal(predict_tiled(predictor, levels, 64), in_one_pass(predictor, levels, (64, 64)))


def test_large_tiles_give_what_one_pass_gives(predictor: Predictor) -> None:
    levels = noise(700, 500)
    starts = [tile_starts(n, EXACT_SIDE_PX) for n in levels.shape]
    shape = tuple(s[-1] + EXACT_SIDE_PX for s in starts)
    assert [len(s) for s in starts] == [3, 2]
    tiled = predict_tiled(predictor, levels, EXACT_SIDE_PX)
    assert np.abs(tiled - in_one_pass(predictor, levels, cast(tuple[int, int], shape))).max() < 1e-5


def test_small_tiles_differ_by_what_their_borders_hide(predictor: Predictor) -> None:
    """Tiles as large as the training images keep their borders; the blend has no steps in it."""
    levels = noise(240, 224)
    side = 128
    shape = cast(tuple[int, int], tuple(tile_starts(n, side)[-1] + side for n in levels.shape))
    difference = np.abs(predict_tiled(predictor, levels, side) - in_one_pass(predictor, levels, shape))
    assert difference.mean() < 0.01
    assert difference.max() < 0.2


def test_a_network_that_sees_one_pixel_is_not_changed_by_tiling() -> None:
    class Identity(Predictor):
        def __init__(self) -> None:
            self.batch_size = 3

        def stream(self, levels, rows):  # type: ignore[no-untyped-def]
            import torch

            from cryoquery.network.predict import Prediction

            logits = torch.from_numpy(levels[rows].astype(np.float32) / 64 - 2)
            yield Prediction(rows, logits, torch.zeros(1))

    for shape in ((16, 16), (33, 200), (300, 147)):
        levels = noise(*shape)
        tiled = predict_tiled(Identity(), levels, 64)
        assert tiled == pytest.approx(expit(levels.astype(np.float32) / 64 - 2), abs=1e-6)


@pytest.mark.parametrize("length", [1, 64, 65, 100, 128, 333, 1000, 4096])
@pytest.mark.parametrize("side", [32, 64, 768])
def test_tiles_cover_and_overlap(length: int, side: int) -> None:
    starts = tile_starts(length, side)
    assert starts[0] == 0
    assert all(start % 16 == 0 for start in starts)
    assert length <= starts[-1] + side < length + side + 16
    overlap = 224 if side >= 448 else side // 4
    assert all(b - a <= side - overlap for a, b in zip(starts, starts[1:], strict=False))


def test_the_average_over_orientations_turns_with_the_image(predictor: Predictor) -> None:
    levels = noise(70, 90)
    average = predict_turned(predictor, levels, 64)
    assert average.shape == levels.shape
    assert np.abs(average - predict_tiled(predictor, levels, 64)).max() > 1e-3
    turned = predict_turned(predictor, np.rot90(levels).copy(), 64)
    assert np.allclose(turned, np.rot90(average), atol=1e-5)
    mirrored = predict_turned(predictor, levels[:, ::-1].copy(), 64)
    assert np.allclose(mirrored, average[:, ::-1], atol=1e-5)
