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
from cryoquery.picking.calibration import Calibration
from cryoquery.picking.evaluate import evaluate
from cryoquery.picking.threshold import (
    DEFAULT_THRESHOLD,
    THRESHOLDS,
    PickingRecipe,
    picking_recipe,
    tune,
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
    from cryoquery.picking.evaluate import match_picks, predict_micrographs

    rows = dataset.rows("val")
    tuned = tune(predictor, dataset, rows)
    predicted = list(predict_micrographs(predictor, dataset, rows))
    assert tuned.n_particles == sum(len(p.truth_yx) for p in predicted)

    def at(threshold: float) -> float:
        lowest = tuned.calibration.raw(threshold)
        matches = [match_picks(dataset, p, lowest) for p in predicted]
        return float(np.mean([m.f1 for m in matches if m.n_truth or m.n_picks]))

    assert at(tuned.threshold) == pytest.approx(tuned.f1, abs=0.03)
    assert max(map(at, THRESHOLDS[::10])) <= at(tuned.threshold) + 0.03


def test_missing_labels_lower_chances(predictor: Predictor, dataset: Dataset) -> None:
    from dataclasses import replace

    rng = np.random.default_rng(0)
    some = {key: found[rng.random(len(found)) < 0.5] for key, found in dataset.particles.items()}
    whole, missing = (
        tune(predictor, data, np.arange(52)) for data in (dataset, replace(dataset, particles=some))
    )
    assert 20 <= missing.n_particles < 0.7 * whole.n_particles
    fairly_sure = np.array([0.8])
    assert missing.calibration.of(fairly_sure)[0] < whole.calibration.of(fairly_sure)[0] - 0.2
    assert missing.f1 is not None
    assert whole.f1 is not None
    assert missing.f1 < whole.f1 - 0.2


def test_with_too_few_labels_the_default_is_kept(predictor: Predictor, dataset: Dataset) -> None:
    tuned = tune(predictor, dataset, np.array([0, 1]))
    assert (tuned.threshold, tuned.f1, tuned.calibration) == (DEFAULT_THRESHOLD, None, Calibration())
    assert tune(predictor, dataset, np.empty(0, np.int64)).n_particles == 0


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
    assert tune(predictor, other, rows).n_particles == sum(r["n_particles"] for r in records)


def test_picks_on_ignored_pixels_are_neither_right_nor_wrong(predictor: Predictor, dataset: Dataset) -> None:
    from dataclasses import replace

    masks = np.array(dataset.masks)
    masks[:] = IGNORE
    scores = evaluate(predictor, replace(dataset, masks=masks), "val").scores
    assert scores["particle_f1"] == scores["f1"] == 0.0
    assert all(r["n_picks"] == r["n_particles"] == 0 for r in scores["per_micrograph"])
