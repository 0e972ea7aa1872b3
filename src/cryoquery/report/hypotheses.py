"""The three hypotheses of the protocol, judged.

Each hypothesis is judged for every strategy, and p values are adjusted for their number (Holm), so
that the chance of supporting a hypothesis that holds for none of them stays at 2.5 %. Strategies that
labelled the same images throughout are one strategy and are counted once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cryoquery.experiment import FULL_SUPERVISION
from cryoquery.report.efficiency import (
    NUMBERS,
    TOLERATED_LOSS,
    Measurements,
    aulc,
    final,
)
from cryoquery.report.runs import RANDOM, STRATIFIED, Results, label
from cryoquery.report.statistics import ONE_SIDED_ALPHA, Difference, holm
from cryoquery.report.words import listed, signed

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
    """The difference that it turns on, where there is a single one."""
    numbers: dict[str, Any] = field(default_factory=dict)
    same_as: str | None = None
    """The strategy that labelled the same images and is counted instead of this one."""


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
    full = measurements.of(FULL_SUPERVISION, final)
    results = measurements.results

    def test(run: str) -> tuple[float | None, float | None, Difference | None, dict[str, Any]]:
        difference = measurements.of(run, NUMBERS["f1_at_50"]).minus(full)
        if difference is None:
            return None, None, None, {}
        margin = -TOLERATED_LOSS
        return difference.p_above(margin), difference.p_below(margin), difference, {}

    judgments = _judge_all(results, results.judged(), test)
    random = _judge_all(results, [RANDOM], test) if RANDOM in results.runs() else ()
    note = _beside_random(random[0]) if random else "Random sampling was not run: nothing to hold it against."
    verdict = _overall(judgments)
    missing = "no run was scored at 50 % of the labels beside full supervision with the same seed"
    sentence = _sentence(
        judgments,
        verdict,
        f"within {TOLERATED_LOSS} F1 of full supervision with half of the labels",
        missing,
    )
    if random and random[0].verdict == "supported":
        sentence = f"{sentence[:-1]}; random sampling is, too, so the pool is saturated at 50 %."
    return Hypothesis(
        "equal_with_50_percent_fewer_labels",
        "Equal with 50 % fewer labels",
        f"With 50 % of the labels, F1 is at most {TOLERATED_LOSS} below full supervision (non-inferiority).",
        verdict,
        sentence,
        (*judgments, *random),
        note,
    )


def better_everywhere(measurements: Measurements) -> Hypothesis:
    """Intersection–union test (Berger 1982): better than random in every iteration where they may differ."""
    results = measurements.results
    checkpoints = differing_iterations(results)
    span = ", ".join(f"{100 * fraction:.0f} %" for fraction in checkpoints.values())

    def test(run: str) -> tuple[float | None, float | None, Difference | None, dict[str, Any]]:
        differences = {
            f"{fraction:.4f}": measurements.at(run, i).minus(measurements.at(RANDOM, i))
            for i, fraction in checkpoints.items()
        }
        known = {fraction: d for fraction, d in differences.items() if d is not None}
        if not known or len(known) < len(differences):
            return None, None, None, {}
        p_better = [d.p_above() for d in known.values()]
        p_worse = [d.p_below() for d in known.values()]
        numbers = {
            "by_labeled_fraction": {
                fraction: {"difference": d.mean, "p_better": d.p_above()} for fraction, d in known.items()
            },
            "n_checkpoints": len(known),
            "n_checkpoints_with_higher_mean": sum(d.mean > 0 for d in known.values()),
        }
        if any(p is None for p in (*p_better, *p_worse)):
            return None, None, None, numbers
        # Better everywhere is refuted by being worse anywhere: Bonferroni over the places to look.
        against = min(1.0, len(p_worse) * min(p for p in p_worse if p is not None))
        return max(p for p in p_better if p is not None), against, None, numbers

    judgments = _judge_all(results, results.judged(), test) if RANDOM in results.runs() else ()
    verdict = _overall(judgments)
    return Hypothesis(
        "better_than_random_at_all_percentages",
        "Better than random at all percentages",
        f"F1 is above that of random sampling at each of {span or 'the percentages'} (intersection–union "
        "test).",
        verdict,
        _sentence(
            judgments,
            verdict,
            f"better than random sampling at all of {len(checkpoints)} labelled percentages",
            "no strategy was run beside random sampling with the same seed",
        ),
        judgments,
        "The first labelled set is the same for all by construction, and so is the whole pool: those "
        "percentages are left out.",
    )


def faster(measurements: Measurements) -> Hypothesis:
    """AULC above that of random sampling."""
    results = measurements.results
    chance = measurements.of(RANDOM, aulc)

    def test(run: str) -> tuple[float | None, float | None, Difference | None, dict[str, Any]]:
        difference = measurements.of(run, aulc).minus(chance)
        if difference is None:
            return None, None, None, {}
        return difference.p_above(), difference.p_below(), difference, {}

    judgments = _judge_all(results, results.judged(), test)
    verdict = _overall(judgments)
    return Hypothesis(
        "faster_convergence",
        "Faster convergence",
        "The area under the learning curve (AULC) is above that of random sampling.",
        verdict,
        _sentence(
            judgments,
            verdict,
            "better than random sampling over the whole learning curve (AULC)",
            "no strategy was run beside random sampling with the same seed",
        ),
        judgments,
        _beside_stratified(measurements),
    )


def differing_iterations(results: Results) -> dict[int, float]:
    """Iterations in which strategies can differ (neither the first nor the whole pool): labelled share."""
    for curve in results.of(RANDOM):
        return {i: float(f) for i, f in enumerate(curve.fractions) if i > 0 and f < 1}
    return {}


Test = Callable[[str], "tuple[float | None, float | None, Difference | None, dict[str, Any]]"]


def _judge_all(results: Results, runs: Sequence[str], test: Test) -> tuple[Judgment, ...]:
    """Test every strategy, adjust for their number, and give twins the verdict of the first of them."""
    first = {twin: group[0] for group in results.identical for twin in group[1:] if group[0] in runs}
    own = [run for run in runs if run not in first]
    found = {run: test(run) for run in own}
    p_for = _adjusted({run: found[run][0] for run in own})
    p_against = _adjusted({run: found[run][1] for run in own})
    judgments = []
    for run in runs:
        tested = first.get(run, run)
        _, _, difference, numbers = found[tested]
        verdict = _verdict(p_for[tested], p_against[tested])
        judgments.append(
            Judgment(run, verdict, p_for[tested], p_against[tested], difference, numbers, first.get(run))
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


def _sentence(judgments: Sequence[Judgment], verdict: Verdict, what: str, missing: str) -> str:
    """The verdict in plain words; ``what`` says what a strategy would be."""
    tested = [judgment for judgment in judgments if judgment.p_for is not None]
    if not tested:
        one_seed = any(judgment.difference or judgment.numbers for judgment in judgments)
        why = "one seed cannot tell an effect from chance" if one_seed else missing
        return f"Whether any strategy is {what} is undecided: {why}{_best(judgments)}."
    if verdict == "supported":
        winners = [label(judgment.run) for judgment in tested if judgment.verdict == "supported"]
        return f"{listed(winners)} {'are' if len(winners) > 1 else 'is'} {what}{_best(tested)}."
    if verdict == "not supported":
        return f"No strategy is {what}{_best(tested)}."
    refuted = [label(judgment.run) for judgment in tested if judgment.verdict == "not supported"]
    except_for = f" ({listed(refuted)} {'are' if len(refuted) > 1 else 'is'} not)" if refuted else ""
    return f"Whether any strategy is {what} is undecided{except_for}{_best(tested)}."


def _best(judgments: Sequence[Judgment]) -> str:
    """The strategy that came off best, with its number."""
    measured = [judgment for judgment in judgments if judgment.difference is not None]
    if measured:
        best = max(measured, key=lambda judgment: judgment.difference.mean if judgment.difference else 0.0)
        assert best.difference is not None, "only such are left"
        interval = best.difference.interval()
        reach = f" (95 % interval {signed(interval.low)} to {signed(interval.high)})" if interval else ""
        return f"; the best is {label(best.run)} with a difference of {signed(best.difference.mean)}{reach}"
    counted = [judgment for judgment in judgments if judgment.numbers]
    if counted:
        best = max(counted, key=lambda judgment: int(judgment.numbers["n_checkpoints_with_higher_mean"]))
        n, of = best.numbers["n_checkpoints_with_higher_mean"], best.numbers["n_checkpoints"]
        return f"; the best, {label(best.run)}, is ahead in the mean at {n} of {of}"
    return ""


def _beside_random(random: Judgment) -> str:
    if random.difference is None:
        return "Random sampling was not scored at 50 % beside full supervision."
    difference = random.difference
    found = (
        f"Random sampling at 50 %: F1 {signed(difference.mean)} against full supervision, {random.verdict}."
    )
    if random.verdict == "supported":
        return (
            found + " Random passes too, so the claim is about saturation of the pool, not about a strategy."
        )
    return found


def _beside_stratified(measurements: Measurements) -> str:
    """The same comparison with the stronger opponent, where it was run."""
    results = measurements.results
    if STRATIFIED not in results.runs():
        if len({key[0] for key in measurements.micrographs}) > 1:
            return "Stratified random sampling was not run: with several groups it is the harder opponent."
        return ""
    opponent = measurements.of(STRATIFIED, aulc)
    runs = [run for run in results.judged() if run != STRATIFIED]
    tested = {}
    for run in runs:
        difference = measurements.of(run, aulc).minus(opponent)
        p = difference.p_above() if difference else None
        if difference and p is not None:
            tested[run] = (difference, p)
    adjusted = dict(zip(tested, holm([p for _, p in tested.values()]), strict=True))
    ahead = [label(run) for run in tested if adjusted[run] < ONE_SIDED_ALPHA]
    if not tested:
        return "Stratified random sampling has too few seeds to be held against."
    parts = ", ".join(f"{label(run)} {signed(difference.mean)}" for run, (difference, _) in tested.items())
    verdict = f"{listed(ahead)} above it" if ahead else "none above it by the same test"
    return f"Against stratified random sampling, difference in AULC: {parts}; {verdict}."
