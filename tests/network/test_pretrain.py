from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_dataset

from cryoquery import run_experiment
from cryoquery.acquisition.candidates import Candidates
from cryoquery.acquisition.typical import cold_start_set
from cryoquery.active.initial_weights import first_weights, pretrained
from cryoquery.active.loop import active_learning, first_set, initial_set
from cryoquery.active.oracles import SimulatedOracle
from cryoquery.active.run import Context, Run
from cryoquery.active.training_key import cache_inputs, pretraining_key, training_key
from cryoquery.data.dataset import Dataset
from cryoquery.data.pool import Pool
from cryoquery.errors import ConfigError, CryoqueryError, DataError
from cryoquery.experiment.config import ExperimentConfig, load_config
from cryoquery.experiment.plan import make_plan
from cryoquery.experiment.verify import verify
from cryoquery.network import pretrain as pretraining
from cryoquery.network.checkpoint import Weights, load_weights
from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import ModelConfig, initial_weights
from cryoquery.network.optimize import TrainingConfig
from cryoquery.network.pretrain import (
    Pretraining,
    PretrainingConfig,
    load_features,
    make_views,
    pretrain,
    pretrained_features,
    vicreg,
)
from cryoquery.storage.cache import Cache

MODEL = ModelConfig(base_channels=2)
CONFIG = PretrainingConfig(steps=3, batch_size=4)
FABRIC = DeviceConfig(precision="32-true").fabric()
TRAINING = TrainingConfig(initial_epochs=1, epochs=1, batch_size=4)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "discs", {"train": 12, "val": 3})


@pytest.fixture
def context(dataset: Dataset, tmp_path: Path) -> Context:
    cache = Cache(tmp_path / "cache")
    return Context(dataset, MODEL, TRAINING, FABRIC, ("val",), cache, pretraining=CONFIG)


def learn(dataset: Dataset, seed: int = 0, config: PretrainingConfig = CONFIG, **more: object) -> Weights:
    return pretrain(Pool.of(dataset), MODEL, config, FABRIC, seed, **more)


def equal(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def run_of(folder: Path, strategy: str = "random", counts: tuple[int, ...] = (3, 5)) -> Run:
    return Run(f"{strategy}_sampling", strategy, 5, counts, folder / strategy)


def test_the_same_seed_gives_the_same_weights(dataset: Dataset) -> None:
    torch.manual_seed(1)
    first = learn(dataset)
    torch.manual_seed(2)
    assert equal(first, learn(dataset))
    assert not equal(first, learn(dataset, seed=1))
    assert not equal(first, learn(dataset, config=PretrainingConfig(steps=3, batch_size=4, noise=0)))


def test_only_the_encoder_learns(dataset: Dataset) -> None:
    before, after = initial_weights(MODEL, 0), learn(dataset)
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"down", "bottleneck"}
    assert all(bool(torch.isfinite(tensor).all()) for tensor in after.values())


def test_it_tells_images_apart_that_differ() -> None:
    rng = np.random.default_rng(0)
    kinds = np.arange(24) % 2
    y, x = np.mgrid[:32, :32]
    images = [
        128
        + 30 * np.sin((x + y if kind else y) * (0.7 + kind) + rng.uniform(0, 6))
        + rng.normal(0, 20, (32, 32))
        for kind in kinds
    ]
    levels = np.clip(images, 0, 255).astype(np.uint8)
    pool = Pool(levels, np.full((24, 2), 32), ("",) * 24, ("",) * 24)
    weights = pretrain(pool, MODEL, PretrainingConfig(steps=40, batch_size=12), FABRIC, 0)
    features = pretrained_features(weights, MODEL, pool, np.arange(24), FABRIC)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distances = np.linalg.norm(unit[:, None] - unit[None], axis=2) + 9 * np.eye(24)
    assert (kinds[distances.argmin(axis=1)] == kinds).mean() > 0.9
    chosen = cold_start_set("typiclust", features, 2, seed=0)
    assert set(kinds[chosen]) == {0, 1}


