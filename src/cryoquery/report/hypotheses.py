"""The three hypotheses of the protocol, judged.

Each hypothesis is judged for every strategy, and p values are adjusted for their number (Holm), so
that the chance of supporting a hypothesis that holds for none of them stays at 2.5 %. Strategies that
labeled the same images throughout are one strategy and are counted once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from cryoquery.experiment.config import FULL_SUPERVISION
from cryoquery.report.efficiency import HALF, TOLERATED_LOSS, Measurements, aulc, final, score_at
from cryoquery.report.runs import RANDOM, STRATIFIED, Results, label
from cryoquery.report.statistics import ONE_SIDED_ALPHA, Difference, holm
from cryoquery.report.words import listed, signed

ABOUT_HALF = 0.05
"""An iteration this near to 50 % of the labels lets F1 at 50 % be read off."""

Verdict = Literal["supported", "not supported", "undecided"]


@dataclass(frozen=True)
class Judgment:
    """One hypothesis for one strategy."""

    run: str
    verdict: Verdict
    p_for: float | None
    """Adjusted p of the test that would support it; None where there is no test."""
    p_against: float | None
    """Adjusted p of the test that would refute it."""
    difference: Difference | None
    """The difference that decides it, where there is a single one."""
    numbers: dict[str, Any] = field(default_factory=dict)
    same_as: str | None = None
    """The strategy that labeled the same images and is counted instead of this one."""


@dataclass(frozen=True)
class Hypothesis:
    """One of the three, judged for every strategy."""

    key: str
    title: str
    claim: str
    verdict: Verdict
    sentence: str
    judgments: tuple[Judgment, ...]
    note: str = ""


def judge(measurements: Measurements) -> tuple[Hypothesis, Hypothesis, Hypothesis]:
    """The three hypotheses of the protocol, in its order."""
    return equal_with_half(measurements), better_everywhere(measurements), faster(measurements)


def equal_with_half(measurements: Measurements) -> Hypothesis:
    """Non-inferiority: F1 with half the labels is at most 0.01 below that of full supervision."""
    results = measurements.results
    full = measurements.of(FULL_SUPERVISION, final)

    def test(run: str) -> Finding:
        difference = measurements.of(run, _about_half).minus(full) if any(full.by_seed.values()) else None
        return Finding.beyond(-TOLERATED_LOSS, difference)

    judgments = _judge_all(results, results.judged(), test)
    random = _judge_all(results, [RANDOM], test) if RANDOM in results.runs() else ()
    verdict = _overall(judgments)
    what = f"that half of the labels cost at most {TOLERATED_LOSS} F1"
    missing = "no strategy was scored near 50 % of the labels with a seed that full supervision has"
    if not full.by_seed:
        missing = "full supervision was not run"
    measured = _differs("with half of the labels", "full supervision")
    sentence = _sentence(judgments, measured, what, missing)
    return Hypothesis(
        "equal_with_50_percent_fewer_labels",
        "Equal with 50 % fewer labels",
        f"With 50 % of the labels, F1 is at most {TOLERATED_LOSS} below full supervision (non-inferiority).",
        verdict,
        f"{sentence}; {_random_in_passing(random)}.",
        (*judgments, *random),
        _beside_random(random, verdict),
    )


def _about_half(fractions: ArrayLike, scores: ArrayLike) -> float | None:
    """F1 at 50 %, where an iteration has about half of the labels."""
    near = float(np.abs(np.asarray(fractions) - HALF).min())
    return score_at(fractions, scores, HALF) if near <= ABOUT_HALF else None


def better_everywhere(measurements: Measurements) -> Hypothesis:
    """Intersection–union test (Berger 1982): better than random in every iteration where they may differ."""
    results = measurements.results
    checkpoints = differing_iterations(results)
    span = ", ".join(f"{100 * fraction:.0f} %" for fraction in checkpoints.values())

    def test(run: str) -> Finding:
        found = {
            f"{fraction:.4f}": measurements.at(run, i).minus(measurements.at(RANDOM, i))
            for i, fraction in checkpoints.items()
        }
        known = {fraction: d for fraction, d in found.items() if d is not None}
        if not known:
            return Finding()
        better, worse = ([d.p_above() for d in known.values()], [d.p_below() for d in known.values()])
        numbers = {
            "by_labeled_fraction": {
                fraction: {"difference": d.mean, "p_better": d.p_above()} for fraction, d in known.items()
            },
            "seeds": list(next(iter(known.values())).seeds),
            "n_checkpoints": len(known),
            "n_checkpoints_with_higher_mean": sum(d.mean > 0 for d in known.values()),
        }
        p_better, p_worse = ([p for p in both if p is not None] for both in (better, worse))
        if len(p_better) < len(known):
            return Finding(numbers=numbers)
        # Better everywhere is refuted by being worse anywhere: Bonferroni over the places to look.
        return Finding(max(p_better), min(1.0, len(p_worse) * min(p_worse)), None, numbers)

    judgments = _judge_all(results, results.judged(), test) if RANDOM in results.runs() else ()
    verdict = _overall(judgments)
    what = f"that a strategy is better at each{f' ({span})' if span else ''}"
    missing = _why_not_beside_random(results)
    if results.of(RANDOM) and not checkpoints:
        missing = "the schedule has no iteration in which they can differ"
    return Hypothesis(
        "better_than_random_at_all_percentages",
        "Better than random at all percentages",
        f"F1 is above that of random sampling at {f'each of {span}' if span else 'all percentages'} "
        "(intersection–union test).",
        verdict,
        f"{_sentence(judgments, _ahead_at, what, missing)}.",
        judgments,
        f"The first labeled set is the same for all by construction and is left out{_left_out(results)}.",
    )


def _left_out(results: Results) -> str:
    ends = [float(curve.fractions[-1]) for curve in results.of(RANDOM)]
    if not ends:
        return ""
    if max(ends) >= 1:
        return ", and so is the whole pool"
    return f"; nothing is known beyond {100 * max(ends):.0f} %, where the schedule ends"


def faster(measurements: Measurements) -> Hypothesis:
    """AULC above that of random sampling."""
    results = measurements.results
    chance = measurements.of(RANDOM, aulc)

    def test(run: str) -> Finding:
        return Finding.beyond(0.0, measurements.of(run, aulc).minus(chance))

    judgments = _judge_all(results, results.judged(), test)
    verdict = _overall(judgments)
    ends = [float(curve.fractions[-1]) for curve in results.of(RANDOM)]
    span = f"up to {100 * max(ends):.0f} % of the labels" if ends and max(ends) < 1 else "as a whole"
    what, why = "that a strategy is better than random sampling", _why_not_beside_random(results)
    return Hypothesis(
        "faster_convergence",
        "Faster convergence",
        "The area under the learning curve (AULC) is above that of random sampling.",
        verdict,
        f"{_sentence(judgments, _differs(f'over the learning curve {span}', 'random sampling'), what, why)}.",
        judgments,
        _beside_stratified(measurements),
    )


def _why_not_beside_random(results: Results) -> str:
    if not results.of(RANDOM):
        return "random sampling was not run"
    if not results.judged():
        return "no strategy was run"
    return "no strategy shares a seed with random sampling, or the schedule has a single iteration"


def differing_iterations(results: Results) -> dict[int, float]:
    """Iterations in which strategies can differ (neither the first nor the whole pool): labeled share."""
    for curve in results.curves:
        if curve.run.endswith("_sampling"):
            return {i: float(f) for i, f in enumerate(curve.fractions) if i > 0 and f < 1}
    return {}


@dataclass(frozen=True)
class Finding:
    """What the tests of one strategy gave; without p values there was nothing to test."""

    p_for: float | None = None
    p_against: float | None = None
    difference: Difference | None = None
    numbers: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def beyond(cls, value: float, difference: Difference | None) -> Finding:
        """Of the tests whether a difference is above ``value``, or below."""
        if difference is None:
            return cls()
        return cls(difference.p_above(value), difference.p_below(value), difference)


def _judge_all(results: Results, runs: Sequence[str], test: Callable[[str], Finding]) -> tuple[Judgment, ...]:
    """Test every strategy, adjust for their number, and give identical runs one verdict."""
    first = {run: one for run, one in results.first_of_identical.items() if one in runs}
    own = [run for run in runs if run not in first]
    found = {run: test(run) for run in own}
    p_for = _adjusted({run: found[run].p_for for run in own})
    p_against = _adjusted({run: found[run].p_against for run in own})
    judgments = []
    for run in runs:
        same = first.get(run, run)
        verdict = _verdict(p_for[same], p_against[same])
        difference, numbers = found[same].difference, found[same].numbers
        judgments.append(
            Judgment(run, verdict, p_for[same], p_against[same], difference, numbers, first.get(run))
        )
    return tuple(judgments)


def _adjusted(p_values: dict[str, float | None]) -> dict[str, float | None]:
    tested = {run: p for run, p in p_values.items() if p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {run: adjusted.get(run) for run in p_values}


def _verdict(p_for: float | None, p_against: float | None) -> Verdict:
    if p_for is not None and p_for < ONE_SIDED_ALPHA:
        return "supported"
    if p_against is not None and p_against < ONE_SIDED_ALPHA:
        return "not supported"
    return "undecided"


def _overall(judgments: Sequence[Judgment]) -> Verdict:
    verdicts = {judgment.verdict for judgment in judgments}
    if "supported" in verdicts:
        return "supported"
    return "not supported" if verdicts == {"not supported"} else "undecided"


def _sentence(
    judgments: Sequence[Judgment], measured: Callable[[Sequence[Judgment]], str], what: str, missing: str
) -> str:
    """What was measured, and what that says; ``what`` is the claim, without a stop at the end."""
    lead = measured([judgment for judgment in judgments if judgment.same_as is None])
    tested = [judgment for judgment in judgments if judgment.p_for is not None]
    if not tested:
        one_seed = any(judgment.difference or judgment.numbers for judgment in judgments)
        why = "one seed cannot tell an effect from chance" if one_seed else missing
        return f"{lead}; {what} is undecided: {why}" if lead else f"It is undecided {what}: {why}"
    winners = [label(judgment.run) for judgment in tested if judgment.verdict == "supported"]
    losers = [label(judgment.run) for judgment in tested if judgment.verdict == "not supported"]
    if winners:
        return f"{lead}; {what} is supported for {listed(winners)}"
    if len(losers) == len(tested):
        return f"{lead}; {what} is refuted for every strategy"
    return f"{lead}; {what} is undecided{f' (refuted for {listed(losers)})' if losers else ''}"


def _differs(where: str, opponent: str) -> Callable[[Sequence[Judgment]], str]:
    """In words: the strategies with the largest difference to ``opponent``; those that tie are all named."""

    def measured(judgments: Sequence[Judgment]) -> str:
        means = {j.run: round(j.difference.mean, 3) for j in judgments if j.difference is not None}
        if not means:
            return ""
        best = [j for j in judgments if means.get(j.run) == max(means.values())]
        assert best[0].difference is not None, "only such have a mean"
        interval = best[0].difference.interval() if len(best) == 1 else None
        reach = f" (95 % interval {signed(interval.low)} to {signed(interval.high)})" if interval else ""
        names = listed([label(judgment.run) for judgment in best])
        are_best = "tie for the best:" if len(best) > 1 else "is the best:"
        value = signed(max(means.values()))
        return f"{where[0].upper()}{where[1:]} {names} {are_best} {value} F1 beside {opponent}{reach}"

    return measured


def _ahead_at(judgments: Sequence[Judgment]) -> str:
    """In words: who is ahead of random sampling at most of the labeled shares; all of those who tie."""
    ahead = {j.run: int(j.numbers["n_checkpoints_with_higher_mean"]) for j in judgments if j.numbers}
    if not ahead:
        return ""
    most = max(ahead.values())
    of = next(int(j.numbers["n_checkpoints"]) for j in judgments if j.numbers)
    if most == 0:
        return f"No strategy is ahead of random sampling in the mean at any of {of} labeled shares"
    names = [label(run) for run, n in ahead.items() if n == most]
    each = "are each" if len(names) > 1 else "is"
    return f"{listed(names)} {each} ahead of random sampling in the mean at {most} of {of} labeled shares"


def _random_in_passing(random: Sequence[Judgment]) -> str:
    """Random sampling at half of the labels, in a clause."""
    if not random or random[0].difference is None:
        return "random sampling was not scored there"
    gap, verdict = signed(random[0].difference.mean), random[0].verdict
    return f"random sampling there: {gap}, {verdict}"


def _beside_random(random: Sequence[Judgment], verdict: Verdict) -> str:
    if not random or random[0].difference is None:
        return "Random sampling was not scored there: a good strategy and a saturated pool look alike."
    if random[0].verdict == "supported":
        also = "passes too" if verdict == "supported" else "passes"
        return (
            f"Random sampling {also} at 50 %: whatever is claimed is about saturation of the pool, not about "
            "a strategy."
        )
    return ""


def _beside_stratified(measurements: Measurements) -> str:
    """The same comparison with the stronger baseline, where it was run."""
    results = measurements.results
    if STRATIFIED not in results.runs():
        if len({key[0] for key in measurements.micrographs}) > 1:
            return "Stratified random sampling was not run: with several groups it is the harder baseline."
        return ""
    baseline = measurements.of(STRATIFIED, aulc)
    runs = [run for run in results.judged() if run not in results.first_of_identical]
    judgments = _judge_all(
        results, runs, lambda run: Finding.beyond(0.0, measurements.of(run, aulc).minus(baseline))
    )
    tested = {j.run: j.difference.mean for j in judgments if j.difference and j.p_for is not None}
    ahead = [label(j.run) for j in judgments if j.verdict == "supported"]
    if not tested:
        return "Stratified random sampling has too few seeds to be held against."
    parts = ", ".join(f"{label(run)} {signed(difference)}" for run, difference in tested.items())
    verdict = f"{listed(ahead)} above it" if ahead else "none above it by the same test"
    return f"Against stratified random sampling, difference in AULC: {parts}; {verdict}."
