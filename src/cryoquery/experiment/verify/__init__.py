"""Whether what an experiment left on disk holds: everything in it that can be recomputed without training.

Nothing is written, in the experiment or in its cache.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from cryoquery.active.run import Run
from cryoquery.errors import ConfigError
from cryoquery.experiment.config import plan_runs
from cryoquery.experiment.verify.checks import Checks, Problem, Verification
from cryoquery.experiment.verify.context import VerifyContext, read_context
from cryoquery.experiment.verify.runs import check_run
from cryoquery.experiment.verify.trainings import check_cache, check_fingerprints, check_keys, check_model

__all__ = ["Problem", "Verification", "verify"]


def verify(experiment: Path | str) -> Verification:
    """Recompute what can be recomputed of an experiment, and compare.

    Labeled images follow from the schedule, the seed and the queries; queries from the signals in the
    cache; scores from the counts on each micrograph; keys from labels, configuration and versions;
    fingerprints and digests from the files. What cannot be checked (a dataset that is elsewhere, models
    and signals that were not kept) is reported and counts as no problem; nor does a run that is not finished.

    Raises:
        ExperimentError: the folder holds no experiment.
    """
    checks = Checks()
    context = read_context(Path(experiment), checks)
    if context is None:
        return checks.done()
    try:
        runs = plan_runs(context.config, context.n_train)
    except ConfigError as error:
        checks.check(False, context.folder / "config.toml", str(error))
        return checks.done()
    finished = [done for run in runs for done in check_run(run, context, checks)]
    check_fingerprints(finished, context, checks)
    keys = check_keys(finished, context, checks)
    for done in finished:
        check_model(done, keys.get(done.folder), context, checks)
    check_cache(finished, context, checks)
    _check_nothing_else(runs, context, checks)
    return checks.done()


def _check_nothing_else(runs: Collection[Run], context: VerifyContext, checks: Checks) -> None:
    """Check that there are no iterations but those of the runs."""
    planned = {run.folder / f"iteration_{i}" for run in runs for i in range(len(run.counts))}
    for pattern in ("*/iteration_*", "*/seed_*/iteration_*"):
        for folder in sorted(context.folder.glob(pattern)):
            if not folder.name.startswith(".") and folder.is_dir():
                checks.check(folder in planned, folder, "belongs to no run of config.toml")