def test_it_goes_on_after_an_interruption_to_the_same_bits(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "CHECKPOINT_SECONDS", -1)
    file, done = tmp_path / "checkpoint", []

    def stop(n_images: int) -> None:
        done.append(n_images)
        if len(done) == 3:
            raise KeyboardInterrupt

    config = PretrainingConfig(steps=5, batch_size=5)
    with pytest.raises(KeyboardInterrupt):
        learn(dataset, config=config, watch=stop, checkpoint=file)
    assert file.is_file()
    steps: list[int] = []
    resumed = learn(dataset, config=config, watch=steps.append, checkpoint=file)
    assert steps == [10, 10, 10], "two of five steps were done"
    assert equal(resumed, learn(dataset, config=config))
    file.write_bytes(b"torn")
    assert equal(resumed, learn(dataset, config=config, checkpoint=file))


def test_views_lie_within_the_content(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", {"train": 5, "val": 1}, size=64, content=(48, 32))
    pool = Pool.of(dataset)
    levels = np.zeros_like(pool.levels)
    levels[:, :48, :32] = 200
    what = Pretraining(replace(pool, levels=levels), MODEL, CONFIG, 0)
    assert what.view_px == 16, "three quarters of the shorter side, in steps of 16"
    for step, indices in what.batches(0):
        for view in make_views(what, step, indices):
            assert view.levels.shape == (4, 16, 16)
            assert (view.levels == 200).all()


def test_every_image_is_seen_before_any_comes_again(dataset: Dataset) -> None:
    what = Pretraining(Pool.of(dataset), MODEL, PretrainingConfig(steps=6, batch_size=4), 0)
    seen = [indices for _, indices in what.batches(0)]
    assert sorted(np.concatenate(seen[:3])) == list(range(12)) == sorted(np.concatenate(seen[3:]))
    assert [i.tolist() for _, i in what.batches(2)] == [i.tolist() for i in seen[2:]]
    assert Pretraining(Pool.of(dataset), MODEL, PretrainingConfig(), 0).n_images == 12


def test_the_learning_rate_rises_and_falls(dataset: Dataset) -> None:
    what = Pretraining(Pool.of(dataset), MODEL, PretrainingConfig(steps=50, learning_rate=0.01), 0)
    rates = [what.learning_rate(step) for step in range(50)]
    assert max(rates) == rates[4] == 0.01
    assert rates == sorted(rates[:5]) + sorted(rates[5:], reverse=True)
    assert 0 < min(rates) < 2e-4
    assert Pretraining(what.pool, MODEL, PretrainingConfig(steps=1), 0).learning_rate(0) > 0


def test_the_loss_punishes_difference_collapse_and_correlation() -> None:
    rng = torch.Generator().manual_seed(0)
    spread = 2 * torch.linalg.qr(torch.randn(64, 8, generator=rng)).Q * 64**0.5
    spread = spread - spread.mean(dim=0)
    least = vicreg(spread, spread)
    assert least < 0.5
    assert vicreg(spread, -spread) > least + 25
    assert vicreg(torch.zeros(64, 8), torch.zeros(64, 8)) == pytest.approx(25 * 0.99, rel=1e-4)
    same = spread[:, :1].expand(-1, 8)
    assert vicreg(same, same) > least + 10


def test_features_are_means_over_the_content(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", {"train": 5, "val": 1}, size=48, content=(32, 48))
    pool, weights = Pool.of(dataset), initial_weights(MODEL, 0)
    features = pretrained_features(weights, MODEL, pool, np.array([3, 1]), FABRIC)
    assert features.shape == (2, 32)
    assert features.dtype == np.float32
    network = MODEL.build().eval()
    network.load_state_dict(weights)
    image = (torch.from_numpy(pool.read([3]))[:, None].float() - 128) / 32
    with torch.inference_mode():
        maps = network.forward_with_features(image)[1][0]
    assert features[0] == pytest.approx(maps[:, :2].mean(dim=(1, 2)).numpy(), rel=1e-4, abs=1e-6)


def test_without_pretraining_weights_and_first_images_are_drawn(context: Context, tmp_path: Path) -> None:
    sets = [np.array([1, 2]), np.array([1, 2, 7])]
    plain = replace(context, pretraining=None)
    assert cache_inputs(plain)["pretraining"] is None
    assert equal(first_weights(plain, 3), initial_weights(MODEL, 3))
    assert ExperimentConfig(dataset="d").protocol()["pretraining"] is None
    run = run_of(tmp_path)
    assert training_key(run, plain, sets[:1]) != training_key(run, context, sets[:1])
    assert first_set(run, plain).tolist() == initial_set(plain.pool, 3, 5).tolist()


def test_it_is_made_once_per_seed_and_kept(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pretrained(context, 1)
    assert sorted(file.name for file in entry.iterdir()) == ["entry.json", "features.npy", "model.pt"]
    assert pretrained(context, 2) != entry
    other = replace(context, pretraining=PretrainingConfig(steps=2))
    assert pretraining_key(cache_inputs(other), 1) != pretraining_key(cache_inputs(context), 1)
    more_epochs = replace(context, training=TrainingConfig(initial_epochs=9))
    assert pretraining_key(cache_inputs(more_epochs), 1) == entry.name, "later trainings have no say"
    monkeypatch.setattr("cryoquery.active.initial_weights.pretrain", None)
    assert pretrained(context, 1) == entry
    assert equal(first_weights(context, 1), load_weights(entry / "model.pt")[0])


def test_trainings_start_from_what_was_learned(context: Context, tmp_path: Path) -> None:
    one = active_learning(run_of(tmp_path), context, SimulatedOracle(context.dataset))
    plain = replace(context, pretraining=None)
    two = active_learning(run_of(tmp_path / "plain"), plain, SimulatedOracle(context.dataset))
    assert one[0].labeled.tolist() == two[0].labeled.tolist()
    assert one[0].metrics["training_key"] != two[0].metrics["training_key"]
    weights, _, made_by = load_weights(one[0].folder / "model.pt")
    assert made_by["pretraining"] == CONFIG.model_dump(mode="json")
    assert not equal(weights, load_weights(two[0].folder / "model.pt")[0])


@pytest.mark.parametrize("how", ["typiclust", "prob_cover"])
def test_a_cold_start_is_the_same_for_all_strategies(context: Context, tmp_path: Path, how: str) -> None:
    cold = replace(context, cold_start=how)
    chosen = first_set(run_of(tmp_path), cold)
    assert chosen.tolist() == first_set(run_of(tmp_path, "entropy"), cold).tolist()
    features = load_features(pretrained(cold, 5))
    assert chosen.tolist() == cold_start_set(how, features, 3, 5).tolist()
    assert len(set(chosen.tolist())) == 3
    everything = run_of(tmp_path, counts=(12,))
    assert first_set(everything, cold).tolist() == list(range(12))
    done = active_learning(run_of(tmp_path, "entropy"), cold, SimulatedOracle(cold.dataset))
    assert done[0].labeled.tolist() == chosen.tolist()
    shutil.rmtree(cold.cache.folder)
    again = active_learning(run_of(tmp_path, "entropy"), cold, SimulatedOracle(cold.dataset))
    assert [i.labeled.tolist() for i in again] == [i.labeled.tolist() for i in done]
    assert not list(cold.cache.folder.rglob("features.npy")), "a finished run needs no cache"
    (done[0].folder / "labeled_indices.json").write_text("[0, 1, 99]")
    with pytest.raises(DataError, match="remove this folder and run again"):
        active_learning(run_of(tmp_path, "entropy"), cold, SimulatedOracle(cold.dataset))


def test_a_large_pool_is_represented_by_a_shortlist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryoquery.acquisition.typical.SHORTLIST", 30)
    features = np.random.default_rng(0).normal(size=(100, 3))
    for how in ("typiclust", "prob_cover"):
        for n in (4, 50):
            chosen = cold_start_set(how, features, n, 0)
            assert len(set(chosen.tolist())) == n
            assert (np.diff(chosen) > 0).all()


def test_labels_have_no_say(dataset: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "garbled"
    shutil.copytree(dataset.path, folder)
    masks = np.lib.format.open_memmap(folder / "masks.npy", mode="r+")
    masks[:] = 1
    masks.flush()
    from cryoquery.data.dataset import open_dataset

    assert equal(learn(dataset), learn(open_dataset(folder)))


def test_strategies_get_the_features_or_a_refusal(dataset: Dataset) -> None:
    features = np.arange(24.0, dtype=np.float32).reshape(12, 2)
    some = Candidates(np.array([4, 7]), np.array([1]), ("",) * 12, None, None, lambda: features)
    mine, labeled = some.pretrained_features()
    assert mine.tolist() == features[[4, 7]].tolist()
    assert labeled.tolist() == features[[1]].tolist()
    with pytest.raises(ConfigError, match=r"add \[pretraining\]"):
        replace(some, learned=None).pretrained_features()


def test_an_experiment_with_a_cold_start_holds(dataset: Dataset, tmp_path: Path) -> None:
    values = {
        "dataset": str(dataset.path),
        "out": str(tmp_path / "out"),
        "strategies": ["entropy", "random"],
        "baselines": ["full_supervision"],
        "seeds": [1, 2],
        "schedule": {"counts": [3, 5]},
        "model": {"base_channels": 2},
        "training": {"initial_epochs": 1, "epochs": 1},
        "pretraining": {"steps": 2},
        "cold_start": "typiclust",
        "workers": 1,
    }
    out = run_experiment(values)
    found = verify(out)
    assert [str(problem) for problem in found.problems] == []
    assert found.not_checked == ()
    assert run_experiment(values) == out, "it can be resumed"
    metrics = json.loads((out / "entropy_sampling" / "seed_1" / "iteration_0" / "metrics.json").read_text())
    assert metrics["protocol"]["pretraining"]["steps"] == 2
    assert metrics["protocol"]["first_images"] == {"cold_start": "typiclust"}
    cold, plain = (
        make_plan(ExperimentConfig(**{**values, "pretraining": some, "cold_start": how})).cost
        for some, how in (({"steps": 2}, "typiclust"), (None, "random"))
    )
    assert cold.n_training - plain.n_training == 2 * 2 * 2 * 12, "seeds, views, steps, images"
    file = out / "entropy_sampling" / "seed_2" / "iteration_0" / "labeled_indices.json"
    labeled = json.loads(file.read_text())
    other = next(i for i in range(12) if i not in labeled)
    file.write_text(json.dumps(sorted([*labeled[1:], other])))
    assert any("does not follow from the first draw" in str(problem) for problem in verify(out).problems)
    features = next((out / ".cache").rglob("features.npy"))
    features.write_bytes(b"torn")
    assert any("features.npy" in str(problem) for problem in verify(out).problems)
    for features in list((out / ".cache").rglob("features.npy")):
        shutil.rmtree(features.parent)
    assert any("were not kept" in what for what in verify(out).not_checked)


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ('cold_start = "typiclust"', r"cold_start='typiclust'.*add \[pretraining\]"),
        ('cold_start = "warm"', "cold_start='warm'"),
        ("[pretraining]\nsteps = 0", "pretraining.steps=0"),
        ("[pretraining]\nstep = 5", "pretraining.step: unknown key; did you mean 'steps'"),
        ("[pretraining]\nview_px = 100", "pretraining.view_px=100"),
    ],
)
def test_mistakes_are_named_in_a_line(tmp_path: Path, lines: str, what: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'dataset = "d"\n{lines}\n')
    with pytest.raises(ConfigError, match=what) as found:
        load_config(file)
    assert "\n" not in str(found.value)


def test_what_cannot_be_done_is_refused(dataset: Dataset, context: Context, tmp_path: Path) -> None:
    pool = Pool.of(dataset)
    alone = replace(pool, levels=pool.levels[:1], content=pool.content[:1])
    with pytest.raises(ConfigError, match=r"1 image\(s\), two are needed"):
        pretrain(alone, MODEL, CONFIG, FABRIC, 0)
    with pytest.raises(CryoqueryError, match="lower its learning_rate"):
        learn(dataset, config=PretrainingConfig(steps=20, learning_rate=1e30))
    with pytest.raises(ConfigError, match=r"add \[pretraining\]"):
        pretrained(replace(context, pretraining=None), 0)
    with pytest.raises(DataError, match="no such file"):
        load_features(tmp_path)
    (tmp_path / "features.npy").write_bytes(b"torn")
    with pytest.raises(DataError, match="cannot be read"):
        load_features(tmp_path)
    np.save(tmp_path / "features.npy", np.full((2, 2), np.nan, dtype=np.float32))
    with pytest.raises(DataError, match="no finite features"):
        load_features(tmp_path)
