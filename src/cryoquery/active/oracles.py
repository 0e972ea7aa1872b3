"""Answers to queries, and their cost. An oracle is the only way from an image of the pool to its mask."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cryoquery.config import CheckedModel
from cryoquery.data.array_file import read_rows
from cryoquery.data.dataset import IGNORE, Dataset, MicrographKey
from cryoquery.data.preprocess import draw_mask
from cryoquery.errors import DataError
from cryoquery.formats.placement import to_scaled


class NoiseConfig(CheckedModel):
    """Label noise: how far the labels of a simulated person are from those of the dataset. All 0: none."""

    miss_rate: float = Field(default=0.0, ge=0, le=1)
    """Chance of each particle to be overlooked."""
    false_rate: float = Field(default=0.0, ge=0)
    """False picks per particle of the dataset, anywhere on the micrograph."""
    jitter: float = Field(default=0.0, ge=0)
    """Standard deviation of a center along each axis, in particle diameters."""

    @property
    def is_clean(self) -> bool:
        """Whether the labels stay as they are."""
        return self.miss_rate == self.false_rate == self.jitter == 0


class SimulatedOracle:
    """Answers queries from the labels of a dataset, and gives no mask that was not asked for."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._asked = np.zeros(len(dataset.rows("train")), dtype=bool)

    @property
    def labels(self) -> Dataset:
        """The dataset with this oracle's answers as particles; for images that were asked for only."""
        return self._dataset

    def may_miss(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether particles of the images (n,) may have been overlooked."""
        return np.ones(len(indices), dtype=bool)

    def ask(self, indices: NDArray[np.int64]) -> None:
        """Have the pool images ``indices`` labeled. Those labeled already cost nothing."""
        self._asked[indices] = True

    def masks(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Masks (n, h, w) of images that were asked for: BACKGROUND, PARTICLE or IGNORE."""
        self._check(indices)
        return read_rows(self._dataset.masks, indices)

    def n_particles(self, indices: NDArray[np.int64]) -> int:
        """How many particles were labeled in these images, all of which were asked for."""
        self._check(indices)
        return self._dataset.n_particles(indices)

    def _check(self, indices: NDArray[np.int64]) -> None:
        if not self._asked[indices].all():
            raise PermissionError("a label was read that had not been asked for")


class HumanOracle(SimulatedOracle):
    """Answers from what people have labeled of a project, and refuses items without labels."""

    def __init__(self, dataset: Dataset, labeled: NDArray[np.int64], reviewed: Collection[int] = ()) -> None:
        """``labeled``: indices of the pool images that have labels in ``dataset``.

        ``reviewed``: those of them where people saw what a model suggests, and decided.
        """
        super().__init__(dataset)
        self._labeled = np.zeros(len(self._asked), dtype=bool)
        self._labeled[labeled] = True
        self._reviewed = np.array(sorted(reviewed), dtype=np.int64)

    def may_miss(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See `SimulatedOracle`: not where people have said no to a model's suggestions."""
        return ~np.isin(indices, self._reviewed)

    def ask(self, indices: NDArray[np.int64]) -> None:
        """See `SimulatedOracle`.

        Raises:
            DataError: one of them is not labeled.
        """
        waiting = np.asarray(indices)[~self._labeled[indices]]
        if len(waiting):
            name = self._dataset.records[waiting[0]].micrograph
            raise DataError(f"{self._dataset.path}: item {waiting[0]} ({name}) has no labels; label it first")
        super().ask(indices)


class NoisyOracle(SimulatedOracle):
    """Answers with label noise, as a person would: misses, false picks, and centers that are off.

    The noise of a micrograph comes from the seed and its name alone, so that its fields agree about a
    particle on their border, and asking twice changes nothing. Discs of the usual size are drawn around
    the centers that result, also where the masks of the dataset were given and are not discs. What is
    IGNOREd stays so.
    """

    def __init__(self, dataset: Dataset, noise: NoiseConfig, seed: int) -> None:
        super().__init__(dataset)
        keys = {record.key: record for record in dataset.records if record.split == "train"}
        noisy = {
            key: _with_noise(
                dataset.particles.get(key, np.empty((0, 3))),
                (record.height_px, record.width_px),
                record.diameter_px,
                noise,
                _generator(seed, key),
            )
            for key, record in keys.items()
        }
        self._particles = {**dataset.particles, **noisy}

    @property
    def labels(self) -> Dataset:
        """See `SimulatedOracle`. Held-out images keep the labels of the dataset."""
        return replace(self._dataset, particles=self._particles)

    def masks(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See `SimulatedOracle`."""
        masks = super().masks(indices)
        for mask, index in zip(masks, np.asarray(indices).tolist(), strict=True):
            record = self._dataset.records[index]
            rows = self._particles[record.key]
            centers = to_scaled(rows[:, :2], record.scale) - np.array([record.top, record.left])
            discs = draw_mask(mask.shape, centers, rows[:, 2] * record.scale * self._dataset.disc_fraction)
            mask[...] = np.where(mask == IGNORE, IGNORE, discs)
        return masks

    def n_particles(self, indices: NDArray[np.int64]) -> int:
        """See `SimulatedOracle`: as many as it labeled, right or wrong."""
        self._check(indices)
        return self.labels.n_particles(indices)


def make_oracle(dataset: Dataset, noise: NoiseConfig, seed: int) -> SimulatedOracle:
    """The oracle of an experiment: the dataset's labels, with ``noise`` where there is any."""
    return SimulatedOracle(dataset) if noise.is_clean else NoisyOracle(dataset, noise, seed)


def _generator(seed: int, key: MicrographKey) -> np.random.Generator:
    return np.random.default_rng([seed, *(zlib.crc32(part.encode()) for part in key)])


def _with_noise(
    particles: NDArray[np.float64],
    shape: tuple[int, int],
    diameter_px: float,
    noise: NoiseConfig,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Rows (m, 3) of (y, x, diameter) that label noise makes of ``particles`` (n, 3)."""
    n = len(particles)
    kept = rng.random(n) >= noise.miss_rate
    moved = particles.copy()
    if noise.jitter:
        moved[:, :2] += rng.normal(size=(n, 2)) * noise.jitter * particles[:, 2:]
        # A person clicks on the micrograph, not beside it.
        moved[:, :2] = np.clip(moved[:, :2], -0.5, np.array(shape) - 0.501)
    n_false = rng.poisson(noise.false_rate * n)
    false = np.column_stack([rng.uniform(-0.5, np.array(shape) - 0.5, (n_false, 2)), np.zeros(n_false)])
    false[:, 2] = np.median(particles[:, 2]) if n else diameter_px
    return np.concatenate([moved[kept], false])
