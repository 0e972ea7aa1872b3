from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from tiers import take, thorough

from cryoquery.report.analysis import analyze, win_matrix
from cryoquery.report.efficiency import Measurements, aulc, headroom
from cryoquery.report.hypotheses import Hypothesis, better_everywhere, equal_with_half, faster, judge
from cryoquery.report.runs import Results

from synthetic_results import FRACTIONS, curve, experiment, results  # isort: skip

N_EXPERIMENTS = take(200, 500)

RISING = 0.8 - 0.1 * np.exp(-4 * (FRACTIONS - 0.1))
LATE = 0.8 - 0.1 * np.exp(-1.5 * (FRACTIONS - 0.1))
DIFFER = (FRACTIONS > 0.15) & (FRACTIONS < 0.95)


def judged(found: Results) -> tuple[Hypothesis, Hypothesis, Hypothesis]:
    return judge(Measurements(found))


def verdicts(found: Results) -> list[str]:
    return [hypothesis.verdict for hypothesis in judged(found)]


def test_a_planted_effect_is_supported() -> None:
    found = experiment(
        {
            "entropy_sampling": np.where(DIFFER, 0.8, LATE),
            "diversity_sampling": LATE,
            "random_sampling": LATE,
        },
        np.random.default_rng(0),
        n_seeds=10,
        noise=0.004,
    )
    equal, better, faster = judged(found)
    for hypothesis in (equal, better, faster):
        by_run = {j.run: j.verdict for j in hypothesis.judgments}
        assert hypothesis.verdict == by_run["entropy_sampling"] == "supported"
        assert by_run["diversity_sampling"] != "supported"
        assert "is supported for Entropy Sampling" in hypothesis.sentence
    assert equal.judgments[-1].run == "random_sampling", "shown beside"
    assert equal.judgments[-1].verdict == "not supported"


def test_a_harmful_strategy_is_not_supported() -> None:
    found = experiment(
        {"entropy_sampling": LATE - 0.05 * DIFFER, "random_sampling": RISING},
        np.random.default_rng(1),
        n_seeds=6,
        noise=0.004,
    )
    assert verdicts(found) == ["not supported"] * 3


def test_a_saturated_pool_is_called_one() -> None:
    flat = np.full(len(FRACTIONS), 0.8)
    found = experiment(
        {"entropy_sampling": flat, "random_sampling": flat}, np.random.default_rng(2), 10, noise=0.003
    )
    equal = judged(found)[0]
    assert equal.verdict == "supported"
    assert "; random sampling there: " in equal.sentence
    assert equal.sentence.endswith("supported.")
    assert "about saturation of the pool, not about a strategy" in equal.note


def test_one_seed_decides_nothing() -> None:
    found = experiment(
        {"entropy_sampling": LATE + 0.1 * DIFFER, "random_sampling": LATE},
        np.random.default_rng(3),
        n_seeds=1,
    )
    for hypothesis in judged(found):
        assert hypothesis.verdict == "undecided"
        assert "one seed cannot tell an effect from chance" in hypothesis.sentence


Judge = Callable[[Measurements], Hypothesis]
# What would be true of a strategy without an effect, and the hypothesis that must not be supported.
NULLS: dict[str, tuple[Judge, NDArray[np.float64], NDArray[np.float64], float, int]] = {
    "exactly the margin below full supervision": (
        equal_with_half,
        np.full(10, 0.79),
        np.full(10, 0.79),
        0.0,
        3,
    ),
    "the margin below, on micrographs that differ": (
        equal_with_half,
        np.full(10, 0.79),
        np.full(10, 0.79),
        0.01,
        5,
    ),
    "random by another name": (better_everywhere, RISING, RISING, 0.0, 3),
    "better than random everywhere but at 50 %": (
        better_everywhere,
        RISING + 0.1 * (np.arange(10) != 4),
        RISING,
        0.0,
        3,
    ),
    "the same area": (faster, RISING, RISING, 0.0, 3),
    "the same area, on micrographs that differ": (faster, RISING, RISING, 0.01, 3),
    "the same area, with two seeds": (faster, RISING, RISING, 0.01, 2),
}


