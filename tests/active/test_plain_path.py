"""Speed never changes results: a loop written plainly selects the same images as the package does.

The plain loop has float32 in contiguous memory, Adam as it comes, no reading ahead, whole probability maps
that are kept and scored with NumPy, and its own loss, recalibration and selection. It shares the network,
the first labeled set, the order of the data (`Training.epochs`) and the seeds of the queries.

Layouts differ in rounding, and training on a few small images blows that up: Adam makes whole steps of
gradients that are next to nothing, and batch normalization divides by what few pixels vary. So the
learning rate is low. The images still depend on every part: without the symmetries or the
recalibration others are selected.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_dataset
from sklearn.cluster import KMeans
from tiers import take, thorough

from cryoquery.active.loop import active_learning, initial_set
from cryoquery.active.oracles import SimulatedOracle
from cryoquery.active.run import Context, Run
from cryoquery.data.dataset import Dataset
from cryoquery.data.pool import LabeledImages, Pool
from cryoquery.network.device import DeviceConfig
from cryoquery.network.model import AttentionUNet, ModelConfig, initial_weights
from cryoquery.network.optimize import Training, TrainingConfig
from cryoquery.storage.cache import Cache

MODEL = ModelConfig(base_channels=2)
TRAINING = TrainingConfig(
    initial_epochs=6, epochs=3, batch_size=8, initial_learning_rate=1e-4, learning_rate=5e-5
)
COUNTS = (8, 12, 16, 20)
SEED = 3


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "discs", {"train": 40, "val": 2})


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The number of threads decides on the last bits, which this test is about."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@thorough
@pytest.mark.parametrize("strategy", take(["diversity"], ["uncertainty", "entropy", "diversity"]))
def test_the_fast_and_the_plain_path_select_the_same_images(
    dataset: Dataset, tmp_path: Path, strategy: str
) -> None:
    device = DeviceConfig(accelerator="cpu", precision="32-true")
    cache = Cache(tmp_path / "cache")
    context = Context(dataset, MODEL, TRAINING, device.fabric(), ("val",), cache, device)
    run = Run(f"{strategy}_sampling", strategy, SEED, COUNTS, tmp_path / "run")
    fast = active_learning(run, context, SimulatedOracle(dataset))
    network = MODEL.build()
    network.load_state_dict(initial_weights(MODEL, SEED))
    labeled = initial_set(context.pool, COUNTS[0], SEED)
    for number, iteration in enumerate(fast):
        assert iteration.labeled.tolist() == labeled.tolist()
        train_plainly(network, dataset, labeled, from_scratch=number == 0)
        maps, features = predict_plainly(network, dataset)
        if number + 1 < len(fast):
            n = COUNTS[number + 1] - COUNTS[number]
            rng = np.random.default_rng([SEED, zlib.crc32(run.name.encode()), number])
            query = choose_plainly(strategy, maps, features, labeled, n, rng)
            assert sorted(iteration.query.tolist()) == sorted(query)
            labeled = np.sort(np.concatenate([labeled, query]))


def train_plainly(network: AttentionUNet, dataset: Dataset, labeled: np.ndarray, from_scratch: bool) -> None:
    """One training, image by image from the arrays, then the statistics of batch normalization anew."""
    order = Training(
        start={},
        model=MODEL,
        labeled=LabeledImages(Pool.of(dataset), labeled, lambda indices: dataset.masks[indices]),
        config=TRAINING,
        from_scratch=from_scratch,
        seed=SEED,
    )
    *epochs, last = order.epochs()
    rate = TRAINING.initial_learning_rate if from_scratch else TRAINING.learning_rate
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    network.train()
    for batches in epochs:
        for batch in batches:
            assert batch.symmetries is not None
            pairs = list(zip(labeled[batch.positions], batch.symmetries, strict=True))
            images = np.stack([turned(dataset.images[row], turn) for row, turn in pairs])
            masks = np.stack([turned(dataset.masks[row], turn) for row, turn in pairs])
            optimizer.zero_grad()
            loss_plainly(network(as_input(images))[:, 0], torch.tensor(masks)).backward()
            optimizer.step()
    recalibrate_plainly(network, [as_input(dataset.images[labeled[batch.positions]]) for batch in last])


def turned(image: np.ndarray, turn: int) -> np.ndarray:
    """Quarter symmetries, from number 4 on after mirroring."""
    return np.rot90(np.fliplr(image) if turn >= 4 else image, turn % 4)


def as_input(levels: np.ndarray) -> torch.Tensor:
    """8-bit levels (n, h, w) as (n, 1, h, w) in standard deviations."""
    return torch.tensor((levels.astype(np.float32) - 128) / 32)[:, None].contiguous()


def loss_plainly(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """0.7 focal loss (α 0.25, γ 2) + 0.3 Dice loss, over the pixels that are not to be ignored."""
    valid = masks != 255
    p, target = torch.sigmoid(logits[valid]), (masks[valid] == 1).float()
    p_true = target * p + (1 - target) * (1 - p)
    alpha = 0.25 * target + 0.75 * (1 - target)
    focal = (-alpha * (1 - p_true) ** 2 * torch.log(p_true)).mean()
    dice = 1 - 2 * (p * target).sum() / (p.sum() + target.sum())
    return 0.7 * focal + 0.3 * dice


def recalibrate_plainly(network: AttentionUNet, batches: list[torch.Tensor]) -> None:
    """Statistics of every batch, one after the other, and their mean."""
    layers = {name: m for name, m in network.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in layers}
    probe = copy.deepcopy(network).train()
    for name, layer in probe.named_modules():
        if name in layers:
            layer.register_forward_pre_hook(
                lambda _, inputs, name=name: seen[name].append(
                    (inputs[0].mean(dim=(0, 2, 3)), inputs[0].var(dim=(0, 2, 3)))
                )
            )
    with torch.no_grad():
        for images in batches:
            probe(images)
    for name, layer in layers.items():
        means, variances = zip(*seen[name], strict=True)
        layer.running_mean.copy_(torch.stack(means).mean(dim=0))
        layer.running_var.copy_(torch.stack(variances).mean(dim=0))


def predict_plainly(network: AttentionUNet, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Probability maps (n, h, w) and mean features (n, c) of all training images, one at a time."""
    network.eval()
    maps, features = [], []
    with torch.no_grad():
        for row in range(len(dataset.rows("train"))):
            logits, deep = network.forward_with_features(as_input(dataset.images[row : row + 1]))
            maps.append(torch.sigmoid(logits)[0, 0].numpy())
            features.append(deep[0].mean(dim=(1, 2)).numpy())
    return np.stack(maps), np.stack(features)


