from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_dataset
from tiers import take, thorough

from cryoquery.active.initial_weights import first_weights
from cryoquery.active.loop import active_learning, initial_set
from cryoquery.active.oracles import SimulatedOracle
from cryoquery.active.progress import Event, ImagesPassed
from cryoquery.active.run import Context, Run
from cryoquery.active.training_key import training_key
from cryoquery.data.dataset import Dataset, open_dataset
from cryoquery.errors import ConfigError, DataError, ExperimentError
from cryoquery.network.checkpoint import load_model, load_weights, save_model
from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import ModelConfig, initial_weights
from cryoquery.network.optimize import TrainingConfig
from cryoquery.storage.cache import Cache

TRAINING = TrainingConfig(initial_epochs=2, epochs=1, batch_size=4)
COUNTS = (4, 7, 10)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "discs", {"train": 14, "val": 3, "test": 2})


@pytest.fixture
def context(dataset: Dataset, tmp_path: Path) -> Context:
    fabric, cache = DeviceConfig().fabric(), Cache(tmp_path / "cache")
    return Context(dataset, ModelConfig(base_channels=2), TRAINING, fabric, ("val", "test"), cache)


def run_of(folder: Path, strategy: str = "entropy", **changes: object) -> Run:
    run = Run(f"{strategy}_sampling", strategy, 5, COUNTS, folder / f"{strategy}_sampling")
    return replace(run, **changes)


def afresh(context: Context, cache: str = "another") -> Context:
    """The same context with a cache of its own, so that nothing is reused."""
    return replace(context, cache=Cache(context.cache.folder.with_name(cache)))


def weights_equal(first: Path, second: Path) -> bool:
    a, b = load_weights(first)[0], load_weights(second)[0]
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_every_iteration_has_its_files(context: Context, tmp_path: Path) -> None:
    run = run_of(tmp_path)
    iterations = active_learning(run, context, SimulatedOracle(context.dataset))
    assert [len(i.labeled) for i in iterations] == list(COUNTS)
    for before, after in zip(iterations, iterations[1:], strict=False):
        assert set(after.labeled) == set(before.labeled) | set(before.query)
    for number, iteration in enumerate(iterations):
        assert iteration.folder == run.folder / f"iteration_{number}"
        assert sorted(p.name for p in iteration.folder.iterdir()) == [
            "examples.npz",
            "labeled_indices.json",
            "metrics.json",
            "model.pt",
            "query.json",
        ]
        metrics = iteration.metrics
        for name in ("f1", "precision", "recall", "iou", "auc", "particle_f1", "particle_precision"):
            assert 0 <= metrics[name] <= 1
        assert metrics["split"] == "val"
        assert metrics["test"]["split"] == "test"
        assert metrics["n_labeled_images"] == len(iteration.labeled)
        assert metrics["n_labeled_particles"] == context.dataset.n_particles(iteration.labeled)
    query = json.loads((iterations[0].folder / "query.json").read_text())
    assert [choice["rank"] for choice in query] == [0, 1, 2]
    assert {"index", "score", "rank", "reason"} == set(query[0])
    assert json.loads((iterations[-1].folder / "query.json").read_text()) == []


def test_all_strategies_start_from_the_same_set(context: Context, tmp_path: Path) -> None:
    names = ("uncertainty", "diversity", "random", "stratified_random", "power_bald", "auto")
    firsts = [
        active_learning(run_of(tmp_path, name), context, SimulatedOracle(context.dataset))[0]
        for name in names
    ]
    assert all(np.array_equal(first.labeled, firsts[0].labeled) for first in firsts)
    assert all(weights_equal(first.folder / "model.pt", firsts[0].folder / "model.pt") for first in firsts)
    assert not np.array_equal(initial_set(context.pool, 4, 5), initial_set(context.pool, 4, 6))


def test_uncertainty_and_margin_are_one_experiment(context: Context, tmp_path: Path) -> None:
    runs = [
        active_learning(run_of(tmp_path, name), afresh(context, name), SimulatedOracle(context.dataset))
        for name in ("uncertainty", "margin")
    ]
    for first, second in zip(*runs, strict=True):
        assert np.array_equal(first.labeled, second.labeled)
        assert np.array_equal(first.query, second.query)
        assert weights_equal(first.folder / "model.pt", second.folder / "model.pt")
        assert first.metrics["f1"] == second.metrics["f1"]