@thorough
@pytest.mark.parametrize("null", take(list(NULLS)[::3], list(NULLS)))
def test_false_support_is_rare(null: str) -> None:
    """Over hundreds of experiments without an effect at most 5 % support the hypothesis for any strategy."""
    which, strategy, random, micrograph_noise, n_seeds = NULLS[null]
    rng = np.random.default_rng(100)
    counts: Counter[str] = Counter()
    for _ in range(N_EXPERIMENTS):
        names = ("uncertainty_sampling", "entropy_sampling", "diversity_sampling")
        found = experiment(
            dict.fromkeys(names, strategy) | {"random_sampling": random},
            rng,
            n_seeds=n_seeds,
            micrograph_noise=micrograph_noise,
        )
        counts[which(Measurements(found)).verdict] += 1
    assert counts["supported"] <= 0.05 * N_EXPERIMENTS, counts


def test_a_dozen_seeds_cannot_make_up_for_other_micrographs() -> None:
    """An advantage on the held-out micrographs that others would not show is not supported."""
    rng = np.random.default_rng(101)
    counts: Counter[str] = Counter()
    for _ in range(100):
        found = experiment(
            {"entropy_sampling": RISING, "random_sampling": RISING},
            rng,
            n_seeds=12,
            noise=0.001,
            micrograph_noise=0.03,
        )
        counts[faster(Measurements(found)).verdict] += 1
    assert counts["supported"] <= 5, counts


def test_micrographs_that_are_alone_in_their_group_still_vary() -> None:
    found = experiment(
        {"entropy_sampling": RISING, "random_sampling": RISING},
        np.random.default_rng(13),
        micrograph_noise=0.02,
    )
    lone = [
        replace(c, counts={(f"group of {name}", name): n for (_, name), n in c.counts.items()})
        for c in found.curves
    ]
    grouped, alone = (Measurements(r).of("entropy_sampling", aulc) for r in (found, results(lone)))
    assert alone.micrograph_df == 11
    assert alone.resampled[0].std() == pytest.approx(grouped.resampled[0].std(), rel=0.3)


def test_networks_that_collapsed_are_not_equal_to_full_supervision() -> None:
    zero = np.zeros(10)
    curves = [curve(run, s, zero) for run in ("entropy_sampling", "random_sampling") for s in range(3)]
    curves += [curve("full_supervision", s, np.zeros(1), np.ones(1)) for s in range(3)]
    assert verdicts(results(curves)) == ["undecided"] * 3


@pytest.mark.parametrize(
    ("keep", "fractions", "said"),
    [
        (("random_sampling", "full_supervision"), FRACTIONS, "no strategy was run"),
        (("entropy_sampling", "full_supervision"), FRACTIONS, "random sampling was not run"),
        (("entropy_sampling", "random_sampling"), FRACTIONS, "full supervision was not run"),
        (
            ("entropy_sampling", "random_sampling", "full_supervision"),
            np.array([0.1, 1.0]),
            "the schedule has no iteration in which they can differ",
        ),
        (
            ("entropy_sampling", "random_sampling", "full_supervision"),
            np.array([0.1, 0.3, 0.7, 1.0]),
            "no strategy was scored near 50 % of the labels",
        ),
    ],
)
def test_the_reason_is_the_true_one(keep: tuple[str, ...], fractions: NDArray[np.float64], said: str) -> None:
    curves = []
    for run in keep:
        at = np.ones(1) if run == "full_supervision" else fractions
        curves += [curve(run, seed, np.full(len(at), 0.7 + 0.01 * seed), at) for seed in range(3)]
    sentences = " ".join(hypothesis.sentence for hypothesis in judged(results(curves)))
    assert said in sentences
    assert "0 of 0" not in sentences
    assert "saturat" not in sentences


def test_seeds_are_paired_by_number() -> None:
    """Seeds that differ a lot, and a small advantage in each: only paired it is seen."""
    offsets = np.linspace(-0.1, 0.1, 5)
    curves = [
        curve(run, seed, LATE + offsets[seed] + gain * DIFFER)
        for run, gain in (("entropy_sampling", 0.01), ("random_sampling", 0.0))
        for seed in range(5)
    ]
    rng = np.random.default_rng(6)
    jitter = [replace(c, iterations=tuple({**m, "f1": m["f1"] + rng.normal(0, 1e-4)} for m in c.iterations))
              for c in curves]  # fmt: skip
    faster = judged(results(jitter))[2]
    assert faster.verdict == "supported"
    assert faster.judgments[0].difference is not None
    assert faster.judgments[0].difference.mean == pytest.approx(0.01 * 8 / 9, abs=1e-3)


