from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_dataset

from cryoquery.acquisition.candidates import NetworkSignals
from cryoquery.acquisition.ensembles import ENSEMBLES
from cryoquery.acquisition.image_scores import BASE, FEATURES, STATISTICS, Signal
from cryoquery.acquisition.strategies import strategy_of
from cryoquery.data.dataset import Dataset
from cryoquery.data.pool import LabeledImages, Pool
from cryoquery.errors import ConfigError
from cryoquery.network.device import DeviceConfig
from cryoquery.network.loader import apply_symmetries
from cryoquery.network.model import AttentionUNet, ModelConfig, initial_weights
from cryoquery.network.optimize import Training, TrainingConfig
from cryoquery.network.predict import Predictor, compute_signals
from cryoquery.network.train import fit
from cryoquery.storage.cache import SignalCache, SignalRecord

FABRIC = DeviceConfig(precision="32-true").fabric()
MODEL = ModelConfig(base_channels=2)


def network(seed: int = 0) -> AttentionUNet:
    built = MODEL.build()
    built.load_state_dict(initial_weights(MODEL, seed))
    return built.eval()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("d") / "discs", {"train": 9, "val": 3}, content=(32, 20))


def signal(text: str) -> Signal:
    (one,) = strategy_of(f"top({text})").needs
    return one


def plain_members(images: torch.Tensor) -> list[torch.Tensor]:
    """Probabilities (k, h, w) of each of the eight symmetries, with the symmetries of training."""
    members = []
    for number in range(8):
        turned = apply_symmetries(images, torch.full((len(images),), number))
        with torch.no_grad():
            p = torch.sigmoid(network()(turned))
        back = [apply_symmetries(p, torch.full((len(images),), k)) for k in range(8)]
        # The symmetry that undoes it: found by trying, so that this test knows no convention.
        undone = [apply_symmetries(turned, torch.full((len(images),), k)) for k in range(8)]
        (k,) = [k for k in range(8) if torch.equal(undone[k], images)]
        members.append(back[k][:, 0])
    return members


def test_turns_against_the_plain_way(dataset: Dataset) -> None:
    pool = Pool.of(dataset)
    indices = np.array([7, 2, 5])
    texts = ("mean(mutual_information)", "mean(expected_entropy)", "mean(entropy('dihedral'))")
    wanted = {text: STATISTICS[signal(text)] for text in texts}
    passed: list[int] = []
    found = compute_signals(
        Predictor(network(), FABRIC, batch_size=2),
        pool,
        indices,
        wanted,
        passed.append,
        ENSEMBLES["dihedral"],
    )
    assert sum(passed) == 8 * 3
    images = torch.from_numpy((pool.levels[indices].astype(np.float32) - 128) / 32)[:, None]
    members = torch.stack(plain_members(images)).double()[:, :, :, :20]
    h = lambda p: -p * torch.log(p) - (1 - p) * torch.log(1 - p)  # noqa: E731
    aleatoric = h(members).mean(dim=0).mean(dim=(1, 2))
    total = h(members.mean(dim=0)).mean(dim=(1, 2))
    assert found[texts[1]] == pytest.approx(aleatoric.numpy(), rel=1e-4)
    assert found[texts[2]] == pytest.approx(total.numpy(), rel=1e-4)
    assert found[texts[0]] == pytest.approx((total - aleatoric).numpy(), rel=1e-2, abs=1e-7)
    assert (found[texts[0]] > 0).all()


def test_members_of_each_ensemble() -> None:
    symmetries, turns4, snapshots = (ENSEMBLES[name] for name in ("dihedral", "dihedral4", "snapshots"))
    assert [some.n_members((32, 32), 5) for some in (symmetries, turns4, snapshots)] == [8, 4, 5]
    assert symmetries.n_members((32, 48), 5) == 4
    predictor = Predictor(network(), FABRIC)
    wide = torch.randn(1, 1, 32, 48)
    with torch.no_grad():
        members = list(symmetries.probabilities(predictor, wide))
    assert [tuple(p.shape) for p in members] == [(1, 32, 48)] * 4
    assert torch.equal(members[0], torch.sigmoid(predictor.network(wide)[:, 0]))


