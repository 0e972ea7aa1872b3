"""Who answers a query, and what an answer costs. The only way from an image of the pool to its mask."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cryoquery.config import CheckedModel
from cryoquery.data.dataset import Dataset, read_rows


class LabelCost(CheckedModel):
    """What a person's labels cost in time. The defaults are an assumption, not a measurement."""

    seconds_per_image: float = Field(default=60.0, ge=0)
    """To open a micrograph, set its contrast and look it over."""
    seconds_per_particle: float = Field(default=2.0, ge=0)

    def minutes(self, n_images: float, n_particles: float) -> float:
        """Minutes to label so many images that hold so many particles."""
        return (n_images * self.seconds_per_image + n_particles * self.seconds_per_particle) / 60


class Oracle(Protocol):
    """Answers queries with masks, and keeps apart what was asked for from what was not."""

    def ask(self, indices: NDArray[np.int64]) -> None:
        """Have the pool images ``indices`` labelled. Those labelled already cost nothing."""

    def masks(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Masks (n, h, w) of images that were asked for: BACKGROUND, PARTICLE or IGNORE."""

    def n_particles(self, indices: NDArray[np.int64]) -> int:
        """How many particles were labelled in these images, all of which were asked for."""


class SimulatedOracle:
    """Answers from the labels of a dataset, and only for what it was asked."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._asked = np.zeros(len(dataset.rows("train")), dtype=bool)

    def ask(self, indices: NDArray[np.int64]) -> None:
        """See `Oracle`."""
        self._asked[indices] = True

    def masks(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """See `Oracle`."""
        self._check(indices)
        return read_rows(self._dataset.masks, indices)

    def n_particles(self, indices: NDArray[np.int64]) -> int:
        """See `Oracle`."""
        self._check(indices)
        return self._dataset.n_particles(indices)

    def _check(self, indices: NDArray[np.int64]) -> None:
        if not self._asked[indices].all():
            raise PermissionError("a label was read that nobody had asked for")
