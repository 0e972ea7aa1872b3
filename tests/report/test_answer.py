"""What a report says first."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic_results import FRACTIONS, curve, results

from cryoquery.report.answer import three_numbers, what_next
from cryoquery.report.efficiency import Measurements, efficiency_of_runs
from cryoquery.report.hypotheses import equal_with_half, faster
from cryoquery.report.tables import interpolated

RISING = np.linspace(0.5, 0.9, len(FRACTIONS))


def measured(n_seeds: int, noise: float = 0.0, **runs: NDArray[np.float64]) -> Measurements:
    """Each run with so many seeds; what differs between seeds is ``noise``, from one run to the other."""
    rng = np.random.default_rng(0)
    curves = [
        curve(f"{run}_sampling", s, f1 + rng.normal(0, noise))
        for run, f1 in runs.items()
        for s in range(n_seeds)
    ]
    curves += [curve("full_supervision", s, np.array([0.9]), np.ones(1)) for s in range(n_seeds)]
    return Measurements(results(curves))


def test_three_numbers_and_those_who_tie() -> None:
    soon = np.maximum(RISING, 0.895)
    found = measured(2, random=RISING, entropy=soon, hybrid=soon)
    full, half, enough = three_numbers(found, efficiency_of_runs(found))
    assert full == {"number": "0.900", "text": "F1 of full supervision, all 100 images labeled"}
    assert half["number"] == "0.895"
    assert "Entropy Sampling and Hybrid Sampling, the best; Random Sampling 0.678" in half["text"]
    assert enough["number"] == "10"
    assert enough["text"].endswith("by Entropy Sampling and Hybrid Sampling, the first; Random Sampling 100")


def test_random_sampling_is_no_strategy_that_wins() -> None:
    found = measured(2, random=np.maximum(RISING, 0.895), entropy=RISING)
    _, half, enough = three_numbers(found, efficiency_of_runs(found))
    assert half["text"].endswith("by Entropy Sampling, the best of the strategies; Random Sampling 0.895")
    assert enough["text"].endswith("by Entropy Sampling, the first of the strategies; Random Sampling 10")


def test_nobody_needs_a_number_that_nobody_measured() -> None:
    found = measured(1, random=RISING - 0.1)
    numbers = three_numbers(found, efficiency_of_runs(found))
    assert numbers[-1]["number"] == "none"
    assert "random sampling" in what_next(found)


@pytest.mark.parametrize(
    ("n_seeds", "noise", "said"),
    [
        (1, 0.02, "Run three seeds or more"),
        (3, 0.0002, "Three seeds were enough"),
        (3, 0.06, "Run "),
        (3, 0.5, "More seeds alone would not tell"),
    ],
)
def test_what_to_do_next(n_seeds: int, noise: float, said: str) -> None:
    assert what_next(measured(n_seeds, noise, random=RISING, entropy=RISING)).startswith(said)


def test_a_sentence_begins_with_its_number() -> None:
    found = measured(3, 0.001, random=RISING, entropy=RISING + 0.05)
    lead = "Over the learning curve as a whole Entropy Sampling is the best: +0.050 F1 beside random sampling"
    assert faster(found).sentence.startswith(f"{lead} (95 % interval")
    tie = measured(1, random=RISING, entropy=RISING + 0.05, hybrid=RISING + 0.05)
    assert "Entropy Sampling and Hybrid Sampling tie for the best" in equal_with_half(tie).sentence


def test_half_that_is_not_quite_half_is_said() -> None:
    def table(*counts: int) -> dict[str, object]:
        rows = [{"labeled_fraction": n / 59, "n_labeled_images": {"mean": n}} for n in counts]
        return {"runs": {"random_sampling": {"by_iteration": rows}}}

    assert interpolated(table(6, 18, 30, 59)) == "18 images (30.5%) and 30 images (50.8%)"
    assert interpolated(table(59)) == ""