def test_a_missing_seed_leaves_the_others_paired() -> None:
    found = experiment(
        {"entropy_sampling": RISING, "random_sampling": RISING}, np.random.default_rng(7), n_seeds=4
    )
    fewer = results([c for c in found.curves if (c.run, c.seed) != ("entropy_sampling", 2)])
    numbers = analyze(Measurements(fewer))
    row = numbers["against"]["random_sampling"]["aulc"]["entropy_sampling"]
    assert list(row["by_seed"]) == ["0", "1", "3"]
    everything = analyze(Measurements(found))["against"]["random_sampling"]["aulc"]["entropy_sampling"]
    assert row["by_seed"] == {s: v for s, v in everything["by_seed"].items() if s != "2"}
    assert numbers["limits"]["missing_seeds"] == {"entropy_sampling": [2]}
    assert numbers["limits"]["n_paired_seeds"] == {"entropy_sampling": 3}


def test_win_matrix_against_a_slow_count() -> None:
    rng = np.random.default_rng(8)
    names = ("entropy_sampling", "hybrid_sampling", "random_sampling")
    curves = [curve(run, seed, np.round(rng.uniform(0.5, 0.6, 10), 2)) for run in names for seed in range(3)]
    wins = win_matrix(results(curves))["share"]
    f1 = {(c.run, c.seed): c.values("f1") for c in curves}
    for a in names:
        assert wins[a][a] is None
        for b in set(names) - {a}:
            points = [
                1.0 if f1[a, s][i] > f1[b, s][i] else 0.5 if f1[a, s][i] == f1[b, s][i] else 0.0
                for s in range(3)
                for i in range(1, 9)
            ]
            assert wins[a][b] == pytest.approx(sum(points) / len(points))
            assert wins[a][b] + wins[b][a] == pytest.approx(1)


def test_headroom() -> None:
    found = experiment(
        {"entropy_sampling": RISING + 0.01, "random_sampling": RISING},
        np.random.default_rng(9),
        n_seeds=3,
        noise=0.0,
    )
    measurements = Measurements(found)
    area = aulc(FRACTIONS, RISING)
    assert area is not None
    for share in headroom(measurements, "entropy_sampling").values():
        assert share == pytest.approx(0.01 / (0.8 - area))
    assert headroom(measurements, "random_sampling") == pytest.approx(dict.fromkeys(range(3), 0.0))
    low = experiment({"random_sampling": RISING}, np.random.default_rng(9), 2, noise=0.0, full=0.5)
    assert headroom(Measurements(low), "random_sampling") == {0: None, 1: None}, "no headroom"


@pytest.mark.parametrize("number", [lambda m, run: m.at(run, 4), lambda m, run: m.of(run, aulc)])
def test_resampling_micrographs_against_a_slow_loop(number: Callable[..., object]) -> None:
    """The variance over micrographs, by resampling whole tables of counts the obvious way."""
    found = experiment(
        {"entropy_sampling": RISING, "random_sampling": RISING},
        np.random.default_rng(10),
        n_seeds=2,
        micrograph_noise=0.02,
    )
    m = Measurements(found)
    fast = number(m, "entropy_sampling").minus(number(m, "random_sampling"))  # type: ignore[attr-defined]
    rng = np.random.default_rng(11)
    keys = list(found.curves[0].counts)
    slow = []
    for _ in range(1500):
        drawn = []
        for group in "AB":
            members = [key for key in keys if key[0] == group]
            drawn += [members[i] for i in rng.integers(len(members), size=len(members) - 1)]
        areas = {}
        for c in found.curves[:4]:
            tp, fp, fn = (sum(c.counts[key][:, k] for key in drawn) for k in range(3))
            f1 = 2 * tp / (2 * tp + fp + fn)
            areas[c.run, c.seed] = f1[4] if "at" in number.__code__.co_names else aulc(c.fractions, f1)
        slow.append(np.mean([areas["entropy_sampling", s] - areas["random_sampling", s] for s in (0, 1)]))
    assert fast.over_micrographs.mean(axis=0).std() == pytest.approx(np.std(slow), rel=0.08)


def test_counts_that_do_not_give_the_f1_are_not_used() -> None:
    found = experiment(
        {"entropy_sampling": RISING, "random_sampling": RISING},
        np.random.default_rng(12),
        micrograph_noise=0.01,
    )
    wrong = [
        replace(c, iterations=tuple({**m, "f1": m["f1"] - 0.01} for m in c.iterations)) for c in found.curves
    ]
    m = Measurements(results(wrong))
    assert m.of("entropy_sampling", aulc).resampled == {}
    assert m.micrograph_df == 0
    right = Measurements(found)
    assert set(right.of("entropy_sampling", aulc).resampled) == {0, 1, 2, 3, 4}