def choose_plainly(
    strategy: str,
    maps: np.ndarray,
    features: np.ndarray,
    labeled: np.ndarray,
    n: int,
    rng: np.random.Generator,
) -> list[int]:
    """The query."""
    unlabeled = [i for i in range(len(maps)) if i not in set(labeled.tolist())]
    p = maps.astype(np.float64)
    if strategy == "diversity":
        return nearest_to_centers(features[unlabeled], unlabeled, n, int(rng.integers(2**31)))
    if strategy == "entropy":
        scores = -(p * np.log(p) + (1 - p) * np.log(1 - p)).mean(axis=(1, 2))
    else:
        scores = (1 - np.maximum(p, 1 - p)).mean(axis=(1, 2))
    return sorted(unlabeled, key=lambda i: -scores[i])[:n]


def nearest_to_centers(points: np.ndarray, names: list[int], n: int, seed: int) -> list[int]:
    """For each of ``n`` centers the point nearest to it, the nearest of them first."""
    centers = KMeans(n, n_init=1, random_state=seed).fit(points.astype(np.float64)).cluster_centers_
    found = []
    for center in centers:
        distances = [float(np.linalg.norm(point - center)) for point in points]
        best = int(np.argmin(distances))
        found.append((distances[best], names[best]))
    return [name for _, name in sorted(found)]
