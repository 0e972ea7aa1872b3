"""Strategies: which images to label next. All of them stand in one table, `STRATEGIES`.

A strategy is a function from candidates and a number to that many choices, best first. It pulls what
it needs from the candidates; `random` pulls nothing, and no network is run for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryoquery.acquisition import diversity
from cryoquery.acquisition.candidates import Candidates
from cryoquery.errors import ConfigError


@dataclass(frozen=True)
class Choice:
    """One image of a query."""

    index: int
    """Index into the pool."""
    score: float
    reason: str


Strategy = Callable[[Candidates, int], list[Choice]]
ImageScore = Callable[[Candidates], NDArray[np.float64]]


@dataclass(frozen=True)
class NamedStrategy:
    """A row of the table."""

    select: Strategy
    summary: str


def mean(pixel_score: str) -> ImageScore:
    """Image score: the mean of a pixel score over the image."""

    def score(candidates: Candidates) -> NDArray[np.float64]:
        return candidates.mean_score(pixel_score)

    return score


def top(score: ImageScore, reason: str) -> Strategy:
    """Take the images with the highest score; ties go to the lower index."""

    def select(candidates: Candidates, n: int) -> list[Choice]:
        scores = score(candidates)
        assert np.isfinite(scores).all(), "image scores are finite"
        order = np.argsort(-scores, kind="stable")[:n]
        return [Choice(int(candidates.indices[i]), float(scores[i]), reason) for i in order]

    return select


def random(candidates: Candidates, n: int) -> list[Choice]:
    """Draw images uniformly, without replacement: the highest of independent uniform numbers."""
    return top(lambda some: some.rng.random(len(some)), "drawn at random")(candidates, n)


def stratified_random(candidates: Candidates, n: int) -> list[Choice]:
    """Draw an equal share of the query from every group; one that runs out leaves its share to the others.

    The groups take turns in a random order, so that none of them always gets what cannot be shared.
    """
    groups = np.array([candidates.groups[i] for i in candidates.indices])
    order = candidates.rng.permutation(len(groups))
    turn = np.empty(len(groups), dtype=np.int64)
    place = np.empty(len(groups), dtype=np.int64)
    for at, group in enumerate(candidates.rng.permutation(np.unique(groups))):
        rows = order[groups[order] == group]
        turn[rows], place[rows] = np.arange(len(rows)), at
    rows = np.lexsort((place, turn))[:n]
    return _choices(candidates, rows, "drawn at random within its group")


def k_means(candidates: Candidates, n: int) -> list[Choice]:
    """Take the image nearest to each of ``n`` cluster centers of the candidates' features."""
    features = candidates.features()
    rows = diversity.k_means(features, n, candidates.rng)
    return _choices(candidates, rows, "nearest to the center of a cluster")


def k_center(candidates: Candidates, n: int) -> list[Choice]:
    """Take, one after the other, the image farthest from all that are labelled or taken."""
    rows = diversity.k_center(candidates.features(), candidates.labeled_features(), n)
    return _choices(candidates, rows, "farthest from everything labelled")


def _choices(candidates: Candidates, rows: NDArray[np.int64], reason: str) -> list[Choice]:
    """Choices whose order is their score: 1 for the first, falling to 1/n."""
    n = len(rows)
    return [Choice(int(candidates.indices[row]), (n - i) / n, reason) for i, row in enumerate(rows)]


def mix(first: Strategy, share: float, second: Strategy) -> Strategy:
    """``share`` of the query by ``first`` (rounded half up), the others by ``second`` among the rest."""

    def select(candidates: Candidates, n: int) -> list[Choice]:
        n_first = int(share * n + 0.5)
        chosen = first(candidates, n_first) if n_first else []
        if n_first == n:
            return chosen
        rest = candidates.without(np.array([choice.index for choice in chosen], dtype=np.int64))
        return chosen + second(rest, n - n_first)

    return select


_uncertain = top(mean("least_confidence"), "high mean least confidence")

STRATEGIES: Mapping[str, NamedStrategy] = {
    "uncertainty": NamedStrategy(_uncertain, "highest mean least confidence"),
    "entropy": NamedStrategy(top(mean("entropy"), "high mean entropy"), "highest mean entropy"),
    "margin": NamedStrategy(
        top(mean("margin"), "small mean margin"), "smallest mean margin; ranks images as uncertainty does"
    ),
    "diversity": NamedStrategy(k_means, "k-means on bottleneck features, the image nearest to each center"),
    "hybrid": NamedStrategy(
        mix(_uncertain, 0.7, k_means), "70 % by uncertainty, 30 % by diversity among the rest"
    ),
    "random": NamedStrategy(random, "uniformly at random; looks at nothing"),
    "stratified_random": NamedStrategy(
        stratified_random, "at random, equal shares per group; the opponent where groups are uneven"
    ),
    "core_set": NamedStrategy(k_center, "greedy k-center given the labelled images (Sener & Savarese 2018)"),
}


def check_known(name: str) -> None:
    """Refuse a name that is not in the table.

    Raises:
        ConfigError: it is not; the message lists those that are.
    """
    if name not in STRATEGIES:
        raise ConfigError(f"strategy {name!r}: unknown; choose from {', '.join(STRATEGIES)}")


def select(name: str, candidates: Candidates, n: int) -> list[Choice]:
    """The query of strategy ``name``: ``n`` choices, best first, no image twice.

    Raises:
        ConfigError: the strategy is unknown, or fewer than ``n`` candidates are left.
    """
    if n > len(candidates):
        raise ConfigError(f"a query of {n} images: only {len(candidates)} are unlabelled; ask for fewer")
    check_known(name)
    choices = STRATEGIES[name].select(candidates, n) if n else []
    indices = {choice.index for choice in choices}
    assert len(choices) == len(indices) == n, f"{name} broke its contract"
    assert indices <= set(candidates.indices.tolist()), f"{name} chose outside its candidates"
    return choices