def test_identical_trainings_are_done_once_and_say_so(context: Context, tmp_path: Path) -> None:
    uncertain = active_learning(run_of(tmp_path, "uncertainty"), context, SimulatedOracle(context.dataset))
    margin = active_learning(run_of(tmp_path, "margin"), context, SimulatedOracle(context.dataset))
    assert not any(i.metrics["reused"] for i in uncertain)
    assert all(i.metrics["reused"] for i in margin)
    own = {"run", "strategy", "reused", "seconds"}
    for first, second in zip(uncertain, margin, strict=True):
        assert {k: v for k, v in first.metrics.items() if k not in own} == {
            k: v for k, v in second.metrics.items() if k not in own
        }
        assert weights_equal(first.folder / "model.pt", second.folder / "model.pt")


@thorough
@pytest.mark.parametrize(
    "strategy", take(["hybrid"], ["entropy", "diversity", "hybrid", "core_set", "random"])
)
def test_labels_of_the_pool_change_nothing(context: Context, tmp_path: Path, strategy: str) -> None:
    """Garbage in every mask that was not asked for: scores, queries and weights keep every bit."""
    clean = active_learning(run_of(tmp_path / "clean", strategy), context, SimulatedOracle(context.dataset))
    asked = clean[-1].labeled
    poisoned_path = tmp_path / "poisoned_data"
    shutil.copytree(context.dataset.path, poisoned_path)
    masks = np.load(poisoned_path / "masks.npy", mmap_mode="r+")
    unasked = np.setdiff1d(np.arange(len(masks)), asked)
    masks[unasked] = np.random.default_rng(0).integers(0, 256, masks[unasked].shape)
    masks.flush()
    (poisoned_path / "particles.csv").write_text("group,micrograph,y,x,diameter_px\n")
    poisoned_lab = replace(afresh(context), dataset=open_dataset(poisoned_path))
    poisoned = active_learning(
        run_of(tmp_path / "poisoned", strategy), poisoned_lab, SimulatedOracle(poisoned_lab.dataset)
    )
    for first, second in zip(clean, poisoned, strict=True):
        for name in ("labeled_indices.json", "query.json"):
            assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()
        assert weights_equal(first.folder / "model.pt", second.folder / "model.pt")


def test_labels_that_were_asked_for_do_matter(context: Context, tmp_path: Path) -> None:
    """The poison of the test above works: in a labeled mask it changes the weights."""
    clean = active_learning(run_of(tmp_path / "clean"), context, SimulatedOracle(context.dataset))
    poisoned_path = tmp_path / "poisoned_data"
    shutil.copytree(context.dataset.path, poisoned_path)
    masks = np.load(poisoned_path / "masks.npy", mmap_mode="r+")
    masks[clean[0].labeled[0]] ^= 1
    masks.flush()
    poisoned_lab = replace(afresh(context), dataset=open_dataset(poisoned_path))
    poisoned = active_learning(
        run_of(tmp_path / "poisoned"), poisoned_lab, SimulatedOracle(poisoned_lab.dataset)
    )
    assert not weights_equal(clean[0].folder / "model.pt", poisoned[0].folder / "model.pt")


def test_the_oracle_answers_only_what_it_was_asked(dataset: Dataset) -> None:
    oracle = SimulatedOracle(dataset)
    oracle.ask(np.array([1, 3]))
    assert oracle.masks(np.array([3, 1])).shape == (2, 32, 32)
    for peek in (oracle.masks, oracle.n_particles):
        with pytest.raises(PermissionError):
            peek(np.array([1, 2]))