def test_what_is_the_same_under_all_turns_has_no_mutual_information(dataset: Dataset) -> None:
    class Pointwise(AttentionUNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images

    found = compute_signals(
        Predictor(Pointwise(base_channels=2), FABRIC),
        Pool.of(dataset),
        np.arange(4),
        {"mi": STATISTICS[signal("mean(mutual_information)")]},
        ensemble=ENSEMBLES["dihedral"],
    )
    assert found["mi"] == pytest.approx(0, abs=1e-6)


def test_one_pass_yields_all_that_a_strategy_wants(dataset: Dataset, tmp_path: Path) -> None:
    wanted = strategy_of(
        "mix((0.4, top(foreground(mutual_information))), (0.3, top(mean(expected_entropy))), (0.3, badge))"
    ).needs
    passed: list[int] = []
    cache = SignalCache(tmp_path / "signals")

    def signals() -> NetworkSignals:
        passed.clear()
        return NetworkSignals(
            lambda: Predictor(network(), FABRIC, 4), Pool.of(dataset), cache, passed.append, wanted
        )

    first = signals()
    values = {one.key: first.values(one, np.arange(6)) for one in wanted}
    assert sum(passed) == 6 + 8 * 6
    again = signals()
    for one in wanted:
        assert np.array_equal(again.values(one, np.arange(6)), values[one.key])
    assert not passed, "what is kept is not computed again"
    more = signals()
    more.values(FEATURES, np.arange(9))
    assert sum(passed) == 3
    other = NetworkSignals(lambda: Predictor(network(), FABRIC, 4), Pool.of(dataset), cache, passed.append)
    passed.clear()
    before = other.values(FEATURES, np.arange(9))
    assert np.array_equal(before, more.values(FEATURES, np.arange(9)))
    other.values(signal("boundary(entropy)"), np.arange(9))
    assert sum(passed) == 9
    assert np.array_equal(before, other.values(FEATURES, np.arange(9)))


def test_signals_that_were_kept_before_there_were_others_are_used(dataset: Dataset, tmp_path: Path) -> None:
    cache, n = SignalCache(tmp_path / "signals"), 9
    old = {name: np.arange(n) / 10 for name in ("least_confidence", "entropy", "margin")}
    cache.save(SignalRecord(np.arange(n), {**old, "features": np.ones((n, 32), np.float32)}))

    def refuse() -> Predictor:
        raise AssertionError("the network was loaded")

    signals = NetworkSignals(refuse, Pool.of(dataset), cache)
    for one in BASE:
        assert len(signals.values(one, np.arange(n))) == n


def training(dataset: Dataset, **changes: object) -> Training:
    pool = Pool.of(dataset)
    return Training(
        start=initial_weights(MODEL, 0),
        model=MODEL,
        labeled=LabeledImages(pool, np.arange(6), lambda indices: dataset.masks[indices]),
        config=TrainingConfig(initial_epochs=6, batch_size=3, **changes),
        from_scratch=True,
        seed=0,
    )


def test_snapshots_are_earlier_weights_with_statistics_of_their_own(dataset: Dataset) -> None:
    assert training(dataset, snapshots=3).snapshots_after == {4, 5}
    assert training(dataset, snapshots=20).snapshots_after == {1, 2, 3, 4, 5}
    kept: list = []
    network = fit(training(dataset, snapshots=3), FABRIC, snapshots=kept)
    none: list = []
    without = fit(training(dataset), FABRIC, snapshots=none)
    assert not none
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, without.state_dict()[name]), "keeping some changes nothing"
    shorter = training(dataset)
    shorter = Training(**{**vars(shorter), "config": TrainingConfig(initial_epochs=5, batch_size=3)})
    earlier = dict(fit(shorter, FABRIC).named_parameters())
    assert len(kept) == 2
    for name, tensor in earlier.items():
        assert torch.equal(kept[1][name], tensor.detach())
    assert not torch.equal(kept[0]["down.0.1.running_mean"], kept[1]["down.0.1.running_mean"])


def test_the_number_of_snapshots_is_part_of_what_a_training_is_made_of() -> None:
    assert TrainingConfig().model_dump(mode="json")["snapshots"] == 0
    assert TrainingConfig(snapshots=3).model_dump(mode="json")["snapshots"] == 3
    assert TrainingConfig(**TrainingConfig(snapshots=3).model_dump()) == TrainingConfig(snapshots=3)


def test_snapshots_that_are_not_there_are_refused(dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"this training kept none; set training.snapshots"):
        compute_signals(
            Predictor(network(), FABRIC),
            Pool.of(dataset),
            np.arange(2),
            {"mi": STATISTICS[signal("mean(mutual_information('snapshots'))")]},
            ensemble=ENSEMBLES["snapshots"],
        )
