"""From image scores and features to a query. Every function here gives a `Strategy`, and they nest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, InstanceOf

from cryoquery.acquisition import diversity
from cryoquery.acquisition.candidates import Candidates, Choice, ImageScore, Select, Strategy
from cryoquery.acquisition.image_scores import FEATURES, Signal
from cryoquery.errors import ConfigError

SHORTLIST = 20_000
"""How many candidates are compared with each other; a larger pool is represented by as many, drawn at random.

517 of 20,000 are still chosen from 39 times as many. Clustering takes time and memory in proportion
to the candidates times the query, so both stay bounded whatever the pool; and the network looks at
no more images than were drawn.
"""

LEAST_SHARE = 0.1
"""A group whose mean score is lower than so much of the highest is treated as if it had that."""

SomeScore: TypeAlias = InstanceOf[ImageScore]
SomeStrategy: TypeAlias = InstanceOf[Strategy]
Positive: TypeAlias = Annotated[float, Field(gt=0)]
Exponent: TypeAlias = Annotated[float, Field(gt=0, le=100)]
Count: TypeAlias = Annotated[int, Field(ge=1)]
Share: TypeAlias = Annotated[float, Field(gt=0, le=1)]
Rows: TypeAlias = "NDArray[np.int64]"


def top(score: SomeScore) -> Strategy:
    """The images with the highest score; ties go to the lower index."""
    return _highest(score, score, f"high {score.label}")


def _highest(score: ImageScore, shown: ImageScore, reason: str) -> Strategy:
    def select(candidates: Candidates, n: int) -> list[Choice]:
        scores = score(candidates)
        assert np.isfinite(scores).all(), "image scores are finite"
        order = np.argsort(-scores, kind="stable")[:n]
        values = scores if shown is score else shown(candidates)
        return [Choice(int(candidates.indices[i]), float(values[i]), reason) for i in order]

    return Strategy(select, score.needs | shown.needs)


_uniform = ImageScore("uniform number", lambda candidates: candidates.rng.random(len(candidates)))
RANDOM = _highest(_uniform, _uniform, "drawn at random")


def random() -> Strategy:
    """Uniformly, without replacement: the highest of independent uniform numbers."""
    return RANDOM


def power(
    score: SomeScore,
    beta: Positive | tuple[Positive, Positive] = 1.0,
    standardize: bool = True,
) -> Strategy:
    """The highest log scores with Gumbel noise of scale 1/``beta`` (Kirsch et al. 2021, arXiv:2106.12059).

    That draws images without replacement with probabilities in proportion to ``score ** beta``. A pair
    is a schedule: from the first at the first query to the second at the last, evenly in its logarithm.
    Image scores often differ by a few per cent, where any noise of scale 1 drowns them: unless
    ``standardize`` is false, their logarithms are brought to variance 1 first.
    """
    ends = beta if isinstance(beta, tuple) else (beta, beta)

    def noisy(candidates: Candidates) -> NDArray[np.float64]:
        now = ends[0] ** (1 - candidates.progress) * ends[1] ** candidates.progress
        logs = log_scores(score(candidates))
        if standardize:
            spread = float(logs.std())
            logs = (logs - logs.mean()) / (spread if spread > 1e-9 else 1.0)
        return np.asarray(logs + candidates.rng.gumbel(size=len(logs)) / now)

    by = ImageScore(score.label, noisy, score.needs)
    return _highest(by, by, f"high {score.label}, partly by chance")


def log_scores(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms (n,) of scores ≥ 0; a score below a millionth of the highest counts as that much."""
    highest = float(scores.max(initial=0))
    return np.log(np.maximum(scores, 1e-6 * highest)) if highest > 0 else np.zeros(len(scores))


def stratified(selection: SomeStrategy, otherwise: SomeStrategy | None = None) -> Strategy:
    """Equal shares of the query for every group, chosen within each by ``selection``.

    A group that runs out leaves its share to the others. In a pool of one group ``otherwise`` chooses.

    Raises:
        ConfigError: on choosing, there is one group only and no ``otherwise``.
    """

    def select(candidates: Candidates, n: int) -> list[Choice]:
        if len(set(candidates.groups)) < 2:
            return _of_one_group("stratified", candidates, n, otherwise)
        if selection is RANDOM:
            return _stratified_random(candidates, n)
        groups = np.array([candidates.groups[i] for i in candidates.indices])
        return _in_equal_shares(candidates, n, np.unique(groups, return_inverse=True)[1], selection)

    return _of_parts(select, (selection, otherwise), by_group=otherwise is None)


