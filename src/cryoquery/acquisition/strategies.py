"""Strategies: which images to label next. All of them stand in one table, `STRATEGIES`.

A strategy is a function from candidates and a number to that many choices, best first. It pulls what
it needs from the candidates; `random` pulls nothing, and no network is run for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cryoquery.acquisition import diversity
from cryoquery.acquisition.candidates import Candidates
from cryoquery.errors import ConfigError

SHORTLIST = 20_000
"""How many candidates are compared with each other; a larger pool is represented by as many, drawn at random.

517 of 20,000 are still chosen from 39 times as many. Clustering takes time and memory in proportion
to the candidates times the query, so both stay bounded whatever the pool; and the network looks at
no more images than were drawn.
"""


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
    names, group_of = np.unique([candidates.groups[i] for i in candidates.indices], return_inverse=True)
    order = candidates.rng.permutation(len(candidates))
    place = np.empty(len(names), dtype=np.int64)
    place[np.searchsorted(names, candidates.rng.permutation(names))] = np.arange(len(names))
    sizes = np.bincount(group_of)
    turn = np.empty(len(candidates), dtype=np.int64)
    by_group = order[np.argsort(group_of[order], kind="stable")]
    turn[by_group] = np.arange(len(candidates)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rows = np.lexsort((place[group_of], turn))[:n]
    return _choices(candidates.indices[rows], "drawn at random within its group")


def by_features(choose_rows: Callable[[Candidates, int], NDArray[np.int64]], reason: str) -> Strategy:
    """Choose by features: among all candidates, or in a pool of more than `SHORTLIST` among a shortlist.

    A shortlist of `SHORTLIST` candidates is drawn uniformly with the candidates' generator, which a
    smaller pool leaves alone. At most a quarter of it is taken. A larger query goes on with another
    shortlist of what is left, where all that was taken counts as labelled: so its time grows with
    ``n``, its memory does not, and no query is refused.
    """

    def select(candidates: Candidates, n: int) -> list[Choice]:
        rest, parts, missing = candidates, [], n
        while len(rest) > SHORTLIST and missing:
            drawn = np.sort(rest.rng.choice(len(rest), SHORTLIST, replace=False))
            few = replace(rest, indices=rest.indices[drawn])
            taken = few.indices[choose_rows(few, min(missing, SHORTLIST // 4))]
            rest, missing = rest.without(taken), missing - len(taken)
            parts.append(taken)
        if missing:
            parts.append(rest.indices[choose_rows(rest, missing)])
        shortlisted = len(candidates) > SHORTLIST
        return _choices(
            np.concatenate(parts), f"{reason} (of {SHORTLIST} drawn at random)" if shortlisted else reason
        )

    return select


def _k_means_rows(candidates: Candidates, n: int) -> NDArray[np.int64]:
    return diversity.k_means(candidates.features(), n, candidates.rng)


def _k_center_rows(candidates: Candidates, n: int) -> NDArray[np.int64]:
    return diversity.k_center(candidates.features(), candidates.labeled_features(), n)


def _choices(indices: NDArray[np.int64], reason: str) -> list[Choice]:
    """Choices whose order is their score: 1 for the first, falling to 1/n."""
    n = len(indices)
    return [Choice(int(index), (n - i) / n, reason) for i, index in enumerate(indices)]


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
k_means = by_features(_k_means_rows, "nearest to the center of a cluster")
k_center = by_features(_k_center_rows, "farthest from everything labelled")

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
