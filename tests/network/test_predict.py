from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import disc_mask, make_dataset

from cryoquery.acquisition.candidates import NetworkSignals
from cryoquery.acquisition.image_scores import BASE, FEATURES, STATISTICS
from cryoquery.acquisition.scores import PIXEL_SCORES
from cryoquery.data.dataset import IGNORE, Dataset, ImageRecord, encode, new_dataset, open_dataset
from cryoquery.data.pool import Pool
from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import AttentionUNet, ModelConfig, initial_weights
from cryoquery.network.predict import Predictor, compute_signals
from cryoquery.picking.evaluate import evaluate

PLAIN = {signal.key: STATISTICS[signal] for signal in BASE}
ENTROPY, MARGIN = (next(one for one in BASE if one.key == key) for key in ("entropy", "margin"))

FABRIC = DeviceConfig(precision="32-true").fabric()


def network(seed: int = 0) -> AttentionUNet:
    model = ModelConfig(base_channels=2)
    built = model.build()
    built.load_state_dict(initial_weights(model, seed))
    return built


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("d") / "padded", {"train": 9, "val": 3}, content=(32, 20))


def test_signals_against_the_plain_way(padded: Dataset) -> None:
    """Mean scores and features image by image, without batches, masks or float32."""
    pool, model = Pool.of(padded), network().eval()
    indices = np.array([7, 2, 5])
    signals = compute_signals(Predictor(model, FABRIC, batch_size=2), pool, indices, PLAIN)
    for at, index in enumerate(indices):
        image = torch.from_numpy((pool.levels[index].astype(np.float32) - 128) / 32)[None, None]
        with torch.no_grad():
            logits, features = model.forward_with_features(image)
        p = torch.sigmoid(logits)[0, 0, :, :20].double().numpy()
        for name, score in PIXEL_SCORES.items():
            assert signals[name][at] == pytest.approx(score(p).mean(), rel=1e-4)
        expected = features[0].mean(dim=(1, 2)).numpy()  # 20 of 32 columns touch both cells
        assert signals["features"][at] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_margin_ranks_as_least_confidence_to_the_last_bit(padded: Dataset) -> None:
    signals = compute_signals(Predictor(network(), FABRIC), Pool.of(padded), np.arange(9), PLAIN)
    assert np.array_equal(signals["margin"], 2 * signals["least_confidence"])


def test_each_image_passes_the_network_at_most_once(padded: Dataset) -> None:
    passed: list[int] = []
    signals = NetworkSignals(lambda: Predictor(network(), FABRIC, 4), Pool.of(padded), watch=passed.append)
    signals.values(ENTROPY, np.array([1, 2, 3]))
    signals.values(FEATURES, np.array([2, 3]))
    signals.values(MARGIN, np.array([3, 4]))
    signals.values(FEATURES, np.array([0, 8]))
    assert sum(passed) == 6


def test_memory_does_not_grow_with_the_pool(tmp_path: Path) -> None:
    """Peak memory of scoring 20 and 200 images: what grows is four numbers and a vector per image."""
    pool = Pool.of(make_dataset(tmp_path / "d", {"train": 200, "val": 1}, size=64))
    predictor = Predictor(network(), FABRIC, batch_size=4)
    peaks = []
    for n in (20, 200):
        gc.collect()
        tracemalloc.start()
        compute_signals(predictor, pool, np.arange(n), PLAIN)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    per_image = (peaks[1] - peaks[0]) / 180
    assert per_image < 64 * 64, f"{per_image} bytes per image of 64×64 pixels"


class Painter(AttentionUNet):
    """Predicts what it is shown: bright is particle."""

    def forward_with_features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 4 * images, torch.zeros(len(images), 1, 1, 1)


def fields_of_one_micrograph(path: Path, lefts: tuple[int, ...]) -> Dataset:
    """A 64×80 micrograph in 2 × 3 fields of 32, with particles on the borders between them."""
    centers = np.array([[31.5, 31.5], [10.0, 32.0], [50.0, 60.0], [60.0, 12.0], [31.0, 70.0]])
    mask = disc_mask((64, 80), centers, 10)
    records = []
    with new_dataset(path, 7, 32, 32) as writer:
        for row, (split, top, left) in enumerate(
            [("train", 0, 0)] + [("val", t, x) for t in (0, 32) for x in lefts]
        ):
            part = mask[top : top + 32, left : left + 32]
            writer.put(row, encode(2.0 * part - 1), part)
            records.append(
                ImageRecord(
                    f"{split}{row}",
                    f"m_{split}",
                    "g",
                    split,
                    128,
                    160,
                    0.5,
                    top,
                    left,
                    *part.shape,
                    None,
                    20.0,
                    f"m_{split}",
                    0.0,
                    1.0,
                )
            )
        original = (centers + 0.5) / 0.5 - 0.5
        particles = {("g", "m_val"): np.column_stack([original, np.full(5, 20.0)])}
        writer.finish(records, particles, {"config": {"disc_fraction": 1.0}})
    return open_dataset(path)


@pytest.mark.parametrize("lefts", [(0, 32, 64), (0, 24, 48)], ids=["side by side", "overlapping"])
def test_fields_are_put_together_before_anything_is_counted(tmp_path: Path, lefts: tuple[int, ...]) -> None:
    dataset = fields_of_one_micrograph(tmp_path / "fields", lefts)
    assert dataset.n_particles(dataset.rows("val")) == 5
    scores = evaluate(Predictor(Painter(base_channels=2), FABRIC, batch_size=4), dataset, "val").scores
    assert scores["f1"] == scores["auc"] == 1.0
    assert scores["particle_f1"] == 1.0, "a particle on a border is one particle"
    (micrograph,) = scores["per_micrograph"]
    assert (micrograph["n_picks"], micrograph["n_particles"], micrograph["n_matched"]) == (5, 5, 5)
    centers = dataset.particles["g", "m_val"][:, :2] / 2 - 0.25
    assert micrograph["pixel_tp"] == disc_mask((64, 80), centers, 10).sum(), "a pixel in two fields is one"


def test_padding_is_not_scored(padded: Dataset) -> None:
    scores = evaluate(Predictor(Painter(base_channels=2), FABRIC), padded, "val").scores
    rows = padded.rows("val")
    n_valid = int((padded.masks[rows] != IGNORE).sum())
    counts = [m["pixel_tp"] + m["pixel_fp"] + m["pixel_fn"] for m in scores["per_micrograph"]]
    assert n_valid == 3 * 32 * 20
    assert sum(counts) <= n_valid


def test_per_group_and_per_micrograph_add_up(padded: Dataset) -> None:
    scores = evaluate(Predictor(network(), FABRIC), padded, "val").scores
    tp, fp, fn = (sum(m[f"pixel_{k}"] for m in scores["per_micrograph"]) for k in ("tp", "fp", "fn"))
    assert scores["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert set(scores["per_group"]) == {"A", "B"}
    assert sum(m["n_particles"] for m in scores["per_micrograph"]) == padded.n_particles(padded.rows("val"))


def test_a_predictor_does_not_care_how_images_are_batched(padded: Dataset) -> None:
    pool = Pool.of(padded)
    a, b = (
        compute_signals(Predictor(network(), FABRIC, size), pool, np.arange(9), PLAIN)["entropy"]
        for size in (1, 9)
    )
    assert a == pytest.approx(b, rel=1e-5)