def _of_parts(
    select: Select, parts: Sequence[Strategy | ImageScore | None], by_group: bool | None = None
) -> Strategy:
    """A strategy that asks for all that its ``parts`` ask for."""
    needs = frozenset[Signal]().union(*(part.needs for part in parts if part))
    strategies = [part for part in parts if isinstance(part, Strategy)]
    looks = any(part.looks_at_labeled for part in strategies)
    return Strategy(
        select, needs, looks, any(part.by_group for part in strategies) if by_group is None else by_group
    )


def _of_one_group(name: str, candidates: Candidates, n: int, otherwise: Strategy | None) -> list[Choice]:
    if otherwise is None:
        raise ConfigError(
            f"{name}: all images of the pool belong to one group; "
            f"use clustered(…), or the same without {name}, or give otherwise=…"
        )
    return otherwise(candidates, n)


def _stratified_random(candidates: Candidates, n: int) -> list[Choice]:
    """Random draws in equal shares, with one permutation for all groups.

    The groups come in a random order, so that the remainder does not always go to the same ones.
    """
    names, group_of = np.unique([candidates.groups[i] for i in candidates.indices], return_inverse=True)
    order = candidates.rng.permutation(len(candidates))
    place = np.empty(len(names), dtype=np.int64)
    place[np.searchsorted(names, candidates.rng.permutation(names))] = np.arange(len(names))
    turn = np.empty(len(candidates), dtype=np.int64)
    by_group = order[np.argsort(group_of[order], kind="stable")]
    turn[by_group] = _counted_within(np.bincount(group_of))
    rows = np.lexsort((place[group_of], turn))[:n]
    return choices(candidates.indices[rows], "drawn at random within its group")


def _counted_within(sizes: NDArray[np.int64]) -> Rows:
    """0, 1, 2, … within each of the groups of ``sizes``, one group after the other."""
    return np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def proportional(
    selection: SomeStrategy,
    by: SomeScore | None = None,
    power: Exponent = 1.0,
    otherwise: SomeStrategy | None = None,
) -> Strategy:
    """Shares of all that is labeled for every group, in proportion to a power of its mean of ``by``.

    The mean is that of what is not labeled yet; a group has at least `LEAST_SHARE` of the highest, so that
    none is given up. What is labeled already counts: a group that has much gets less of the query. Without
    ``by`` the shares are equal. Within each group ``selection`` chooses. A group that runs out leaves its
    share to the others. In a pool of one group ``otherwise`` chooses.

    Raises:
        ConfigError: on choosing, there is one group only and no ``otherwise``.
    """

    def select(candidates: Candidates, n: int) -> list[Choice]:
        if len(set(candidates.groups)) < 2:
            return _of_one_group("proportional", candidates, n, otherwise)
        parts = np.unique(candidates.groups, return_inverse=True)[1]
        of = parts[candidates.indices], parts[candidates.labeled]
        chosen = _in_shares(candidates, n, *of, selection, by, power)
        groups = candidates.groups
        return [replace(choice, reason=f"{choice.reason}; of {groups[choice.index]}") for choice in chosen]

    return _of_parts(select, (selection, by, otherwise), by_group=otherwise is None)


def clustered(
    selection: SomeStrategy,
    k: Count = 8,
    by: SomeScore | None = None,
    power: Exponent = 1.0,
) -> Strategy:
    """As `proportional`, for ``k`` clusters of the features in place of groups: where none are known.

    What is labeled is clustered with the candidates. Clusters differ in size, and the smallest hold
    unusual images: with equal shares most of a query would be such images.
    """

    def select(candidates: Candidates, n: int) -> list[Choice]:
        points = np.concatenate([candidates.features(), candidates.labeled_features()])
        m = len(candidates)
        parts = diversity.clusters(points, min(k, len(points)), candidates.rng, SHORTLIST)
        size_of = dict(zip(candidates.indices.tolist(), np.bincount(parts)[parts[:m]], strict=True))
        return [
            replace(choice, reason=f"{choice.reason}; one of {size} alike" if size > 1 else choice.reason)
            for choice in _in_shares(candidates, n, parts[:m], parts[m:], selection, by, power)
            for size in [size_of[choice.index]]
        ]

    needs = selection.needs | (by.needs if by else frozenset()) | {FEATURES}
    return replace(selection, select=select, needs=needs, looks_at_labeled=True)


