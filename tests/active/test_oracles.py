from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_dataset

from cryoquery.active.oracles import HumanOracle, NoiseConfig, NoisyOracle, SimulatedOracle, make_oracle
from cryoquery.data.dataset import IGNORE, PARTICLE, Dataset
from cryoquery.errors import ConfigError, DataError
from cryoquery.experiment.executors import run_experiment
from cryoquery.experiment.verify import verify
from cryoquery.picking.metrics import match_particles
from cryoquery.storage.atomic import read_json


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "d", {"train": 300, "val": 4})


EVERYTHING = np.arange(300)


def noisy(dataset: Dataset, seed: int = 0, **noise: float) -> NoisyOracle:
    oracle = NoisyOracle(dataset, NoiseConfig(**noise), seed)
    oracle.ask(np.arange(len(dataset.rows("train"))))
    return oracle


def test_a_person_answers_only_what_was_labeled(dataset: Dataset) -> None:
    oracle = HumanOracle(dataset, np.array([2, 5]))
    with pytest.raises(DataError, match=r"item 3 .*has no labels"):
        oracle.ask(np.array([2, 3]))
    with pytest.raises(PermissionError):
        oracle.masks(np.array([2]))
    oracle.ask(np.array([2, 5]))
    assert np.array_equal(oracle.masks(np.array([5]))[0], dataset.masks[5])
    assert oracle.n_particles(np.array([2, 5])) == dataset.n_particles([2, 5])


def test_without_faults_nothing_changes(dataset: Dataset) -> None:
    assert type(make_oracle(dataset, NoiseConfig(), 0)) is SimulatedOracle
    oracle = noisy(dataset)
    assert np.array_equal(oracle.masks(EVERYTHING), dataset.masks[:300])
    assert oracle.n_particles(EVERYTHING) == dataset.n_particles(EVERYTHING)


def test_faults_come_at_the_stated_rates(dataset: Dataset) -> None:
    n = dataset.n_particles(EVERYTHING)
    missed = noisy(dataset, miss_rate=0.3).n_particles(EVERYTHING)
    assert abs(missed / n - 0.7) < 4 * np.sqrt(0.3 * 0.7 / n)
    more = noisy(dataset, false_rate=0.5).n_particles(EVERYTHING)
    assert abs(more / n - 1.5) < 4 * np.sqrt(0.5 / n)
    labels = noisy(dataset, jitter=0.05).labels
    key = [record.key for record in dataset.records[:300]]
    apart = np.concatenate([labels.particles[k][:, :2] - dataset.particles[k][:, :2] for k in key])
    assert apart.std() == pytest.approx(0.05 * 8.0, rel=0.1)
    everything = noisy(dataset, miss_rate=1.0)
    assert everything.n_particles(EVERYTHING) == 0
    assert not (everything.masks(EVERYTHING) == PARTICLE).any()


def test_masks_follow_the_faulty_centers(dataset: Dataset) -> None:
    oracle = noisy(dataset, miss_rate=0.2, false_rate=0.3, jitter=0.2)
    masks = oracle.masks(EVERYTHING)
    for row in range(40):
        centers = np.rint(oracle.labels.centers_in(row)).astype(int)
        assert (masks[row][tuple(np.clip(centers, 0, 31).T)] == PARTICLE).all()
        assert (masks[row] == PARTICLE).any() == (len(centers) > 0)


def test_answers_depend_on_the_seed_and_the_image_alone(dataset: Dataset) -> None:
    faults = {"miss_rate": 0.3, "false_rate": 0.3, "jitter": 0.1}
    first, second = noisy(dataset, 1, **faults), noisy(dataset, 1, **faults)
    some = np.array([7, 200])
    assert np.array_equal(first.masks(EVERYTHING)[some], second.masks(some))
    assert not np.array_equal(first.masks(EVERYTHING), noisy(dataset, 2, **faults).masks(EVERYTHING))
    again = pickle.loads(pickle.dumps(first))
    assert np.array_equal(again.masks(some), second.masks(some)), "another process gets the same"


def test_held_out_images_keep_their_labels_and_ignored_pixels_stay(dataset: Dataset) -> None:
    masks = np.array(dataset.masks)
    masks[:, :8] = IGNORE
    oracle = noisy(replace(dataset, masks=masks), miss_rate=0.5)
    assert (oracle.masks(EVERYTHING)[:, :8] == IGNORE).all()
    for row in dataset.rows("val"):
        assert np.array_equal(oracle.labels.centers_in(row), dataset.centers_in(row))


def test_fields_of_a_micrograph_agree_about_a_particle_on_their_border(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "d", {"train": 2, "val": 1})
    left = replace(data.records[0], width_px=64)
    right = replace(left, id="right", left=32)
    centers = {left.key: np.array([[16.0, 31.0, 8.0], [9.0, 50.0, 8.0]])}
    both = replace(data, records=(left, right, *data.records[2:]), particles=centers)
    oracle = noisy(both, jitter=0.1)
    whole = np.concatenate(list(oracle.masks(np.array([0, 1]))), axis=1)
    y, x = np.mgrid[:32, :64]
    discs = [(y - cy) ** 2 + (x - cx) ** 2 <= 16.0 for cy, cx, _ in oracle.labels.particles[left.key]]
    assert np.array_equal(whole == PARTICLE, np.any(discs, axis=0))


def test_an_experiment_with_faults_keeps_clean_scores_apart_from_others(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "d", {"train": 8, "val": 3})
    values = {
        "dataset": data.path,
        "cache": tmp_path / "cache",
        "strategies": ["random"],
        "baselines": [],
        "seeds": [1],
        "schedule": {"counts": [4]},
        "model": {"base_channels": 2},
        "training": {"initial_epochs": 1},
        "workers": 1,
    }
    clean = run_experiment({**values, "out": tmp_path / "clean"})
    faulty = run_experiment({**values, "out": tmp_path / "faulty", "oracle": {"miss_rate": 0.9}})
    found = [
        read_json(folder / "random_sampling" / "iteration_0" / "metrics.json") for folder in (clean, faulty)
    ]
    assert found[0]["training_key"] != found[1]["training_key"]
    assert found[0]["protocol"]["oracle"] == {"miss_rate": 0.0, "false_rate": 0.0, "jitter": 0.0}
    assert found[1]["protocol"]["oracle"] == {"miss_rate": 0.9, "false_rate": 0.0, "jitter": 0.0}
    assert found[1]["n_labeled_particles"] < found[0]["n_labeled_particles"]
    n_truth = [sum(m["n_particles"] for m in metrics["per_micrograph"]) for metrics in found]
    assert n_truth[0] == n_truth[1] == data.n_particles(data.rows("val"))
    assert verify(faulty).holds
    assert verify(clean).holds


def test_rates_that_cannot_be_are_refused() -> None:
    for values in ({"miss_rate": 1.1}, {"false_rate": -0.1}, {"jitter": -1}):
        with pytest.raises(ConfigError, match=next(iter(values))):
            NoiseConfig(**values)


def test_the_noise_shows_as_particle_f1_with_the_truth(dataset: Dataset) -> None:
    labels = noisy(dataset, miss_rate=0.2).labels
    matches = [match_particles(labels.centers_in(r), dataset.centers_in(r), 4.0) for r in range(300)]
    found, truth = sum(m.n_matched for m in matches), sum(m.n_truth for m in matches)
    assert found / truth == pytest.approx(0.8, abs=0.06)
