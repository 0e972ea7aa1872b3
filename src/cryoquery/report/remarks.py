"""What a report says in words: before the numbers, of costs, and of what cannot be concluded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryoquery.experiment.config import EQUAL_STEPS, total_steps
from cryoquery.report.findings import Comparison
from cryoquery.report.runs import RANDOM, STRATIFIED, Results, label, mean_and_std, short_label
from cryoquery.report.words import listed, mean_std, plural


def notices(findings: Comparison) -> list[str]:
    """What a reader must know before the numbers."""
    results = findings.results
    said = []
    if results.unfinished:
        said.append(f"Left out, because unfinished: {'; '.join(results.unfinished)}.")
    for run, seeds in findings.analysis["limits"]["missing_seeds"].items():
        numbers = ", ".join(map(str, seeds))
        said.append(
            f"{label(run)} has no finished run with seed {numbers}: it is compared on the other seeds only."
        )
    for group in results.identical:
        why = ""
        if {"uncertainty_sampling", "margin_sampling"} <= set(group):
            why = " For one sigmoid output margin is twice least confidence: the two rank images alike."
        said.append(
            f"{listed([label(run) for run in group])} labeled the same images in every iteration and seed. "
            f"They are one experiment and count as one in all tests.{why}"
        )
    return said


def cost_rows(findings: Comparison) -> list[dict[str, Any]]:
    """For each run what half of the labels cost, and what it took to come near full supervision."""
    results = findings.results
    rows = []
    for run in results.runs():
        half = findings.table["runs"][run]["at_50_percent"]
        by_seed = findings.analysis["runs"][run]["by_seed"]
        reached = [n["to_reach_full_supervision"] for n in by_seed.values()]
        row: dict[str, Any] = {"label": label(run), "half": None, "reached": None}
        if half["f1"] is not None:
            images, particles = (half[f"n_labeled_{what}"]["mean"] for what in ("images", "particles"))
            row["half"] = (images, particles, results.label_cost.minutes(images, particles) / 60)
        found = [numbers for numbers in reached if numbers]
        row["of"] = f"{len(found)} of {len(reached)}"
        if found:
            keys = ("n_labeled_images", "n_labeled_particles", "minutes")
            means = [sum(numbers[key] for numbers in found) / len(found) for key in keys]
            row["reached"] = (means[0], means[1], means[2] / 60)
        rows.append(row)
    return rows


def area_rows(findings: Comparison) -> list[tuple[str, ...]]:
    """For each run its AULC, that up to 50 %, and its headroom, mean ± std over seeds."""
    rows = []
    for run, numbers in findings.analysis["runs"].items():
        summaries = [numbers["over_seeds"][key] for key in ("aulc", "aulc_up_to_50", "headroom_aulc")]
        if any(summaries):
            rows.append((label(run), *(mean_std(summary) for summary in summaries)))
    return rows


def elsewhere_rows(findings: Comparison) -> list[tuple[str, ...]]:
    """F1 on the held-out splits that are not reported: split, run, pixel F1 and particle F1 at the end."""
    results = findings.results
    return [
        (
            split,
            label(run),
            *(
                mean_std(mean_and_std([float(c.iterations[-1][split][key]) for c in results.of(run)]))
                for key in ("f1", "particle_f1")
            ),
        )
        for split in results.environment["splits"][1:]
        for run in results.runs()
        if all(split in curve.iterations[-1] for curve in results.of(run))
    ]


def limit_sentences(findings: Comparison) -> list[str]:
    """What cannot be concluded from this experiment."""
    results, limits = findings.results, findings.analysis["limits"]
    said = []
    pairs: dict[str, int] = limits["n_paired_seeds"]
    untested = [label(run) for run, n in pairs.items() if n < 2]
    if untested:
        what = "shares fewer than two seeds" if len(untested) == 1 else "share fewer than two seeds each"
        said.append(
            f"{listed(untested)} {what} with random sampling: chance and effect cannot be told apart."
        )
    if limits["smallest_wilcoxon_p"] is not None:
        said.append(_about_wilcoxon(max(pairs.values()), limits))
    if limits["detectable_aulc_difference"]:
        detectable = limits["detectable_aulc_difference"].items()
        parts = ", ".join(f"{short_label(run)} {value:.3f}" for run, value in detectable)
        said.append(
            "With these seeds and this spread, the t-test (after correction for the number of strategies) "
            "finds a true difference to random sampling in AULC with 80 % probability if it is at least: "
            f"{parts}. Smaller ones may well exist."
        )
    said += _about_micrographs(limits)
    if (limits["n_groups"] or 0) > 1 and STRATIFIED not in results.runs():
        said.append(
            "The data come from several groups, and stratified random sampling was not run: a strategy that "
            "beats plain random may only have found the groups."
        )
    if RANDOM not in results.runs():
        said.append("Random sampling was not run: there is nothing to hold the strategies against.")
    said += _about_steps(results)
    said.append(
        "A strategy is compared at equal numbers of images; where its images are more crowded, it had more "
        "particles labeled. The curves over particles and time show what that is worth."
    )
    return said


def _about_wilcoxon(n: int, limits: Mapping[str, Any]) -> str:
    p = limits["smallest_wilcoxon_p"]
    sentence = f"With {n} paired seeds no two-sided Wilcoxon test can go below p = {p:.3g}"
    if p >= limits["alpha"]:
        sentence += f"; it takes {limits['seeds_for_wilcoxon']} seeds to go below 0.05"
    return f"{sentence}. The t-test assumes that differences between seeds are near normal."


def _about_micrographs(limits: Mapping[str, Any]) -> list[str]:
    if not limits["micrographs_vary"]:
        return [
            "How much other held-out micrographs would change is not known (too few, or their counts were "
            "not kept): tests and intervals are over seeds only, and hold for these micrographs only."
        ]
    micrographs, groups = limits["n_held_out_micrographs"], limits["n_groups"]
    return [
        f"Everything was measured on {plural(micrographs, 'held-out micrograph')} of "
        f"{plural(groups, 'group')}; the intervals over micrographs say what other micrographs of the same "
        "groups would give. Nothing is said of other proteins, microscopes or label makers."
    ]


def _about_steps(results: Results) -> list[str]:
    """Where optimizer steps differ, F1 may, too."""
    config = results.config
    counts = config.schedule.resolve(results.environment["n_train_images"])
    n_all, n_train = total_steps(config, counts), results.environment["n_train_images"]
    n_full = config.training.n_steps(n_train) * config.training.n_epochs(n_train, from_scratch=True)
    full, equal = results.full_supervision(), results.at_end(EQUAL_STEPS)
    said = []
    if full and results.judged() and counts[-1] == n_train:
        text = (
            f"With all labels a strategy has taken {n_all:,} optimizer steps in all its iterations, and full "
            f"supervision {n_full:,}: a difference between them may come from training alone. "
        )
        if shared := sorted(full.keys() & equal.keys()):
            gain = sum(equal[seed]["f1"] - full[seed]["f1"] for seed in shared) / len(shared)
            text += (
                f"With as many steps as a strategy, full supervision reaches an F1 {abs(gain):.3f} "
                f"{'higher' if gain >= 0 else 'lower'} ({plural(len(shared), 'seed')})."
            )
        else:
            text += f"The baseline {EQUAL_STEPS} would tell."
        said.append(text)
    if config.schedule.steps == "by_epochs" and len(counts) > 1 and results.judged():
        said.append(
            "More labels make more optimizer steps per epoch: some of what a curve gains is longer training. "
            'steps = "equal" under [schedule] shares the steps out evenly.'
        )
    return said