def _in_shares(
    candidates: Candidates,
    n: int,
    part_of: Rows,
    part_of_labeled: Rows,
    selection: Strategy,
    by: ImageScore | None,
    power: float,
) -> list[Choice]:
    """Shares for parts of the pool, given as a number for each candidate (m,) and labeled image (k,)."""
    parts, part_of = np.unique(part_of, return_inverse=True)
    sizes = np.bincount(part_of)
    scores = np.ones(len(candidates)) if by is None else by(candidates)
    means = np.bincount(part_of, scores) / sizes
    best = float(means.max())
    weights = np.maximum(means / best, LEAST_SHARE) ** power if best > 0 else np.ones(len(parts))
    n_labeled = np.array([np.count_nonzero(part_of_labeled == part) for part in parts])
    turns = _turns(weights, n_labeled, sizes, n)
    chosen = [
        iter(selection(candidates.at(np.flatnonzero(part_of == part)), int(share)))
        for part, share in enumerate(np.bincount(turns, minlength=len(parts)))
    ]
    return [next(chosen[part]) for part in turns]


def _turns(weights: NDArray[np.float64], n_had: Rows, n_left: Rows, n: int) -> list[int]:
    """Which group gets each of ``n`` images, so that what all have stays in proportion to ``weights``.

    Each image goes to the group that would have the least for its weight (Webster's divisors).
    """
    had, left = n_had.astype(np.float64), n_left.copy()
    turns: list[int] = []
    for _ in range(n):
        lag = np.where(left > 0, (had + 0.5) / weights, np.inf)
        group = int(np.argmin(lag))
        had[group] += 1
        left[group] -= 1
        turns.append(group)
    return turns


def _in_equal_shares(candidates: Candidates, n: int, part_of: Rows, selection: Strategy) -> list[Choice]:
    """Equal shares for the parts that ``part_of`` (m,) numbers, in a random order."""
    parts = candidates.rng.permutation(np.unique(part_of))
    sizes = np.array([np.count_nonzero(part_of == part) for part in parts])
    turns = np.stack([_counted_within(sizes), np.repeat(np.arange(len(parts)), sizes)])
    taking = np.lexsort((turns[1], turns[0]))[:n]
    shares = np.bincount(turns[1][taking], minlength=len(parts))
    chosen = [
        selection(candidates.at(np.flatnonzero(part_of == part)), int(share))
        for part, share in zip(parts, shares, strict=True)
    ]
    return [chosen[part][turn] for turn, part in turns[:, taking].T]


def mix(*parts: Any) -> Strategy:
    """Shares of the query for several strategies, each among what those before it left.

    ``mix((0.7, A), (0.3, B))``; ``mix(A, 0.7, B)`` is the same. Shares are rounded half up; the last
    strategy takes what is left.

    Raises:
        ValueError: the parts are not of this form, or the shares do not add up to 1.
    """
    if len(parts) == 3 and isinstance(parts[0], Strategy):
        parts = ((parts[1], parts[0]), (1 - parts[1], parts[2]))
    for part in parts:
        if not (isinstance(part, tuple) and len(part) == 2 and isinstance(part[1], Strategy)):
            raise ValueError("give pairs of a share and a selection, such as mix((0.7, A), (0.3, B))")
        if not isinstance(part[0], (int, float)) or not 0 < part[0] <= 1:
            raise ValueError(f"share {part[0]!r}: must lie above 0 and not above 1")
    pairs: list[tuple[float, Strategy]] = list(parts)
    if not pairs or abs(sum(share for share, _ in pairs) - 1) > 0.005:
        raise ValueError("the shares must add up to 1")

    def select(candidates: Candidates, n: int) -> list[Choice]:
        chosen: list[Choice] = []
        rest, upto = candidates, 0.0
        for i, (share, strategy) in enumerate(pairs):
            upto += share
            n_upto = n if i + 1 == len(pairs) else min(int(upto * n + 0.5), n)
            some = strategy(rest, n_upto - len(chosen))
            chosen += some
            if len(chosen) == n:
                break
            rest = rest.without(np.array([choice.index for choice in some], dtype=np.int64))
        return chosen

    return _of_parts(select, [strategy for _, strategy in pairs])


