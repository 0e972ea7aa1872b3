from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import make_dataset

from cryoquery.data.dataset import IGNORE, Dataset
from cryoquery.data.pool import LabeledImages, Pool
from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import ModelConfig, initial_weights
from cryoquery.network.optimize import Training, TrainingConfig
from cryoquery.network.predict import Predictor
from cryoquery.network.train import fit
from cryoquery.picking.evaluate import evaluate
from cryoquery.picking.threshold import (
    DEFAULT_THRESHOLD,
    THRESHOLDS,
    PickingRecipe,
    picking_recipe,
    tune_threshold,
)

MODEL = ModelConfig(base_channels=4)
FABRIC = DeviceConfig(accelerator="cpu", precision="32-true").fabric()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "d", {"train": 24, "val": 14, "test": 14})


@pytest.fixture(scope="module")
def predictor(dataset: Dataset) -> Predictor:
    labeled = LabeledImages(Pool.of(dataset), np.arange(24), lambda indices: dataset.masks[indices])
    network = fit(
        Training(
            initial_weights(MODEL, 0),
            MODEL,
            labeled,
            TrainingConfig(initial_epochs=15, batch_size=8),
            True,
            0,
        ),
        FABRIC,
    )
    return Predictor(network, FABRIC)


def recipe(predictor: Predictor, dataset: Dataset, splits: tuple[str, ...]) -> PickingRecipe:
    return picking_recipe(predictor, dataset, np.arange(20), splits)


def test_the_reported_split_is_never_tuned_on(predictor: Predictor, dataset: Dataset) -> None:
    assert recipe(predictor, dataset, ("test", "val")).tuned_on == "val"
    assert recipe(predictor, dataset, ("val", "test")).tuned_on == "labeled training images"
    assert recipe(predictor, dataset, ("val",)).tuned_on == "labeled training images"


def test_labels_of_other_images_do_not_reach_the_threshold(
    predictor: Predictor, dataset: Dataset, tmp_path: Path
) -> None:
    from dataclasses import replace

    seen = {dataset.records[row].key for row in range(20)}
    spoiled = {k: rows if k in seen else rows + 9.0 for k, rows in dataset.particles.items()}
    other = replace(dataset, particles=spoiled)
    assert recipe(predictor, dataset, ("val",)) == recipe(predictor, other, ("val",))


def test_the_threshold_is_among_the_best(predictor: Predictor, dataset: Dataset) -> None:
    from cryoquery.picking.evaluate import predict_micrographs
    from cryoquery.picking.metrics import match_particles
    from cryoquery.picking.peaks import MIN_DISTANCE, find_particles

    rows = dataset.rows("val")
    threshold, f1, n_particles = tune_threshold(predictor, dataset, rows)
    predicted = list(predict_micrographs(predictor, dataset, rows))
    assert n_particles == sum(len(p.truth_yx) for p in predicted)

    def at(t: float) -> float:
        matches = [
            match_particles(
                find_particles(p.probability, 8.0, t, MIN_DISTANCE * 8.0).centers_yx, p.truth_yx, 4.0
            )
            for p in predicted
        ]
        return float(np.mean([m.f1 for m in matches if m.n_truth or m.n_picks]))

    assert at(threshold) == pytest.approx(f1, abs=0.03)
    assert max(map(at, THRESHOLDS[::10])) <= at(threshold) + 0.03


def test_with_too_few_labels_the_default_is_kept(predictor: Predictor, dataset: Dataset) -> None:
    threshold, f1, _ = tune_threshold(predictor, dataset, np.array([0, 1]))
    assert (threshold, f1) == (DEFAULT_THRESHOLD, None)
    assert tune_threshold(predictor, dataset, np.empty(0, np.int64)) == (DEFAULT_THRESHOLD, None, 0)


def test_whole_micrographs_and_their_diameter(predictor: Predictor, dataset: Dataset) -> None:
    from dataclasses import replace

    whole = recipe(predictor, dataset, ("test",))
    assert (whole.scale, whole.image_side) == ("fit", 32)
    assert whole.diameter_angstrom is None
    sized = replace(dataset, records=tuple(replace(r, pixel_size=1.5) for r in dataset.records))
    assert recipe(predictor, sized, ("test",)).diameter_angstrom == pytest.approx(12.0)


def _ignoring(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """The same dataset with the left half of each image ignored, and a label there that is wrong."""
    from dataclasses import replace

    masks = np.array(dataset.masks)
    masks[:, :, :16] = IGNORE
    particles = dict(dataset.particles)
    for row in rows:
        key = dataset.records[row].key
        particles[key] = np.concatenate([particles[key], [[20.0, 2.0, 8.0]]])
    return replace(dataset, masks=masks, particles=particles)


def test_what_is_ignored_counts_nowhere(predictor: Predictor, dataset: Dataset) -> None:
    rows = dataset.rows("val")
    other = _ignoring(dataset, rows)
    scores = evaluate(predictor, other, "val").scores
    records = scores["per_micrograph"]
    for row, record in zip(rows, records, strict=True):
        centers = dataset.centers_in(row)
        assert record["n_particles"] == (np.rint(centers[:, 1]) >= 16).sum()
        assert record["n_matched"] <= record["n_particles"]
    assert sum(r["n_picks"] for r in records) < sum(
        r["n_picks"] for r in evaluate(predictor, dataset, "val").scores["per_micrograph"]
    )
    assert tune_threshold(predictor, other, rows)[2] == sum(r["n_particles"] for r in records)


def test_picks_on_ignored_pixels_are_neither_right_nor_wrong(predictor: Predictor, dataset: Dataset) -> None:
    from dataclasses import replace

    masks = np.array(dataset.masks)
    masks[:] = IGNORE
    scores = evaluate(predictor, replace(dataset, masks=masks), "val").scores
    assert scores["particle_f1"] == scores["f1"] == 0.0
    assert all(r["n_picks"] == r["n_particles"] == 0 for r in scores["per_micrograph"])
