"""What an experiment cost to compute, and what it saved because identical trainings are done once."""

from __future__ import annotations

from typing import Any

from cryoquery.experiment.config import plan_runs
from cryoquery.report.runs import Results


def computing(results: Results) -> dict[str, Any]:
    """Counts of trainings and of training passes (one image forward and backward), made and saved.

    A training counts as made here unless every iteration with its key was reused: those came from a
    cache that the experiment shares with others.
    """
    training, n_train = results.config.training, results.environment["n_train_images"]
    runs = {(run.name, run.seed): run for run in plan_runs(results.config, n_train)}
    passes: dict[str, int] = {}
    made: dict[str, bool] = {}
    n_iterations = n_all = 0
    for curve in results.curves:
        for number, metrics in enumerate(curve.iterations):
            key, count = metrics.get("training_key"), metrics["n_labeled_images"]
            if key is None:
                continue
            run = runs[curve.run, curve.seed]
            from_scratch = number == 0 or run.from_scratch or not training.fine_tune
            n_iterations += 1
            passes[key] = count * run.training(training, number).n_epochs(count, from_scratch)
            own = results.config.cache is None or not metrics.get("reused", False)
            made[key] = made.get(key, False) or own
            n_all += passes[key]
    n_made = sum(n for key, n in passes.items() if made[key])
    return {
        "n_iterations": n_iterations,
        "n_trainings": sum(made.values()),
        "n_trainings_from_elsewhere": len(made) - sum(made.values()),
        "n_training_passes": n_made,
        "n_training_passes_saved": n_all - n_made,
        "saved": (n_all - n_made) / n_all if n_all else 0.0,
    }


def in_words(numbers: dict[str, Any]) -> str:
    """The counts as a sentence; empty where nothing was saved."""
    if not numbers["n_training_passes_saved"]:
        return ""
    elsewhere = numbers["n_trainings_from_elsewhere"]
    found = f", and {elsewhere} more were found in the cache that it shares" if elsewhere else ""
    return (
        f"Identical trainings were done once: the {numbers['n_iterations']:,} iterations took "
        f"{numbers['n_trainings']:,} trainings{found}, which saved {numbers['saved']:.0%} of the "
        f"{numbers['n_training_passes'] + numbers['n_training_passes_saved']:,} training passes."
    )