def k_means(score: SomeScore | None = None, shortlist: Positive = 3.0) -> Strategy:
    """The images nearest to the centers of as many clusters of the features as are asked for.

    With a ``score`` only the ``shortlist`` times as many images where it is highest are clustered.
    """

    def rows(candidates: Candidates, n: int) -> Rows:
        return diversity.k_means(candidates.features(), n, candidates.rng)

    return _of_shortlist(by_features(rows, "nearest to the center of a cluster"), score, shortlist)


def k_center(score: SomeScore | None = None, shortlist: Positive = 3.0) -> Strategy:
    """Greedy k-center given the labeled images (the core-set of Sener & Savarese, arXiv:1708.00489).

    With a ``score`` only among the ``shortlist`` times as many images where it is highest.
    """

    def rows(candidates: Candidates, n: int) -> Rows:
        return diversity.k_center(candidates.features(), candidates.labeled_features(), n)

    strategy = by_features(rows, "farthest from everything labeled", looks_at_labeled=True)
    return _of_shortlist(strategy, score, shortlist)


def prefilter(selection: SomeStrategy, score: SomeScore, share: Share = 0.5) -> Strategy:
    """What ``selection`` takes from the share of the candidates where ``score`` is highest."""
    return _of_highest(selection, score, lambda candidates, _: int(np.ceil(share * len(candidates))))


def _of_shortlist(strategy: Strategy, score: ImageScore | None, shortlist: float) -> Strategy:
    if score is None:
        return strategy
    return _of_highest(strategy, score, lambda candidates, n: int(shortlist * n + 0.5))


def _of_highest(strategy: Strategy, score: ImageScore, n_of: Callable[[Candidates, int], int]) -> Strategy:
    """``strategy`` among the ``n_of(candidates, n)`` candidates of the highest score, never among too few."""
    first = top(score)

    def select(candidates: Candidates, n: int) -> list[Choice]:
        n_first = min(max(n_of(candidates, n), n), len(candidates))
        best = np.array([choice.index for choice in first(candidates, n_first)], dtype=np.int64)
        chosen = strategy(replace(candidates, indices=np.sort(best)), n)
        return [replace(choice, reason=f"{choice.reason}, of high {score.label}") for choice in chosen]

    return replace(strategy, select=select, needs=strategy.needs | score.needs)


def by_features(
    choose_rows: Callable[[Candidates, int], Rows],
    reason: str,
    needs: Collection[Signal] = (FEATURES,),
    looks_at_labeled: bool = False,
) -> Strategy:
    """Choose by features: among all candidates, or in a pool of more than `SHORTLIST` among a shortlist.

    A shortlist of `SHORTLIST` candidates is drawn uniformly with the candidates' generator, which a
    smaller pool leaves alone. At most a quarter of it is taken. A larger query goes on with another
    shortlist of what is left, where all that was taken counts as labeled: so its time grows with
    ``n``, its memory does not, and no query is refused.
    """

    def select(candidates: Candidates, n: int) -> list[Choice]:
        rest, parts, missing = candidates, [], n
        while len(rest) > SHORTLIST and missing:
            few = rest.at(np.sort(rest.rng.choice(len(rest), SHORTLIST, replace=False)))
            taken = few.indices[choose_rows(few, min(missing, SHORTLIST // 4))]
            rest, missing = rest.without(taken), missing - len(taken)
            parts.append(taken)
        if missing:
            parts.append(rest.indices[choose_rows(rest, missing)])
        shortlisted = len(candidates) > SHORTLIST
        return choices(
            np.concatenate(parts), f"{reason} (of {SHORTLIST} drawn at random)" if shortlisted else reason
        )

    return Strategy(select, frozenset(needs), looks_at_labeled)


def choices(indices: Sequence[int] | NDArray[np.int64], reason: str) -> list[Choice]:
    """Choices whose order is their score: 1 for the first, falling to 1/n."""
    n = len(indices)
    return [Choice(int(index), (n - i) / n, reason) for i, index in enumerate(indices)]