def test_random_never_runs_the_network_on_the_pool(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the pool was looked at")

    monkeypatch.setattr("cryoquery.acquisition.candidates.compute_signals", refuse)
    active_learning(run_of(tmp_path, "random"), context, SimulatedOracle(context.dataset))
    with pytest.raises(AssertionError, match="looked at"):
        active_learning(run_of(tmp_path, "entropy"), context, SimulatedOracle(context.dataset))


def interrupt_at(n: int) -> Callable[..., None]:
    left = [n]

    def watch(*_: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    return watch


@thorough
@pytest.mark.parametrize("at", take([2, 5], [1, 2, 5, 7]))
def test_interrupted_anywhere_it_ends_in_the_same_bits(context: Context, tmp_path: Path, at: int) -> None:
    undisturbed = active_learning(run_of(tmp_path / "a"), context, SimulatedOracle(context.dataset))

    interrupt = interrupt_at(at)

    def interrupting(event: Event) -> None:
        if isinstance(event, ImagesPassed) and event.trained:
            interrupt(event.n_images)

    stopped = replace(afresh(context), progress=interrupting)
    with pytest.raises(KeyboardInterrupt):
        active_learning(run_of(tmp_path / "b"), stopped, SimulatedOracle(context.dataset))
    left = list((tmp_path / "b").rglob("*"))
    assert not [path for path in left if "partial" in path.name], "an error leaves nothing half-written"
    resumed = active_learning(run_of(tmp_path / "b"), afresh(context), SimulatedOracle(context.dataset))
    for first, second in zip(undisturbed, resumed, strict=True):
        for name in ("labeled_indices.json", "query.json"):
            assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()
        assert weights_equal(first.folder / "model.pt", second.folder / "model.pt")


def test_from_scratch_forgets_the_iteration_before(context: Context, tmp_path: Path) -> None:
    fine_tuned = active_learning(run_of(tmp_path / "a", "random"), context, SimulatedOracle(context.dataset))
    scratch = active_learning(
        run_of(tmp_path / "b", "random", from_scratch=True),
        afresh(context),
        SimulatedOracle(context.dataset),
    )
    assert weights_equal(fine_tuned[0].folder / "model.pt", scratch[0].folder / "model.pt")
    assert not weights_equal(fine_tuned[1].folder / "model.pt", scratch[1].folder / "model.pt")


def test_models_load_safely_and_carry_their_configuration(context: Context, tmp_path: Path) -> None:
    iterations = active_learning(run_of(tmp_path), context, SimulatedOracle(context.dataset))
    path = iterations[0].folder / "model.pt"
    content = torch.load(path, weights_only=True)
    assert content["model"] == {"base_channels": 2}
    assert content["made_by"]["training"]["initial_epochs"] == 2
    assert not load_model(path).training
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="damaged"):
        load_model(path)
    with pytest.raises(DataError, match="no such model"):
        load_model(tmp_path / "nothing.pt")


def test_a_tampered_iteration_is_refused(context: Context, tmp_path: Path) -> None:
    run = run_of(tmp_path)
    active_learning(run, context, SimulatedOracle(context.dataset))
    labeled = run.folder / "iteration_1" / "labeled_indices.json"
    labeled.write_text("[0, 1, 2, 3, 4, 5, 6]")
    with pytest.raises(ExperimentError, match="was trained on other images"):
        active_learning(run, context, SimulatedOracle(context.dataset))


def test_trainings_begin_with_a_given_model(context: Context, tmp_path: Path) -> None:
    """Its weights and its file decide; a network of another size is refused."""
    model = context.model
    for seed in (1, 2):
        network = model.build()
        network.load_state_dict(initial_weights(model, seed))
        save_model(tmp_path / f"start_{seed}.pt", network, model, {"seed": seed})
    starts = [replace(context, start=tmp_path / f"start_{seed}.pt") for seed in (1, 2)]
    first = first_weights(starts[0], seed=5)
    assert all(torch.equal(first[name], value) for name, value in initial_weights(model, 1).items())
    keys = {training_key(run_of(tmp_path), one, [np.arange(3)]) for one in (context, *starts)}
    assert len(keys) == 3
    with pytest.raises(ConfigError, match=r"start.*base_channels=2, here it is 4; set it to 2"):
        first_weights(replace(starts[0], model=ModelConfig(base_channels=4)), seed=5)
