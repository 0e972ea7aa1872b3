"""`methods.md`: the protocol's paragraph on methods, with what this experiment really did."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryoquery.data.dataset import Dataset
from cryoquery.experiment.config import EQUAL_STEPS, FULL_SUPERVISION, PROGRESSIVE
from cryoquery.report.efficiency import TOLERATED_LOSS, Measurements
from cryoquery.report.findings import Comparison
from cryoquery.report.runs import RANDOM, STRATIFIED, Results, label
from cryoquery.report.statistics import N_REPLICATES
from cryoquery.report.words import listed, plural

DESCRIPTIONS = {
    "uncertainty_sampling": "uncertainty sampling (mean least confidence)",
    "entropy_sampling": "entropy-based sampling (mean predictive entropy)",
    "margin_sampling": "margin sampling (smallest mean margin)",
    "diversity_sampling": "diversity sampling (k-means on bottleneck features)",
    "hybrid_sampling": "a hybrid approach (70% by uncertainty, 30% by diversity)",
    "core_set_sampling": "core-set selection (greedy k-center)",
    RANDOM: "random sampling",
    STRATIFIED: "stratified random sampling (equal shares per group)",
    PROGRESSIVE: "progressive supervision (trained from scratch on random subsets of the same sizes)",
    FULL_SUPERVISION: "full supervision",
    EQUAL_STEPS: "full supervision with as many optimizer steps as a strategy takes in all iterations",
}
NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def methods(findings: Comparison) -> str:
    """The text of `methods.md`; numbers that are not known any more are left out."""
    results = findings.results
    paragraphs = [
        _framework(results, findings.dataset),
        _training(results),
        _evaluation(results, findings.measurements),
        _statistics(findings),
    ]
    return "\n\n".join(["# Methods", *paragraphs]) + "\n"


def _framework(results: Results, dataset: Dataset | None) -> str:
    n_train = results.environment["n_train_images"]
    counts = results.config.schedule.resolve(n_train)
    strategies = [DESCRIPTIONS.get(run, run.replace("_", " ")) for run in results.judged()]
    controls = (RANDOM, STRATIFIED, PROGRESSIVE, FULL_SUPERVISION, EQUAL_STEPS)
    others = [run for run in controls if run in results.runs()]
    channels = results.config.model.base_channels
    network = f"Attention U-Net ({n_parameters(results):,} parameters, {channels} base channels)"
    text = f"**Active Learning Framework**: Starting with {100 * counts[0] / n_train:.3g}% labeled data "
    text += (
        f"({counts[0]:,} of {plural(n_train, 'image')}, drawn at random, the same for every method with the "
        "same seed)"
    )
    if strategies:
        functions = plural(len(strategies), "acquisition function", NUMERALS)
        text += f", we iteratively selected images for labeling using {functions}: {listed(strategies)}"
    text += "."
    if len(counts) > 1:
        queries = np.diff(counts)
        size = (
            f"{queries[0]:,}" if (queries == queries[0]).all() else f"{queries.min():,} to {queries.max():,}"
        )
        text += (
            f" In each of {plural(len(queries), 'query', many='queries')} we selected {size} new images and "
            f"then retrained the {network}; the labeled sets had "
            f"{listed([f'{count:,}' for count in counts])} images."
        )
    else:
        text += f" The network was an {network}."
    if others:
        text += f" We compared with {listed([DESCRIPTIONS[run] for run in others])}."
    if dataset is not None:
        text += " " + _data(dataset)
    return text


def _data(dataset: Dataset) -> str:
    groups = sorted({record.group for record in dataset.records})
    height, width = dataset.images.shape[1:]
    parts = []
    for split in dict.fromkeys(record.split for record in dataset.records):
        rows = dataset.rows(split)
        n_micrographs = len({dataset.records[row].key for row in rows})
        n_particles = dataset.n_particles(rows)
        parts.append(
            f"{split}: {plural(len(rows), 'image')} from {plural(n_micrographs, 'micrograph')} with "
            f"{n_particles:,} labeled particles"
        )
    return (
        f"The images have {height}×{width} pixels and come from {plural(len(groups), 'group')} "
        f"({', '.join(groups)}); {'; '.join(parts)}. No micrograph contributes to two splits."
    )


def _training(results: Results) -> str:
    training = results.config.training
    tuned = "" if training.fine_tune else ", every iteration from scratch"
    floor = f", and at least {training.min_steps} optimizer steps" if training.min_steps else ""
    if results.config.schedule.steps == "equal":
        floor += "; the optimizer steps of all iterations were shared out evenly among them"
    return (
        f"**Training**: All methods used identical hyperparameters: batch size {training.batch_size}, Adam "
        f"(β1={training.betas[0]:g}, β2={training.betas[1]:g}), learning rate "
        f"{training.initial_learning_rate:g} for {training.initial_epochs} initial epochs and "
        f"{training.learning_rate:g} for {training.epochs} fine-tuning epochs per iteration{floor}{tuned}; "
        f"the loss is {training.focal_weight:g} × focal (α={training.focal_alpha:g}, "
        f"γ={training.focal_gamma:g}) + {training.dice_weight:g} × "
        f"Dice{'; images were turned and mirrored at random' if training.augment else ''}. The last weights "
        f"were used; no checkpoint was selected. Each method was run with {_seeds(results)}."
    )


def _seeds(results: Results) -> str:
    seeds = results.seeds_of_any()
    text = f"{plural(len(seeds), 'random seed')} ({', '.join(map(str, seeds))})"
    lacking = [label(run) for run in results.runs() if len(results.of(run)) < len(seeds)]
    return f"{text}, except that {listed(lacking)} lacked some of them" if lacking else text


def _evaluation(results: Results, measurements: Measurements) -> str:
    cost = results.label_cost
    held_out = (
        f" of {plural(len(measurements.micrographs), 'micrograph')}" if measurements.micrographs else ""
    )
    return (
        f"**Evaluation**: Performance was evaluated on the fixed held-out split “{results.split}”{held_out}, "
        "which was never queried and on which nothing was chosen. Pixel scores are pooled over the split at "
        "probability 0.5; AUC is that of the ROC curve of the probabilities. A pick counts as correct "
        "within half a particle diameter of a labeled center, one to one; particle scores are means over "
        "micrographs. AULC is the area under F1 over the labeled fraction, divided by the range of "
        f"fractions. Labeling time is assumed, not measured: {cost.seconds_per_image:g} s per image and "
        f"{cost.seconds_per_particle:g} s per particle."
    )


def _statistics(findings: Comparison) -> str:
    """The tests that were made, and no others."""
    text = "**Statistics**: Runs are paired by seed. "
    tested = {
        key: any(row["p_for"] is not None for row in hypothesis["strategies"].values())
        for key, hypothesis in findings.analysis["hypotheses"].items()
    }
    if not any(tested.values()):
        return text + "No test was made: no two runs share two seeds or more."
    text += "Intervals and tests of differences use Student's t with the variance over seeds"
    if findings.measurements.micrograph_df > 0:
        text += (
            f" and the variance over held-out micrographs, the latter from {N_REPLICATES:,} bootstrap "
            "resamples of the micrographs within their groups (Rao & Wu 1988), and degrees of freedom after "
            "Welch and Satterthwaite; a p value is never below that over seeds alone"
        )
    clauses = {
        "equal_with_50_percent_fewer_labels": "Equality with full supervision at 50% of the labels was "
        f"tested as non-inferiority with a margin of {TOLERATED_LOSS} F1",
        "better_than_random_at_all_percentages": "superiority to random sampling at all percentages was "
        "tested as an intersection–union test",
        "faster_convergence": "faster convergence was tested on the AULC",
    }
    made = "; ".join(clause for key, clause in clauses.items() if tested[key])
    return (
        f"{text}. {made[0].upper()}{made[1:]}. P values are one-sided at 2.5%, adjusted after Holm for the "
        "number of distinct strategies."
    )


def n_parameters(results: Results) -> int:
    """Parameters of the network that the experiment trained."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in results.config.model.build().parameters())


def provenance(results: Results, folder: Path) -> list[tuple[str, str]]:
    """Where the numbers come from, as pairs of name and value."""
    environment = results.environment
    packages: dict[str, Any] = environment.get("packages", {})
    rows = [
        ("Experiment", str(folder)),
        ("Dataset", str(results.config.dataset)),
        ("Fingerprint of the dataset (SHA-256)", str(environment.get("dataset_fingerprint", "not recorded"))),
        ("Held-out split", results.split),
        ("Seeds", ", ".join(map(str, results.seeds_of_any()))),
        *(
            (name.title(), str(environment.get(name, "not recorded")))
            for name in ("device", "precision", "python", "platform")
        ),
        ("Packages", ", ".join(f"{name} {number}" for name, number in packages.items()) or "not recorded"),
        ("Report written by", f"cryoquery {version('cryoquery')}"),
    ]
    return [(name, value) for name, value in rows if value]
